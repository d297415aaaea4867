"""Child processes: their process groups, pipes and ends.

POSIX only. Every child leads a session and process group of its own. Its descendants therefore end with it, and a
Ctrl-C in the service's terminal reaches only the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Self, cast

import psutil

from llama_async_proxy.engines.parent_guard import PARENT_VARIABLE

LOOPBACK = "127.0.0.1"
STDOUT, STDERR = 1, 2
MAX_LINE = 256 * 1024
"""Longest line in bytes; the rest of a longer one is dropped."""
KILL_GRACE_S = 5.0
"""Time that a killed process may take to end. One that is stuck in a device driver may never end."""
PIPE_GRACE_S = 0.5
"""Time that a child's pipes may stay open after its end. A descendant that has left the group may hold them."""

ADOPTED_S = 5.0
"""Seconds between two looks for zombies that others left behind."""

LineHandler = Callable[[int, str], None]
"""Called with STDOUT or STDERR and one line without its end."""


class Lines:
    """Splits a byte stream into lines of text. Invalid UTF-8 is replaced."""

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """Lines that `data` completes."""
        *complete, rest = data.split(b"\n")
        lines = []
        for part in complete:
            self._append(part)
            lines.append(self.flush())
        self._append(rest)
        return lines

    def flush(self) -> str:
        """Last line, which has no line end; empty when there is none."""
        line = self._partial.decode(errors="replace").rstrip("\r")
        self._partial.clear()
        return line

    def _append(self, part: bytes) -> None:
        self._partial += part[: MAX_LINE - len(self._partial)]


class Child(asyncio.SubprocessProtocol):
    """A child process, made by `spawn`. `stop` or `wait` must be called in the end."""

    def __init__(self, on_line: LineHandler) -> None:
        self._on_line = on_line
        self._lines = {STDOUT: Lines(), STDERR: Lines()}
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = loop.create_future()
        """Exit code, negative for a signal, once the child has ended and its last line was read. Must not be cancelled:
        use `wait`, or asyncio.wait."""
        self._transport: asyncio.SubprocessTransport
        self._last_resort: asyncio.TimerHandle | None = None
        self.pid: int

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        on_line: LineHandler,
        environment: Mapping[str, str],
        directory: str | None = None,
    ) -> Self:
        """Start `argv` without a shell, with exactly `environment`. Raises OSError when the program cannot be run."""
        loop = asyncio.get_running_loop()
        _, child = await loop.subprocess_exec(
            lambda: cls(on_line),
            *argv,
            env={**environment, PARENT_VARIABLE: str(os.getpid())},
            cwd=directory,
            start_new_session=True,
        )
        return child

    @property
    def is_running(self) -> bool:
        return self._transport.get_returncode() is None

    @property
    def rss_bytes(self) -> int | None:
        """Resident memory in bytes; None after the end."""
        return rss_of(self.pid) if self.is_running else None

    def descendant(self, *arguments: str) -> int | None:
        """Process id of the descendant whose command line contains `arguments` in sequence; None without one."""
        try:
            family = psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            return None
        return next((process.pid for process in family if _contains(_command_line(process), arguments)), None)

    def write(self, data: bytes) -> None:
        """Write `data` to stdin. The data is lost when the child has ended or does not read."""
        stdin = cast("asyncio.WriteTransport | None", self._transport.get_pipe_transport(0))
        if self.is_running and stdin is not None and not stdin.is_closing():
            stdin.write(data)

    async def wait(self) -> int:
        """Wait for the end and return the exit code."""
        return await asyncio.shield(self.exited)

    async def stop(self, grace_s: float) -> int:
        """Send SIGTERM to the group, and SIGKILL after `grace_s` seconds. Idempotent, bounded; returns the code."""
        if grace_s > 0:
            self._signal(signal.SIGTERM)
            await asyncio.wait({self.exited}, timeout=grace_s)
        self.kill()
        await asyncio.wait({self.exited}, timeout=KILL_GRACE_S)
        return self.exited.result() if self.exited.done() else -signal.SIGKILL

    def kill(self) -> None:
        """Send SIGKILL to the group now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Once the leader and the last member have ended, another group may get the same id.
        if self.is_running:
            self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS raises EPERM for a group of zombies.
            os.killpg(self.pid, number)

    # --- asyncio.SubprocessProtocol -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self.pid = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        for line in self._lines[fd].feed(cast("bytes", data)):
            self._on_line(fd, line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        if fd in self._lines and (rest := self._lines[fd].flush()):
            self._on_line(fd, rest)

    def process_exited(self) -> None:
        self._signal_group(signal.SIGKILL)  # Descendants end with the child.
        self._last_resort = asyncio.get_running_loop().call_later(PIPE_GRACE_S, self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._last_resort is not None:
            self._last_resort.cancel()
        self._transport.close()
        if not self.exited.done():
            self.exited.set_result(self._transport.get_returncode() or 0)


def rss_of(pid: int) -> int | None:
    """Resident memory of a process in bytes; None when it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


async def reap_adopted(interval_s: float = ADOPTED_S) -> None:
    """Reap processes that others left to this one, until cancelled: the task of a container's process 1.

    Children of the service are reaped by asyncio within milliseconds, and their exit codes are asyncio's. So a zombie
    counts as adopted when it is still there at the next look.
    """
    seen: set[tuple[int, float]] = set()
    while True:
        await asyncio.sleep(interval_s)
        zombies = _zombies()
        for pid, _ in zombies & seen:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - does not wait
        seen = zombies


def _zombies() -> set[tuple[int, float]]:
    """(process id, time of creation) of each ended child."""
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.add((child.pid, child.create_time()))
    return found


def private_bytes_of(pid: int) -> int:
    """Bytes that the end of a process would free: its resident memory without mapped files. 0 when it has ended.

    Only Linux separates the two; elsewhere the result is all resident memory.
    """
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _contains(line: list[str], arguments: tuple[str, ...]) -> bool:
    return any(tuple(line[i : i + len(arguments)]) == arguments for i in range(len(line)))


def free_port() -> int:
    """Loopback port that is free at this moment. Another process may still take it before the child does."""
    with socket.socket() as reservation:
        reservation.bind((LOOPBACK, 0))
        port: int = reservation.getsockname()[1]
        return port


def describe_exit(code: int) -> str:
    """Description of an exit code for users. A negative code stands for a signal, as in `subprocess`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"killed by signal {-code}"
    hint = "; often out of memory" if -code == signal.SIGKILL else ""
    return f"killed by signal {-code} ({name}{hint})"
