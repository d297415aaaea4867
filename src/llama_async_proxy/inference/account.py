"""What one inference request did and cost, from its arrival to its end."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from random import getrandbits

from llama_async_proxy.inference.lease import Lease
from llama_async_proxy.inference.usage import UsageCapture
from llama_async_proxy.records import Model, RequestRecord

_TWO_EVENTS = 400
"""Bytes; less is one event, and need not be searched."""
_ID = re.compile(rb"[!-~]{1,128}")


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What the client calls its request, if it does and the name is fit for a header, a log and a URL."""
    for name, value in headers:
        if name == b"x-request-id":
            return value.decode() if _ID.fullmatch(value) else None
    return None


class Account:
    """Written to while the request runs; `record` sums it up."""

    __slots__ = (
        "_arrived_s",
        "_first_s",
        "_last_s",
        "_lease",
        "_usage",
        "arrived_at_ms",
        "client",
        "error",
        "id",
        "model",
        "model_id",
        "pieces",
        "route",
        "status",
        "streamed",
    )

    def __init__(self, client: str, route: str, own_id: str | None = None) -> None:
        """`own_id` is what the client calls its request."""
        self.id = own_id or f"{getrandbits(64):016x}"
        self.client = client
        self.route = route
        self.arrived_at_ms = time.time_ns() // 1_000_000
        self.model = ""
        self.model_id: int | None = None
        self.pieces = 0
        """Of the engine's answer: events of a stream."""
        self.status = 0
        """As sent to the client."""
        self.streamed = False
        self.error: str | None = None
        self._arrived_s = time.perf_counter()
        self._lease: Lease | None = None
        self._first_s: float | None = None
        self._last_s = 0.0
        self._usage = UsageCapture()

    @property
    def elapsed_ms(self) -> float:
        return 1000.0 * (time.perf_counter() - self._arrived_s)

    @property
    def is_waiting(self) -> bool:
        """The engine has not been asked yet."""
        return self._lease is None

    @property
    def has_begun(self) -> bool:
        """The first of the answer has come in."""
        return self._first_s is not None

    def resolved(self, model: Model) -> None:
        """It is this model that was asked for."""
        self.model, self.model_id = model.slug, model.id

    def leased(self, lease: Lease) -> None:
        self._lease = lease

    def received(self, chunk: bytes) -> None:
        """Count what has come of the engine's answer, with its chunk framing or without."""
        self._last_s = time.perf_counter()
        if self._first_s is None:
            self._first_s = self._last_s
        self.pieces += 1 if len(chunk) < _TWO_EVENTS else chunk.count(b"\n\n") or 1
        self._usage.feed(chunk)

    def record(self) -> RequestRecord:
        """The request as it stands now, which is its end."""
        usage = self._usage.usage()
        lease = self._lease
        return RequestRecord(
            id=self.id,
            arrived_at_ms=self.arrived_at_ms,
            client=self.client,
            route=self.route,
            model=self.model,
            status=self.status,
            streamed=self.streamed,
            queued_ms=_ms(lease.queued_s) if lease else None,
            load_ms=_ms(lease.load_s) if lease else None,
            first_token_ms=_ms(self._first_s - self._arrived_s) if self.streamed and self._first_s else None,
            total_ms=self.elapsed_ms,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            tokens_per_second=usage.tokens_per_second or self._measured_rate(usage.completion_tokens),
            error=self.error,
        )

    def _measured_rate(self, tokens: int | None) -> float | None:
        """For streams of engines that tell the count but not the time; the first token marks the start."""
        if not self.streamed or tokens is None or tokens < 2 or self._first_s is None or self._last_s <= self._first_s:
            return None
        return (tokens - 1) / (self._last_s - self._first_s)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000.0 * seconds
