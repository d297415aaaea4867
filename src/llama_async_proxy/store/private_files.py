"""Private file modes: only the service's user may access the data directory (files 0600, directories 0700).

The directory holds conversations, logs and keys. The command line sets UMASK, which makes all new files private (of
SQLite, the log handler, children); `make_private` changes the modes of older files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

UMASK = 0o077
_FILE_MODE, _DIRECTORY_MODE = 0o600, 0o700


_FILE_PATTERNS = (
    "service.*",
    ".service.*",
    "llama-server-config.json*",
    ".llama-server-config.json*",
    "router-models.ini*",
)
_DIRECTORIES = ("presets", "logs", "cache", "models", "engines", "backups")
_MAX_PROBLEMS = 10


def make_private(directory: Path) -> tuple[str, ...]:
    """Remove all rights of group and others on the data directory and on the service's files in it.

    Other files stay unchanged, because the user may have chosen a directory with further content. Symbolic links are
    not followed, and files with several hard links, as models may be, stay unchanged. Returns a sentence for each path
    that stays accessible: at most ten, and one that counts the rest. Empty on Windows, which has no such modes.
    """
    if os.name == "nt":
        return ()
    problems = [problem for path in _service_paths(directory) if (problem := _make_path_private(path)) is not None]
    if _is_shared(directory):
        problems.insert(0, f"Others use {directory} too, so it stays open; choose a --data-dir of the service's own")
    if len(problems) > _MAX_PROBLEMS:
        return (*problems[:_MAX_PROBLEMS], f"... and {len(problems) - _MAX_PROBLEMS} more")
    return tuple(problems)


def _is_shared(directory: Path) -> bool:
    """True for a directory such as /tmp, / or a home, which other programs use, too."""
    real = directory.resolve()
    return bool(real.stat().st_mode & stat.S_ISVTX) or real == Path(real.anchor) or real == Path.home()


def _service_paths(directory: Path) -> Iterator[Path]:
    if not _is_shared(directory):
        yield directory.resolve()
    for pattern in _FILE_PATTERNS:
        yield from directory.glob(pattern)
    for name in _DIRECTORIES:
        top = directory / name
        if top.is_symlink() or not top.is_dir():
            continue
        yield top
        for parent, directories, files in os.walk(top):
            for entry in (*directories, *files):
                yield Path(parent, entry)


def _make_path_private(path: Path) -> str | None:
    """Change the mode of one path. Returns a sentence when others can still access it."""
    try:
        seen = path.lstat()
        if not _is_accessible(seen) or (stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1):
            return None
        path.chmod(_DIRECTORY_MODE if stat.S_ISDIR(seen.st_mode) else _FILE_MODE)
        if not _is_accessible(path.lstat()):
            return None
        why = "its file system keeps no such modes"
    except FileNotFoundError:  # A temporary file may have been removed meanwhile.
        return None
    except OSError as exc:
        why = exc.strerror or str(exc)
    return f"Other users of this machine can get at {path}: {why}"


def _is_accessible(status: os.stat_result) -> bool:
    has_mode = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return has_mode and bool(stat.S_IMODE(status.st_mode) & UMASK)
