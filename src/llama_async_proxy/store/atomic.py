"""Atomic file replacement: after a crash at any moment the file on disk is either the old or the new one."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

from llama_async_proxy.errors import PermissionDenied, ServiceError, StoreUnavailable


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` durably, keeping the mode of an existing file. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp makes it readable by its owner only, which is right for a new file, too.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
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
