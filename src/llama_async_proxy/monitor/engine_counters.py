"""What model processes count themselves, read from llama-server's own Prometheus page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from llama_async_proxy.errors import ServiceError
from llama_async_proxy.records.runtime import Endpoint

_LIMIT_S = 2.0
"""A process that decodes a large batch answers late; a status must not wait for it."""
_GENERATED = "llamacpp:tokens_predicted_total"
_DEFERRED = "llamacpp:requests_deferred"


class EngineCounts(Struct, frozen=True):
    """Of all processes that were asked; None where none of them tells."""

    tokens_per_second: float | None
    """Generated since the last reading; None the first time."""
    deferred: int | None
    """Requests that wait for a slot in their process."""


class EngineCounters:
    """Remembers the last reading, for a rate is a difference: the page's own rates are reset by every reader."""

    def __init__(
        self, fetch: Callable[[Endpoint, str, float], Awaitable[bytes]], monotonic_s: Callable[[], float]
    ) -> None:
        self._fetch = fetch
        self._monotonic_s = monotonic_s
        self._generated: dict[Endpoint, tuple[float, float]] = {}
        """(moment in s, tokens)"""

    async def read(self, endpoints: Sequence[Endpoint]) -> EngineCounts:
        """Never fails: a process that does not answer is left out."""
        pages = await asyncio.gather(*(self._page(endpoint) for endpoint in endpoints))
        rates, deferred = [], []
        generated: dict[Endpoint, tuple[float, float]] = {}
        for endpoint, page in zip(endpoints, pages, strict=True):
            if _DEFERRED in page:
                deferred.append(page[_DEFERRED])
            if _GENERATED in page:
                generated[endpoint] = now = (self._monotonic_s(), page[_GENERATED])
                if (rate := _rate(self._generated.get(endpoint), now)) is not None:
                    rates.append(rate)
        self._generated = generated
        return EngineCounts(sum(rates) if rates else None, int(sum(deferred)) if deferred else None)

    async def _page(self, endpoint: Endpoint) -> dict[str, float]:
        try:
            return parse_metrics((await self._fetch(endpoint, "/metrics", _LIMIT_S)).decode("utf-8", "replace"))
        except ServiceError:  # it is being stopped, is busy, or has no such page
            return {}


def parse_metrics(text: str) -> dict[str, float]:
    """The values without labels of a page in Prometheus's text format."""
    values = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if not name.startswith("#") and "{" not in name:
            try:
                values[name] = float(value)
            except ValueError:
                continue
    return values


def _rate(before: tuple[float, float] | None, now: tuple[float, float]) -> float | None:
    if before is None or now[0] <= before[0] or now[1] < before[1]:  # a new process counts from zero
        return None
    return (now[1] - before[1]) / (now[0] - before[0])
