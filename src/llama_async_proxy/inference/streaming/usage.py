"""Token counts of a response, read from the engine's own "usage" and "timings". Pure.

llama-server writes both once, near the end of a response (embeddings: near the beginning; Anthropic's Messages: the
prompt's part at the beginning; llama.cpp b11434, tools/server/server-task.cpp). Parsing every event of a stream would
cost more than passing it on; searching an event for these words takes a tenth of a microsecond.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeVar

import msgspec

_T = TypeVar("_T")

_END_BYTES = 16384
"""Bytes kept of the end of a response. The last event of /completion repeats its settings: about 5 KiB."""
_EVENT_ENDS = (b"\n\n\r\n", b"\n\n", b"\r\n0\r\n\r\n")
"""Ends of an event: with chunk framing, without, and at the end of the body."""
_END_OF_BODY = 2048
"""Bytes. Decoding a longer rest of a body costs more than searching it."""
_USAGE, _TIMINGS = b'"usage":{', b'"timings":{'
"""Starts of the fields. Text of the model cannot contain them: inside a JSON string quotes are escaped."""
_FRAMING = re.compile(rb"\r\n[0-9A-Fa-f]{1,8}\r\n")
"""Framing between two chunks. Neither JSON nor an event of llama-server has a carriage return of its own."""
_OBJECT = re.compile(rb"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")
"""A JSON object of numbers and of objects of numbers, without strings that could contain a brace."""


class TokenUsage(NamedTuple):
    """Counts of one response; None where the engine gave none."""

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
        """Tokens of the prompt, cached ones included. OpenAI's Responses API counts these as input, Anthropic's
        Messages API beside it."""
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
    """Keeps the parts of a passing response that have counts, with chunk framing or without. Of a stream it keeps only
    these events: copying each token would evict the CPU's caches."""

    __slots__ = ("_first", "_last", "_rest", "_second_last")

    def __init__(self) -> None:
        self._first = self._second_last = self._last = b""
        """Events with counts: the first and the last two. Of a long body that is no stream, its beginning."""
        self._rest = b""
        """Beginning of an event that has not ended."""

    def feed(self, chunk: bytes) -> None:
        if self._rest:
            chunk = self._rest + chunk
            self._rest = b""
        if not chunk.endswith(_EVENT_ENDS):
            self._keep_partial(chunk)
        elif chunk.rfind(_TIMINGS) >= 0 or chunk.rfind(_USAGE) >= 0:  # a quarter of what `in` costs
            self._first = self._first or chunk[:_END_BYTES]
            self._second_last, self._last = self._last, chunk[-_END_BYTES:]

    def _keep_partial(self, chunk: bytes) -> None:
        if len(chunk) > _END_BYTES:
            self._first = self._first or chunk[:_END_BYTES]
        self._rest = chunk[-_END_BYTES:]

    def usage(self) -> TokenUsage:
        tail = b"".join((self._second_last, self._last, self._rest))
        at = tail.rfind(_TIMINGS)
        if at >= 0 and (timings := _decoded(_TIMES, tail, _TIMINGS, at)) and timings.is_complete:
            return _joined(timings, _NO_COUNTS)  # "usage" has the same numbers
        return _usage(self._first or tail, _unframed(tail))


def usage_from_body(body: bytes) -> TokenUsage:
    """Counts of a whole body that is no stream, with chunk framing or without."""
    at = body.rfind(_USAGE)
    if at >= 0 and len(body) - at <= _END_OF_BODY:
        # Usually "usage" is among the last keys of the object: from there on the rest is an object of its own.
        try:
            end = _END.decode(b"{" + body[at:])
        except msgspec.DecodeError:
            pass
        else:
            return _joined(end.timings, end.usage)
    return _usage(body[:_END_BYTES], _unframed(body[-_END_BYTES:]))


def _usage(head: bytes, tail: bytes) -> TokenUsage:
    timings = _decoded(_TIMES, tail, _TIMINGS, tail.rfind(_TIMINGS)) or _NO_TIMINGS
    last = _decoded(_COUNTS, tail, _USAGE, tail.rfind(_USAGE)) or _NO_COUNTS
    usage = _joined(timings, last)
    if last.prompt is not None:
        return usage
    head = _unframed(head)
    first = _decoded(_COUNTS, head, _USAGE, head.find(_USAGE)) or _NO_COUNTS
    return TokenUsage(
        _either(first.prompt, usage.prompt_tokens),
        _either(last.completion, _either(first.completion, usage.completion_tokens)),
        _either(last.cached, _either(first.cached, usage.cached_tokens)),
        usage.tokens_per_second,
    )


def _joined(timings: _Timings, counts: _Counts) -> TokenUsage:
    prompt, completion, cached = counts.prompt, counts.completion, counts.cached
    return TokenUsage(
        timings.prompt if prompt is None else prompt,
        timings.predicted_n if completion is None else completion,
        timings.cache_n if cached is None else cached,
        # 0.0 means one token only, which has no rate.
        timings.predicted_per_second or None,
    )


def _unframed(data: bytes) -> bytes:
    return _FRAMING.sub(b"", data) if b"\r" in data else data


def _decoded(decoder: msgspec.json.Decoder[_T], data: bytes, key: bytes, at: int) -> _T | None:
    """The JSON object after the `key` at index `at`; None for index -1 and for an incomplete object."""
    found = _OBJECT.match(data, at + len(key) - 1) if at >= 0 else None
    if found is None:
        return None
    try:
        return decoder.decode(found.group())
    except msgspec.DecodeError:
        return None


def _either(one: int | None, other: int | None) -> int | None:
    return other if one is None else one
