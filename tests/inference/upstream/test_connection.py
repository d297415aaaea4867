from __future__ import annotations

import asyncio

import pytest

from llama_async_proxy.errors import ServiceError
from llama_async_proxy.inference.upstream.connection import UpstreamConnection
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.inference.upstream.response_headers import ResponseHead
from support.upstream import Upstream, answers, make_settings, never_answers, says

REQUEST = b"GET /props HTTP/1.1\r\n\r\n"
SETTINGS = make_settings()
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKS = b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS


class Asker:
    """Asks once, and keeps what it is told."""

    def __init__(self, pool: ConnectionPool, upstream: Upstream, *, chunks: bool = False, raw: bool = True) -> None:
        self.told: list[str] = []
        self.head_told: ResponseHead | None = None
        self.bytes = self.chunks = b""
        self._wants = {"chunks": chunks, "raw": raw}
        self._pool = pool
        self._ended: asyncio.Future[None] = pool.loop.create_future()
        self.connection = pool.take(upstream.endpoint)
        self.connection.when_ready(self)

    async def until_end(self) -> str:
        """Word and reason of the end."""
        async with asyncio.timeout(30):
            await self._ended
        return self.told[-1]

    def on_ready(self, connection: UpstreamConnection) -> None:
        connection.send(REQUEST, SETTINGS, **self._wants)

    def on_answer(self, head: ResponseHead, body: bytes, connection: UpstreamConnection) -> None:
        self.on_head(head, body)
        self._end("answer", connection)

    def on_head(self, head: ResponseHead, body: bytes) -> None:
        self.head_told = head
        self.on_body(body)

    def on_body(self, data: bytes) -> None:
        self.bytes += data

    def on_chunk(self, chunk: bytes) -> None:
        self.chunks += chunk

    def on_complete(self, connection: UpstreamConnection) -> None:
        self._end("complete", connection)

    def on_disconnect(self, _: UpstreamConnection, error: ServiceError) -> None:
        self._end(f"died: {error}")

    def on_failure(self, error: ServiceError) -> None:
        self.connection.abort()
        self._end(f"failed: {error}")

    def _end(self, word: str, free: UpstreamConnection | None = None) -> None:
        self.told.append(word)
        if free is not None:
            self._pool.put_back(free)
        self._ended.set_result(None)


async def test_bytes_pass_as_they_are(pool: ConnectionPool, upstream: Upstream) -> None:
    upstream.behaviour = says(CHUNKED)
    asker = Asker(pool, upstream)
    assert await asker.until_end() == "complete"
    assert (asker.bytes, asker.chunks) == (CHUNKS, b"")
    assert asker.head_told is not None
    assert asker.head_told.is_chunked


async def test_who_wants_pieces_is_told_them_too(pool: ConnectionPool, upstream: Upstream) -> None:
    upstream.behaviour = says(CHUNKED)
    asker = Asker(pool, upstream, chunks=True)
    assert await asker.until_end() == "complete"
    assert (asker.bytes, asker.chunks) == (CHUNKS, b"abc")


async def test_a_head_that_is_known_is_not_read_again(pool: ConnectionPool, upstream: Upstream) -> None:
    for ending in ("complete", "answer", "answer"):
        asker = Asker(pool, upstream)
        assert await asker.until_end() == ending
        assert asker.bytes == b'{"ok": true}'
    assert upstream.connections == 1


@pytest.mark.parametrize("beyond", [WHOLE, b"XX"])
async def test_bytes_beyond_an_answer_fail_it_for_who_would_pass_them_on(
    pool: ConnectionPool, upstream: Upstream, beyond: bytes
) -> None:
    upstream.behaviour = says(WHOLE + beyond)
    asker = Asker(pool, upstream, chunks=True)
    assert (await asker.until_end()).startswith("failed: The model's process sent something")
    assert asker.head_told is None
    asker = Asker(pool, upstream, chunks=True, raw=False)
    assert await asker.until_end() == "complete"
    assert asker.chunks == b"ok"
    await upstream.until(lambda u: u.open == 0)


async def test_closing_tells_who_waits(pool: ConnectionPool, upstream: Upstream) -> None:
    upstream.behaviour = never_answers
    asker = Asker(pool, upstream)
    await upstream.until(lambda u: len(u.requests) == 1)
    asker.connection.close()
    assert await asker.until_end() == "failed: The model's process closed the connection without an answer."
    await upstream.until(lambda u: u.open == 0)


async def test_a_channel_that_is_not_read_does_not_expire(pool: ConnectionPool, upstream: Upstream) -> None:
    upstream.behaviour = never_answers
    asker = Asker(pool, upstream)
    await upstream.until(lambda u: len(u.requests) == 1)
    asker.connection.set_paused(True)
    asker.connection.expire()
    assert asker.told == []
    asker.connection.set_paused(False)
    asker.connection.expire()
    assert (await asker.until_end()).startswith("failed: The model's process does not begin to answer")


async def test_a_kept_channel_expires_without_a_word(pool: ConnectionPool, upstream: Upstream) -> None:
    asker = Asker(pool, upstream)
    await asker.until_end()
    asker.connection.expire()
    await upstream.until(lambda u: u.open == 0)
    assert asker.told == ["complete"]
    upstream.behaviour = answers({"second": True})
    assert await Asker(pool, upstream).until_end() == "answer"
    assert upstream.connections == 2
