"""The log entry of one inference request: its path, times and token counts, from arrival to end."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from hashlib import sha256
from random import getrandbits

from llama_async_proxy.inference.scheduling.leases import Lease
from llama_async_proxy.inference.streaming.stream_errors import error_at_end
from llama_async_proxy.inference.streaming.usage import UsageCapture, usage_from_body
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.requests import RequestRecord

CLIENT_GONE = 499
"""Status recorded for a client that closed its connection, as nginx records it. No client receives it."""
_TWO_EVENTS = 400
"""Bytes. Less than this counts as one event without being searched."""
_END_BYTES = 64 * 1024
"""End of a stream in which an error is looked for."""
_MAX_ERROR = 2000
"""Characters of an engine's error that are kept."""
_ID = re.compile(rb"[!-~]{1,128}")


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The client's own id for its request (`X-Request-Id`), if it is fit for a header, a log and a URL."""
    for name, value in headers:
        if name == b"x-request-id":
            return value.decode() if _ID.fullmatch(value) else None
    return None


def key_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """A name for the API key of a request that does not reveal the key: the first eight hexadecimal digits of its
    SHA-256. Keys come as OpenAI's or as Anthropic's clients send them. None without a key."""
    for name, value in headers:
        key = value.removeprefix(b"Bearer ") if name == b"authorization" else value if name == b"x-api-key" else b""
        if key:
            return sha256(key).hexdigest()[:8]
    return None


class RequestLogEntry:
    """Facts of one request, collected until `end`. `record` sums them up later, when the request no longer waits."""

    __slots__ = (
        "_arrived_s",
        "_body",
        "_ended_s",
        "_first_s",
        "_last",
        "_lease",
        "_second_last",
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
        """`client` is the address of the peer, `own_id` the client's own id for the request, `key` its `key_id`."""
        self.id = own_id or f"{getrandbits(64):016x}"
        self.client = client
        self.key = key
        self.route = route
        self.arrived_at_ms = time.time_ns() // 1_000_000
        self.model = ""
        self.model_id: int | None = None
        self.events = 0
        """Events of the engine's response that have come in; 1 for a response in one part."""
        self.status = 0
        """Status sent to the client; 0 before that."""
        self.streamed = False
        self.error: str | None = None
        self._arrived_s = time.perf_counter()
        self._lease: Lease | None = None
        self._first_s: float | None = None
        self._ended_s: float | None = None
        self._body = b""
        """Body of a response that came in one part."""
        self._usage: UsageCapture | None = None
        """Counts of any other response, from its first bytes on."""
        self._second_last = self._last = b""
        """Chunks at the end of a stream, which may tell an error."""

    @property
    def elapsed_ms(self) -> float:
        return 1000.0 * ((self._ended_s or time.perf_counter()) - self._arrived_s)

    @property
    def is_waiting(self) -> bool:
        """The request has not been sent to an engine yet."""
        return self._lease is None

    @property
    def has_begun(self) -> bool:
        """The first bytes of the response have come in."""
        return self._first_s is not None

    def resolved(self, model: Model) -> None:
        """Note the model that the request means."""
        self.model, self.model_id = model.slug, model.id

    def leased(self, lease: Lease) -> None:
        self._lease = lease

    def answered(self, body: bytes) -> None:
        """Note a response that came in one part."""
        self._first_s = time.perf_counter()
        self.events = 1
        self._body = body

    def aggregated(self, body: bytes) -> None:
        """Note a response put together from a stream; its body has the counts of a stream that came in one read."""
        if self._usage is None:
            self.answered(body)

    def received(self, chunk: bytes) -> None:
        """Count bytes of the engine's response, with chunk framing or without."""
        self._second_last, self._last = self._last, chunk
        usage = self._usage
        if usage is None:
            self._first_s = time.perf_counter()
            usage = self._usage = UsageCapture()
        self.events += 1 if len(chunk) < _TWO_EVENTS else chunk.count(b"\n\n") or 1
        usage.feed(chunk)

    def client_left(self) -> None:
        """Note that the client closed its connection before the response was complete."""
        self.status, self.error = CLIENT_GONE, "the client closed its connection"

    def end(self) -> None:
        """Stop the clock of the request. A stream that the engine ended with an error gets that error's status."""
        self._ended_s = time.perf_counter()
        if self.streamed and self.status == 200:
            error = error_at_end((self._second_last + self._last)[-_END_BYTES:])
            if error is not None:
                self.status, self.error = error.status, self.error or error.message[:_MAX_ERROR]
        self._second_last = self._last = b""

    def record(self) -> RequestRecord:
        """The record of the request, after its end."""
        usage = usage_from_body(self._body) if self._usage is None else self._usage.usage()
        queued_ms, load_ms = (_ms(self._lease.queued_s), _ms(self._lease.load_s)) if self._lease else (None, None)
        # Positional arguments: names would double the time of this call.
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
        """Tokens per second from the first token on, for engines that give counts without times."""
        if tokens is None or tokens < 2 or self._first_s is None or self._ended_s is None:
            return None
        return (tokens - 1) / (self._ended_s - self._first_s) if self._ended_s > self._first_s else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000.0 * seconds
