"""What travels on /api/search."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pydantic import Field

from llama_async_proxy.api.rest.conversations_schema import ChatWire, RoleName, whole_ms
from llama_async_proxy.monitor.logtext import timestamp
from llama_async_proxy.store.search import Hit, Piece


class ResultWire(ChatWire):
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


class SearchAnswer(ChatWire):
    results: list[ResultWire]
    query: str
    count: int


def search_answer(query: str, hits: Sequence[Hit]) -> SearchAnswer:
    return SearchAnswer(results=[_result(hit) for hit in hits], query=query, count=len(hits))


def _result(hit: Hit) -> ResultWire:
    at_ms = hit.updated_at_ms if hit.created_at_ms is None else hit.created_at_ms
    is_message = hit.message_id is not None
    return ResultWire(
        id=hit.conversation_id,
        title=hit.title,
        model=hit.model,
        updated_at=timestamp(hit.updated_at_ms),
        content=hit.content,
        role=hit.role.value if hit.role else None,
        timestamp=timestamp(at_ms),
        response_time_ms=whole_ms(hit.response_ms),
        estimated_tokens=((len(hit.content) + 3) // 4 if hit.tokens is None else hit.tokens) if is_message else None,
        message_id=hit.message_id,
        snippet="".join(map(_html, hit.snippet)),
    )


def _html(piece: Piece) -> str:
    return f"<mark>{escape(piece.text)}</mark>" if piece.is_match else escape(piece.text)
