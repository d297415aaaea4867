"""Autosave: stores an answer at intervals while it is generated."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType

from llama_async_proxy.chats.answer import AnswerDelta, Position, RunningAnswer
from llama_async_proxy.errors import StoreUnavailable

SAVE_INTERVAL_S = 0.5
"""Longest time until a token is written. With the write itself, a token is stored well within a second."""
logger = logging.getLogger(__name__)


class Autosave:
    """An `async with` block around the generation of the message `message_id`.

    `append` stores content and reasoning at the end of a message. `rest` is the part that is not stored yet.
    """

    def __init__(
        self, append: Callable[[int, str, str], Awaitable[None]], answer: RunningAnswer, message_id: int
    ) -> None:
        self._append = append
        self._answer = answer
        self._message_id = message_id
        self._saved = Position()
        self._has_ended = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Autosave:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The task is not cancelled, because it would then be unknown whether a write in progress was committed.
        self._has_ended.set()
        await self._task

    def rest(self) -> AnswerDelta:
        """Part of the answer that is not stored yet."""
        return self._answer.delta_since(self._saved)

    async def _run(self) -> None:
        while not self._has_ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAVE_INTERVAL_S):
                    await self._has_ended.wait()
            if not self._has_ended.is_set():
                await self._save()

    async def _save(self) -> None:
        rest = self.rest()
        if not rest.content and not rest.reasoning:
            return
        try:
            await self._append(self._message_id, rest.content, rest.reasoning)
        except StoreUnavailable as error:
            logger.warning("An answer waits in memory: %s", error.message)
        else:
            self._saved = rest.position
