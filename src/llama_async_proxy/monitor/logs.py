"""The log pipeline: what we log and what model processes say goes to the console, to files, to the store and to
whoever watches, without ever making the one who logs wait.

    any thread ──┬─ queue ── writer thread ── console, files
                 └─ queue ── event loop ───── store, bus
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import MappingProxyType, TracebackType
from typing import Generic, Protocol, TextIO, TypeVar

from msgspec.structs import replace

from llama_async_proxy.events import EventBus, LogWritten
from llama_async_proxy.monitor.logfiles import LogFiles
from llama_async_proxy.monitor.logtext import clean, console_line
from llama_async_proxy.records.logs import LogLevel, LogLine

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_OWN_PREFIX = "llama_async_proxy"
_LIMIT = 10_000
"""Lines that may wait in each queue: some megabytes, and seconds of the worst flood."""
_BATCH = 500
"""Lines handled in one go: a flood takes the event loop for about a millisecond at a time."""
_RETRY_S = 30.0
"""How long files are left alone after a failure: a full disk must not cost a failing call per line."""
_CLOSE_S = 2.0
"""How long the end waits for a disk or a console that does not answer."""

_NUMBER = MappingProxyType(
    {
        LogLevel.DEBUG: logging.DEBUG,
        LogLevel.INFO: logging.INFO,
        LogLevel.WARN: logging.WARNING,
        LogLevel.ERROR: logging.ERROR,
    }
)
_FLOORS = MappingProxyType(
    {
        # Each of these writes lines per request, query, frame or packet.
        "alembic": logging.WARNING,
        "engineio": logging.WARNING,
        "socketio": logging.WARNING,
        "sqlalchemy": logging.WARNING,
        "uvicorn.access": logging.WARNING,
        "websockets": logging.WARNING,
        "asyncio": logging.INFO,
        # Tells at INFO what app.py says in our own words.
        "uvicorn.error": logging.WARNING,
    }
)
"""Least level of libraries' loggers, however low ours is set."""
_UNPUBLISHED = (__name__, "engineio", "socketio", "llama_async_proxy.api.socketio")
"""A line from here, sent to a socket client, could cause the next one."""


class _Deliver(Protocol):
    def __call__(self, line: LogLine, *, publish: bool) -> None: ...


class LogPipeline:
    """An async context manager: takes over the root logger at its start, gives it back flushed at its end.

    `store_sink` and `bus` are called on the event loop. Lines before the start are kept and delivered then.
    `write` and logging itself may be called from any thread, also while a queue is full: lines that do not fit are
    dropped, and a line says how many.
    """

    def __init__(
        self,
        bus: EventBus,
        store_sink: Callable[[LogLine], None],
        files: LogFiles,
        level: LogLevel = LogLevel.INFO,
        *,
        console: TextIO | None = None,
    ) -> None:
        self.files = files
        self._handler = _Handler(self._deliver)
        self._writer = _Writer(files, sys.stderr if console is None else console)
        self._dispatcher = _Dispatcher(bus, store_sink)
        self._logger_levels: dict[str, int] = {}
        self._level = level
        self.level = level

    @property
    def level(self) -> LogLevel:
        """Least severe level that is logged; may be set at any time."""
        return self._level

    @level.setter
    def level(self, level: LogLevel) -> None:
        self._level = level
        self._handler.setLevel(_NUMBER[level])
        if self._logger_levels:
            logging.getLogger().setLevel(_NUMBER[level])

    def write_to(self, *, console: bool, files: bool) -> None:
        """Which outputs get the lines from now on; store and bus always do. May be called at any time."""
        self._writer.wants_console, self._writer.wants_files = console, files

    def write(self, line: LogLine) -> None:
        """Log a line that did not come through `logging`: a model process's output."""
        if _NUMBER[line.level] >= _NUMBER[self._level]:
            message = clean(line.message)
            self._deliver(line if message == line.message else replace(line, message=message), publish=True)

    def _deliver(self, line: LogLine, *, publish: bool) -> None:
        self._writer.put(line)
        self._dispatcher.put(line, publish=publish)

    async def __aenter__(self) -> LogPipeline:
        self._dispatcher.start(asyncio.get_running_loop())
        self._writer.start()
        root = logging.getLogger()
        self._logger_levels = {"": root.level, **{name: logging.getLogger(name).level for name in _FLOORS}}
        for name, level in _FLOORS.items():
            logging.getLogger(name).setLevel(level)
        root.setLevel(_NUMBER[self._level])
        root.addHandler(self._handler)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger().removeHandler(self._handler)
        for name, level in self._logger_levels.items():
            logging.getLogger(name).setLevel(level)
        self._logger_levels = {}
        self._dispatcher.stop()
        await asyncio.to_thread(self._writer.stop)


class _Handler(logging.Handler):
    """Turns what `logging` gives into LogLines."""

    def __init__(self, deliver: _Deliver) -> None:
        super().__init__()
        self._deliver = deliver
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = LogLine(int(record.created * 1000), _level(record.levelno), "service", clean(self._message(record)))
            self._deliver(line, publish=not record.name.startswith(_UNPUBLISHED))
        except Exception:  # logging's own convention: a wrong logging call must not break its caller
            self.handleError(record)

    def _message(self, record: logging.LogRecord) -> str:
        parts = [record.getMessage()]
        if not record.name.startswith(_OWN_PREFIX):
            parts[0] = f"{record.name}: {parts[0]}"
        if record.exc_info:
            parts.append(self._formatter.formatException(record.exc_info))
        if record.stack_info:
            parts.append(record.stack_info)
        return "\n".join(parts)


def _level(number: int) -> LogLevel:
    reached = [level for level, least in _NUMBER.items() if number >= least]
    return reached[-1] if reached else LogLevel.DEBUG


class _BoundedQueue(Generic[_T]):
    """A queue that drops what does not fit.

    Nothing here blocks, nor deadlocks when a finalizer logs in the middle of a `put` of the same thread: hence
    SimpleQueue and RLock.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: SimpleQueue[_T] = SimpleQueue()
        self._lock = threading.RLock()
        self._dropped = 0

    def put(self, item: _T) -> None:
        if self._items.qsize() < self._limit:
            self._items.put(item)
        else:
            with self._lock:
                self._dropped += 1

    def put_last(self, item: _T) -> None:
        """Whether it fits or not."""
        self._items.put(item)

    def wait(self) -> _T:
        return self._items.get()

    def take(self, limit: int) -> list[_T]:
        """What is there, at most `limit`."""
        taken: list[_T] = []
        with contextlib.suppress(Empty):
            while len(taken) < limit:
                taken.append(self._items.get_nowait())
        return taken

    def take_dropped(self) -> int:
        """How many were dropped since it was last asked."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped


class _Writer:
    """One thread that owns the slow outputs. Files that cannot be written are left alone for `_RETRY_S`."""

    def __init__(self, files: LogFiles, console: TextIO | None) -> None:
        self.wants_console = True
        self.wants_files = True
        self._files = files
        self._console = console
        self._queue: _BoundedQueue[LogLine | None] = _BoundedQueue(_LIMIT)
        """None ends the thread."""
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._failing = False
        self._retry_at_s = 0.0
        self._unwritten = 0

    def put(self, line: LogLine) -> None:
        self._queue.put(line)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued and end; a thread that hangs in the system is left to die with the process."""
        self._queue.put_last(None)
        self._thread.join(_CLOSE_S)
        if not self._thread.is_alive():
            self._files.close()

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._queue.wait(), *self._queue.take(_BATCH)]
            lines = [line for line in batch if line is not None]
            ended = len(lines) < len(batch)
            if dropped := self._queue.take_dropped():
                lines.append(_dropped_notice(dropped))
            try:
                self._to_console(lines)
                self._to_files(lines)
            except Exception:  # the thread must outlive any one batch
                logger.exception("%d log lines could not be written.", len(lines))

    def _to_console(self, lines: list[LogLine]) -> None:
        console = self._console
        if console is None or not lines or not self.wants_console:
            return
        encoding = console.encoding or "utf-8"
        text = "\n".join(map(console_line, lines)) + "\n"
        try:
            console.write(text.encode(encoding, "backslashreplace").decode(encoding))
            console.flush()
        except (OSError, ValueError):  # the terminal is gone; the files are the place to say more
            self._console = None

    def _to_files(self, lines: list[LogLine]) -> None:
        if not self.wants_files:
            return
        if time.monotonic() < self._retry_at_s:
            self._unwritten += len(lines)
            return
        try:
            self._files.append(lines)
        except OSError as exc:
            self._unwritten += len(lines)
            self._fail(exc)
            return
        if self._failing:
            self._failing = False
            logger.warning("Log files are written again; about %d lines are missing in them.", self._unwritten)
            self._unwritten = 0

    def _fail(self, reason: OSError) -> None:
        self._retry_at_s = time.monotonic() + _RETRY_S
        if not self._failing:
            self._failing = True
            logger.warning(
                "Log files cannot be written: %s. Lines go to the database and the console only; trying again "
                "every %g s.",
                reason,
                _RETRY_S,
            )


class _Dispatcher:
    """The half of the pipeline that runs on the event loop."""

    def __init__(self, bus: EventBus, store_sink: Callable[[LogLine], None]) -> None:
        self._bus = bus
        self._store_sink = store_sink
        self._queue: _BoundedQueue[tuple[LogLine, bool]] = _BoundedQueue(_LIMIT)
        """(line, whether it is published)"""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._failing = False

    def put(self, line: LogLine, *, publish: bool) -> None:
        self._queue.put((line, publish))
        # `_drain` clears the flag before it looks into the queue: either it sees this line, or we see the flag down.
        if not self._scheduled:
            self._schedule()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._schedule()

    def stop(self) -> None:
        """Deliver what is queued; later lines stay where they are."""
        self._loop = None
        while self._drain():
            pass

    def _schedule(self) -> None:
        loop = self._loop
        if loop is not None:
            self._scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop was closed under us
                loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> bool:
        """Deliver one batch; True when there may be more."""
        self._scheduled = False
        batch = self._queue.take(_BATCH)
        for line, publish in batch:
            self._dispatch(line, publish)
        if dropped := self._queue.take_dropped():
            self._dispatch(_dropped_notice(dropped), publish=True)
        more = len(batch) == _BATCH
        if more:
            self._schedule()
        return more

    def _dispatch(self, line: LogLine, publish: bool) -> None:
        try:
            self._store_sink(line)
            self._failing = False
        except Exception:  # lines are still worth showing when they cannot be kept
            if not self._failing:
                self._failing = True
                logger.exception("Log lines cannot be stored.")
        if publish:
            self._bus.publish(LogWritten(line))


def _dropped_notice(count: int) -> LogLine:
    """Not logged but put into the output at once: the queue it would go through is full."""
    text = f"{count} log lines were dropped: they came faster than they could be written."
    return LogLine(time.time_ns() // 1_000_000, LogLevel.WARN, "service", text)
