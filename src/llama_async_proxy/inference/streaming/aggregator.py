"""Stream aggregation: the JSON response of a generation, built from the engine's stream of it. Pure.

llama-server notices a closed connection when it writes. While it generates a response that is not streamed it writes
nothing, and it looks at the connection only when no request at all has had a result for a second (llama.cpp b11434,
tools/server/server-context.cpp). So the service asks it for a stream and builds the response it would have sent: the
same JSON value, keys in the same order, apart from ids and times.

`GenerationParameters` names the parameters whose results a stream gives differently; such requests are not aggregated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeAlias

import msgspec
from msgspec import Struct

from llama_async_proxy.errors import UpstreamFailed
from llama_async_proxy.inference.streaming.sse import EventReader, StreamEvent
from llama_async_proxy.inference.streaming.stream_errors import StreamError, error_in

_Raw: TypeAlias = msgspec.Raw | msgspec.UnsetType
_Object: TypeAlias = dict[str, msgspec.Raw]
"""Values as the engine wrote them, keys in the engine's order."""
_UNSET = msgspec.UNSET
_encode = msgspec.json.encode

_FOLD_BYTES = 64 * 1024
"""Events are read when so many bytes have come together, and at the end: together they cost less than one by one. The
first are read sooner, so that a stream of no use is known early."""
MAX_ANSWER_BYTES = 64 << 20
"""Longest answer that is put together. A longer one ends its request, so that an answer without end cannot fill the
memory."""
_PART_BYTES = 256
"""Bytes that each text, tool call and block counts beside its characters."""
_MAX_PIECES = 256
"""Pieces of a text that are encoded together."""
_AS_STREAM = b'"stream":true,"stream_options":{"include_usage":true},"return_progress":true'
"""Fields added to a request. Progress events make the engine write, and so notice a closed connection, while it still
reads a long prompt."""
_PROGRESS = b'"prompt_progress":{'
"""Start of the field in an event. Text of the model cannot contain it: inside a JSON string quotes are escaped."""


class CannotAggregate(Exception):
    """The stream does not determine the response: the request must be sent again as the client wrote it."""


class UnknownStream(CannotAggregate):
    """The engine's streams are not those that are known here: none of them tells what its answer is."""


class GenerationParameters(msgspec.Struct):
    """Parameters that prevent aggregation, unless they have a value that changes nothing."""

    stream_options: _Raw = _UNSET
    return_progress: _Raw = _UNSET
    verbose: _Raw = _UNSET
    n: _Raw = _UNSET
    n_cmpl: _Raw = _UNSET
    """`n` and `n_cmpl` ask for several choices."""
    prompt: _Raw = _UNSET
    """`prompt` may be a list of several prompts."""
    logprobs: _Raw = _UNSET
    n_probs: _Raw = _UNSET
    """A stream also has the probabilities of a stop word, and lacks those of tokens without text of their own."""
    return_tokens: _Raw = _UNSET
    """A stream lacks the first tokens of a character that takes several."""
    n_indent: _Raw = _UNSET
    """`n_indent` removes text that a stream has sent already."""
    response_fields: _Raw = _UNSET
    reasoning_format: _Raw = _UNSET
    """"deepseek-legacy" means something else in streams."""
    echo: _Raw = _UNSET
    continue_final_message: _Raw = _UNSET
    """Puts the last message before the answer, which a stream does not repeat. The same do the following two."""
    add_generation_prompt: _Raw = _UNSET
    chat_template_kwargs: _Raw = _UNSET

    @property
    def allow_aggregation(self) -> bool:
        return all(self._is_harmless(name) for name in GenerationParameters.__struct_fields__)

    @property
    def allow_progress_filter(self) -> bool:
        """Progress events can be asked for and filtered out of a stream of this response."""
        return all(self._is_harmless(name) for name in ("return_progress", "n", "n_cmpl", "prompt"))

    def _is_harmless(self, name: str) -> bool:
        value: _Raw = getattr(self, name)
        if name == "chat_template_kwargs" and value is not _UNSET:
            return not any(key in bytes(value) for key in _CONTINUING)
        if value is _UNSET or (name == "prompt" and bytes(value)[:1] == b'"'):
            return True
        return bytes(value) in _HARMLESS.get(name, _OFF)


_OFF = (b"null", b"false", b"0")
_ONE = (b"null", b"1")
_CONTINUING = (b"continue_final_message", b"add_generation_prompt", b"\\u")
_HARMLESS: Mapping[str, tuple[bytes, ...]] = {
    "n": _ONE,
    "n_cmpl": _ONE,
    "prompt": (),
    "reasoning_format": (),
    "add_generation_prompt": (b"null", b"true"),
}


class AggregatedAnswer(Struct, frozen=True):
    """The response that a stream was aggregated to."""

    status: int
    body: bytes


class SizeLimit:
    """Bytes that one answer may still take."""

    def __init__(self) -> None:
        self._left = MAX_ANSWER_BYTES

    def spend(self, size: int) -> None:
        """Raises UpstreamFailed when the answer is too long."""
        self._left -= size
        if self._left < 0:
            limit = MAX_ANSWER_BYTES >> 20
            raise UpstreamFailed(f"The model's process sent an answer of more than {limit} MiB, which is not kept.")


class GrowingText:
    """A text that grows, kept as the inside of a JSON string: it is encoded on the way, and only joined at the end."""

    def __init__(self, limit: SizeLimit) -> None:
        limit.spend(_PART_BYTES)
        self._limit = limit
        self._pieces: list[str] = []
        self._encoded: list[bytes] = []

    def add(self, piece: str | None) -> None:
        """Raises UpstreamFailed when the answer is too long."""
        if piece:
            self._pieces.append(piece)
            if len(self._pieces) >= _MAX_PIECES or len(piece) >= _FOLD_BYTES:
                self._encode()

    @property
    def is_empty(self) -> bool:
        return not (self._pieces or self._encoded)

    def json(self) -> msgspec.Raw:
        """The text as a JSON string."""
        self._encode()
        return msgspec.Raw(b'"%b"' % b"".join(self._encoded))

    def _encode(self) -> None:
        encoded = _encode("".join(self._pieces))[1:-1]
        self._pieces.clear()
        self._limit.spend(len(encoded))
        self._encoded.append(encoded)


class StreamAggregator(ABC):
    """Builds one response: `feed` takes the bytes of the stream without chunk framing, `answer` gives the result."""

    def __init__(self) -> None:
        self.is_generating = False
        """The engine has read the prompt and sent the first event of the response."""
        self._limit = SizeLimit()
        self._events = EventReader()
        self._unread: list[bytes] = []
        self._size = 0
        self._fold_bytes = 1
        self._error: StreamError | None = None
        self._is_done = False
        """The engine has said that nothing follows."""

    def as_stream(self, body: bytes) -> bytes:
        """The JSON object `body` as a request for the stream. Of two equal keys the engine takes the last."""
        content = body.rstrip()[:-1]
        comma = b"" if content.rstrip().endswith(b"{") else b","
        return b"%b%b%b}" % (content, comma, self._as_stream())

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream. Raises CannotAggregate as early as possible, UpstreamFailed for an event
        or an answer that is too long."""
        if not self.is_generating and _PROGRESS not in data and not data.startswith(b":"):
            self.is_generating = True
        self._unread.append(data)
        self._size += len(data)
        if self._size >= self._fold_bytes:
            self._fold_bytes = min(2 * self._fold_bytes, _FOLD_BYTES)
            self._fold()

    def answer(self) -> AggregatedAnswer:
        """The whole response. Raises CannotAggregate, and UpstreamFailed when the stream ended early."""
        self._fold()
        with suppress(CannotAggregate):  # what broke off in the middle is missing below
            for event in self._events.rest():
                self._read(event)
        if self._error is not None:
            return self._error_answer(self._error)
        try:
            return AggregatedAnswer(200, _encode(self._object()))
        except (KeyError, ValueError, msgspec.DecodeError):
            if self._is_done:
                raise UnknownStream from None
            raise UpstreamFailed("The model's process ended its answer before it was complete.") from None

    # --- for each kind of response ------------------------------------------------------------------------------------

    def _as_stream(self) -> bytes:
        """Parameters that make a request one for a stream."""
        return _AS_STREAM

    @abstractmethod
    def _take(self, data: bytes) -> None:
        """Read the data of one event."""

    @abstractmethod
    def _object(self) -> object:
        """The response. Raises KeyError for a part that has not come."""

    # --- events -------------------------------------------------------------------------------------------------------

    def _fold(self) -> None:
        data = b"".join(self._unread)
        self._unread.clear()
        self._size = 0
        for event in self._events.feed(data):
            self._read(event)

    def _read(self, event: StreamEvent) -> None:
        if event.data == b"[DONE]":
            self._is_done = True
        elif error := error_in(event):
            self._error = self._error or error
        else:
            try:
                self._take(event.data)
            except (KeyError, IndexError):
                raise CannotAggregate from None
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise UnknownStream from None

    def _error_answer(self, error: StreamError) -> AggregatedAnswer:
        if "Invalid diff" in error.message:
            # The engine's parser of partial responses gave up (common/chat.cpp); its parser of whole ones may not.
            raise CannotAggregate
        return AggregatedAnswer(error.status, _encode({"error": error.fields}))
