"""The cache of request heads."""

from __future__ import annotations

import pytest

from llama_async_proxy.api.http.request_headers import ParsedRequestHead, RequestHeadCache, parse
from support.upstream import make_settings

SERVER = ("127.0.0.1", 3000)


def head(*fields: str, length: int = 2, line: str = "POST /completion HTTP/1.1") -> bytes:
    return "\r\n".join((line, "Host: localhost", *fields, f"Content-Length: {length}", "", "")).encode()


def parsed(data: bytes) -> ParsedRequestHead:
    found = parse(data)
    assert found is not None
    return found


def test_a_stored_head_is_found_whatever_its_content_length() -> None:
    heads, settings, data = RequestHeadCache(), make_settings(), head("X: 1")
    stored = heads.store(data, parsed(data), settings, SERVER)
    again = head("X: 1", length=12345)
    assert heads.lookup(again + b"{", settings, SERVER) == (stored, (len(again), 12345))
    assert stored.head.headers[:2] == [(b"host", b"localhost"), (b"x", b"1")]


def test_a_stored_head_without_a_body_is_found() -> None:
    heads, settings = RequestHeadCache(), make_settings()
    data = b"GET /props?model=m HTTP/1.1\r\nHost: localhost\r\n\r\n"
    stored = heads.store(data, parsed(data), settings, SERVER)
    assert heads.lookup(data, settings, SERVER) == (stored, (len(data), 0))
    assert heads.lookup(data[:-1], settings, SERVER) is None


@pytest.mark.parametrize(
    "other",
    [
        head("X: 2"),
        head("X: 1", "Y: 1"),
        head("X: 1", length=1 << 21),
        head("X: 1").replace(b": 2\r\n", b": 2x\r\n"),
        head("X: 1").replace(b": 2\r\n", b": -2\r\n"),
        head("X: 1").replace(b": 2\r\n", b": 00000000000002\r\n"),
        head("X: 1")[:-3],
        head("X: 1", line="POST /completions HTTP/1.1"),
    ],
)
def test_another_head_is_not_found(other: bytes) -> None:
    heads, settings, data = RequestHeadCache(), make_settings(), head("X: 1")
    heads.store(data, parsed(data), settings, SERVER)
    assert heads.lookup(other, settings, SERVER) is None


def test_a_head_is_checked_again_under_other_settings_and_at_another_address() -> None:
    heads, settings, data = RequestHeadCache(), make_settings(), head()
    heads.store(data, parsed(data), settings, SERVER)
    assert heads.lookup(data, make_settings(), SERVER) is None
    assert heads.lookup(data, settings, ("192.0.2.1", 3000)) is None
    assert heads.lookup(data, settings, SERVER) is not None


def test_only_the_last_eight_heads_are_cached() -> None:
    heads, settings = RequestHeadCache(), make_settings()
    many = [head(f"X: {n}") for n in range(20)]
    for data in many:
        heads.store(data, parsed(data), settings, SERVER)
    known = [data for data in many if heads.lookup(data, settings, SERVER)]
    assert known == many[-8:]


@pytest.mark.parametrize(
    "data",
    [
        b"PUT /completion HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n",
        b"POST /completion HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\n\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n",
        b"POST /completion HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /completion HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /completion HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
        b"POST /completion HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\n",
        b"POST /completion HTTP/1.1\r\nHost : x\r\nContent-Length: 2\r\n\r\n",
        b"GET /props HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_requests_that_the_fast_path_leaves_to_uvicorn(data: bytes) -> None:
    assert parse(data) is None


def test_connection_close_is_recognised() -> None:
    assert parsed(head("Connection: close")).closes
    assert not parsed(head("Connection: keep-alive")).closes
