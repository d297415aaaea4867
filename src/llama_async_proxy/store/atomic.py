"""Atomic file replacement: after a crash at any moment the file on disk is either the old or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from pathlib import Path

from llama_async_proxy.errors import PermissionDenied, ServiceError, StoreUnavailable

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp|\..+\.(?:json|ini)\.[a-z0-9_]{8}|.+\.\d+\.part")
"""Names that `replace_file` gives to what it has not finished, those of earlier versions, and unfinished caches."""


def clear_unfinished(directory: Path) -> int:
    """Remove temporary files that a process left when it was killed; their number.

    Looks at the directory, its presets and its caches. For who holds the directory, before anything is written to it.
    """
    removed = 0
    for place in (directory, *(directory / name for name in _WRITTEN_PLACES)):
        for parent, _, files in os.walk(place) if place != directory else [next(os.walk(place), ("", [], []))]:
            for name in files:
                path = Path(parent, name)
                if (_TEMPORARY.fullmatch(name) or name == "router-models.tmp") and not path.is_symlink():
                    with contextlib.suppress(OSError):
                        path.unlink()
                        removed += 1
    return removed


_WRITTEN_PLACES = ("presets", "cache", "logs")


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` durably, keeping the mode of an existing file. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp makes it readable by its owner only, which is right for a new file, too.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            Path(temporary).chmod(stat.S_IMODE(path.stat().st_mode))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make a rename in the directory durable. Windows cannot open directories, and needs no sync."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_failure(verb: str, what: str, exc: OSError) -> ServiceError:
    """Error for a failed file operation, with the system's message and advice: "Cannot `verb` `what`: ..." """
    problem = f"Cannot {verb} {what}: {exc.strerror or exc}."
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreUnavailable(f"{problem} Free some space on that disk and try again.")
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(f"{problem} Make it and its directory writable, or choose another --data-dir.")
    return StoreUnavailable(f"{problem} Check the path, or choose another --data-dir.")
