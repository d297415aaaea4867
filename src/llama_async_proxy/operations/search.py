"""Finding what was said."""

from __future__ import annotations

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.store.search import Hit, Query

MOST_HITS = 1000


class Search(Struct, frozen=True):
    text: str
    limit: int = 50
    newest_first: bool = False
    is_typing: bool = False
    """The last word may be unfinished."""
    client: str = ""
    """Of searches with the same client only the last one goes on. Empty: nobody else's business."""


class SearchResults(Struct, frozen=True):
    hits: tuple[Hit, ...]


@operation("chats.search", Effect.CHAT)
async def search(context: Context, request: Search) -> SearchResults:
    """Cancelling it, and a newer search of the same client, break it off. Raises Conflict, InvalidInput."""
    if not request.text.strip():
        raise InvalidInput("q", "must not be blank")
    if not 1 <= request.limit <= MOST_HITS:
        raise InvalidInput("limit", f"must be between 1 and {MOST_HITS}, not {request.limit}")
    query = Query(request.text, request.limit, request.newest_first, request.is_typing)
    return SearchResults(await context.store.search.find(query, client=request.client))
