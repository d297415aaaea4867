from __future__ import annotations

import time

import pytest

from llama_async_proxy.errors import UpstreamFailed
from llama_async_proxy.inference.streaming import sse


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"text/event-stream", True), (b"text/event-stream; charset=utf-8", True), (b"application/json", False)],
)
def test_event_streams_are_recognised_by_content_type(value: bytes, expected: bool) -> None:
    assert sse.is_event_stream([(b"date", b"x"), (b"content-type", value)]) is expected
    assert not sse.is_event_stream([])


def test_the_loading_comment_is_a_comment() -> None:
    assert sse.COMMENT_LOADING.startswith(b":")
    assert sse.COMMENT_LOADING.endswith(b"\n\n")


# --- reading ------------------------------------------------------------------------------------------------------

STREAM = (
    b"\xef\xbb\xbf: comment\n\ndata: {}\r\n\r\nevent: x\rdata:a\rdata: b\r\rid: 1\nretry: 5\n\n"
    b"data: \xf0\x9f\xa6\x99\n\n\n\ndata: \xff\xc3\n\ndata\n\ndata: [DONE]\n"
)
EVENTS = [
    (b"", b"{}"),
    (b"x", b"a\nb"),
    (b"", b"\xf0\x9f\xa6\x99"),
    (b"", "��".encode()),
    (b"", b""),
    (b"", b"[DONE]"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_they_are_cut(size: int) -> None:
    reader = sse.EventReader()
    events = [event for at in range(0, len(STREAM), size) for event in reader.feed(STREAM[at : at + size])]
    assert events + reader.rest() == EVENTS
    assert reader.rest() == []


def test_an_event_that_is_too_long_is_an_error_before_it_is_kept() -> None:
    reader = sse.EventReader()
    for _ in range(16):
        reader.feed(b"x" * (1 << 20))
    with pytest.raises(UpstreamFailed, match="more than 16 MiB"):
        reader.feed(b"x")
    with pytest.raises(UpstreamFailed, match="more than 16 MiB"):
        sse.EventReader().feed(b"data: %b\n\n" % (b"x" * (17 << 20)))


def test_a_long_event_in_small_pieces_is_joined_once() -> None:
    reader, piece, began_s = sse.EventReader(), b"x" * 1024, time.process_time()
    for _ in range(15 * 1024):
        assert not reader.feed(piece)
    assert not reader.feed(b"\n\n")
    assert time.process_time() - began_s < 1.0  # joined with every piece it takes minutes
