"""How many tokens an answer took, read from its ends only. Pure.

llama-server writes "usage" and "timings" once, next to the end (embeddings: to the beginning; Anthropic: the input's
part at the beginning). Parsing every event of a stream would cost more than passing it on; looking at the two ends
costs nothing per token.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass

_END_BYTES = 16384
"""The last event of /completion echoes its settings: about 5 KiB."""
_HEAD_BYTES = 2048
"""Anthropic's first event is under 1 KiB, but may come in pieces."""
_END_CHUNKS = 16
"""The last events (finish, usage, [DONE]) may come as one chunk each, split anywhere."""
_USAGE, _TIMINGS = b'"usage":{', b'"timings":{'
"""Inside a JSON string the quotes would be escaped."""
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Usage:
    """None where the engine did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_per_second: float | None = None


class UsageCapture:
    """Keeps the two ends of an answer as it passes."""

    def __init__(self) -> None:
        self._head = b""
        self._tail: deque[bytes] = deque(maxlen=_END_CHUNKS)

    def feed(self, chunk: bytes) -> None:
        if len(self._head) < _HEAD_BYTES:
            self._head += chunk[:_END_BYTES]
        self._tail.append(chunk if len(chunk) <= _END_BYTES else chunk[-_END_BYTES:])

    def usage(self) -> Usage:
        tail = b"".join(self._tail)[-_END_BYTES:]
        first, last = self._head.find(_USAGE), tail.rfind(_USAGE)
        counts = {**_object_after(self._head, _USAGE, first), **_object_after(tail, _USAGE, last)}
        return _merged(counts, _object_after(tail, _TIMINGS, tail.rfind(_TIMINGS)))


def _object_after(data: bytes, key: bytes, at: int) -> dict[str, object]:
    """The JSON object whose `key` stands at `at`; empty for -1, or when it is not all there."""
    if at < 0:
        return {}
    try:
        found, _ = _DECODER.raw_decode(data[at + len(key) - 1 :].decode("utf-8", "replace"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _merged(counts: dict[str, object], timings: dict[str, object]) -> Usage:
    cached = _first(_cached(counts), _integer(timings, "cache_n"))
    prompt = _first(_integer(counts, "prompt_tokens"), _input_tokens(counts), _prompt_of(timings))
    completion = _first(
        _integer(counts, "completion_tokens"), _integer(counts, "output_tokens"), _integer(timings, "predicted_n")
    )
    rate = timings.get("predicted_per_second")
    # 0.0 stands for "one token only", whose rate nobody knows.
    return Usage(prompt, completion, cached, float(rate) if isinstance(rate, int | float) and rate > 0 else None)


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _integer(source: dict[str, object], key: str) -> int | None:
    value = source.get(key)
    return value if isinstance(value, int) else None


def _input_tokens(counts: dict[str, object]) -> int | None:
    """OpenAI's Responses count cached tokens as input, Anthropic counts them beside it."""
    fresh = _integer(counts, "input_tokens")
    return None if fresh is None else fresh + (_integer(counts, "cache_read_input_tokens") or 0)


def _prompt_of(timings: dict[str, object]) -> int | None:
    evaluated = _integer(timings, "prompt_n")
    return None if evaluated is None else evaluated + (_integer(timings, "cache_n") or 0)


def _cached(counts: dict[str, object]) -> int | None:
    for key in ("prompt_tokens_details", "input_tokens_details"):
        details = counts.get(key)
        if isinstance(details, dict):
            return _integer(details, "cached_tokens")
    return _integer(counts, "cache_read_input_tokens")
