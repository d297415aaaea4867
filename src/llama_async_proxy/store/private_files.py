"""Everything in the data directory is for the service's user alone: files 0600, directories 0700.

Conversations, logs and keys lie there. The command line sets UMASK, which makes new files private whoever writes them
(SQLite, the log handler, children); `make_private` narrows those that were there before.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

UMASK = 0o077
_FILE_MODE, _DIRECTORY_MODE = 0o600, 0o700


_OURS = ("service.*", ".service.*", "llama-server-config.json*", ".llama-server-config.json*", "router-models.ini*")
_OUR_DIRECTORIES = ("presets", "logs", "cache", "models", "engines", "backups")
_MOST_SAID = 10


def make_private(directory: Path) -> tuple[str, ...]:
    """Take all rights on the data directory, and on what the service keeps in it, from group and others.

    Files that are not the service's stay as they are, for somebody may have chosen a directory with other things in
    it. Symbolic links are not followed, and neither is a file touched that has another name elsewhere (a hard link, as
    models may be). Returns a sentence for each path that stays open, at most ten of them and a last one that counts the
    rest; nothing on systems without such modes.
    """
    if os.name == "nt":
        return ()
    problems = [problem for path in _ours_in(directory) if (problem := _narrowed(path)) is not None]
    if _is_shared(directory):
        problems.insert(0, f"Others use {directory} too, so it stays open; choose a --data-dir of the service's own")
    if len(problems) > _MOST_SAID:
        return (*problems[:_MOST_SAID], f"... and {len(problems) - _MOST_SAID} more")
    return tuple(problems)


def _is_shared(directory: Path) -> bool:
    """True for a directory such as /tmp, / or a home, which is not the service's to close."""
    real = directory.resolve()
    return bool(real.stat().st_mode & stat.S_ISVTX) or real == Path(real.anchor) or real == Path.home()


def _ours_in(directory: Path) -> Iterator[Path]:
    if not _is_shared(directory):
        yield directory.resolve()
    for pattern in _OURS:
        yield from directory.glob(pattern)
    for name in _OUR_DIRECTORIES:
        top = directory / name
        if top.is_symlink() or not top.is_dir():
            continue
        yield top
        for parent, directories, files in os.walk(top):
            for entry in (*directories, *files):
                yield Path(parent, entry)


def _narrowed(path: Path) -> str | None:
    """Narrow one mode. A sentence when others may still get at the path."""
    try:
        seen = path.lstat()
        if not _is_open(seen) or (stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1):
            return None
        path.chmod(_DIRECTORY_MODE if stat.S_ISDIR(seen.st_mode) else _FILE_MODE)
        if not _is_open(path.lstat()):
            return None
        why = "its file system keeps no such modes"
    except FileNotFoundError:  # a temporary file that was gone by then
        return None
    except OSError as exc:
        why = exc.strerror or str(exc)
    return f"Other users of this machine can get at {path}: {why}"


def _is_open(status: os.stat_result) -> bool:
    kept = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return kept and bool(stat.S_IMODE(status.st_mode) & UMASK)
