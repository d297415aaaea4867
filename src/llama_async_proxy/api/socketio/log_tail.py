"""Log lines as they are written, for socket clients: never more than they can read."""

from __future__ import annotations

from collections.abc import Callable

from llama_async_proxy.api.socketio.rate_limit import RateLimiter
from llama_async_proxy.events import EventBus, LogWritten
from llama_async_proxy.records.logs import LogLevel, LogLine

PER_SECOND = 50


async def follow_log(bus: EventBus, now_ms: Callable[[], int], show: Callable[[LogLine], None]) -> None:
    """Pass every line to `show` until cancelled, at most PER_SECOND.

    In a flood the newest lines are passed on, after one that counts those left out.
    """
    pace = RateLimiter(PER_SECOND)
    told = 0
    with bus.subscribe(LogWritten, limit=PER_SECOND) as lines:
        async for event in lines:
            await pace.turn()
            if dropped := lines.dropped - told:
                told = lines.dropped
                show(_notice(dropped, now_ms()))
                await pace.turn()
            if isinstance(event, LogWritten):
                show(event.line)


def _notice(dropped: int, now_ms: int) -> LogLine:
    text = f"{dropped} log lines are not shown here: they came too fast. The log files have them."
    return LogLine(now_ms, LogLevel.WARN, "service", text)
