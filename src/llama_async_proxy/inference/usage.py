"""How many tokens an answer took, read from its ends only. Pure.

llama-server writes "usage" and "timings" once, next to the end (embeddings: to the beginning; Anthropic: the input's
part at the beginning). Parsing every event of a stream would cost more than passing it on; looking at the two ends
costs nothing per token.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple, TypeVar

import msgspec

_T = TypeVar("_T")

_END_BYTES = 16384
"""The last event of /completion echoes its settings: about 5 KiB."""
_HEAD_BYTES = 2048
"""Anthropic's first event is under 1 KiB, but may come in pieces."""
_END_OF_BODY = 2048
"""Bytes; decoding more than that costs more than looking for what is wanted."""
_END_CHUNKS = 6
"""The last events (finish, usage, [DONE]) and the end of the body may come as one chunk each, one of them in two. More
would be memory that each of thousands of streams touches with each token."""
_USAGE, _TIMINGS = b'"usage":{', b'"timings":{'
"""Inside a JSON string the quotes would be escaped."""
_FRAMING = re.compile(rb"\r\n[0-9A-Fa-f]{1,8}\r\n")
"""Between two chunks; neither JSON nor an event of llama-server's has a carriage return of its own."""
_OBJECT = re.compile(rb"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")
"""Numbers, and objects of numbers: no strings that could hold a brace."""


class Usage(NamedTuple):
    """None where the engine did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_per_second: float | None = None


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _Counts(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None

    @property
    def prompt(self) -> int | None:
        """OpenAI's Responses count cached tokens as input, Anthropic counts them beside it."""
        if self.prompt_tokens is not None or self.input_tokens is None:
            return self.prompt_tokens
        return self.input_tokens + (self.cache_read_input_tokens or 0)

    @property
    def completion(self) -> int | None:
        return self.output_tokens if self.completion_tokens is None else self.completion_tokens

    @property
    def cached(self) -> int | None:
        details = self.prompt_tokens_details or self.input_tokens_details
        return self.cache_read_input_tokens if details is None else details.cached_tokens


class _Timings(msgspec.Struct, frozen=True):
    cache_n: int | None = None
    prompt_n: int | None = None
    predicted_n: int | None = None
    predicted_per_second: float | None = None

    @property
    def is_complete(self) -> bool:
        return None not in (self.cache_n, self.prompt_n, self.predicted_n)

    @property
    def prompt(self) -> int | None:
        return None if self.prompt_n is None else self.prompt_n + (self.cache_n or 0)


_NO_COUNTS, _NO_TIMINGS = _Counts(), _Timings()


class _End(msgspec.Struct, frozen=True):
    usage: _Counts = _NO_COUNTS
    timings: _Timings = _NO_TIMINGS


_COUNTS = msgspec.json.Decoder(_Counts)
_TIMES = msgspec.json.Decoder(_Timings)
_END = msgspec.json.Decoder(_End)


class UsageCapture:
    """Keeps the two ends of an answer as it passes, with its chunk framing or without."""

    __slots__ = ("_head", "_tail")

    def __init__(self) -> None:
        self._head = b""
        self._tail: deque[bytes] = deque(maxlen=_END_CHUNKS)

    def feed(self, chunk: bytes) -> None:
        if len(self._head) < _HEAD_BYTES:
            self._head += chunk[:_END_BYTES]
        self._tail.append(chunk if len(chunk) <= _END_BYTES else chunk[-_END_BYTES:])

    def usage(self) -> Usage:
        tail = b"".join(self._tail)
        at = tail.rfind(_TIMINGS)
        if at >= 0 and (timings := _decoded(_TIMES, tail, _TIMINGS, at)) and timings.is_complete:
            return _joined(timings, _NO_COUNTS, _NO_COUNTS)  # which is all: "usage" says the same
        return _usage(self._head, _unframed(tail[-_END_BYTES:]))


def usage_of(body: bytes) -> Usage:
    """Of a whole answer in one piece, with its chunk framing or without."""
    at = body.rfind(_USAGE)
    if at >= 0 and len(body) - at <= _END_OF_BODY:
        # Mostly it stands among the last keys of the object, with which it makes another.
        try:
            end = _END.decode(b"{" + body[at:])
        except msgspec.DecodeError:
            pass
        else:
            return _joined(end.timings, end.usage, _NO_COUNTS)
    return _usage(body[:_END_BYTES], _unframed(body[-_END_BYTES:]))


def _usage(head: bytes, tail: bytes) -> Usage:
    timings = _decoded(_TIMES, tail, _TIMINGS, tail.rfind(_TIMINGS)) or _NO_TIMINGS
    last = _decoded(_COUNTS, tail, _USAGE, tail.rfind(_USAGE)) or _NO_COUNTS
    if last.prompt is not None:
        return _joined(timings, last, _NO_COUNTS)
    head = _unframed(head)
    return _joined(timings, last, _decoded(_COUNTS, head, _USAGE, head.find(_USAGE)) or _NO_COUNTS)


def _joined(timings: _Timings, last: _Counts, first: _Counts) -> Usage:
    return Usage(
        _first(last.prompt, first.prompt, timings.prompt),
        _first(last.completion, first.completion, timings.predicted_n),
        _first(last.cached, first.cached, timings.cache_n),
        # 0.0 stands for "one token only", whose rate nobody knows.
        timings.predicted_per_second or None,
    )


def _unframed(data: bytes) -> bytes:
    return _FRAMING.sub(b"", data) if b"\r" in data else data


def _decoded(decoder: msgspec.json.Decoder[_T], data: bytes, key: bytes, at: int) -> _T | None:
    """The JSON object whose `key` stands at `at`; None for -1, and when it is not all there."""
    found = _OBJECT.match(data, at + len(key) - 1) if at >= 0 else None
    if found is None:
        return None
    try:
        return decoder.decode(found.group())
    except msgspec.DecodeError:
        return None


def _first(one: int | None, two: int | None, three: int | None) -> int | None:
    if one is not None:
        return one
    return three if two is None else two
