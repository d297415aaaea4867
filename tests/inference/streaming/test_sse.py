from __future__ import annotations

import pytest

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
