"""Log files: written by one thread, rotated by size and day, listed, read and cleared by name."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from llama_async_proxy.errors import NotFound, PermissionDenied
from llama_async_proxy.monitor.logtext import format_line
from llama_async_proxy.records.logs import LogLine

SERVICE_LOG = "service.log"
ENGINE_LOG = "llama-server.log"
"""Output of all model processes."""

_OURS = re.compile(r"(?P<stem>service|llama-server)(?P<rotated>-\d{8}-\d{6}-\d{6})?\.log")
_READ_LIMIT = 1 << 20
_CLOSED = -1
_O_BINARY = getattr(os, "O_BINARY", 0)


class LogFile(Struct, frozen=True):
    name: str
    size_bytes: int
    modified_at_ms: int


class LogText(Struct, frozen=True):
    """The end of a log file, from the start of a line."""

    name: str
    text: str
    truncated: bool
    """There is more before it."""


class LogFiles:
    """The log directory. Every method blocks on the disk and may be called from any thread.

    `max_bytes` is the size at which a file is rotated, `max_files` how many rotated ones of each log are kept.
    Both may be changed at any time.
    """

    def __init__(self, directory: Path, max_bytes: int, max_files: int) -> None:
        self.max_bytes = max_bytes
        self.max_files = max_files
        self._directory = directory
        self._lock = threading.Lock()
        self._open = {name: _OpenFile(directory / name) for name in (SERVICE_LOG, ENGINE_LOG)}

    def append(self, lines: Iterable[LogLine]) -> None:
        """Write lines, each to the log of its source. Raises OSError, having written none or some of them."""
        texts: dict[str, list[bytes]] = {}
        for line in lines:
            name = SERVICE_LOG if line.source == "service" else ENGINE_LOG
            texts.setdefault(name, []).append(format_line(line).encode() + b"\n")
        with self._lock:
            for name, parts in texts.items():
                self._append(self._open[name], parts)

    def _append(self, file: _OpenFile, parts: list[bytes]) -> None:
        """As few writes as rotation allows: a batch may fill several files."""
        file.ensure()
        pending: list[bytes] = []
        size = file.size
        for part in parts:
            if size and (size + len(part) > self.max_bytes or file.is_of_another_day()):
                file.write(b"".join(pending))
                pending, size = [], 0
                file.rotate()
                self._prune(file.path.stem)
                file.ensure()
            pending.append(part)
            size += len(part)
        file.write(b"".join(pending))

    def _prune(self, stem: str) -> None:
        # The name holds the time, so that the oldest sorts first.
        rotated = sorted(f.name for f in self.list_files() if f.name.startswith(f"{stem}-") and f.name != ENGINE_LOG)
        for name in rotated[: max(len(rotated) - self.max_files, 0)]:
            with contextlib.suppress(OSError):  # open in another program on Windows: next time
                (self._directory / name).unlink()

    def list_files(self) -> tuple[LogFile, ...]:
        """Our log files that exist, by name. Nothing else in the directory is one; a link is not."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # rotated away meanwhile
                        status = entry.stat(follow_symlinks=False)
                        found.append(LogFile(entry.name, status.st_size, status.st_mtime_ns // 1_000_000))
        return tuple(sorted(found, key=lambda file: file.name))

    def read_file(self, name: str, max_bytes: int = _READ_LIMIT) -> LogText:
        """The last `max_bytes` of a file that `list_files` returned.

        Raises PermissionDenied for a name that is a path or a file that may not be read, NotFound for any other.
        """
        if name in ("", ".", "..") or any(character in name for character in "/\\\0:"):
            raise PermissionDenied(f"{name!r} is not the name of a log file: names have no path in them.")
        names = [file.name for file in self.list_files()]
        if name not in names:
            raise NotFound("log file", name, f"There is no log file {name!r}; list the log files for their names.")
        try:
            return _tail(self._directory / name, max_bytes)
        except FileNotFoundError as exc:
            raise NotFound("log file", name, f"Log file {name!r} was rotated away just now.") from exc
        except OSError as exc:
            raise PermissionDenied(f"Log file {name!r} cannot be read: {exc.strerror or exc}.") from exc

    def clear_files(self) -> int:
        """Empty the files in use and delete the rotated ones; how many were cleared.

        Raises PermissionDenied when one cannot be; the others are.
        """
        failed: list[str] = []
        files = self.list_files()
        with self._lock:
            for file in files:
                try:
                    self._clear(file.name)
                except FileNotFoundError:
                    continue
                except OSError as exc:
                    failed.append(f"{file.name}: {exc.strerror or exc}")
        if failed:
            raise PermissionDenied(f"Log files that cannot be cleared: {'; '.join(failed)}.")
        return len(files)

    def _clear(self, name: str) -> None:
        if name in self._open:
            # Never unlinked: our own handle, and a reader's, would go on with a file that has no name.
            self._open[name].truncate()
        else:
            (self._directory / name).unlink()

    def close(self) -> None:
        with self._lock:
            for file in self._open.values():
                file.close()


class _OpenFile:
    """One log under its current name, open for appending while it can be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._descriptor = _CLOSED
        self._day = 0

    def ensure(self) -> None:
        """Open it, anew if somebody moved or deleted it. Raises OSError."""
        if self._descriptor != _CLOSED and not self._is_current():
            self.close()
        if self._descriptor == _CLOSED:
            self._reopen()

    def _reopen(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a write returned from is in the kernel, and survives our death.
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _O_BINARY, 0o640)
        status = os.fstat(self._descriptor)
        self.size = status.st_size
        self._day = _day(status.st_mtime)
        if self.size:
            os.lseek(self._descriptor, -1, os.SEEK_END)
            if os.read(self._descriptor, 1) != b"\n":
                self.write(b"\n")  # the last line was cut by a full disk or a kill

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def is_of_another_day(self) -> bool:
        return self._day != _day(time.time())

    def write(self, data: bytes) -> None:
        """All of `data`, or OSError. After an error the file is closed, so that the next `ensure` looks anew."""
        if not self.size:
            self._day = _day(time.time())
        self.size += len(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            self.close()
            raise

    def rotate(self) -> None:
        """Move it aside under the time of now; UTC, so that names sort across a change of the clocks."""
        self.close()
        moment = datetime.now(UTC)
        self.path.rename(self.path.with_name(f"{self.path.stem}-{moment:%Y%m%d-%H%M%S-%f}.log"))

    def truncate(self) -> None:
        os.truncate(self.path, 0)
        self.size = 0

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor != _CLOSED:
            os.close(descriptor)


def _day(seconds: float) -> int:
    """Days since the epoch, UTC."""
    return int(seconds // 86400)


def _tail(path: Path, max_bytes: int) -> LogText:
    # A link put there after the listing must not be followed; O_NONBLOCK: nor a pipe waited for.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _O_BINARY
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError("it is not a regular file")
        start = max(status.st_size - max_bytes, 0)
        file.seek(start)
        data = file.read(max_bytes)
    if start:
        data = data.partition(b"\n")[2]
    return LogText(path.name, data.decode("utf-8", "replace"), truncated=start > 0)
