"""Owning one child process: its group, its pipes, its end.

POSIX only. Every child leads a session and process group of its own, so whatever it starts ends with it, and a
Ctrl-C in the service's terminal reaches the service alone.
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

from llama_async_proxy.engines.parent_guard import OWNER_VARIABLE

LOOPBACK = "127.0.0.1"
STDOUT, STDERR = 1, 2
MAX_LINE = 256 * 1024
"""Bytes of one line that are kept; the rest of it is dropped."""
KILL_GRACE_S = 5.0
"""How long a killed process may take to go; one stuck in a device driver may never."""
PIPE_GRACE_S = 0.5
"""How long after its end a child's pipes may stay open; something that left its group may hold them."""

LineHandler = Callable[[int, str], None]
"""Called with STDOUT or STDERR and one line without its end."""


class Lines:
    """Cuts a byte stream into lines of text, whatever the bytes are."""

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        *complete, rest = data.split(b"\n")
        lines = []
        for part in complete:
            self._append(part)
            lines.append(self.flush())
        self._append(rest)
        return lines

    def flush(self) -> str:
        """What is left of a last line without an end; empty when nothing is."""
        line = self._partial.decode(errors="replace").rstrip("\r")
        self._partial.clear()
        return line

    def _append(self, part: bytes) -> None:
        self._partial += part[: MAX_LINE - len(self._partial)]


class Child(asyncio.SubprocessProtocol):
    """One child. Made by `spawn`; must be brought to its end by `stop` or seen there by `wait`."""

    def __init__(self, on_line: LineHandler) -> None:
        self._on_line = on_line
        self._lines = {STDOUT: Lines(), STDERR: Lines()}
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = loop.create_future()
        """Its exit code, negative for a signal, once it has ended and its last line was read. Do not cancel it:
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
        """Start `argv`, never through a shell, with `environment` alone. Raises OSError when it cannot be run."""
        loop = asyncio.get_running_loop()
        _, child = await loop.subprocess_exec(
            lambda: cls(on_line),
            *argv,
            env={**environment, OWNER_VARIABLE: str(os.getpid())},
            cwd=directory,
            start_new_session=True,
        )
        return child

    @property
    def is_running(self) -> bool:
        return self._transport.get_returncode() is None

    @property
    def rss_bytes(self) -> int | None:
        """LoadedModel memory now; None when it has ended."""
        return rss_of(self.pid) if self.is_running else None

    def descendant(self, *arguments: str) -> int | None:
        """Process id of the one among those it has started whose command line holds `arguments` in a row."""
        try:
            family = psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            return None
        return next((process.pid for process in family if _holds(_command_line(process), arguments)), None)

    def write(self, data: bytes) -> None:
        """Put `data` into its stdin; lost when the child is gone or does not read."""
        stdin = cast("asyncio.WriteTransport | None", self._transport.get_pipe_transport(0))
        if self.is_running and stdin is not None and not stdin.is_closing():
            stdin.write(data)

    async def wait(self) -> int:
        """Wait for its end; the exit code."""
        return await asyncio.shield(self.exited)

    async def stop(self, grace_s: float) -> int:
        """SIGTERM to the group, SIGKILL after `grace_s` to what is left. Idempotent and bounded; the exit code."""
        if grace_s > 0:
            self._signal(signal.SIGTERM)
            await asyncio.wait({self.exited}, timeout=grace_s)
        self.kill()
        await asyncio.wait({self.exited}, timeout=KILL_GRACE_S)
        return self.exited.result() if self.exited.done() else -signal.SIGKILL

    def kill(self) -> None:
        """SIGKILL to the group, now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # After the end of its leader the group's id is free for others as soon as the last member is gone.
        if self.is_running:
            self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
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
        self._signal_group(signal.SIGKILL)  # what it started ends with it
        self._last_resort = asyncio.get_running_loop().call_later(PIPE_GRACE_S, self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._last_resort is not None:
            self._last_resort.cancel()
        self._transport.close()
        if not self.exited.done():
            self.exited.set_result(self._transport.get_returncode() or 0)


def rss_of(pid: int) -> int | None:
    """LoadedModel memory of a process in bytes; None when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def private_bytes_of(pid: int) -> int:
    """What would be free if the process ended: its resident memory without the files it has mapped. 0 when it is gone.

    Only Linux tells these apart; elsewhere it is all of it.
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


def _holds(line: list[str], arguments: tuple[str, ...]) -> bool:
    return any(tuple(line[i : i + len(arguments)]) == arguments for i in range(len(line)))


def free_port() -> int:
    """A loopback port nobody uses at this moment; another process may still be faster than the child."""
    with socket.socket() as reservation:
        reservation.bind((LOOPBACK, 0))
        port: int = reservation.getsockname()[1]
        return port


def describe_exit(code: int) -> str:
    """An exit code for people, negative for a signal as in `subprocess`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"killed by signal {-code}"
    hint = "; often out of memory" if -code == signal.SIGKILL else ""
    return f"killed by signal {-code} ({name}{hint})"
