"""Search over messages and titles of conversations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from html import escape
from typing import Annotated, Literal

from fastapi import Query, Request, Response
from pydantic import Field

from llama_async_proxy.api.rest.chat_routing import ChatModel, ChatRoute, RoleName, whole_ms
from llama_async_proxy.api.rest.routing import RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.units import iso_time
from llama_async_proxy.operations import search as search_operations
from llama_async_proxy.operations.search import Search
from llama_async_proxy.store.search import Hit, Piece

# --- schema -----------------------------------------------------------------------------------------------------------


class SearchResult(ChatModel):
    id: int = Field(description="Of the conversation.")
    title: str
    model: str
    updated_at: str
    content: str = Field(description="Of the message; empty for a conversation that was found by its title.")
    role: RoleName | None
    timestamp: str
    response_time_ms: int | None
    estimated_tokens: int | None
    message_id: int | None
    snippet: str = Field(description="HTML: the surroundings of the match, matches in <mark>, all else escaped.")


class SearchAnswer(ChatModel):
    results: list[SearchResult]
    query: str
    count: int


# --- mapping ----------------------------------------------------------------------------------------------------------


def search_answer(query: str, hits: Sequence[Hit]) -> SearchAnswer:
    return SearchAnswer(results=[_result(hit) for hit in hits], query=query, count=len(hits))


def _result(hit: Hit) -> SearchResult:
    at_ms = hit.updated_at_ms if hit.created_at_ms is None else hit.created_at_ms
    is_message = hit.message_id is not None
    return SearchResult(
        id=hit.conversation_id,
        title=hit.title,
        model=hit.model,
        updated_at=iso_time(hit.updated_at_ms),
        content=hit.content,
        role=hit.role.value if hit.role else None,
        timestamp=iso_time(at_ms),
        response_time_ms=whole_ms(hit.response_ms),
        estimated_tokens=((len(hit.content) + 3) // 4 if hit.tokens is None else hit.tokens) if is_message else None,
        message_id=hit.message_id,
        snippet="".join(map(_html, hit.snippet)),
    )


def _html(piece: Piece) -> str:
    return f"<mark>{escape(piece.text)}</mark>" if piece.is_match else escape(piece.text)


# --- routes -----------------------------------------------------------------------------------------------------------


async def search(
    request: Request,
    context: ServiceContext,
    q: Annotated[str, Query(description='Words; "several words" stand together; a trailing * finds beginnings.')],
    limit: int = 50,
    sort: Annotated[Literal["rank", "newest"], Query()] = "rank",
    typing: Annotated[bool, Query(description="The last word may be unfinished.")] = True,
    client: Annotated[str, Query(description="A newer search of the same client breaks this one off.")] = "",
) -> SearchAnswer | Response:
    """Find messages, and conversations by their title."""
    asked = Search(q, limit, newest_first=sort == "newest", is_typing=typing, client=client)
    searching = asyncio.ensure_future(search_operations.search(context, asked))
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({searching, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not searching.done():
            return Response(status_code=499)  # nobody is there to read it
        return search_answer(q, searching.result().hits)
    finally:
        for task in (searching, leaving):
            task.cancel()
        await asyncio.gather(searching, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


TABLES = (
    RouteTable(
        "chats",
        (RestRoute("GET", "/api/search", search, SearchAnswer, (400, 409, 503)),),
        ChatRoute,
        shows_null=True,
    ),
)
