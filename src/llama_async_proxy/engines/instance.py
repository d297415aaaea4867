"""Instances of models: the contract that supervisors use, and the instance that is a child process."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Protocol, TypeAlias

from msgspec.structs import replace

from llama_async_proxy.engines import probe
from llama_async_proxy.engines.discovery import Launcher
from llama_async_proxy.engines.log import StateLine, parse_log_line, parse_memory_line, parse_state_line
from llama_async_proxy.engines.process import LOOPBACK, STDOUT, Child, free_port
from llama_async_proxy.engines.program import Program, custom_program, llama_program
from llama_async_proxy.errors import LoadFailed
from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec, MemoryUse

EXIT_COMMAND = b"cmd_router_to_child:exit\n"
"""Line on stdin that ends a router's child (llama.cpp b11434, tools/server/server-models.cpp).

SIGTERM alone does not end it, because it waits for the end of its stdin.
"""
FIRST_POLL_S, LAST_POLL_S = 0.3, 2.0
"""Pauses between health checks of a server that does not report its state, doubled from first to last."""
CONFIRM_S = 0.02
"""Pause after the first health check that contradicts a report of readiness."""
STOP_COMMAND_S = 30.0
"""Default limit for a stop command and the end of the program. Stop commands of containers wait for 10 s."""
_KEY_BYTES = 24


class InstanceListener(Protocol):
    """Receives what an instance prints."""

    def on_log(self, level: LogLevel, message: str) -> None:
        """Called for each line of the log."""

    def on_state(self, state: StateLine) -> None:
        """Called when the instance reports its state."""

    def on_memory(self, memory: MemoryUse) -> None:
        """Called when the instance reports how much memory it takes."""


class Instance(Protocol):
    """One attempt at running a model. `stop` must be called in the end, even after it has exited by itself."""

    endpoint: Endpoint

    @property
    def exited(self) -> asyncio.Future[int]:
        """Exit code, once every process has ended and the last log line was delivered. Must not be cancelled."""

    @property
    def pid(self) -> int | None: ...
    @property
    def rss_bytes(self) -> int | None: ...

    async def wait_until_ready(self) -> probe.Properties:
        """Return once the instance answers requests. Raises LoadFailed when it cannot even start."""

    async def is_busy(self) -> bool:
        """True while the instance works on a request."""

    async def stop(self, grace_s: float) -> None:
        """End the instance, gracefully within `grace_s` seconds, then by force. Idempotent and bounded."""


StartInstance: TypeAlias = Callable[[LaunchSpec, InstanceListener], Coroutine[None, None, Instance]]
"""Starts an instance without waiting until it is ready. Raises LoadFailed."""


class ProcessInstance:
    """Instance that is a child process of the service."""

    def __init__(self, spec: LaunchSpec, program: Program, endpoint: Endpoint, listener: InstanceListener) -> None:
        self.endpoint = endpoint
        self._spec = spec
        self._program = program
        self._listener = listener
        self._reported_ready = asyncio.Event()
        self._child: Child

    async def begin(self) -> None:
        """Start the process. Raises LoadFailed when it cannot be run."""
        program = self._program
        try:
            self._child = await Child.spawn(program.argv, self._on_line, program.environment, program.directory)
        except OSError as exc:
            raise LoadFailed(f"{program.argv[0]} cannot be run: {exc.strerror}") from exc

    @property
    def exited(self) -> asyncio.Future[int]:
        return self._child.exited

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def rss_bytes(self) -> int | None:
        return self._child.rss_bytes

    async def wait_until_ready(self) -> probe.Properties:
        """Wait for the process to report that it is ready; poll its health if it reports nothing."""
        pause = FIRST_POLL_S
        while True:
            if self._reported_ready.is_set():
                await asyncio.sleep(pause)
            elif await self._reports_ready_within(pause):
                pause = CONFIRM_S
            if await probe.is_healthy(self.endpoint, self._program.health_path):
                properties = await probe.properties(self.endpoint)
                # Until the process reports that it listens, another program may have taken its port.
                if self._reported_ready.is_set() or properties.path in (None, self._spec.path):
                    return properties
            pause = min(2 * pause, LAST_POLL_S)

    async def is_busy(self) -> bool:
        return await probe.is_busy(self.endpoint)

    async def stop(self, grace_s: float) -> None:
        if grace_s > 0 and self._child.is_running:
            if self._program.stop:
                await self._run_stop_command()
            else:
                self._child.write(EXIT_COMMAND)
        await self._child.stop(grace_s)

    async def _run_stop_command(self) -> None:
        program = self._program
        try:
            command = await Child.spawn(program.stop, self._on_line, program.environment, program.directory)
        except OSError as exc:
            self._listener.on_log(LogLevel.ERROR, f"{program.stop[0]} cannot be run: {exc.strerror}")
            return
        own_s = self._spec.stop_timeout_s
        limit_s = STOP_COMMAND_S if own_s is None else own_s
        try:
            async with asyncio.timeout(limit_s):
                if await command.wait() == 0:
                    await self._child.wait()
        except TimeoutError:
            self._listener.on_log(LogLevel.WARN, f"the stop command did not end it within {limit_s:g} s")
        finally:
            await command.stop(0)

    async def _reports_ready_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._reported_ready.wait()
        return self._reported_ready.is_set()

    def _on_line(self, stream: int, line: str) -> None:
        if stream == STDOUT and (state := parse_state_line(line)):
            if state.state == "ready":
                self._reported_ready.set()
            self._listener.on_state(state)
            return
        if memory := parse_memory_line(line):
            self._listener.on_memory(memory)
            return
        level, message = parse_log_line(line)
        if message:
            self._listener.on_log(level, message)


def process_start(launcher: Launcher, environment: Mapping[str, str]) -> StartInstance:
    """Function that runs models as processes: llama-server, or the model's own command."""

    async def start(spec: LaunchSpec, listener: InstanceListener) -> Instance:
        endpoint = Endpoint(LOOPBACK, free_port())
        if spec.command is None:
            # Without a key any program on this machine could use the port, and so could any web page in a browser.
            endpoint = replace(endpoint, api_key=secrets.token_urlsafe(_KEY_BYTES))
            program = await asyncio.to_thread(llama_program, launcher, spec, endpoint, environment)
        else:
            program = await asyncio.to_thread(custom_program, spec.command, spec, endpoint, environment)
        instance = ProcessInstance(spec, program, endpoint, listener)
        await instance.begin()
        return instance

    return start
