"""Trust in programs: a program may be run only if no user but root and the service's own can change it.

POSIX only, like all engines.
"""

from __future__ import annotations

import functools
import grp
import os
import pwd
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

_MACOS_ADMIN = 80
"""Group of the users who may become root with sudo. Homebrew makes its directories writable for it."""
ROOT_DIRECTORY = "/"


def untrusted(path: Path) -> str | None:
    """Reason why the program or directory at `path` may not be used, as a sentence without a full stop.

    Returns None when it may be used, or does not exist. The file, each directory above it and each link on the way must
    belong to root or to the service's user, and no other user may write to them. A directory with the sticky bit, such
    as /tmp, may be writable for all, because no user can replace another's files in it. A group may write when it is
    root's, or the user's private one (of the same name, without other members), or on macOS the administrators'.
    """
    trusted_owners = {0, os.geteuid(), _owner_of_root()}
    for place in _places(path):
        try:
            status = place.lstat()
        except OSError:
            return None
        if status.st_uid not in trusted_owners:
            return f"{place} belongs to another user ({_user(status.st_uid)}), who could change what is run"
        if stat.S_ISLNK(status.st_mode) or (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
            continue
        if status.st_mode & stat.S_IWOTH:
            return f"every user of this machine can write to {place}"
        if status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid):
            return f"the group {_group(status.st_gid)} can write to {place}"
    return None


def advice(path: Path) -> str:
    """Advice on what to do about an untrusted program."""
    return (
        "Make it and the directories above it writable for their owner alone (chmod go-w), or install "
        f"{path.name} elsewhere"
    )


def safe_directory() -> str | None:
    """Directory in which programs run: the service's own working directory (None) unless others can write to it.

    llama.cpp looks for backend libraries in its working directory, too (b11434, ggml/src/ggml-backend-reg.cpp).
    """
    try:
        here = Path.cwd()
        is_open = here.stat().st_mode & stat.S_IWOTH
    except OSError:
        return ROOT_DIRECTORY
    return ROOT_DIRECTORY if is_open or untrusted(here) else None


def _places(path: Path) -> Iterator[Path]:
    """The path and all directories above it, as written and with links resolved."""
    absolute = path.absolute()
    real = Path(os.path.realpath(absolute))
    return iter(dict.fromkeys((absolute, *absolute.parents, real, *real.parents)))


@functools.cache
def _owner_of_root() -> int:
    """User id of the owner of "/", who is trusted like root. In a user namespace it may not be 0."""
    return Path(ROOT_DIRECTORY).stat().st_uid


def _is_private(gid: int) -> bool:
    if gid == 0 or (sys.platform == "darwin" and gid == _MACOS_ADMIN):
        return True
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
