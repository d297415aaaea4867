"""Log lines for socket clients as they are written, at a rate that people can read."""

from __future__ import annotations

from collections.abc import Callable

from llama_async_proxy.api.socketio.rate_limit import RateLimiter
from llama_async_proxy.events import EventBus, LogWritten
from llama_async_proxy.records.logs import LogLevel, LogLine

PER_SECOND = 50


async def follow_log(bus: EventBus, now_ms: Callable[[], int], send: Callable[[LogLine], None]) -> None:
    """Pass each new line to `send`, at most PER_SECOND, until cancelled.

    A flood is cut to its newest lines; a line before them counts those left out.
    """
    limiter = RateLimiter(PER_SECOND)
    reported = 0
    with bus.subscribe(LogWritten, limit=PER_SECOND) as lines:
        async for event in lines:
            await limiter.turn()
            if dropped := lines.dropped - reported:
                reported = lines.dropped
                send(_notice(dropped, now_ms()))
                await limiter.turn()
            if isinstance(event, LogWritten):
                send(event.line)


def _notice(dropped: int, now_ms: int) -> LogLine:
    text = f"{dropped} log lines are not shown here: they came too fast. The log files have them."
    return LogLine(now_ms, LogLevel.WARN, "service", text)
