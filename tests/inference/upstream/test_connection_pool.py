from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from llama_async_proxy.errors import UpstreamFailed
from llama_async_proxy.inference.upstream.client import UpstreamClient, UpstreamRequest
from llama_async_proxy.inference.upstream.connection_pool import MAX_IDLE, ConnectionPool
from support.site import CHAT, STREAM, UpstreamSite
from support.upstream import (
    JSON_HEAD,
    LAST_EVENTS,
    Exchange,
    Upstream,
    answers,
    never_answers,
    streams,
    token,
)

GET = UpstreamRequest("GET", b"/props")


async def fetch(pool: ConnectionPool, upstream: Upstream) -> bytes:
    async with UpstreamClient(pool).request(upstream.endpoint, GET) as response:
        return b"".join([chunk async for chunk in response])


async def test_connections_of_responses_with_a_length_become_idle(pool: ConnectionPool, upstream: Upstream) -> None:
    for _ in range(20):
        await fetch(pool, upstream)
    assert upstream.connections == 1


async def test_connections_of_streams_are_closed(pool: ConnectionPool, upstream: Upstream) -> None:
    upstream.behaviour = streams(token("a"), *LAST_EVENTS)
    for _ in range(3):
        await fetch(pool, upstream)
    await upstream.until(lambda u: u.open == 0)
    assert upstream.connections == 3


async def test_both_paths_share_the_idle_connections() -> None:
    async with UpstreamSite(fast_path=True).running() as site:
        await site.scheduler.load(site.models[0])
        whole = json.dumps({"model": "tiny", "n": 2}).encode()

        async def in_chunks() -> AsyncIterator[bytes]:
            yield whole

        for content in (whole, in_chunks(), whole):  # a chunked body is not cached
            assert (await site.http.post("/completion", content=content)).json() == {"ok": True}
        assert site.upstream.requests[1].body == whole
        assert site.upstream.connections == 1
        assert (await site.http.post(CHAT, json=STREAM)).status_code == 200
        assert site.upstream.connections == 1


async def test_only_heads_that_can_be_looked_up_are_cached(pool: ConnectionPool, upstream: Upstream) -> None:
    await fetch(pool, upstream)
    assert pool.head_cache.lookup(JSON_HEAD % 2 + b"{}") is None


async def test_a_burst_leaves_a_bounded_number_of_connections(pool: ConnectionPool, upstream: Upstream) -> None:
    arrived = 0
    everyone = asyncio.Event()

    async def together(exchange: Exchange) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == MAX_IDLE + 18:
            everyone.set()
        await everyone.wait()
        await answers({})(exchange)

    upstream.behaviour = together
    await asyncio.gather(*(fetch(pool, upstream) for _ in range(MAX_IDLE + 18)))
    await upstream.until(lambda u: u.open == MAX_IDLE)


async def test_idle_connections_are_closed_before_the_engine_would(
    pool: ConnectionPool, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_async_proxy.inference.upstream.connection.KEEP_IDLE_S", 0.05)
    await fetch(pool, upstream)
    await upstream.until(lambda u: u.open == 0)
    await fetch(pool, upstream)
    assert upstream.connections == 2


async def test_a_connection_past_its_idle_time_is_not_taken(
    pool: ConnectionPool, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_async_proxy.inference.upstream.connection.KEEP_IDLE_S", 0.0)
    await fetch(pool, upstream)
    await fetch(pool, upstream)
    assert [request.connection for request in upstream.requests] == [0, 1]


async def test_a_connection_opened_ahead_is_taken_once(pool: ConnectionPool, upstream: Upstream) -> None:
    for _ in range(3):
        pool.connect_ahead(upstream.endpoint)
    await upstream.until(lambda u: u.connections == 1)
    upstream.behaviour = streams(token("a"))
    for _ in range(2):
        await fetch(pool, upstream)
    assert [request.connection for request in upstream.requests] == [0, 1]


async def test_a_connection_opened_ahead_may_be_taken_while_it_opens(pool: ConnectionPool, upstream: Upstream) -> None:
    pool.connect_ahead(upstream.endpoint)
    assert await fetch(pool, upstream) == b'{"ok": true}'
    assert upstream.connections == 1


async def test_closing_the_pool_fails_running_requests(pool: ConnectionPool, upstream: Upstream) -> None:
    upstream.behaviour = never_answers
    task = asyncio.create_task(fetch(pool, upstream))
    await upstream.until(lambda u: len(u.requests) == 1)
    pool.close()
    with pytest.raises(UpstreamFailed, match="without an answer"):
        await task
    await upstream.until(lambda u: u.open == 0)


async def test_connections_leave_nothing_behind(pool: ConnectionPool, upstream: Upstream) -> None:
    async def ends_with_its_connection(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        exchange.writer.close()

    for behaviour in (answers({}), streams(token("a")), ends_with_its_connection, Exchange.die):
        upstream.behaviour = behaviour
        for _ in range(3):
            with contextlib.suppress(UpstreamFailed):
                await fetch(pool, upstream)
    pool.close()
    await upstream.until(lambda u: u.open == 0)
    await asyncio.sleep(0)
    assert not pool._connections
    assert not pool._idle
