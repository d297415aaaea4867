"""Samples of the machine for the clients of a dialect: the sampler's events, thinned to the dialect's cadence."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from llama_async_proxy.api.socketio.watch import Watch
from llama_async_proxy.events import SampleTaken
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.metrics import watch_metrics
from llama_async_proxy.records.machine import Sample

_EARLY = 0.05
"""Share of an interval by which a sample may come early. Samples come a little irregularly; a sample that came a
millisecond early would else be skipped, and the interval be one sample longer."""


class Cadence:
    """Tells when the next event of a regular series is due. `interval_s` is called each time, so it may change."""

    def __init__(self, interval_s: Callable[[], float], now_s: Callable[[], float]) -> None:
        self._interval_s = interval_s
        self._now_s = now_s
        self._last_s = -math.inf

    def is_due(self) -> bool:
        """True when an interval has passed since it was last true; also the first time."""
        now_s = self._now_s()
        if now_s - self._last_s < self._interval_s() * (1 - _EARLY):
            return False
        self._last_s = now_s
        return True


class SampleFeed:
    """Passes a sample to `send` every `interval_s()` seconds. While it is wanted, the sampler samples as often."""

    def __init__(
        self,
        context: Callable[[], Context],
        interval_s: Callable[[], float],
        send: Callable[[Sample], Awaitable[None]],
    ) -> None:
        self._context = context
        self._interval_s = interval_s
        self._send = send
        self._watch = Watch(lambda: watch_metrics(context(), interval_s))

    def want(self, *, is_wanted: bool) -> None:
        """Say whether some client receives the samples."""
        self._watch.switch(on=is_wanted)

    async def run(self) -> None:
        """Pass samples on until cancelled."""
        cadence = Cadence(self._interval_s, asyncio.get_running_loop().time)
        with self._context().bus.subscribe(SampleTaken, limit=1) as samples:
            async for event in samples:
                if isinstance(event, SampleTaken) and cadence.is_due():
                    await self._send(event.sample)
