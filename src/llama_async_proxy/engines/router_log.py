"""Output of a local router: splits its own lines from those of the models' processes that it has started."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from llama_async_proxy.engines.log import EngineLogReader, parse_log_line
from llama_async_proxy.engines.router_schema import parse_exited, parse_spawned, split_line
from llama_async_proxy.records.logs import LogLevel

EXIT_LINE_S = 1.0
"""Longest wait for the end of a dead process's log. The router's event may arrive before the log."""
BETWEEN_PIPES_S = 0.05
"""Time for lines still in a pipe: the router's own lines and its children's come through different pipes."""
MAX_UNCLAIMED = 200
"""Lines that are kept of a process until the router has logged which model it runs."""

OnLog = Callable[[str | None, LogLevel, str], None]
"""Receives one line: the router's name of the model, or None for the router's own line; level; message."""


class RouterLog:
    """Assigns lines to models by the port in their prefix, and passes each to `on_log`."""

    def __init__(self, on_log: OnLog | None = None) -> None:
        self.reader = EngineLogReader()
        """Lines of the router itself."""
        self._on_log = on_log
        self._names: dict[int, str] = {}
        self._unclaimed: dict[int, deque[tuple[LogLevel, str]]] = {}
        self._exits: dict[str, asyncio.Event] = {}

    @property
    def is_preset_rejected(self) -> bool:
        """True when the router ended because it could not read its preset file."""
        return any("failed to initialize router models" in line for line in self.reader.tail)

    def feed(self, line: str) -> None:
        """Process one line of stdout or stderr."""
        port, rest = split_line(line)
        level, message = parse_log_line(rest)
        if not message:
            return
        if port is None:
            self._on_own_line(level, message)
        elif port in self._names:
            self._deliver(self._names[port], level, message)
        else:
            self._unclaimed.setdefault(port, deque(maxlen=MAX_UNCLAIMED)).append((level, message))

    async def wait_for_exit(self, name: str) -> None:
        """Return once the last line of this model's ended process was delivered, or after a short time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_LINE_S):
                await self._exit_of(name).wait()
        await asyncio.sleep(BETWEEN_PIPES_S)

    def _on_own_line(self, level: LogLevel, message: str) -> None:
        self.reader.add(level, message)
        if spawned := parse_spawned(message):
            self._names[spawned.port] = spawned.name
            self._exit_of(spawned.name).clear()
            for earlier in self._unclaimed.pop(spawned.port, ()):
                self._deliver(spawned.name, *earlier)
        elif name := parse_exited(message):
            self._exit_of(name).set()
        self._deliver(None, level, message)

    def _exit_of(self, name: str) -> asyncio.Event:
        return self._exits.setdefault(name, asyncio.Event())

    def _deliver(self, name: str | None, level: LogLevel, message: str) -> None:
        if self._on_log is not None:
            self._on_log(name, level, message)
