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


class RecordingListener:
    """Sends one request, and records the calls."""

    def __init__(self, pool: ConnectionPool, upstream: Upstream, *, chunks: bool = False, raw: bool = True) -> None:
        self.calls: list[str] = []
        self.received_head: ResponseHead | None = None
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
        return self.calls[-1]

    def on_ready(self, connection: UpstreamConnection) -> None:
        connection.send(REQUEST, SETTINGS, **self._wants)

    def on_answer(self, head: ResponseHead, body: bytes, connection: UpstreamConnection) -> None:
        self.on_head(head, body)
        self._end("answer", connection)

    def on_head(self, head: ResponseHead, body: bytes) -> None:
        self.received_head = head
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
        self.calls.append(word)
        if free is not None:
            self._pool.put_back(free)
        self._ended.set_result(None)


async def test_bytes_pass_as_they_are(pool: ConnectionPool, upstream: Upstream) -> None:
    upstream.behaviour = says(CHUNKED)
    listener = RecordingListener(pool, upstream)
    assert await listener.until_end() == "complete"
    assert (listener.bytes, listener.chunks) == (CHUNKS, b"")
    assert listener.received_head is not None
    assert listener.received_head.is_chunked


async def test_chunks_are_given_without_framing_on_request(pool: ConnectionPool, upstream: Upstream) -> None:
    upstream.behaviour = says(CHUNKED)
    listener = RecordingListener(pool, upstream, chunks=True)
    assert await listener.until_end() == "complete"
    assert (listener.bytes, listener.chunks) == (CHUNKS, b"abc")


async def test_a_cached_head_gives_the_whole_answer_at_once(pool: ConnectionPool, upstream: Upstream) -> None:
    for ending in ("complete", "answer", "answer"):
        listener = RecordingListener(pool, upstream)
        assert await listener.until_end() == ending
        assert listener.bytes == b'{"ok": true}'
    assert upstream.connections == 1


@pytest.mark.parametrize("beyond", [WHOLE, b"XX"])
async def test_bytes_behind_a_response_make_it_fail_if_raw_bytes_are_used(
    pool: ConnectionPool, upstream: Upstream, beyond: bytes
) -> None:
    upstream.behaviour = says(WHOLE + beyond)
    listener = RecordingListener(pool, upstream, chunks=True)
    assert (await listener.until_end()).startswith("failed: The model's process sent something")
    assert listener.received_head is None
    listener = RecordingListener(pool, upstream, chunks=True, raw=False)
    assert await listener.until_end() == "complete"
    assert listener.chunks == b"ok"
    await upstream.until(lambda u: u.open == 0)


async def test_closing_fails_the_waiting_request(pool: ConnectionPool, upstream: Upstream) -> None:
    upstream.behaviour = never_answers
    listener = RecordingListener(pool, upstream)
    await upstream.until(lambda u: len(u.requests) == 1)
    listener.connection.close()
    assert await listener.until_end() == "failed: The model's process closed the connection without an answer."
    await upstream.until(lambda u: u.open == 0)


async def test_a_paused_connection_does_not_expire(pool: ConnectionPool, upstream: Upstream) -> None:
    upstream.behaviour = never_answers
    listener = RecordingListener(pool, upstream)
    await upstream.until(lambda u: len(u.requests) == 1)
    listener.connection.set_paused(True)
    listener.connection.expire()
    assert listener.calls == []
    listener.connection.set_paused(False)
    listener.connection.expire()
    assert (await listener.until_end()).startswith("failed: The model's process does not begin to answer")


async def test_an_idle_connection_expires_silently(pool: ConnectionPool, upstream: Upstream) -> None:
    listener = RecordingListener(pool, upstream)
    await listener.until_end()
    listener.connection.expire()
    await upstream.until(lambda u: u.open == 0)
    assert listener.calls == ["complete"]
    upstream.behaviour = answers({"second": True})
    assert await RecordingListener(pool, upstream).until_end() == "answer"
    assert upstream.connections == 2
