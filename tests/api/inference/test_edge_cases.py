"""HTTP/1.1 at its edges, byte by byte: the same on the slow path and on the fast path."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import aiohttp
import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from llama_async_proxy.api import body as body_reader
from llama_async_proxy.api.http import protocol
from llama_async_proxy.api.http.protocol import FastPathParts, http_protocol
from llama_async_proxy.api.http.server import Server, listen
from llama_async_proxy.inference.request_log import CLIENT_GONE
from support.asgi import RawClient
from support.site import CHAT, STREAM, UpstreamSite
from support.upstream import LAST_EVENTS, Exchange, answers, make_settings, never_answers, says, streams, token

LOOP_FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
BODY = b'{"model":"tiny","n":2}'
"""Passes as it is: several choices are not reassembled from a stream."""
STREAM_BODY = b'{"model":"tiny","stream":true}'
ANSWER = b'{"ok": true}'
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
HEALTHY = b'{"status":"ok"}'


def post(body: bytes = BODY, *headers: str, version: str = "1.1", path: str = CHAT) -> bytes:
    lines = [f"POST {path} HTTP/{version}", "host: localhost", *headers, f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes, *, size: int = 7) -> bytes:
    """A request that only the ASGI route understands."""
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" % CHAT.encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@pytest.fixture(params=["slow path", "fast path"])
def fast_path(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "fast path")


@asynccontextmanager
async def warm(fast_path: bool, *, keep_alive_s: int = 600, **settings: float) -> AsyncIterator[UpstreamSite]:
    site = UpstreamSite(fast_path=fast_path, **settings)
    site.keep_alive_s = keep_alive_s
    async with site.running():
        await site.scheduler.load(site.models[0])
        yield site


@pytest.fixture
async def site(fast_path: bool) -> AsyncIterator[UpstreamSite]:
    async with warm(fast_path) as running:
        yield running


@pytest.fixture
async def fast_site() -> AsyncIterator[UpstreamSite]:
    """A site with the fast path, for what only the HTTP protocol does."""
    async with warm(True) as running:
        yield running


async def exchange(site: UpstreamSite, data: bytes) -> bytes:
    """Everything the server says to `data` until it closes."""
    async with RawClient.connected(site.port) as client:
        client.writer.write(data)
        return await client.rest()


# --- requests ---------------------------------------------------------------------------------------------------------


async def test_a_connection_serves_answers_and_streams_in_turn(site: UpstreamSite) -> None:
    async with RawClient.connected(site.port) as client:
        for _ in range(3):
            site.upstream.behaviour = answers({"ok": True})
            client.writer.write(post())
            assert (await client.until(ANSWER)).startswith(b"HTTP/1.1 200 OK\r\n")
            site.upstream.behaviour = streams(token("a"), *LAST_EVENTS)
            client.writer.write(post(STREAM_BODY))
            assert (await client.until(b"\r\n0\r\n\r\n")).count(b"data: ") == 3


async def test_pipelined_requests_are_answered_in_order(site: UpstreamSite) -> None:
    async def echo(exchange: Exchange) -> None:
        await answers({"n": exchange.json["n"]})(exchange)

    site.upstream.behaviour = echo
    async with RawClient.connected(site.port) as client:
        client.writer.write(b"".join(post(b'{"model":"tiny","n":%d}' % n) for n in range(20)))
        received = await client.until(b'{"n": 19}')
    assert [int(n) for n in re.findall(rb'{"n": (\d+)}', received)] == list(range(20))


async def test_a_request_pipelined_during_a_stream_waits_for_its_end(site: UpstreamSite) -> None:
    site.upstream.behaviour = streams(token("a"), token("b"), before_each=lambda _: asyncio.sleep(0.02))
    async with RawClient.connected(site.port) as client:
        client.writer.write(post(STREAM_BODY))
        await client.until(token("a"))
        site.upstream.behaviour = answers({"ok": True})
        client.writer.write(post())
        assert token("b") in (await client.until(b"\r\n0\r\n\r\n"))
        assert (await client.until(ANSWER)).startswith(b"HTTP/1.1 200 OK")


async def test_a_post_and_a_get_for_another_app_in_one_packet_both_get_their_answer(site: UpstreamSite) -> None:
    async with RawClient.connected(site.port) as client:
        client.writer.write(post() + HEALTH + post() + HEALTH)
        for _ in range(2):
            await client.until(ANSWER)
            await client.until(HEALTHY)


async def test_a_head_may_come_one_byte_at_a_time(site: UpstreamSite) -> None:
    async with RawClient.connected(site.port) as client:
        connection = client.writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post():
            client.writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        await client.until(ANSWER)
    assert site.upstream.requests[0].body == BODY


async def test_head_and_body_may_come_apart(site: UpstreamSite) -> None:
    body = b'{"model":"tiny","n":2,"text":"' + b"x" * 300_000 + b'"}'
    async with RawClient.connected(site.port) as client:
        head, _, _ = post(body).partition(b"{")
        client.writer.write(head)
        await client.writer.drain()
        await asyncio.sleep(0.01)
        client.writer.write(body)
        await client.until(ANSWER)
    assert site.upstream.requests[0].body == body


async def test_expect_100_continue_is_answered_first(site: UpstreamSite) -> None:
    async with RawClient.connected(site.port) as client:
        head, _, _ = post(BODY, "expect: 100-continue").partition(b"{")
        client.writer.write(head)
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(BODY)
        assert (await client.until(ANSWER)).startswith(b"HTTP/1.1 200")


async def test_a_chunked_request_arrives_whole(site: UpstreamSite) -> None:
    async with RawClient.connected(site.port) as client:
        client.writer.write(chunked(BODY))
        await client.until(ANSWER)
    assert site.upstream.requests[0].body == BODY


async def test_connection_close_is_honoured_and_sent(site: UpstreamSite) -> None:
    received = await exchange(site, post(BODY, "connection: close"))
    assert received.endswith(b"connection: close\r\n\r\n" + ANSWER)


async def test_a_client_of_the_10_protocol_gets_a_body_that_ends_with_the_connection(fast_site: UpstreamSite) -> None:
    fast_site.upstream.behaviour = streams(token("a"), *LAST_EVENTS)
    head, _, body = (await exchange(fast_site, post(STREAM_BODY, version="1.0"))).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == token("a") + b"".join(LAST_EVENTS)
    fast_site.upstream.behaviour = answers({"ok": True})
    assert (await exchange(fast_site, post(version="1.0"))).endswith(b"\r\n\r\n" + ANSWER)


async def test_an_offer_to_upgrade_is_declined_and_the_body_kept(fast_site: UpstreamSite) -> None:
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
    async with RawClient.connected(fast_site.port) as client:
        for _ in range(2):
            client.writer.write(post(BODY, *offer))
            assert (await client.until(ANSWER)).startswith(b"HTTP/1.1 200")
    assert fast_site.upstream.requests[0].body == BODY


async def test_a_websockets_offer_with_a_post_is_declined(fast_site: UpstreamSite) -> None:
    async with RawClient.connected(fast_site.port) as client:
        client.writer.write(post(BODY, "connection: upgrade", "upgrade: websocket"))
        assert (await client.until(ANSWER)).startswith(b"HTTP/1.1 200")


async def test_a_handshake_that_cannot_be_read_is_answered_and_leaves_nothing(fast_site: UpstreamSite) -> None:
    async with OneServer(fast_site) as served:
        for line in (b"x: " + b"y" * 20_000, b"\r\n".join(b"x%d: 1" % n for n in range(150))):
            async with RawClient.connected(served.port) as client:
                handshake = (
                    b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n%b\r\n\r\n"
                )
                client.writer.write(handshake % line)
                assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"POST /completion HTTP/1.1\nhost: x\n\n",
        b"POST /completion HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /completion HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}   ",
        b"POST /completion HTTP/1.1\r\nhost: x\r\ncontent-length: +2\r\n\r\n{}",
        b"POST /completion HTTP/1.1\r\nhost : x\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /completion HTTP/1.1\r\nhost: x\r\nx: a\x00b\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
async def test_ambiguous_http_is_a_400(site: UpstreamSite, data: bytes) -> None:
    assert (await exchange(site, data)).startswith(b"HTTP/1.1 400 ")
    assert not site.upstream.requests


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, "/health"])
async def test_a_head_over_the_limits_is_a_431(fast_site: UpstreamSite, path: str) -> None:
    many = post(BODY, *(f"x-{n}: 1" for n in range(protocol.MAX_HEADERS + 1)), path=path)
    endless = post(BODY, "x: " + "y" * protocol.MAX_HEAD, path=path)[: protocol.MAX_HEAD + 1]
    for data in (many, endless):
        assert (await exchange(fast_site, data)).startswith(b"HTTP/1.1 431 ")
    assert not fast_site.upstream.requests


async def test_too_many_headers_behind_another_request_are_refused_too(fast_site: UpstreamSite) -> None:
    received = await exchange(fast_site, HEALTH + post(BODY, *(f"x-{n}: 1" for n in range(protocol.MAX_HEADERS + 1))))
    assert received.endswith(HEALTHY)
    assert b"\r\nconnection: close\r\n" in received
    assert not fast_site.upstream.requests


@pytest.mark.parametrize(("size", "end"), [(100_000, None), (1_000_000, None), (1_000_000, -100)])
async def test_a_head_over_the_limit_behind_another_request_is_refused_too(
    fast_site: UpstreamSite, size: int, end: int | None
) -> None:
    with contextlib.suppress(ConnectionError):  # it closes with some of it unread
        await exchange(fast_site, HEALTH + post(BODY, "x: " + "y" * size)[:end])
    assert not fast_site.upstream.requests


async def test_a_head_over_the_limit_does_not_break_into_the_answer_before_it(fast_site: UpstreamSite) -> None:
    may_end = asyncio.Semaphore(0)
    fast_site.upstream.behaviour = streams(token("a"), token("b"), before_each=lambda n: ends_when(may_end, n))
    async with RawClient.connected(fast_site.port) as client:
        client.writer.write(chunked(STREAM_BODY) + b"POST /")
        await client.until(token("a"))
        client.writer.write(b"x" * (protocol.MAX_HEAD + 1))
        may_end.release()
        assert token("b") in await client.until(b"\r\n0\r\n\r\n")
        await client.rest()
    assert len(fast_site.upstream.requests) == 1


async def test_garbage_behind_a_request_does_not_break_into_its_answer(fast_site: UpstreamSite) -> None:
    may_end = asyncio.Semaphore(0)
    fast_site.upstream.behaviour = streams(token("a"), token("b"), before_each=lambda n: ends_when(may_end, n))
    async with RawClient.connected(fast_site.port) as client:
        client.writer.write(chunked(STREAM_BODY) + b"\x00\x01\r\n\r\n")
        assert b"HTTP/1.1 400 " not in await client.until(token("a"))
        may_end.release()
        assert token("b") in await client.until(b"\r\n0\r\n\r\n")
        assert await client.rest() == b""


async def test_garbage_in_a_second_body_ends_the_connection_but_writes_nothing_into_the_first_answer(
    fast_site: UpstreamSite,
) -> None:
    fast_site.upstream.behaviour = streams(token("a"), *[token("b")] * 1000, before_each=lambda _: asyncio.sleep(0.01))
    async with RawClient.connected(fast_site.port) as client:
        client.writer.write(chunked(STREAM_BODY) + chunked(STREAM_BODY).replace(b"\r\n0\r\n", b"\r\nZZ\r\n"))
        received = await client.rest()
    assert b"HTTP/1.1 400 " not in received
    assert not received.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("begun", [b"2;x=", b"0\r\nx: "], ids=["chunk extension", "trailer"])
async def test_chunk_extensions_and_trailers_are_limited(fast_site: UpstreamSite, begun: bytes) -> None:
    head = b"POST /completion HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    async with RawClient.connected(fast_site.port) as client:
        client.writer.write(head + begun)
        answer = asyncio.create_task(client.rest())
        with contextlib.suppress(ConnectionError):  # it closes with some of it unread
            for _ in range(2 * protocol.MAX_HEAD // 1000):
                client.writer.write(b"y" * 1000)
                await client.writer.drain()
                await asyncio.sleep(0.001)
            assert (await answer).startswith(b"HTTP/1.1 431 ")
    assert not fast_site.upstream.requests


async def test_a_body_over_the_limit_is_refused_by_its_length_alone(fast_path: bool) -> None:
    async with warm(fast_path, max_body_mib=1) as site, RawClient.connected(site.port) as client:
        client.writer.write(b"POST /completion HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2000000\r\n\r\n")
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("begun", [b"POST /comp", b"\r\nPOST /comp"])
async def test_a_connection_without_a_head_is_closed_in_time(
    fast_site: UpstreamSite, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.1)
    assert (await exchange(fast_site, begun)).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("begun", [b"", b"\r\n"])
async def test_a_connection_without_a_request_lives_as_long_as_an_idle_one(begun: bytes) -> None:
    async with warm(True, keep_alive_s=1) as fast_site:
        assert await exchange(fast_site, begun) == b""


async def test_the_rest_of_a_body_that_was_answered_without_is_not_waited_for(
    fast_site: UpstreamSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "UNREAD_BODY_S", 0.2)
    async with RawClient.connected(fast_site.port) as client:
        client.writer.write(b"DELETE /v1/models HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n")
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
        rest = asyncio.create_task(client.rest())
        with contextlib.suppress(ConnectionError):
            while not rest.done():
                client.writer.write(b"x")
                await asyncio.sleep(0.02)
            await rest


async def test_a_body_has_a_deadline_that_grows_with_it(site: UpstreamSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODY_S", 0.05)
    monkeypatch.setattr(body_reader, "DEADLINE_S", 0.3)
    async with RawClient.connected(site.port) as client:
        client.writer.write(post(b" " * 1000)[:-1000])
        answer = asyncio.create_task(client.until(b"did not arrive in time"))
        while not answer.done():
            client.writer.write(b" ")
            await asyncio.sleep(0.02)
        assert (await answer).startswith(b"HTTP/1.1 408 ")
    monkeypatch.setattr(body_reader, "DEADLINE_BYTES", 10)  # 10 bytes a second are enough now
    async with RawClient.connected(site.port) as client:
        request_ = post(b'{"model":"tiny","n":2,"x":"' + b" " * 100 + b'"}')
        client.writer.write(request_[:-100])
        for at in range(len(request_) - 100, len(request_)):
            client.writer.write(request_[at : at + 1])
            await asyncio.sleep(0.005)
        await client.until(ANSWER)


async def test_a_head_byte_by_byte_has_no_more_time(fast_site: UpstreamSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.2)
    async with RawClient.connected(fast_site.port) as client:
        answer = asyncio.create_task(client.until(b"in time"))
        while not answer.done():
            client.writer.write(b"P")
            await asyncio.sleep(0.02)
        assert (await answer).startswith(b"HTTP/1.1 408 ")


async def test_a_head_byte_by_byte_behind_another_request_has_no_more_time_either(
    fast_site: UpstreamSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.2)
    async with RawClient.connected(fast_site.port) as client:
        client.writer.write(HEALTH + b"POST /")
        await client.until(HEALTHY)
        rest = asyncio.create_task(client.rest())
        while not rest.done():
            client.writer.write(b"x")
            await asyncio.sleep(0.02)
        with contextlib.suppress(ConnectionError):  # it closes with the last drops unread
            said = await rest
            assert said.startswith(b"HTTP/1.1 408 ") or not said, "nothing if its time ended before that answer"


async def test_a_late_head_does_not_break_into_the_response_before_it(
    fast_site: UpstreamSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.05)
    fast_site.upstream.behaviour = streams(*[token("a")] * 10, before_each=lambda _: asyncio.sleep(0.02))
    async with RawClient.connected(fast_site.port) as client:
        client.writer.write(chunked(STREAM_BODY) + b"POST /comp")
        assert (await client.until(b"\r\n0\r\n\r\n")).count(token("a")) == 10
        assert b"HTTP/1.1 200 " not in await client.rest()


async def test_a_body_that_stops_coming_is_a_408(site: UpstreamSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODY_S", 0.05)
    monkeypatch.setattr(body_reader, "SILENCE_S", 0.1)
    async with RawClient.connected(site.port) as client:
        client.writer.write(post()[:-1])
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(("request_", "answer"), [(post(), ANSWER), (HEALTH, HEALTHY)], ids=["fast path", "slow path"])
async def test_an_idle_connection_is_closed_although_blank_lines_come(request_: bytes, answer: bytes) -> None:
    async with warm(True, keep_alive_s=1) as fast_site, RawClient.connected(fast_site.port) as client:
        client.writer.write(request_)
        await client.until(answer)
        client.writer.write(b"\r\n")
        assert await client.rest() == b""


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_interim_responses_of_the_engine_are_skipped(site: UpstreamSite) -> None:
    site.upstream.behaviour = says(
        b"HTTP/1.1 102 Processing\r\nx: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    )
    async with RawClient.connected(site.port) as client:
        client.writer.write(post(BODY, "x-request-id: r1"))
        assert await client.until(b"{}") == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-request-id: r1\r\n\r\n{}"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_an_answer_without_a_body_leaves_the_connection_usable(site: UpstreamSite, status: bytes) -> None:
    site.upstream.behaviour = says(b"HTTP/1.1 %b\r\nx: 1\r\n\r\n" % status)
    async with RawClient.connected(site.port) as client:
        for _ in range(2):
            client.writer.write(post(BODY, "x-request-id: r1"))
            head = b"HTTP/1.1 %b\r\nx: 1\r\nx-request-id: r1\r\n\r\n" % status
            assert await client.until(b"\r\n\r\n") == head


async def test_a_body_with_trailers_ends_like_any_other(site: UpstreamSite) -> None:
    site.upstream.behaviour = says(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx-trailer: 1\r\n\r\n"
    )
    assert (await site.http.post("/completion", content=BODY)).content == b"{}"
    assert (await site.http.post("/completion", content=BODY)).content == b"{}"


async def test_an_answer_that_ends_with_its_connection_arrives_whole(site: UpstreamSite) -> None:
    site.upstream.behaviour = says(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nall of it", then_close=True)
    assert (await site.http.post("/completion", content=BODY)).content == b"all of it"
    assert (await site.record()).error is None


async def test_a_response_head_in_parts_is_joined(site: UpstreamSite) -> None:
    async def slowly(exchange: Exchange) -> None:
        for chunk in (b"HTTP/1.1 2", b"00 OK\r\ncontent-le", b"ngth: 2\r\n\r", b"\n{", b"}"):
            await exchange.send(chunk)
            await asyncio.sleep(0.005)

    site.upstream.behaviour = slowly
    response = await site.http.post("/completion", content=BODY, headers={"x-request-id": "r1"})
    assert (response.content, dict(response.headers)) == (b"{}", {"content-length": "2", "x-request-id": "r1"})


async def test_an_engine_without_http_is_a_502(site: UpstreamSite) -> None:
    site.upstream.behaviour = says(b"SSH-2.0-OpenSSH\r\n\r\n")
    response = await site.http.post("/completion", content=BODY)
    assert (response.status_code, response.json()["error"]["type"]) == (502, "upstream_error")


async def test_a_request_on_an_idle_connection_that_died_is_sent_once_more(site: UpstreamSite) -> None:
    async def dies_when_asked_again(exchange: Exchange) -> None:
        await (exchange.die() if exchange.connection == 0 else answers({"second": True})(exchange))

    await site.http.post("/completion", content=BODY)
    site.upstream.behaviour = dies_when_asked_again
    assert (await site.http.post("/completion", content=BODY)).json() == {"second": True}
    assert [request.connection for request in site.upstream.requests] == [0, 0, 1]


async def test_engine_connections_are_reused_between_responses(site: UpstreamSite) -> None:
    for _ in range(20):
        await site.http.post("/completion", content=BODY)
    assert site.upstream.connections == 1


async def test_a_connection_is_opened_ahead_while_a_stream_uses_another(fast_site: UpstreamSite) -> None:
    """The engine closes each after its stream."""
    may_end = asyncio.Semaphore(0)
    fast_site.upstream.behaviour = streams(token("a"), token("b"), before_each=lambda n: ends_when(may_end, n))
    async with RawClient.connected(fast_site.port) as client:
        await client.post(CHAT, json.dumps(STREAM).encode())
        await client.until(b'"a"')
        await fast_site.upstream.until(lambda u: u.connections == 2)
        may_end.release()
        await client.until(b"\r\n0\r\n\r\n")
    may_end.release()
    await fast_site.stream()
    assert [request.connection for request in fast_site.upstream.requests] == [0, 1]


async def ends_when(may_end: asyncio.Semaphore, event: int) -> None:
    if event:
        await may_end.acquire()


async def test_a_connection_opened_ahead_that_died_is_replaced(fast_site: UpstreamSite) -> None:
    async def dies_unless_first_or_third(exchange: Exchange) -> None:
        await (exchange.die() if exchange.connection == 1 else streams(token("a"))(exchange))

    fast_site.upstream.behaviour = dies_unless_first_or_third
    await fast_site.stream()
    await fast_site.upstream.until(lambda u: u.connections == 2)
    assert token("a") in (await fast_site.stream()).content
    assert [request.connection for request in fast_site.upstream.requests] == [0, 1, 2]


async def test_a_full_backlog_ends_with_the_connect_limit() -> None:
    async with UpstreamSite(fast_path=True, connect_timeout_s=0.2).running() as site:
        with socket.socket() as busy, ExitStack() as stack:
            busy.bind(("127.0.0.1", 0))
            busy.listen(0)
            for _ in range(4):  # nobody accepts, so that these fill the queue
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(busy.getsockname())
            site.engine.endpoints = {1: type(site.upstream.endpoint)("127.0.0.1", busy.getsockname()[1])}
            await site.scheduler.load(site.models[0])
            response = await site.http.post("/completion", content=BODY)
            assert response.status_code == 504
            assert "accepted no connection within 0.2 s" in response.json()["error"]["message"]
            assert site.scheduler.in_flight(1) == 0


async def test_a_model_that_cannot_be_reached_is_a_502(site: UpstreamSite) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = type(site.upstream.endpoint)("127.0.0.1", nobody.getsockname()[1])
        site.engine.endpoints = {1: endpoint}
        await site.scheduler.unload(site.models[0])
        await site.scheduler.load(site.models[0])
        response = await site.http.post("/completion", content=BODY)
    assert response.status_code == 502
    assert "cannot be reached" in response.json()["error"]["message"]


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_a_client_that_closes_half_counts_as_gone(site: UpstreamSite) -> None:
    site.upstream.behaviour = never_answers
    async with RawClient.connected(site.port) as client:
        client.writer.write(post())
        await site.upstream.until(lambda u: len(u.requests) == 1)
        client.writer.write_eof()
        await site.upstream.until(lambda u: u.cancelled == 1)
    assert (await site.record()).status == CLIENT_GONE
    assert site.scheduler.in_flight(1) == 0


async def test_a_stream_cut_in_the_middle_of_a_chunk_ends_with_an_error_event(fast_site: UpstreamSite) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await exchange.send(b"9\r\ndata: 1\n\n\r\n100\r\ndata: {")
        await asyncio.sleep(0.02)
        await exchange.die()

    fast_site.upstream.behaviour = cut
    async with RawClient.connected(fast_site.port) as client:
        client.writer.write(post(STREAM_BODY))
        received = await client.until(b"\r\n0\r\n\r\n")
    body = received.partition(b"\r\n\r\n")[2]
    assert body.startswith(b"9\r\ndata: 1\n\n\r\n")
    size, _, rest = body.removeprefix(b"9\r\ndata: 1\n\n\r\n").partition(b"\r\n")
    event = rest.removesuffix(b"\r\n0\r\n\r\n")
    assert event.startswith(b'data: {"error"')
    assert event.endswith(b"\n\n")
    assert len(event) == int(size, 16)
    assert (await fast_site.record()).error == "The model's process broke off its answer."


async def test_an_event_in_many_parts_is_held_back_and_replaced_by_the_error(fast_site: UpstreamSite) -> None:

    async def cut(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in (b"100\r\ndata: {", b"a", b"b"):
            await asyncio.sleep(0.02)
            await exchange.send(part)
        await asyncio.sleep(0.02)
        await exchange.die()

    fast_site.upstream.behaviour = cut
    async with RawClient.connected(fast_site.port) as client:
        client.writer.write(post(STREAM_BODY))
        received = await client.until(b"\r\n0\r\n\r\n")
    [event, end] = received.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2].split(b"\n\n")
    assert event.startswith(b'data: {"error"')
    assert end == b"\r\n0\r\n\r\n"
    assert (await fast_site.record()).error == "The model's process broke off its answer."


async def test_requests_are_metered_on_the_fast_path(fast_site: UpstreamSite) -> None:
    await fast_site.http.post("/completion", content=BODY)
    fast_site.upstream.behaviour = Exchange.die
    await fast_site.http.post("/completion", content=BODY)
    counters = fast_site.meter.snapshot()
    assert (counters.total, counters.active, counters.errors) == (2, 0, 1)


async def test_only_allowed_requests_take_the_fast_path(fast_site: UpstreamSite) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        await fast_site.http.post("/completion", content=BODY, headers=headers)
    await fast_site.http.post("/completion", json={"model": "nobody"})
    await fast_site.http.post("/completion", content=b"{bad")
    assert fast_site.meter.snapshot().total == 0
    own = {"origin": fast_site.url, "sec-fetch-site": "same-origin"}
    await fast_site.http.post("/completion", content=BODY, headers=own)
    assert fast_site.meter.snapshot().total == 1


async def test_access_is_checked_again_when_settings_or_headers_change(fast_site: UpstreamSite) -> None:
    friend = {"host": "friend.example"}
    fast_site.settings = make_settings(allowed_hosts=("friend.example",))
    for headers, counted in ((friend, 1), (friend, 2), ({"host": "evil.example"}, 2)):
        await fast_site.http.post("/completion", content=BODY, headers=headers)
        assert fast_site.meter.snapshot().total == counted
    fast_site.settings = make_settings()
    await fast_site.http.post("/completion", content=BODY, headers=friend)
    assert fast_site.meter.snapshot().total == 2


async def test_uvicorn_has_the_attributes_that_the_protocol_uses(fast_site: UpstreamSite) -> None:
    """The attributes used of it are no public interface: a new uvicorn must be looked at when this fails."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

    for name in (
        "send_400_response",
        "handle_websocket_upgrade",
        "_unset_keepalive_if_required",
        "_start_asgi_task",
        "shutdown",
    ):
        assert callable(getattr(HttpToolsProtocol, name))
    for callback in ("on_message_begin", "on_header", "on_headers_complete", "on_body"):
        assert callable(getattr(HttpToolsProtocol, callback))
    used = {
        "scope",
        "flow",
        "transport",
        "response_started",
        "response_complete",
        "more_body",
        "disconnected",
        "keep_alive",
    }
    names = RequestResponseCycle.__init__.__code__.co_names
    assert used <= set(names)
    own = {"cycle", "scope", "pipeline", "client", "server", "scheme", "server_state", "timeout_keep_alive", "headers"}
    assert own <= set(HttpToolsProtocol.__init__.__code__.co_names)
    assert {"url", "headers", "scope"} <= set(HttpToolsProtocol.on_message_begin.__code__.co_names)
    assert json.loads((await fast_site.http.get("/health")).content) == {"status": "ok"}


# --- uvicorn's bookkeeping --------------------------------------------------------------------------------------------


class OneServer:
    """The service's own server, with its HTTP protocol, in front of an application that accepts websockets."""

    def __init__(self, site: UpstreamSite) -> None:
        self.listeners = listen("127.0.0.1", 0)
        self.port: int = self.listeners[0].getsockname()[1]
        self.server = Server(_accepts, http_protocol(FastPathParts(site.fast_path, site.meter)), self._goodbye)
        self._site = site

    async def _goodbye(self, _: object) -> None:
        self._site.scheduler.revoke_all()

    async def __aenter__(self) -> OneServer:
        self._serving = asyncio.create_task(self.server.serve(self.listeners))
        while not self.server.started:
            await asyncio.sleep(0.001)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.should_exit = True
        async with asyncio.timeout(30):
            await self._serving
        assert not self.server.server_state.connections


async def _accepts(_: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def test_a_hundred_websockets_come_and_go_and_leave_nothing(fast_site: UpstreamSite) -> None:
    async with OneServer(fast_site) as served, aiohttp.ClientSession() as http:
        for _ in range(10):
            sockets = [await http.ws_connect(f"http://127.0.0.1:{served.port}/") for _ in range(10)]
            for opened in sockets:
                await opened.close()
        async with asyncio.timeout(30):
            while served.server.server_state.connections:
                await asyncio.sleep(0.01)


async def test_the_server_stops_with_a_stream_and_a_websocket_open(fast_site: UpstreamSite) -> None:
    fast_site.upstream.behaviour = streams(*[token("a")] * 10_000, before_each=lambda _: asyncio.sleep(0.01))
    async with aiohttp.ClientSession() as http, AsyncExitStack() as stack:
        async with OneServer(fast_site) as served:
            await http.ws_connect(f"http://127.0.0.1:{served.port}/")
            client = await stack.enter_async_context(RawClient.connected(served.port))
            client.writer.write(post(STREAM_BODY))
            await client.until(token("a"))
        assert b"The service is stopping." in await client.rest()
