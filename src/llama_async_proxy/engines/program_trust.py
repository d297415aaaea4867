"""Whether a program may be run: nobody but root and the service's user can have put it there or change it.

POSIX only, like the rest of this room.
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
"""Group of those who may become root with sudo; Homebrew lets it write."""
ROOT_DIRECTORY = "/"


def untrusted(path: Path) -> str | None:
    """Why neither the program, or directory, at `path` nor what it links to may be used, as a sentence without a full
    stop; None when it may, or when nothing is there.

    The file, each directory above it and each link on the way must belong to root or to us. Others must not be able to
    write to them; a directory with the sticky bit, such as /tmp, may be open to all, for nobody can replace another's
    files in it. A group may write when it is root's or our own private one (of our name, without other members), or on
    macOS the administrators'.
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
    """What to do about an untrusted program."""
    return (
        "Make it and the directories above it writable for their owner alone (chmod go-w), or install "
        f"{path.name} elsewhere"
    )


def safe_directory() -> str | None:
    """Where to run programs of the engine: the service's own working directory (None) unless others can write to it.

    llama.cpp looks for backend libraries in its working directory, too (b11434, ggml/src/ggml-backend-reg.cpp).
    """
    try:
        here = Path.cwd()
        is_open = here.stat().st_mode & stat.S_IWOTH
    except OSError:
        return ROOT_DIRECTORY
    return ROOT_DIRECTORY if is_open or untrusted(here) else None


def _places(path: Path) -> Iterator[Path]:
    """The path and all above it, as written and as links lead."""
    absolute = path.absolute()
    real = Path(os.path.realpath(absolute))
    return iter(dict.fromkeys((absolute, *absolute.parents, real, *real.parents)))


@functools.cache
def _owner_of_root() -> int:
    """In a container's user namespace root's files may show another owner; who owns "/" owns the machine anyway."""
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
