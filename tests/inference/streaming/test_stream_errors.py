from __future__ import annotations

import pytest

from llama_async_proxy.inference.streaming.sse import StreamEvent
from llama_async_proxy.inference.streaming.stream_errors import error_at_end, error_in

OBJECT = b'{"error":{"code":503,"message":"no room","type":"unavailable_error"}}'


@pytest.mark.parametrize(
    ("name", "data", "status", "message"),
    [
        (b"", OBJECT, 503, "no room"),
        (b"", b'{"id":"x", "error" : "boom"}', 500, "boom"),
        (b"", b'{"error":["odd", 1]}', 500, '["odd", 1]'),
        (b"", b'{"error":{"code":"context_length_exceeded"}}', 500, "The engine ended its stream with an error."),
        (b"", b'{"error":{"code":99999,"message":7}}', 500, "7"),
        (b"error", b'{"code":400,"message":"bad"}', 400, "bad"),
        (b"error", b"plain words", 500, "plain words"),
        (b"error", b'{"type":"error","error":{"type":"api_error","message":"a"}}', 500, "a"),
        (b"", b'{"type":"error","code":"500","message":"a"}', 500, "a"),
        (b"", b'{"type":"response.failed","response":{"error":{"message":"a"}}}', 500, "a"),
    ],
)
def test_errors_of_every_dialect_are_known(name: bytes, data: bytes, status: int, message: str) -> None:
    error = error_in(StreamEvent(name, data))
    assert error is not None
    assert (error.status, error.message) == (status, message)


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[{"delta":{"content":"the word \\"error\\":"}}]}',
        b'{"error":null,"choices":[]}',
        b'{"type":"response.created","response":{"error":null}}',
        b"[DONE]",
        b'not JSON "error"',
    ],
)
def test_other_events_are_no_errors(data: bytes) -> None:
    assert error_in(StreamEvent(b"", data)) is None


def test_only_the_end_of_a_stream_counts() -> None:
    said = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    wrong = b"data: " + OBJECT + b"\n\n"
    for tail in (said + wrong, said + wrong + b"data: [DONE]\n\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(wrong), wrong)):
        error = error_at_end(tail)
        assert error is not None
        assert error.status == 503
    assert error_at_end(wrong + said) is None
    assert error_at_end(b"") is None
