"""Files that are always either the old or the new one on disk, whatever happens in between."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

from llama_async_proxy.errors import PermissionDenied, ServiceError, StoreUnavailable


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` and make it last; keeps the mode of a file that is there. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made readable by its owner alone, which is also right for a new file.
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
    """Make a rename in it last over a power cut. Windows cannot open directories and does it by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_failure(verb: str, what: str, exc: OSError) -> ServiceError:
    """What the operating system said, and what to do: "Cannot `verb` `what`: ..." """
    problem = f"Cannot {verb} {what}: {exc.strerror or exc}."
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreUnavailable(f"{problem} Free some space on that disk and try again.")
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(f"{problem} Make it and its directory writable, or choose another --data-dir.")
    return StoreUnavailable(f"{problem} Check the path, or choose another --data-dir.")
