"""Full-text search in messages and titles.

Any text is a valid query: all words must occur, "several words" in quotes must be adjacent, a word with a trailing *
matches as a prefix, and so does the last word while it is being typed. No part of a query reaches SQLite as syntax.

Ranking reads every hit, so for very frequent words only the newest hits are ranked. Text of scripts without spaces is
found by trigrams, and terms shorter than three characters by reading each message in such a script.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, TypeAlias

from msgspec import Struct
from sqlalchemy import Connection, Row, text

from llama_async_proxy.errors import Conflict
from llama_async_proxy.records.chats import Role
from llama_async_proxy.store.database import Database, storable
from llama_async_proxy.store.scripts import has_unspaced

MAX_RANKED = 20_000
"""Largest number of hits that are ranked, which takes about 30 ms."""
MAX_QUERY_LENGTH = 1000
_MAX_TERMS = 32
_MAX_TITLES = 20
_SNIPPET_TOKENS = 24
_SNIPPET_CHARACTERS = 160
_MARK, _END = "\x02", "\x03"
"""Control characters around a match in SQLite's snippets, which no user types."""
_CHUNKS = re.compile(r'"([^"]*)"?|([^\s"]+)')


class Term(Struct, frozen=True):
    """Adjacent words; the last one may be a prefix."""

    text: str
    is_prefix: bool = False


class Piece(Struct, frozen=True):
    """Part of a snippet."""

    text: str
    is_match: bool


class Hit(Struct, frozen=True):
    """A message that matches or, without `message_id`, a conversation whose title does."""

    conversation_id: int
    title: str
    model: str
    updated_at_ms: int
    snippet: tuple[Piece, ...]
    message_id: int | None = None
    content: str = ""
    role: Role | None = None
    created_at_ms: int | None = None
    response_ms: float | None = None
    tokens: int | None = None


class Query(Struct, frozen=True):
    """A search, with its text as the user typed it."""

    text: str
    limit: int = 50
    newest_first: bool = False
    """True to return the newest hits instead of the best."""
    is_typing: bool = False
    """True when the last word may be unfinished."""


class SearchIndex:
    """Searches the database. A newer search of a client cancels its earlier one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._current: dict[str, asyncio.Task[tuple[Hit, ...]]] = {}

    async def find(self, query: Query, *, client: str = "") -> tuple[Hit, ...]:
        """At most `limit` hits, titles first. Cancelling the call interrupts the search.

        Raises Conflict when the same `client` (unless empty) began a newer search, and StoreUnavailable.
        """
        terms = parse(query.text, is_typing=query.is_typing)
        if client and client in self._current:
            self._current[client].cancel()
        if not terms or query.limit < 1:
            return ()
        search = self._database.search(lambda connection: _find(connection, terms, query))
        return await (self._run_for_client(client, asyncio.create_task(search)) if client else search)

    async def _run_for_client(self, client: str, search: asyncio.Task[tuple[Hit, ...]]) -> tuple[Hit, ...]:
        self._current[client] = search
        try:
            await asyncio.wait({search})
        finally:
            search.cancel()
            if self._current.get(client) is search:
                del self._current[client]
        if search.cancelled():
            raise Conflict("A newer search of the same client took the place of this one.")
        return search.result()


def parse(typed: str, *, is_typing: bool = False) -> tuple[Term, ...]:
    """Terms of a query. Those without letters and digits are left out."""
    clean = storable(typed[:MAX_QUERY_LENGTH]).replace("\0", " ")
    found = []
    for match in _CHUNKS.finditer(clean):
        phrase, word = match.groups()
        is_unfinished = is_typing and match.end() == len(clean) and not match[0].endswith('"')
        if word is None:
            found.append(Term(phrase.strip(), is_prefix=is_unfinished and len(phrase) > 1))
        else:
            stem = word.rstrip("*")
            found.append(Term(stem, is_prefix=len(stem) > 1 and (stem != word or is_unfinished)))
    return tuple(term for term in found if any(map(str.isalnum, term.text)))[:_MAX_TERMS]


def _find(connection: Connection, terms: tuple[Term, ...], query: Query) -> tuple[Hit, ...]:
    if any(has_unspaced(term.text) for term in terms):
        titles, found = _titles_like(connection, terms), _unspaced(connection, terms, query)
    else:
        expression = " AND ".join(map(_fts, terms))
        titles, found = _titles(connection, expression), _words(connection, expression, query)
    # At least half of the hits may be messages.
    shown = titles[: max(query.limit - len(found), (query.limit + 1) // 2)]
    return (*shown, *found)[: query.limit]


def _fts(term: Term) -> str:
    quoted = '"{}"'.format(term.text.replace('"', '""'))
    return f"{quoted} *" if term.is_prefix else quoted


# --- words ----------------------------------------------------------------------------------------

_MESSAGE = """SELECT c.id AS conversation_id, c.title, c.model, c.updated_at_ms, m.id AS message_id, m.content, m.role,
    m.created_at_ms, m.response_ms, m.tokens, {snippet} AS snippet
    FROM {source} JOIN messages m ON m.id = {id} JOIN conversations c ON c.id = m.conversation_id"""
_SNIPPET = f"snippet({{table}}, 0, char(2), char(3), '…', {_SNIPPET_TOKENS})"
_WORDS = _MESSAGE.format(
    snippet=_SNIPPET.format(table="messages_words"), source="messages_words", id="messages_words.rowid"
)
_NEWEST = _WORDS + " WHERE messages_words MATCH :expression ORDER BY messages_words.rowid DESC LIMIT :limit"
_RANKED = (
    _WORDS + " WHERE messages_words MATCH :expression AND messages_words.rowid >= :oldest ORDER BY rank LIMIT :limit"
)
_OLDEST_RANKED = """SELECT rowid FROM messages_words WHERE messages_words MATCH :expression
    ORDER BY rowid DESC LIMIT 1 OFFSET :most"""
_TITLES = """SELECT c.id AS conversation_id, c.title, c.model, c.updated_at_ms, {} AS snippet
    FROM titles_words JOIN conversations c ON c.id = titles_words.rowid
    WHERE titles_words MATCH :expression ORDER BY titles_words.rowid DESC LIMIT :most""".replace(
    "{}", _SNIPPET.format(table="titles_words")
)

_Parameters: TypeAlias = dict[str, str | int]


def _words(connection: Connection, expression: str, query: Query) -> list[Hit]:
    parameters: _Parameters = {"expression": expression, "limit": query.limit}
    if query.newest_first:
        return _hits(connection, _NEWEST, parameters)
    oldest = connection.scalar(text(_OLDEST_RANKED), {"expression": expression, "most": MAX_RANKED})
    return _hits(connection, _RANKED, {**parameters, "oldest": oldest or 0})


def _titles(connection: Connection, expression: str) -> list[Hit]:
    return _hits(connection, _TITLES, {"expression": expression, "most": _MAX_TITLES})


def _hits(connection: Connection, statement: str, parameters: _Parameters) -> list[Hit]:
    rows = connection.execute(text(statement), parameters)
    return [_hit(row, _marked(row.snippet)) for row in rows]


def _marked(snippet: str) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    for index, part in enumerate(snippet.split(_MARK)):
        match, end, rest = part.partition(_END)
        if index and end:
            pieces.append(Piece(match, is_match=True))
        pieces.append(Piece(rest if index and end else part, is_match=False))
    return tuple(piece for piece in pieces if piece.text)


# --- scripts without spaces -----------------------------------------------------------------------

_TRIGRAMS = (
    _MESSAGE.format(snippet="NULL", source="messages_trigrams", id="messages_trigrams.rowid")
    + " WHERE messages_trigrams MATCH :expression {likes} ORDER BY {order} LIMIT :limit"
)
_SHORT = (
    _MESSAGE.format(snippet="NULL", source="messages n", id="n.id")
    + " WHERE n.is_unspaced = 1 AND n.status <> 'generating' {likes} ORDER BY n.id DESC LIMIT :limit"
)
_TITLES_LIKE = """SELECT c.id AS conversation_id, c.title, c.model, c.updated_at_ms
    FROM conversations c WHERE c.is_unspaced = 1 {likes} ORDER BY c.id DESC LIMIT :most"""
_TRIGRAM = 3
_WILD, _ESCAPED = re.compile(r"([\\%_])"), r"\\\1"


def _unspaced(connection: Connection, terms: tuple[Term, ...], query: Query) -> list[Hit]:
    long = [term.text for term in terms if len(term.text) >= _TRIGRAM]
    short = [term.text for term in terms if len(term.text) < _TRIGRAM]
    parameters: _Parameters = {"limit": query.limit, **_patterns(short)}
    if not long:
        statement = _SHORT.format(likes=_likes("n.content", short))
    else:
        order = "messages_trigrams.rowid DESC" if query.newest_first else "rank"
        statement = _TRIGRAMS.format(likes=_likes("m.content", short), order=order)
        parameters["expression"] = " AND ".join(_fts(Term(word)) for word in long)
    rows = connection.execute(text(statement), parameters)
    return [_hit(row, _excerpt(row.content, terms)) for row in rows]


def _titles_like(connection: Connection, terms: tuple[Term, ...]) -> list[Hit]:
    words = [term.text for term in terms]
    parameters: _Parameters = {"most": _MAX_TITLES, **_patterns(words)}
    rows = connection.execute(text(_TITLES_LIKE.format(likes=_likes("c.title", words))), parameters)
    return [_hit(row, _excerpt(row.title, terms)) for row in rows]


def _likes(column: str, words: list[str]) -> str:
    return " ".join(f"AND {column} LIKE :word{index} ESCAPE '\\'" for index in range(len(words)))


def _patterns(words: list[str]) -> _Parameters:
    return {f"word{index}": f"%{_WILD.sub(_ESCAPED, word)}%" for index, word in enumerate(words)}


def _excerpt(content: str, terms: tuple[Term, ...]) -> tuple[Piece, ...]:
    """Text around the first match, with all matches in it marked."""
    pattern = re.compile("|".join(re.escape(term.text) for term in terms), re.IGNORECASE)
    first = pattern.search(content)
    start = max(0, first.start() - _SNIPPET_CHARACTERS // 3) if first else 0
    shown = content[start : start + _SNIPPET_CHARACTERS]
    pieces = [Piece("…", is_match=False)] if start else []
    at = 0
    for match in pattern.finditer(shown):
        pieces += [Piece(shown[at : match.start()], is_match=False), Piece(match[0], is_match=True)]
        at = match.end()
    pieces.append(Piece(shown[at:], is_match=False))
    if start + _SNIPPET_CHARACTERS < len(content):
        pieces.append(Piece("…", is_match=False))
    return tuple(piece for piece in pieces if piece.text)


def _hit(row: Row[Any], snippet: tuple[Piece, ...]) -> Hit:
    values = dict(row._mapping) | {"snippet": snippet}
    if "role" in values:
        values["role"] = Role(values["role"])
    return Hit(**values)
