from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from llama_async_proxy.errors import DeadlineExceeded, UpstreamFailed
from llama_async_proxy.inference.upstream.client import UpstreamClient, UpstreamRequest
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.records.runtime import Endpoint
from support.upstream import (
    STREAM_HEAD,
    Exchange,
    Upstream,
    answers,
    breaks_off_after,
    make_settings,
    never_answers,
    says,
    streams,
    token,
)

POST = UpstreamRequest("POST", b"/completion", ((b"content-type", b"application/json"),), b'{"n_predict":1}')
GET = UpstreamRequest("GET", b"/props?x=1")


@contextlib.contextmanager
def asking(**limits: float) -> Iterator[UpstreamClient]:
    settings = make_settings(**limits)
    pool = ConnectionPool(lambda: settings)
    yield UpstreamClient(pool)
    pool.close()


@pytest.fixture
async def client() -> AsyncIterator[UpstreamClient]:
    with asking() as client:
        yield client


async def fetch(client: UpstreamClient, upstream: Upstream, request: UpstreamRequest = POST) -> tuple[int, bytes]:
    async with client.request(upstream.endpoint, request) as response:
        return response.status, b"".join([chunk async for chunk in response])


async def test_a_request_arrives_as_it_was_given(client: UpstreamClient, upstream: Upstream) -> None:
    assert await fetch(client, upstream) == (200, b'{"ok": true}')
    [received] = upstream.requests
    assert (received.method, received.target, received.body) == ("POST", "/completion", b'{"n_predict":1}')
    assert received.headers == [
        ("host", f"127.0.0.1:{upstream.endpoint.port}"),
        ("content-type", "application/json"),
        ("content-length", "15"),
    ]


async def test_a_large_body_arrives_whole(client: UpstreamClient, upstream: Upstream) -> None:
    body = bytes(range(256)) * 40_000
    await fetch(client, upstream, UpstreamRequest("POST", b"/completion", (), body))
    assert upstream.requests[0].body == body


async def test_a_get_has_no_body(client: UpstreamClient, upstream: Upstream) -> None:
    await fetch(client, upstream, GET)
    assert upstream.requests[0].header("content-length") is None


async def test_response_headers_keep_order_and_value(client: UpstreamClient, upstream: Upstream) -> None:
    upstream.behaviour = says(
        b"HTTP/1.1 201 Created\r\nX-B: 1\r\nX-A:  two words\r\nX-B: 3\r\nContent-Length: 0\r\n\r\n"
    )
    async with client.request(upstream.endpoint, POST) as response:
        assert response.status == 201
        assert response.headers == [(b"x-b", b"1"), (b"x-a", b"two words"), (b"x-b", b"3"), (b"content-length", b"0")]
        assert await response.read() == b""


async def test_a_request_on_an_idle_connection_that_died_is_sent_once_more(
    client: UpstreamClient, upstream: Upstream
) -> None:
    await fetch(client, upstream)

    async def dies_on_the_kept_connection(exchange: Exchange) -> None:
        if exchange.connection == 0:
            await exchange.die()
        else:
            await answers({"second": True})(exchange)

    upstream.behaviour = dies_on_the_kept_connection
    assert await fetch(client, upstream) == (200, b'{"second": true}')
    assert [request.connection for request in upstream.requests] == [0, 0, 1]


async def test_a_request_on_a_new_connection_that_dies_is_not_sent_again(
    client: UpstreamClient, upstream: Upstream
) -> None:
    upstream.behaviour = Exchange.die
    with pytest.raises(UpstreamFailed, match="without an answer"):
        await fetch(client, upstream)
    assert len(upstream.requests) == 1


async def test_a_request_is_not_sent_again_after_the_first_byte_of_its_response(
    client: UpstreamClient, upstream: Upstream
) -> None:
    await fetch(client, upstream)
    upstream.behaviour = says(b"HTTP/1.1 2", then_close=True)
    with pytest.raises(UpstreamFailed):
        await fetch(client, upstream)
    assert len(upstream.requests) == 2


async def test_bytes_before_a_failure_are_read_before_it_is_raised(client: UpstreamClient, upstream: Upstream) -> None:
    upstream.behaviour = breaks_off_after(token("a"), token("b"))
    received = b""
    async with client.request(upstream.endpoint, POST) as response:
        while len(received) < len(token("a") + token("b")):
            received += await response.read()
        with pytest.raises(UpstreamFailed, match="broke off"):
            await response.read()


async def test_each_chunk_is_read_when_it_arrives(client: UpstreamClient, upstream: Upstream) -> None:
    may_go_on = asyncio.Semaphore(0)
    upstream.behaviour = streams(token("a"), token("b"), before_each=lambda _: may_go_on.acquire())
    async with client.request(upstream.endpoint, POST) as response:
        for expected in (token("a"), token("b")):
            may_go_on.release()
            assert await response.read() == expected
        assert await response.read() == b""
        assert response.ended


async def test_leaving_early_closes_the_socket(client: UpstreamClient, upstream: Upstream) -> None:
    upstream.behaviour = streams(*[token("a")] * 1000, before_each=lambda _: asyncio.sleep(0.01))
    async with client.request(upstream.endpoint, POST) as response:
        await response.read()
    await upstream.until(lambda u: u.cancelled == 1)


async def test_a_cancelled_wait_for_the_response_closes_the_socket(client: UpstreamClient, upstream: Upstream) -> None:
    upstream.behaviour = never_answers
    task = asyncio.create_task(fetch(client, upstream))
    await upstream.until(lambda u: len(u.requests) == 1)
    task.cancel()
    await upstream.until(lambda u: u.cancelled == 1)


async def test_a_slow_reader_holds_the_engine_back(client: UpstreamClient, upstream: Upstream) -> None:
    sent = 0
    total = 64 * 1024 * 1024

    async def floods(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await exchange.send(b"x" * 65536)
            sent += 65536

    upstream.behaviour = floods
    async with client.request(upstream.endpoint, POST) as response:
        before = -1
        while before < sent:  # until the kernel's buffers and ours are full
            before = sent
            await asyncio.sleep(0.1)
        assert sent < total / 2
        assert response._buffered < 1024 * 1024
        received = 0
        while chunk := await response.read():
            received += len(chunk)
    assert received == total


async def test_connecting_first_byte_and_pauses_have_limits_of_their_own(upstream: Upstream) -> None:
    upstream.behaviour = never_answers
    with asking(first_token_timeout_s=0.05) as client, pytest.raises(DeadlineExceeded, match="does not begin"):
        await fetch(client, upstream)
    upstream.behaviour = streams(token("a"), token("b"), before_each=lambda n: asyncio.sleep(60 * n))
    with asking(idle_timeout_s=0.05) as client:
        async with client.request(upstream.endpoint, POST) as response:
            assert await response.read() == token("a")
            with pytest.raises(DeadlineExceeded, match="silent"):
                await response.read()
    await upstream.until(lambda u: u.cancelled == 2)


async def test_a_response_may_take_longer_than_every_limit_while_bytes_come(upstream: Upstream) -> None:
    upstream.behaviour = streams(*[token("a")] * 12, before_each=lambda _: asyncio.sleep(0.06))
    with asking(first_token_timeout_s=0.6, idle_timeout_s=0.6) as client:
        assert await fetch(client, upstream) == (200, token("a") * 12)


async def test_a_closed_port_fails_at_once(client: UpstreamClient) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", unused.getsockname()[1])
        with pytest.raises(UpstreamFailed, match="cannot be reached"):
            async with client.request(endpoint, POST):
                pass


async def test_a_full_backlog_ends_with_the_connect_timeout() -> None:
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        with asking(connect_timeout_s=0.05) as client, pytest.raises(DeadlineExceeded, match="accepted no connection"):
            async with client.request(Endpoint(*deaf.getsockname()), POST):
                pass


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok")),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno", (404, b"no")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", (304, b"")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nX-T: 1\r\n\r\n",
            (200, b"abc"),
        ),
    ],
)
async def test_every_framing_of_a_body_is_read(
    client: UpstreamClient, upstream: Upstream, raw: bytes, expected: tuple[int, bytes]
) -> None:
    upstream.behaviour = says(raw)
    async with client.request(upstream.endpoint, POST) as response:
        assert (response.status, b"".join([chunk async for chunk in response])) == expected
        assert not {name for name, _ in response.headers} & {b"link", b"x-t"}


async def test_a_response_without_length_may_end_with_its_connection(
    client: UpstreamClient, upstream: Upstream
) -> None:
    upstream.behaviour = says(b"HTTP/1.1 200 OK\r\n\r\nall of it", then_close=True)
    assert await fetch(client, upstream) == (200, b"all of it")


async def test_a_response_with_a_length_must_not_end_early(client: UpstreamClient, upstream: Upstream) -> None:
    upstream.behaviour = says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all", then_close=True)
    with pytest.raises(UpstreamFailed, match="broke off"):
        await fetch(client, upstream)


async def test_a_head_request_ends_with_the_head(client: UpstreamClient, upstream: Upstream) -> None:
    upstream.behaviour = answers({"a": 1})
    async with client.request(upstream.endpoint, UpstreamRequest("HEAD", b"/props")) as response:
        assert dict(response.headers)[b"content-length"] == b"8"
        assert await response.read() == b""


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 400_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nx\r\n",
    ],
    ids=["other protocol", "bad length", "endless head", "bad chunk"],
)
async def test_bytes_that_are_not_http_fail_the_request(client: UpstreamClient, upstream: Upstream, raw: bytes) -> None:
    upstream.behaviour = says(raw)
    with pytest.raises(UpstreamFailed, match="The model's process sent"):
        await fetch(client, upstream)


async def test_bytes_without_a_request_never_reach_the_next_request(client: UpstreamClient, upstream: Upstream) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    upstream.behaviour = says(answer + b"ok" + answer + b"XX")
    assert await fetch(client, upstream) == (200, b"ok")
    upstream.behaviour = answers({})
    assert await fetch(client, upstream) == (200, b"{}")
    assert upstream.connections == 2


async def test_a_document_is_read_whole(client: UpstreamClient, upstream: Upstream) -> None:
    async def in_two(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD)
        await exchange.chunk(b"first ")
        await asyncio.sleep(0.02)
        await exchange.chunk(b"second")
        await exchange.send(b"0\r\n\r\n")

    upstream.behaviour = in_two
    assert await client.get(upstream.endpoint, "/metrics", 5.0) == b"first second"
    assert upstream.requests[0].target == "/metrics"


async def test_a_document_with_another_status_or_too_late_is_an_error(
    client: UpstreamClient, upstream: Upstream
) -> None:
    upstream.behaviour = answers({}, b"501 Not Implemented")
    with pytest.raises(UpstreamFailed, match="/metrics was answered with status 501"):
        await client.get(upstream.endpoint, "/metrics", 5.0)
    upstream.behaviour = never_answers
    with pytest.raises(DeadlineExceeded, match=r"/metrics was not answered within 0\.05 s"):
        await client.get(upstream.endpoint, "/metrics", 0.05)
    await upstream.until(lambda u: u.cancelled == 1)
