"""Stores an answer while it grows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType

from llama_async_proxy.chats.answer import Answer, Growth, Position
from llama_async_proxy.errors import StoreUnavailable

KEEP_S = 0.5
"""Longest that a token waits for company; with the write itself well below a second."""
logger = logging.getLogger(__name__)


class Autosave:
    """An `async with` block around the generation of the message `message_id`; `rest` is for whoever closes it."""

    def __init__(self, store: Callable[[int, str, str], Awaitable[None]], answer: Answer, message_id: int) -> None:
        self._store = store
        self._answer = answer
        self._message_id = message_id
        self._kept = Position()
        self._is_over = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Autosave:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not cancelled: nobody could say whether a write that was under way has happened.
        self._is_over.set()
        await self._task

    def rest(self) -> Growth:
        """What is not stored yet."""
        return self._answer.since(self._kept)

    async def _run(self) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEP_S):
                    await self._is_over.wait()
            if not self._is_over.is_set():
                await self._keep()

    async def _keep(self) -> None:
        rest = self.rest()
        if not rest.content and not rest.reasoning:
            return
        try:
            await self._store(self._message_id, rest.content, rest.reasoning)
        except StoreUnavailable as error:
            logger.warning("An answer waits in memory: %s", error.message)
        else:
            self._kept = rest.position
