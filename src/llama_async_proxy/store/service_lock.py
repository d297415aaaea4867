"""Lock of the data directory, for one service at a time. The operating system releases it when the process ends."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from llama_async_proxy.errors import StoreUnavailable

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# Windows forbids other processes to read a locked byte, so the byte is far behind the text about the holder.
_LOCKED_BYTE = 1 << 20
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextmanager
def service_lock(data_dir: Path) -> Iterator[None]:
    """Hold the lock of `data_dir`. Raises StoreUnavailable naming the process that holds it already."""
    try:
        file = (data_dir / "service.lock").open("a+b", buffering=0)
    except OSError as exc:
        raise _not_writable(data_dir, exc) from exc
    with file:
        _take(file, data_dir)
        try:
            file.truncate(0)
            file.write(f"pid {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n".encode())
        except OSError as exc:
            raise _not_writable(data_dir, exc) from exc
        yield


def _not_writable(data_dir: Path, exc: OSError) -> StoreUnavailable:
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "Free some space on its disk" if full else "Make it writable"
    return StoreUnavailable(
        f"Cannot write to the data directory {data_dir}: {exc.strerror or exc}. "
        f"{advice}, or choose another with --data-dir."
    )


def _take(file: FileIO, data_dir: Path) -> None:
    try:
        _lock(file)
    except OSError as exc:
        if exc.errno in _TAKEN:
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip() or "another process"
            raise StoreUnavailable(
                f"The data directory {data_dir} is in use by another service ({holder}). "
                "Stop that one, or choose another directory with --data-dir."
            ) from exc
        raise StoreUnavailable(
            f"Cannot lock the data directory {data_dir}: {exc.strerror or exc}. "
            "Choose one on a local disk with --data-dir."
        ) from exc


if sys.platform == "win32":

    def _lock(file: FileIO) -> None:
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:

    def _lock(file: FileIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
