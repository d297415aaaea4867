"""How many HTTP requests were answered, how, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NewType

from llama_async_proxy.records.machine import RequestCounters

_WINDOW_S = 60

RequestToken = NewType("RequestToken", float)
"""One request under way; give it back to `finish` exactly once."""


class RequestMeter:
    """Counters of the doors. Owned by the event loop; a request costs it about a microsecond."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._total = 0
        self._active = 0
        self._errors = 0
        # Ring of one-second buckets: which second each one holds, requests ended in it, their durations' sum.
        self._seconds = [-1] * _WINDOW_S
        self._counts = [0] * _WINDOW_S
        self._durations_s = [0.0] * _WINDOW_S

    def start(self) -> RequestToken:
        """Count a request as it arrives."""
        self._total += 1
        self._active += 1
        return RequestToken(self._monotonic_s())

    def finish(self, token: RequestToken, status: int, *, broken: bool = False) -> None:
        """Count its end: after the last byte of the answer, or when it broke off."""
        now_s = self._monotonic_s()
        self._active -= 1
        if broken or status >= 500:
            self._errors += 1
        second = int(now_s)
        slot = second % _WINDOW_S
        if self._seconds[slot] != second:
            self._seconds[slot], self._counts[slot], self._durations_s[slot] = second, 0, 0.0
        self._counts[slot] += 1
        self._durations_s[slot] += now_s - token

    def snapshot(self) -> RequestCounters:
        count, duration_s = self._last_minute()
        return RequestCounters(
            total=self._total,
            active=self._active,
            errors=self._errors,
            average_response_ms=1000 * duration_s / count if count else None,
        )

    def _last_minute(self) -> tuple[int, float]:
        oldest = int(self._monotonic_s()) - _WINDOW_S
        recent = [slot for slot, second in enumerate(self._seconds) if second > oldest]
        return sum(self._counts[slot] for slot in recent), sum(self._durations_s[slot] for slot in recent)
