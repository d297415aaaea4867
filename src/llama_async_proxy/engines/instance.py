"""One try at running one model: what its supervisor needs of it, and the kind that is a process of ours."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.engines import parent_guard, probe
from llama_async_proxy.engines.custom import filled
from llama_async_proxy.engines.discovery import Launcher
from llama_async_proxy.engines.environment import API_KEY_VARIABLE, LOG_ENVIRONMENT, child_environment
from llama_async_proxy.engines.options import StateLine, arguments, parse_log_line, parse_memory_line, parse_state_line
from llama_async_proxy.engines.process import LOOPBACK, STDOUT, Child, free_port
from llama_async_proxy.engines.program_trust import advice, safe_directory, untrusted
from llama_async_proxy.errors import LoadFailed
from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.records.runtime import CustomCommand, Endpoint, LaunchSpec, MemoryUse

EXIT_COMMAND = b"cmd_router_to_child:exit\n"
"""What ends a llama-server that waits for its stdin; SIGTERM alone leaves it waiting there."""
FIRST_POLL_S, LAST_POLL_S = 0.3, 2.0
"""Pauses between health checks of a server that does not report its state, doubled from first to last."""
CONFIRM_S = 0.02
"""Pause after the first health check that contradicts a report of readiness."""
_KEY_BYTES = 24
STOP_COMMAND_S = 30.0
"""For a stop command and what it asks to stop; those of containers take ten seconds by default."""


class Listener(Protocol):
    """Who hears what an instance says."""

    def said(self, level: LogLevel, message: str) -> None:
        """A line of its log."""

    def reported(self, state: StateLine) -> None:
        """What it does now."""

    def counted(self, memory: MemoryUse) -> None:
        """What it takes, as it counts itself."""


class Instance(Protocol):
    """A model being run. Must be brought to its end by `stop`, also after it has ended by itself."""

    endpoint: Endpoint

    @property
    def exited(self) -> asyncio.Future[int]:
        """Its exit code once nothing of it runs and its last line was heard. Do not cancel it."""

    @property
    def pid(self) -> int | None: ...
    @property
    def rss_bytes(self) -> int | None: ...

    async def until_ready(self) -> probe.Properties:
        """Return once it answers. Raises LoadFailed when it cannot even begin."""

    async def is_busy(self) -> bool:
        """True while a request is being worked on."""

    async def stop(self, grace_s: float) -> None:
        """End it, in order for `grace_s`, then by force. Idempotent and bounded."""


Start: TypeAlias = Callable[[LaunchSpec, Listener], Coroutine[None, None, Instance]]
"""Begins an instance; does not wait for it. Raises LoadFailed."""


class Program(Struct, frozen=True):
    """What to run as a process, complete."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    health_path: str = "/health"
    stop: tuple[str, ...] = ()
    """Run first to end it; empty: llama-server's exit command is sent."""
    directory: str | None = None


def llama_program(launcher: Launcher, spec: LaunchSpec, endpoint: Endpoint, ours: Mapping[str, str]) -> Program:
    """llama-server, or what stands in for it, in our environment.

    Raises InvalidInput for an unfit option, LoadFailed for a program that others can write to.
    """
    key = {API_KEY_VARIABLE: endpoint.api_key} if endpoint.api_key is not None else {}
    environment = {**child_environment(ours), **LOG_ENVIRONMENT, **key}
    program = Program((*launcher.argv, *arguments(spec, endpoint)), environment, directory=safe_directory())
    if launcher.binary is not None:
        _check_trust(launcher.binary)
    return program


def _check_trust(path: str) -> None:
    """Raises LoadFailed for what others can write to: it may have been changed since the engine was started."""
    if reason := untrusted(Path(path)):
        raise LoadFailed(f"{path} is not run, because {reason}. {advice(Path(path))}")


def custom_program(command: CustomCommand, spec: LaunchSpec, endpoint: Endpoint, ours: Mapping[str, str]) -> Program:
    """A server of another kind. Raises LoadFailed when its program or directory is not there."""
    environment = {**ours, **{name: filled(text, spec, endpoint) for name, text in command.environment.items()}}
    if command.directory is not None and not Path(command.directory).is_dir():
        raise LoadFailed(f"The command's directory {command.directory} does not exist")
    if command.directory is not None:
        _check_trust(command.directory)

    def argv(template: tuple[str, ...]) -> tuple[str, ...]:
        program, *rest = (filled(argument, spec, endpoint) for argument in template)
        place = str(Path(command.directory or ".", program).absolute()) if "/" in program else program
        found = shutil.which(place, path=environment.get("PATH"))
        if found is None:
            raise LoadFailed(f"The command's program {program!r} is not on PATH, or is no program")
        _check_trust(found)
        return (found, *rest)

    return Program(
        family_argv(argv(command.start)),
        environment,
        command.health_path,
        argv(command.stop) if command.stop else (),
        command.directory,
    )


def family_argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    """`argv` so that it and all it starts end with the service, where the platform can do that."""
    if sys.platform != "linux":
        return argv
    return (sys.executable, "-I", "-S", str(Path(parent_guard.__file__)), "--family", *argv)


class ProcessInstance:
    """A process of ours that serves one model."""

    def __init__(self, spec: LaunchSpec, program: Program, endpoint: Endpoint, listener: Listener) -> None:
        self.endpoint = endpoint
        self._spec = spec
        self._program = program
        self._listener = listener
        self._says_ready = asyncio.Event()
        self._child: Child

    async def begin(self) -> None:
        """Raises LoadFailed when it cannot be run."""
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

    async def until_ready(self) -> probe.Properties:
        """Until the process reports it, or answers so if it does not report."""
        pause = FIRST_POLL_S
        while True:
            if self._says_ready.is_set():
                await asyncio.sleep(pause)
            elif await self._says_ready_within(pause):
                pause = CONFIRM_S
            if await probe.is_healthy(self.endpoint, self._program.health_path):
                properties = await probe.properties(self.endpoint)
                # Before the process has said that it listens, a stranger may be faster on its port.
                if self._says_ready.is_set() or properties.path in (None, self._spec.path):
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
            self._listener.said(LogLevel.ERROR, f"{program.stop[0]} cannot be run: {exc.strerror}")
            return
        own_s = self._spec.stop_timeout_s
        limit_s = STOP_COMMAND_S if own_s is None else own_s
        try:
            async with asyncio.timeout(limit_s):
                if await command.wait() == 0:
                    await self._child.wait()
        except TimeoutError:
            self._listener.said(LogLevel.WARN, f"the stop command did not end it within {limit_s:g} s")
        finally:
            await command.stop(0)

    async def _says_ready_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._says_ready.wait()
        return self._says_ready.is_set()

    def _on_line(self, stream: int, line: str) -> None:
        if stream == STDOUT and (state := parse_state_line(line)):
            if state.state == "ready":
                self._says_ready.set()
            self._listener.reported(state)
            return
        if memory := parse_memory_line(line):
            self._listener.counted(memory)
            return
        level, message = parse_log_line(line)
        if message:
            self._listener.said(level, message)


def process_start(launcher: Launcher, environment: Mapping[str, str]) -> Start:
    """Models as processes: llama-server's, and those of custom commands."""

    async def start(spec: LaunchSpec, listener: Listener) -> Instance:
        endpoint = Endpoint(LOOPBACK, free_port())
        if spec.command is None:
            # Any program here could use its port else, and any page in a browser, though it could not read the answers.
            endpoint = replace(endpoint, api_key=secrets.token_urlsafe(_KEY_BYTES))
            program = await asyncio.to_thread(llama_program, launcher, spec, endpoint, environment)
        else:
            program = await asyncio.to_thread(custom_program, spec.command, spec, endpoint, environment)
        instance = ProcessInstance(spec, program, endpoint, listener)
        await instance.begin()
        return instance

    return start
