"""Breaking off a coroutine from outside with a reason, as asyncio.timeout does with TimeoutError."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType


class CancelScope:
    """An `async with` block that raises `reason` when `cancel(reason)` is called, or when `watch` returns one."""

    def __init__(self, watch: Callable[[], Awaitable[Exception]]) -> None:
        self._watch = watch
        self._reason: Exception | None = None
        self._can_cancel = True
        self._task: asyncio.Task[object]
        self._watcher: asyncio.Task[None]

    async def __aenter__(self) -> CancelScope:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be interrupted")
        self._task = task
        self._cancels_before = task.cancelling()
        self._watcher = asyncio.create_task(self._cancel_when_watch_returns())
        return self

    def cancel(self, reason: Exception) -> None:
        """Make the block raise `reason`. Does nothing the second time, or once disarmed."""
        if self._can_cancel:
            self._can_cancel = False
            self._reason = reason
            self._task.cancel()

    def shield(self) -> None:
        """From now on nothing interrupts: the work is done."""
        self._can_cancel = False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shield()
        ours_alone = self._reason is not None and self._task.uncancel() <= self._cancels_before
        await ended(self._watcher)
        if self._reason is not None and ours_alone and kind is asyncio.CancelledError:
            raise self._reason from None

    async def _cancel_when_watch_returns(self) -> None:
        self.cancel(await self._watch())


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel `task` and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
