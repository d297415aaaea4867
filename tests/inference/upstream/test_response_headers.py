from __future__ import annotations

import pytest

from llama_async_proxy.inference.upstream.response_headers import ResponseHead, ResponseHeadCache

BODY = b'{"ok":true}'
HEAD = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Length: %d\r\nContent-Type: application/json\r\n\r\n"


def answer(body: bytes = BODY, head: bytes = HEAD) -> bytes:
    return head % len(body) + body


def read_head(status: int = 200) -> ResponseHead:
    headers = ((b"content-type", b"application/json"),)
    return ResponseHead(
        status, headers, b"content-type: application/json\r\n", len(BODY), is_chunked=False, is_stream=False
    )


@pytest.fixture
def known() -> ResponseHeadCache:
    heads = ResponseHeadCache()
    heads.store(answer(), read_head())
    return heads


def test_a_cached_head_is_found_with_another_content_length(known: ResponseHeadCache) -> None:
    body = b'{"longer":"than the first"}'
    found = known.lookup(answer(body))
    assert found is not None
    head, rest = found
    assert (head.status, head.lines) == (200, b"content-type: application/json\r\n")
    assert rest == body


@pytest.mark.parametrize(
    "data",
    [
        answer()[:-1],
        answer() + b"x",
        answer()[:40],
        answer(head=HEAD.replace(b"200 OK", b"500 Internal Server Error")),
        answer(head=HEAD.replace(b"llama.cpp", b"another")),
        answer(head=HEAD.replace(b"Content-Type", b"Content-Length: 3\r\nContent-Type")),
        answer(head=HEAD.replace(b"Content-Length: %d", b"Content-Length: +%d")),
        b"",
    ],
    ids=["incomplete", "too much", "no end", "status", "header", "two lengths", "sign", "nothing"],
)
def test_any_other_response_is_a_miss(known: ResponseHeadCache, data: bytes) -> None:
    assert known.lookup(data) is None


def test_errors_and_heads_with_two_lengths_are_not_cached() -> None:
    heads = ResponseHeadCache()
    refused = answer(head=HEAD.replace(b"200 OK", b"400 Bad Request"))
    heads.store(refused, read_head(400))
    twice = answer(head=HEAD.replace(b"Content-Type", b"content-length: 11\r\nContent-Type"))
    heads.store(twice, read_head())
    assert heads.lookup(refused) is None
    assert heads.lookup(twice) is None


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def stream_head(status: int = 200, *, is_stream: bool = True) -> ResponseHead:
    return ResponseHead(status, (), b"", None, is_chunked=True, is_stream=is_stream)


def test_the_head_of_a_stream_is_cached() -> None:
    heads = ResponseHeadCache()
    head = stream_head()
    heads.store_stream(STREAM + b"5\r\nfirst", head)
    assert heads.lookup_stream(STREAM + b"6\r\nsecond") == (head, b"6\r\nsecond")
    assert heads.lookup_stream(STREAM[:-1]) is None
    assert heads.lookup_stream(STREAM.replace(b"200 OK", b"500 No")) is None


def test_other_heads_are_not_cached_as_streams() -> None:
    heads = ResponseHeadCache()
    heads.store_stream(STREAM, stream_head(is_stream=False))
    heads.store_stream(STREAM.replace(b"200 OK", b"500 No"), stream_head(500))
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    heads.store_stream(interim + STREAM, stream_head())
    assert heads.lookup_stream(STREAM) is heads.lookup_stream(interim + STREAM) is None


def test_the_cache_is_bounded(known: ResponseHeadCache) -> None:
    for number in range(200):
        known.store(b"HTTP/1.1 200 OK\r\nServer: %d\r\nContent-Length: 2\r\n\r\n{}" % number, read_head())
    assert known.lookup(answer()) is None
    assert known.lookup(b"HTTP/1.1 200 OK\r\nServer: 199\r\nContent-Length: 3\r\n\r\n[1]") is not None
