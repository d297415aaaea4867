"""The relay core alone: engine events in, outputs out, for both paths and however the bytes are divided."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.errors import ServiceError, UpstreamFailed
from llama_async_proxy.inference import relay
from llama_async_proxy.inference.relay import Relay
from llama_async_proxy.inference.request_log import CLIENT_GONE, RequestLogEntry
from llama_async_proxy.inference.requests.routes import InferenceRoute, RoutingParameters, find
from llama_async_proxy.inference.upstream.response_headers import Header, ResponseHead
from llama_async_proxy.records.models import Model
from support.upstream import LAST_EVENTS, event, make_model, token

EVENTS = (token("a"), b": ping\n\n", token("b"), *LAST_EVENTS)
DIED = UpstreamFailed("The model's process broke off its answer.")
LLAMA = make_model()
CUSTOM = make_model(options={"command": "serve"})
STREAM = RoutingParameters("tiny", stream=True)
SSE = ((b"content-type", b"text/event-stream"),)
JSON = ((b"content-type", b"application/json"),)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream_head(*, length: int | None = None, is_chunked: bool = True) -> ResponseHead:
    return ResponseHead(200, SSE, b"", length, is_chunked=is_chunked, is_stream=True)


def json_head(status: int = 200, length: int | None = 2) -> ResponseHead:
    return ResponseHead(status, JSON, b"", length, is_chunked=False, is_stream=False)


class Recorder(Relay):
    """A relay whose outputs are kept."""

    def __init__(self, asked: RoutingParameters = STREAM, model: Model = LLAMA, path: str = "/completion") -> None:
        self.body: list[bytes] = []
        """Bytes as the client has them after each output."""
        self.status = 0
        self.headers: Sequence[Header] = ()
        self.asked_again = 0
        self.whole: bool | None = None
        route = find("POST", path)
        assert isinstance(route, InferenceRoute)
        super().__init__(route, RequestLogEntry("127.0.0.1", path), self.body.append)
        self.prepare(asked, model)

    @property
    def received(self) -> bytes:
        return b"".join(self.body)

    def start(self, head: ResponseHead, body: bytes, length: int | None) -> None:
        assert not self.status
        self.status = head.status
        self.body.append(body)

    def reply(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        assert not self.status
        self.status, self.headers = status, headers
        self.body.append(body)

    def ask_again(self) -> None:
        self.asked_again += 1

    def end(self, *, whole: bool) -> None:
        assert self.whole is None, "a response ends once"
        self.whole = whole


class FastRecorder(Recorder):
    _passes_framing = True


def feed_bare(to: Recorder, parts: Sequence[bytes]) -> None:
    """As the slow path does: content without framing."""
    to.on_head(stream_head(), b"")
    for part in parts:
        to.on_body(part)


def feed_raw(to: Recorder, parts: Sequence[bytes]) -> None:
    """As the fast path does for llama-server: raw bytes, the first with the head."""
    to.on_head(stream_head(), parts[0] if parts else b"")
    for part in parts[1:]:
        to.on_body(part)


def feed_chunks(to: Recorder, parts: Sequence[bytes]) -> None:
    """As the fast path does for other servers: each part is a chunk, given as content and raw."""
    to.on_head(stream_head(), b"")
    for part in parts:
        to.on_chunk(part)
        to.on_body(chunk(part))
    to.on_body(b"0\r\n\r\n")


Feed = Callable[[Recorder, Sequence[bytes]], None]


def content(chunks: bytes) -> tuple[bytes, bool]:
    """Content of a chunked body, and True if the body has ended."""
    found = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size, 16)
        found, end = found + rest[:length], rest[length : length + 2]
        assert end == b"\r\n"
        chunks = rest[length + 2 :]
        if not length:
            assert not chunks
            return found, True
    return found, False


def error_type(event: bytes) -> str:
    error: dict[str, Any] = json.loads(event.removeprefix(b"data: "))["error"]
    return str(error["type"])


# --- streams, however they are divided --------------------------------------------------------------------------------


def divided(data: bytes) -> st.SearchStrategy[list[bytes]]:
    cuts = st.lists(st.integers(1, len(data) - 1), max_size=8, unique=True).map(sorted)
    return cuts.map(lambda at: [data[i:j] for i, j in zip([0, *at], [*at, len(data)], strict=True)])


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@given(data=st.data())
def test_a_stream_arrives_byte_for_byte_and_in_whole_events(ending: bytes, data: st.DataObject) -> None:
    stream = b"".join(EVENTS).replace(b"\n", ending)
    to = Recorder()
    feed_bare(to, data.draw(divided(stream)))
    assert all(written.endswith(2 * ending) for written in to.body if written)
    to.complete()
    assert (to.received, to.whole) == (stream, True)


@given(divided(b"".join(map(chunk, EVENTS)) + b"0\r\n\r\n"))
def test_chunk_framing_is_kept_and_chunks_leave_whole(parts: list[bytes]) -> None:
    to = FastRecorder()
    feed_raw(to, parts)
    assert content(to.received)[0].endswith(b"\n\n")
    to.complete()
    assert to.received == b"".join(map(chunk, EVENTS)) + b"0\r\n\r\n"


@given(divided(b"".join(EVENTS)))
def test_other_servers_chunks_are_renewed_to_end_where_events_end(parts: list[bytes]) -> None:
    to = FastRecorder(model=CUSTOM)
    assert to.reads_chunks
    feed_chunks(to, parts)
    for written in filter(None, to.body):
        assert content(written)[0].endswith(b"\n\n")
    to.complete()
    assert content(to.received) == (b"".join(EVENTS), True)


@given(data=st.data(), at=st.integers(1, len(b"".join(EVENTS)) - 1))
def test_a_stream_that_breaks_off_ends_with_an_error_event_behind_whole_events(data: st.DataObject, at: int) -> None:
    begun = b"".join(EVENTS)[:at]
    parts = data.draw(divided(begun)) if at > 1 else [begun]
    to = Recorder()
    feed_bare(to, parts)
    to.fail(DIED)
    whole = begun[: begun.rfind(b"\n\n") + 2] if b"\n\n" in begun else b""
    assert to.received.startswith(whole)
    assert error_type(to.received.removeprefix(whole)) == "upstream_error"
    assert to.received.endswith(b"\n\n")
    assert to.whole is True
    assert to.entry.error == str(DIED)


@given(st.integers(1, len(b"".join(map(chunk, EVENTS))) - 1))
def test_the_error_event_is_the_last_chunk_on_the_fast_path(at: int) -> None:
    begun = b"".join(map(chunk, EVENTS))[:at]
    for to, feed, parts in (
        (FastRecorder(), feed_raw, [begun[: at // 2], begun[at // 2 :]]),
        (FastRecorder(model=CUSTOM), feed_chunks, [b"".join(EVENTS)[:at]]),
    ):
        feed(to, [part for part in parts if part])
        to.fail(DIED)
        received, has_ended = content(to.received)
        assert has_ended
        assert error_type(received.split(b"\n\n")[-2]) == "upstream_error"


def test_a_stream_without_chunks_gets_a_bare_error_event() -> None:
    to = FastRecorder()
    to.on_head(stream_head(is_chunked=False), EVENTS[0] + b"data: {")
    to.fail(DIED)
    assert to.received.startswith(EVENTS[0] + b"data: {")
    assert error_type(to.received.removeprefix(EVENTS[0])) == "upstream_error"


def test_a_stream_with_a_length_cannot_carry_an_error() -> None:
    to = Recorder()
    to.on_head(stream_head(length=1000), EVENTS[0])
    to.fail(DIED)
    assert (to.received, to.whole) == (EVENTS[0], False)


def test_an_event_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_MAX_EVENT", 1000)
    to = Recorder()
    feed_bare(to, [EVENTS[0], b"data: " + b"x" * 600, b"x" * 600, b"x" * 600])
    assert error_type(to.received.removeprefix(EVENTS[0])) == "upstream_error"
    assert to.whole is True


def test_the_last_bytes_of_a_complete_stream_pass_even_if_they_end_no_event() -> None:
    to = Recorder()
    feed_bare(to, [EVENTS[0], b"data: 1"])
    to.complete()
    assert to.received == EVENTS[0] + b"data: 1"


# --- responses that are no streams ------------------------------------------------------------------------------------


def test_a_body_passes_as_it_comes() -> None:
    to = Recorder(RoutingParameters("tiny"))
    to.on_head(json_head(201), b"{")
    to.on_body(b"}")
    to.complete()
    assert (to.status, to.body, to.whole) == (201, [b"{", b"}"], True)


def test_a_response_that_breaks_off_is_left_incomplete() -> None:
    to = Recorder(RoutingParameters("tiny"))
    to.on_head(json_head(), b"{")
    to.fail(DIED)
    assert (to.received, to.whole) == (b"{", False)


def test_a_failure_before_the_start_is_an_error_response() -> None:
    to = Recorder()
    to.fail(DIED)
    assert (to.status, json.loads(to.received)["error"]["type"], to.whole) == (502, "upstream_error", True)
    to.fail(ServiceError("late"))
    assert to.entry.error == str(DIED)


def test_a_client_that_left_ends_the_response_once() -> None:
    to = Recorder()
    to.client_left()
    to.client_left()
    assert (to.whole, to.entry.status) == (False, CLIENT_GONE)


# --- aggregation, progress, early start -------------------------------------------------------------------------------

AGGREGATED = RoutingParameters("tiny", aggregates=True)
CHAT = "/v1/chat/completions"
PROGRESS = b'data: {"choices":[],"prompt_progress":{"total":9}}\n\n'
CHAT_END = event(
    {
        "choices": [],
        "created": 1,
        "id": "c",
        "model": "tiny",
        "system_fingerprint": "b1",
        "usage": {"completion_tokens": 2},
        "timings": {},
    }
)


def test_other_servers_are_asked_as_the_client_did() -> None:
    for asked in (AGGREGATED, RoutingParameters("tiny", stream=True, filters_progress=True)):
        assert Recorder(asked, CUSTOM, CHAT).request_body(b"{}") == b"{}"
        assert Recorder(asked, LLAMA, CHAT).request_body(b"{}") != b"{}"


CHAT_EVENTS = (PROGRESS, token("a"), token("b"), CHAT_END)


@pytest.mark.parametrize("framing", [feed_bare, feed_chunks])
def test_a_stream_becomes_one_response(framing: Feed) -> None:
    to = Recorder(AGGREGATED, path=CHAT) if framing is feed_bare else FastRecorder(AGGREGATED, path=CHAT)
    framing(to, CHAT_EVENTS)
    assert to.status == 0, "nothing is written before the end"
    to.complete()
    answer = json.loads(to.received)
    assert (to.status, to.whole, to.entry.streamed) == (200, True, False)
    assert answer["choices"][0]["message"]["content"] == "ab"
    assert (b"content-length", b"%d" % len(to.received)) in to.headers


def test_an_engines_error_is_not_aggregated() -> None:
    for to in (Recorder(AGGREGATED, path=CHAT), FastRecorder(AGGREGATED, path=CHAT)):
        to.on_head(json_head(400), b"")
        to.on_chunk(b"{}")
        to.on_body(b"{}")
        to.complete()
        assert (to.status, to.received, to.whole) == (400, b"{}", True)


def test_a_stream_that_cannot_be_aggregated_is_asked_for_again_as_the_client_did() -> None:
    to = FastRecorder(RoutingParameters("tiny", aggregates=True), path="/v1/messages")
    to.on_head(stream_head(), b"")
    to.on_chunk(b'event: something else\ndata: {"type":"else"}\n\n')
    to.on_body(b"raw")
    assert (to.asked_again, to.is_reading, to.has_ended) == (1, False, False)
    assert to.request_body(b"{}") == b"{}"
    to.on_head(json_head(), b"{}")
    to.complete()
    assert (to.received, to.whole) == (b"{}", True)


def test_a_stream_that_ends_early_is_no_aggregate() -> None:
    to = Recorder(AGGREGATED, path=CHAT)
    to.on_head(stream_head(), b"")
    to.on_body(token("a"))
    to.complete()
    assert to.status == 502


def test_a_response_starts_with_the_first_token_of_a_long_prompt() -> None:
    to = FastRecorder(RoutingParameters("tiny", stream=True, filters_progress=True), path=CHAT)
    to.on_head(stream_head(), chunk(PROGRESS))
    assert to.status == 0
    to.on_body(chunk(PROGRESS) + chunk(EVENTS[0]))
    assert (to.status, to.received) == (200, chunk(EVENTS[0]))


def test_a_stream_of_progress_alone_is_an_empty_response() -> None:
    to = Recorder(RoutingParameters("tiny", stream=True, filters_progress=True), path=CHAT)
    feed_bare(to, [PROGRESS])
    to.complete()
    assert (to.status, to.received, to.whole) == (200, b"", True)


def test_an_engines_error_becomes_an_event_of_a_stream_that_started_early() -> None:
    to = Recorder()
    to.start_early()
    to.comment()
    to.on_head(json_head(400), b"")
    to.on_body(b'{"error":{"message":"too')
    to.on_body(b' long"}}')
    to.complete()
    assert (to.status, to.received) == (200, b': loading\n\ndata: {"error":{"message":"too long"}}\n\n')
    assert to.entry.error == "too long"


def test_an_engines_error_that_breaks_off_is_an_event_of_the_stream_that_started_early() -> None:
    to = Recorder()
    to.start_early()
    to.on_head(json_head(400, length=100), b"")
    to.on_body(b'{"error":')
    to.fail(DIED)
    assert error_type(to.received) == "upstream_error"
    assert to.whole is True


def test_a_stream_that_started_early_continues_with_the_engines() -> None:
    to = Recorder()
    to.start_early()
    feed_bare(to, EVENTS)
    to.complete()
    assert to.received == b"".join(EVENTS)
