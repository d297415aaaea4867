"""Real faults of disks and files. A test is skipped when the user lacks the rights to cause its fault."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


def _run_or_skip(*command: str) -> None:
    program = shutil.which(command[0])
    if program is None or subprocess.run([program, *command[1:]], capture_output=True, check=False).returncode:
        pytest.skip(f"{command[0]} is not possible here")


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Make a file or directory immutable inside the block, even for root."""
    _run_or_skip("chattr", "+i", str(path))
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


@contextmanager
def tiny_disk(directory: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    directory.mkdir()
    _run_or_skip("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory))
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(disk: Path) -> Path:
    """Write a file until the disk is full. Deleting it makes room again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(disk).free == 0
    return ballast
