"""A scope that is cancelled from outside with an exception as the reason, as asyncio.timeout raises TimeoutError."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType


class CancelScope:
    """An `async with` block that raises the exception given to `cancel`, or returned by `watch`, when there is one."""

    def __init__(self, watch: Callable[[], Awaitable[Exception]]) -> None:
        self._watch = watch
        self._reason: Exception | None = None
        self._can_cancel = True
        self._task: asyncio.Task[object]
        self._watcher: asyncio.Task[None]

    async def __aenter__(self) -> CancelScope:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be cancelled")
        self._task = task
        self._cancels_before = task.cancelling()
        self._watcher = asyncio.create_task(self._cancel_when_watch_returns())
        return self

    def cancel(self, reason: Exception) -> None:
        """Make the block raise `reason`. A second call, or one after `shield`, has no effect."""
        if self._can_cancel:
            self._can_cancel = False
            self._reason = reason
            self._task.cancel()

    def shield(self) -> None:
        """Ignore `cancel` and `watch` from now on: the work is done."""
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
