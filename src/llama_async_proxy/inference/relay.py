"""Relay of an engine's response to its client: the sans-I/O core of the fast path and the slow path. Pure.

The two paths differ in how bytes come and go: `fast_path` is called by the sockets, `proxy` awaits them. Each derives
from `Relay`, reports what the engine sends (`on_chunk`, `on_head`, `on_body`, `complete`, `answer`) and what fails
(`fail`), and provides the outputs `start`, `reply`, `write`, `ask_again` and `end`.

Whichever path a request takes:

- the client gets the engine's body byte for byte, apart from progress events that only the service asked for;
- the client never gets part of an event: the beginning of an event is held back until its end has come;
- a stream whose engine fails ends with an error event in the format of its route; a response that has not started yet
  becomes an error response; any other is left incomplete, and the connection must be closed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, auto

from llama_async_proxy.errors import Overloaded, ServiceError, UpstreamFailed
from llama_async_proxy.inference.request_log import RequestLogEntry
from llama_async_proxy.inference.requests.error_formats import error_body, error_event, relayed_error_event
from llama_async_proxy.inference.requests.routes import InferenceRoute, RoutingParameters
from llama_async_proxy.inference.streaming import sse
from llama_async_proxy.inference.streaming.aggregated_answers import begin_aggregation
from llama_async_proxy.inference.streaming.aggregator import (
    AggregatedAnswer,
    CannotAggregate,
    StreamAggregator,
    UnknownStream,
)
from llama_async_proxy.inference.streaming.prompt_progress import PromptProgressFilter, with_progress
from llama_async_proxy.inference.upstream.response_headers import Header, ResponseHead, for_client
from llama_async_proxy.records.models import Model

_JSON = (b"content-type", b"application/json; charset=utf-8")
_STREAM_HEADERS = frozenset((b"content-type", b"x-accel-buffering"))
_EARLY_HEAD = ResponseHead(
    200,
    ((b"content-type", sse.CONTENT_TYPE), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")),
    b"",
    None,
    is_chunked=True,
    is_stream=True,
)
"""Head of a stream whose model is still being loaded."""
_MAX_ERROR_BODY = 64 * 1024
_MAX_EVENT = 64 << 20
"""Bytes of one event, at most. The last event of /completion repeats the prompt, which may have megabytes."""
_LONGEST_END = 7
"""Bytes of the longest of the ends below."""
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
_EVENT_ENDS_IN_CHUNKS = (b"\n\n\r\n", b"\r\n0\r\n\r\n", b"\r\n\r\n\r\n")
"""End of an event at the end of a chunk, or the end of the body."""
_LAST_CHUNK = b"0\r\n\r\n"


class Framing(Enum):
    """Chunk framing of a body on its way from the engine to the client."""

    NONE = auto()
    """The bytes come and go without framing."""
    KEPT = auto()
    """The bytes come with framing, which is passed on. Events must end where chunks end, as llama-server's do."""
    RENEWED = auto()
    """The bytes come without framing and go as new chunks, which end where events end."""


class Relay(ABC):
    """One proxied request, from the request for the engine to the end of the response."""

    __slots__ = (
        "_aggregator",
        "_can_append",
        "_chunks",
        "_ends",
        "_error_body",
        "_framing",
        "_has_started",
        "_head",
        "_is_stream",
        "_partial",
        "_progress_filter",
        "_route",
        "entry",
        "has_ended",
        "is_reading",
        "is_stream_unknown",
        "write",
    )

    _passes_framing = False
    """Bytes of chunked bodies come and leave with their framing on this path; `on_chunk` gives them without."""

    def __init__(self, route: InferenceRoute, entry: RequestLogEntry, write: Callable[[bytes], None]) -> None:
        """`write` takes more of the body, after `start`."""
        self._route = route
        self.entry = entry
        self.write = write
        self.is_reading = False
        """More of the engine's response is needed."""
        self.has_ended = False
        self.is_stream_unknown = False
        """The engine's streams do not determine its responses: none of them can be aggregated."""
        self._has_started = False
        self._head: ResponseHead | None = None
        self._is_stream = False
        """The client reads server-sent events."""
        self._can_append = False
        """The client's stream has no length, so that an error event can end it."""
        self._framing = Framing.NONE
        self._ends: tuple[bytes, ...] = _EVENT_ENDS
        self._aggregator: StreamAggregator | None = None
        self._progress_filter: PromptProgressFilter | None = None
        self._chunks: list[bytes] | None = None
        """Content of the chunks that came since the last `on_head` or `on_body`; None when raw bytes are relayed."""
        self._partial = bytearray()
        """Beginning of an event whose end has not come."""
        self._error_body: bytearray | None = None
        """Body of the engine's error response to a stream that has started early."""

    # --- the request for the engine -----------------------------------------------------------------

    def prepare(self, asked: RoutingParameters, model: Model) -> None:
        """Choose how `model` is asked: for a stream to aggregate, for progress events to filter out, or as the client
        did. Other servers than llama.cpp are always asked as the client did: how their streams and whole responses
        differ is unknown, and their chunks may end anywhere."""
        if asked.aggregates and not model.has_command:
            self._aggregator = begin_aggregation(self._route.path)
        elif asked.filters_progress and not model.has_command:
            self._progress_filter = PromptProgressFilter()
        if self._passes_framing and (self._aggregator is not None or (asked.stream and model.has_command)):
            self._chunks = []

    def ask_plainly(self) -> None:
        """Ask as the client did, although a stream could be aggregated."""
        if self._aggregator is not None:
            self._aggregator = self._chunks = None

    def request_body(self, body: bytes) -> bytes:
        """The client's `body` as the engine gets it."""
        if self._aggregator is not None:
            return self._aggregator.as_stream(body)
        return body if self._progress_filter is None else with_progress(body)

    @property
    def reads_chunks(self) -> bool:
        """The content of chunks (`on_chunk`) is needed beside the raw bytes."""
        return self._chunks is not None

    # --- what the engine sends ----------------------------------------------------------------------

    def answer(self, head: ResponseHead, body: bytes) -> None:
        """A whole response has come in one part. `head.length` is that of another response."""
        self.entry.answered(body)
        self.entry.status = head.status
        self._has_started = True
        self.start(head, body, len(body))
        self._end(whole=True)

    def on_chunk(self, chunk: bytes) -> None:
        """Content of a chunk has come; `on_head` or `on_body` follows with the same bytes raw."""
        if self._chunks is not None:
            self._chunks.append(chunk)

    def on_head(self, head: ResponseHead, data: bytes) -> None:
        """The head of the response has come, and perhaps the first bytes of its body."""
        self._head = head
        self.is_reading = True
        if not head.is_stream:  # an error before the first token is a response of its own
            self._aggregator = self._progress_filter = self._chunks = None
            if self._has_started:
                self._error_body = bytearray()
        if self._aggregator is None:
            self._set_framing(head)
        if self._has_started or self._aggregator is not None or self._progress_filter is not None:
            if data:
                self.on_body(data)
            return
        if self._chunks is not None:
            data = self._take_chunks(self._chunks)
        self._start(head, data)

    def on_body(self, data: bytes) -> None:
        """More bytes of the body have come. Every token passes here: each call counts."""
        if self._chunks is not None:
            data = self._take_chunks(self._chunks)
            if not data:
                return
        if self._aggregator is not None:
            self._aggregate(self._aggregator, data)
            return
        if self._progress_filter is not None:
            data = self._without_progress(self._progress_filter, data)
            if not data:
                return
        if self._error_body is not None:
            self._error_body += data[: _MAX_ERROR_BODY - len(self._error_body)]
            return
        self.entry.received(data)
        if self._is_stream and (self._partial or not data.endswith(self._ends)):
            data = self._whole_events(data)
            if not data:
                return
        self.write(_chunk(data) if self._framing is Framing.RENEWED else data)

    def complete(self) -> None:
        """The response has come whole."""
        if self._aggregator is not None:
            self._reply_aggregated(self._aggregator)
            return
        if self._progress_filter is not None:
            rest, self._progress_filter = self._progress_filter.rest(), None
            if self._head is not None and not self._has_started:
                self._start(self._head, rest)
            elif rest:
                self.on_body(rest)
        if self._error_body is not None:
            event, self.entry.error = relayed_error_event(self._route.api_format, bytes(self._error_body))
            self.write(event)
        if self._partial:  # the engine's own last bytes, which it has not ended like an event
            rest = bytes(self._partial)
            self.write(_chunk(rest) if self._framing is Framing.RENEWED else rest)
        if self._framing is Framing.RENEWED:
            self.write(_LAST_CHUNK)
        self._end(whole=True)

    # --- what else happens --------------------------------------------------------------------------

    def start_early(self) -> None:
        """Start a stream before the engine was asked, so that `comment` can keep its connection alive. An error of the
        engine becomes an event then."""
        self._start(_EARLY_HEAD, b"")

    def comment(self) -> None:
        """Write a comment into a stream that has started early."""
        self.write(sse.COMMENT_LOADING)

    def fail(self, error: ServiceError) -> None:
        """End the response with `error`, in whatever form still fits."""
        if self.has_ended:
            return
        self.entry.error = error.message
        if not self._has_started:
            body = error_body(self._route.api_format, error)
            self._reply(error.status, _error_headers(error, body), body)
            return
        if self._can_append:
            event = error_event(self._route.api_format, error)
            self.write(event if self._framing is Framing.NONE else _chunk(event) + _LAST_CHUNK)
            self.entry.status = error.status
        self._end(whole=self._can_append)

    def client_left(self) -> None:
        """Give up: the client closed its connection, and nothing can be written any more."""
        if not self.has_ended:
            self.entry.client_left()
            self._end(whole=False)

    # --- outputs ------------------------------------------------------------------------------------

    @abstractmethod
    def start(self, head: ResponseHead, body: bytes, length: int | None) -> None:
        """Begin the response with the engine's head and the first bytes of the body, whose `length` is None when it is
        not known before its end."""

    @abstractmethod
    def reply(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Write a whole response of the service's own making. `headers` include its content length."""

    @abstractmethod
    def ask_again(self) -> None:
        """Drop the engine's response, and send the request again with `request_body`."""

    @abstractmethod
    def end(self, *, whole: bool) -> None:
        """Finish the response. Unless it is `whole` the client's connection must be closed."""

    # --- inside -------------------------------------------------------------------------------------

    def _set_framing(self, head: ResponseHead) -> None:
        if not (self._passes_framing and head.is_chunked):
            self._framing = Framing.NONE
        elif self._chunks is None:
            self._framing = Framing.KEPT
            self._ends = _EVENT_ENDS_IN_CHUNKS
        else:
            self._framing = Framing.RENEWED

    def _take_chunks(self, chunks: list[bytes]) -> bytes:
        content = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        return content

    def _start(self, head: ResponseHead, data: bytes) -> None:
        self._has_started = True
        self._is_stream = self.entry.streamed = head.is_stream
        self._can_append = head.is_stream and head.length is None
        self.entry.status = head.status
        body = data
        if data and head.is_stream and not data.endswith(self._ends):
            body = self._whole_events(data)
        if body and self._framing is Framing.RENEWED:
            body = _chunk(body)
        if data:  # before the client can have it: who asks right after the response finds what it took
            self.entry.received(data)
        self.start(head, body, head.length)

    def _whole_events(self, data: bytes) -> bytes:
        """The whole events of the bytes held back and `data`; the beginning of the next is held back."""
        partial = self._partial
        searched = max(0, len(partial) - _LONGEST_END)
        partial += data
        end = 0
        for ending in self._ends:
            at = partial.rfind(ending, searched)
            if at >= 0:
                end = max(end, at + len(ending))
        if len(partial) - end > _MAX_EVENT:
            self.fail(UpstreamFailed(f"The model's process sent an event of more than {_MAX_EVENT} bytes."))
            return b""
        whole = bytes(partial[:end])
        del partial[:end]
        return whole

    def _without_progress(self, progress_filter: PromptProgressFilter, data: bytes) -> bytes:
        """The bytes of `data` that are to be written. The head is held back until there are some: an error before the
        first token has a status of its own."""
        data = progress_filter.feed(data)
        if progress_filter.is_over:
            self._progress_filter = None
        if data and not self._has_started and self._head is not None:
            self._start(self._head, data)
            return b""
        return data

    def _aggregate(self, aggregator: StreamAggregator, data: bytes) -> None:
        try:
            aggregator.feed(data)
        except CannotAggregate as reason:
            self._ask_again(reason)
        except UpstreamFailed as error:
            self.fail(error)
        else:
            if aggregator.is_generating:
                self.entry.received(data)

    def _reply_aggregated(self, aggregator: StreamAggregator) -> None:
        try:
            answer = aggregator.answer()
        except CannotAggregate as reason:
            self._ask_again(reason)
        except UpstreamFailed as error:
            self.fail(error)
        else:
            self.entry.aggregated(answer.body)
            headers = _aggregated_headers(self._head.headers if self._head is not None else (), answer)
            self._reply(answer.status, headers, answer.body)

    def _ask_again(self, reason: CannotAggregate) -> None:
        """Send the request again as the client wrote it; nothing has been written yet."""
        self.is_stream_unknown = isinstance(reason, UnknownStream)
        self._aggregator = self._chunks = None
        self.is_reading = False
        self.ask_again()

    def _reply(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        self._has_started = True
        self.entry.status = status
        self.reply(status, headers, body)
        self._end(whole=True)

    def _end(self, *, whole: bool) -> None:
        self.has_ended = True
        self.is_reading = False
        self.end(whole=whole)


def has_other_streams(options: Mapping[str, object]) -> bool:
    """True for a llama-server whose `options` give its streams another content than its whole responses: the old format
    of DeepSeek repeats the reasoning in the content of whole responses only."""
    return options.get("reasoning-format") == "deepseek-legacy"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _aggregated_headers(headers: Iterable[Header], answer: AggregatedAnswer) -> list[Header]:
    """The headers of an aggregated response, from those of its stream."""
    kept = [header for header in for_client(headers) if header[0] not in _STREAM_HEADERS]
    return [*kept, _JSON, (b"content-length", b"%d" % len(answer.body))]


def _error_headers(error: ServiceError, body: bytes) -> list[Header]:
    headers = [_JSON, (b"content-length", b"%d" % len(body))]
    if isinstance(error, Overloaded):
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    return headers
