"""The output of a router of ours: its own lines, and those of the models' processes it has started."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from llama_async_proxy.engines.options import EngineLogReader, parse_log_line
from llama_async_proxy.engines.router_schema import parse_exited, parse_spawned, split_line
from llama_async_proxy.records.logs import LogLevel

LAST_WORDS_S = 1.0
"""Longest to wait for the log of a process that has ended; the router's event may overtake it."""
BETWEEN_PIPES_S = 0.05
"""The router's own lines and those of its children come through different pipes."""
MAX_UNCLAIMED = 200
"""Lines of a process kept until it is known whose it is."""

Say = Callable[[str | None, LogLevel, str], None]
"""A line of the log: the router's name of the model it is about, None for the router's own."""


class RouterLog:
    """Tells them apart. `say` gets every line."""

    def __init__(self, say: Say | None = None) -> None:
        self.digest = EngineLogReader()
        self._say = say
        self._names: dict[int, str] = {}
        self._unclaimed: dict[int, deque[tuple[LogLevel, str]]] = {}
        self._exits: dict[str, asyncio.Event] = {}

    @property
    def is_preset_bad(self) -> bool:
        """It ended because it could not read its preset file."""
        return any("failed to initialize router models" in line for line in self.digest.tail)

    def line(self, line: str) -> None:
        """Take one line of either stream."""
        port, rest = split_line(line)
        level, message = parse_log_line(rest)
        if not message:
            return
        if port is None:
            self._own(level, message)
        elif port in self._names:
            self._tell(self._names[port], level, message)
        else:
            self._unclaimed.setdefault(port, deque(maxlen=MAX_UNCLAIMED)).append((level, message))

    async def settled(self, name: str) -> None:
        """Return when the last line of this model's ended process was told."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._exit_of(name).wait()
        await asyncio.sleep(BETWEEN_PIPES_S)

    def _own(self, level: LogLevel, message: str) -> None:
        self.digest.add(level, message)
        if spawned := parse_spawned(message):
            self._names[spawned.port] = spawned.name
            self._exit_of(spawned.name).clear()
            for earlier in self._unclaimed.pop(spawned.port, ()):
                self._tell(spawned.name, *earlier)
        elif name := parse_exited(message):
            self._exit_of(name).set()
        self._tell(None, level, message)

    def _exit_of(self, name: str) -> asyncio.Event:
        return self._exits.setdefault(name, asyncio.Event())

    def _tell(self, name: str | None, level: LogLevel, message: str) -> None:
        if self._say is not None:
            self._say(name, level, message)
