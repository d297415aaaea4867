"""What one inference request did and cost, from its arrival to its end."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from hashlib import sha256
from random import getrandbits

from llama_async_proxy.inference.scheduling.leases import Lease
from llama_async_proxy.inference.streaming.usage import UsageCapture, usage_from_body
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.requests import RequestRecord

_TWO_EVENTS = 400
"""Bytes; less is one event, and need not be searched."""
_ID = re.compile(rb"[!-~]{1,128}")


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What the client calls its request, if it does and the name is fit for a header, a log and a URL."""
    for name, value in headers:
        if name == b"x-request-id":
            return value.decode() if _ID.fullmatch(value) else None
    return None


def key_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What tells the key of a request from others without telling the key: the first eight hexadecimal digits of its
    SHA-256. Keys come as OpenAI's or as Anthropic's clients send them."""
    for name, value in headers:
        key = value.removeprefix(b"Bearer ") if name == b"authorization" else value if name == b"x-api-key" else b""
        if key:
            return sha256(key).hexdigest()[:8]
    return None


class RequestLogEntry:
    """Written to until `end`; then `record` sums it up, off the request's way."""

    __slots__ = (
        "_arrived_s",
        "_body",
        "_ended_s",
        "_first_s",
        "_lease",
        "_usage",
        "arrived_at_ms",
        "client",
        "error",
        "events",
        "id",
        "key",
        "model",
        "model_id",
        "route",
        "status",
        "streamed",
    )

    def __init__(self, client: str, route: str, own_id: str | None = None, key: str | None = None) -> None:
        """`own_id` is what the client calls its request, `key` the `key_id` of what it came with."""
        self.id = own_id or f"{getrandbits(64):016x}"
        self.client = client
        self.key = key
        self.route = route
        self.arrived_at_ms = time.time_ns() // 1_000_000
        self.model = ""
        self.model_id: int | None = None
        self.events = 0
        """Of the engine's answer: events of a stream."""
        self.status = 0
        """As sent to the client."""
        self.streamed = False
        self.error: str | None = None
        self._arrived_s = time.perf_counter()
        self._lease: Lease | None = None
        self._first_s: float | None = None
        self._ended_s: float | None = None
        self._body = b""
        """The answer, when it came in one piece."""
        self._usage: UsageCapture | None = None
        """Of any other, from its first piece on."""

    @property
    def elapsed_ms(self) -> float:
        return 1000.0 * ((self._ended_s or time.perf_counter()) - self._arrived_s)

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

    def answered(self, body: bytes) -> None:
        """The engine's answer has come, all at once."""
        self._first_s = time.perf_counter()
        self.events = 1
        self._body = body

    def received(self, chunk: bytes) -> None:
        """Count what has come of the engine's answer, with its chunk framing or without."""
        usage = self._usage
        if usage is None:
            self._first_s = time.perf_counter()
            usage = self._usage = UsageCapture()
        self.events += 1 if len(chunk) < _TWO_EVENTS else chunk.count(b"\n\n") or 1
        usage.feed(chunk)

    def end(self) -> None:
        """Time stands still from now on."""
        self._ended_s = time.perf_counter()

    def record(self) -> RequestRecord:
        """What is to be kept of it, once it has ended."""
        usage = usage_from_body(self._body) if self._usage is None else self._usage.usage()
        queued_ms, load_ms = (_ms(self._lease.queued_s), _ms(self._lease.load_s)) if self._lease else (None, None)
        # By position: names would double the time this takes.
        return RequestRecord(
            self.id,
            self.arrived_at_ms,
            self.client,
            self.route,
            self.model,
            self.status,
            self.streamed,
            queued_ms,
            load_ms,
            _ms(self._first_s - self._arrived_s) if self.streamed and self._first_s else None,
            self.elapsed_ms,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            usage.tokens_per_second or (self._measured_rate(usage.completion_tokens) if self.streamed else None),
            self.error,
            self.key,
        )

    def _measured_rate(self, tokens: int | None) -> float | None:
        """For engines that tell the count but not the time; the first token marks the start."""
        if tokens is None or tokens < 2 or self._first_s is None or self._ended_s is None:
            return None
        return (tokens - 1) / (self._ended_s - self._first_s) if self._ended_s > self._first_s else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000.0 * seconds
