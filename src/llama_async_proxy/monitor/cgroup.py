"""The memory limit of the control group this process runs in: what a container calls "the machine's memory"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct


class MemoryLimit(Struct, frozen=True):
    limit_bytes: int
    used_bytes: int
    """Working set: usage without the page cache the kernel gives back first, as `docker stats` counts it."""


class _Controller(Struct, frozen=True):
    """File names of one version of the memory controller."""

    limit: str
    usage: str
    reclaimable: str
    """Key in memory.stat."""


_V2 = _Controller("memory.max", "memory.current", "inactive_file")
_V1 = _Controller("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


class Cgroup:
    """The control groups of this process, version 1 or 2, under the file system `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._groups = tuple(_groups(root))

    def memory(self) -> MemoryLimit | None:
        """The tightest limit on the way up to the root group; None without any. Never raises."""
        limits = [limit for directory, names in self._groups if (limit := _read(directory, names))]
        return min(limits, key=lambda limit: limit.limit_bytes, default=None)


def _groups(root: Path) -> Iterator[tuple[Path, _Controller]]:
    """Own group and its ancestors: a limit holds for everything below it.

    The mount of a container may show its own group as the root although the path names the host's view; then
    only the root of the mount exists here, and the rest is skipped.
    """
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from ((directory, _V2) for directory in _ancestry(mount, path))
        elif "memory" in controllers.split(","):
            yield from ((directory, _V1) for directory in _ancestry(mount / "memory", path))


def _ancestry(mount: Path, path: str) -> Iterator[Path]:
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for depth in range(len(parts), -1, -1):
        directory = mount.joinpath(*parts[:depth])
        if directory.is_dir():
            yield directory


def _read(directory: Path, names: _Controller) -> MemoryLimit | None:
    limit = _number(_text(directory / names.limit))
    usage = _number(_text(directory / names.usage))
    if limit is None or usage is None:
        return None
    stat = dict(line.split(" ", 1) for line in _text(directory / "memory.stat").splitlines() if " " in line)
    reclaimable = _number(stat.get(names.reclaimable, "")) or 0
    return MemoryLimit(limit, max(usage - reclaimable, 0))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    """None for "max", which is no limit, and for a missing file."""
    return int(text) if text.strip().isdigit() else None
