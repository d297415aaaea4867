"""A router that this service starts as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from llama_async_proxy.engines.discovery import Launcher, server_command
from llama_async_proxy.engines.environment import passed_environment
from llama_async_proxy.engines.process import Child, describe_exit
from llama_async_proxy.engines.program import router_program
from llama_async_proxy.engines.router_api import RouterApi, RouterError, RouterRefused
from llama_async_proxy.engines.router_host import OpenRouter
from llama_async_proxy.engines.router_log import OnLog, RouterLog
from llama_async_proxy.engines.router_schema import RouterModel, is_writable, preset_ini, section, without_options
from llama_async_proxy.errors import EngineMissing, LoadFailed
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec

OPEN_S = 30.0
"""Limit until the router listens. It loads no model, but its first run from a slow disk takes seconds."""
OPEN_POLL_S = 0.05
STOP_GRACE_S = 5.0


class RouterOptions(Struct, frozen=True):
    """Options of the router's command line."""

    host: str
    port: int
    max_models: int
    """Largest number of loaded models; 0 means no limit."""
    autoload: bool
    """True when requests at the router's own address load models."""


class _PresetRejected(Exception):
    """The router cannot read the preset file that was written for it."""


class LocalRouter:
    """`router_host.RouterHost` that writes a preset file with every registered model, and runs a router on it."""

    retries_forever = False
    keeps_models = False

    def __init__(
        self,
        find_launcher: Callable[[], Launcher],
        options: Callable[[], RouterOptions],
        registered: Callable[[], Sequence[LaunchSpec]],
        preset_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`find_launcher` may block and raises EngineMissing; `environment` is passed on to the router."""
        self._find_launcher = find_launcher
        self._options = options
        self._registered = registered
        self._preset_path = preset_path
        self._environment = passed_environment(os.environ) if environment is None else environment
        self._preset_text = ""
        """Content of the preset file."""
        self._log = RouterLog()
        self._child: Child | None = None
        self._registering = asyncio.Lock()

    async def open(self, on_log: OnLog) -> OpenRouter:
        launcher = await asyncio.to_thread(self._find_launcher)
        if launcher.binary is None:
            raise EngineMissing("The built-in engine has no router: install llama-server and set --llama-server PATH")
        options = self._options()
        endpoint = Endpoint(options.host, options.port)
        _check_port(endpoint)
        specs = [spec for spec in self._registered() if is_writable(spec)]
        try:
            await self._run(launcher.binary, options, specs, on_log)
        except _PresetRejected:
            # One unknown option would keep the router from starting. `register` writes each model's options later.
            await self._run(launcher.binary, options, [without_options(spec) for spec in specs], on_log)
        return OpenRouter(endpoint, launcher.binary, launcher.version)

    async def _run(self, binary: str, options: RouterOptions, specs: Sequence[LaunchSpec], on_log: OnLog) -> None:
        await self._write(preset_ini(specs))
        self._log = log = RouterLog(on_log)
        program = router_program((*server_command(binary), *_arguments(options, self._preset_path)), self._environment)
        try:
            self._child = child = await Child.spawn(
                program.argv, lambda _, line: log.feed(line), program.environment, program.directory
            )
        except OSError as exc:
            raise EngineMissing(f"{binary} cannot be run: {exc.strerror}") from exc
        if await _answers(child, RouterApi(Endpoint(options.host, options.port))):
            return
        await self.close()
        if log.is_preset_rejected:
            raise _PresetRejected(log.reader.failure)
        raise EngineMissing(f"The router did not start: {log.reader.failure}", details="\n".join(log.reader.tail))

    async def wait_until_lost(self) -> str:
        if self._child is None:
            return "The router is not running"
        code = await self._child.wait()
        error = self._log.reader.last_error
        return f"The router ended unexpectedly: {describe_exit(code)}" + (f"; {error}" if error else "")

    async def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop(STOP_GRACE_S)

    def on_models(self, models: Sequence[RouterModel]) -> None:
        """Ignore the list: the router lists the models of the preset file."""

    def name_of(self, spec: LaunchSpec) -> str | None:
        return spec.alias

    async def register(self, spec: LaunchSpec, running: Sequence[LaunchSpec], api: RouterApi) -> str:
        if spec.command is not None:
            raise LoadFailed("The router runs llama.cpp only; a model with a command of its own needs --engine workers")
        async with self._registering:
            registered = {s.model_id: s for s in self._registered() if is_writable(s)}
            # Models that run keep the options that they run with, or the reload would restart them.
            fixed = {s.model_id: s for s in (*running, spec)}
            section(spec)
            refusal = await self._reload({**registered, **fixed}, api)
            if refusal is not None:
                # The options of another model may be at fault, so leave them out.
                plain = {model_id: without_options(other) for model_id, other in registered.items()}
                refusal = await self._reload({**plain, **fixed}, api)
            if refusal is not None:
                raise LoadFailed(f"The router refuses the model's options: {refusal}")
        return spec.alias

    async def _reload(self, specs: Mapping[int, LaunchSpec], api: RouterApi) -> str | None:
        """Make the router read a preset file of these specs. Returns its error when it refuses."""
        text, before = preset_ini(specs[model_id] for model_id in sorted(specs)), self._preset_text
        if text == before:
            return None
        await self._write(text)
        try:
            await api.models(reload=True)
        except RouterRefused as exc:
            await self._write(before)
            return str(exc)
        except RouterError as exc:
            raise LoadFailed(f"The router does not answer: {exc}") from exc
        return None

    async def _write(self, text: str) -> None:
        try:
            await asyncio.to_thread(_replace, self._preset_path, text)
        except OSError as exc:
            raise EngineMissing(f"{self._preset_path} cannot be written: {exc.strerror}") from exc
        self._preset_text = text

    @property
    def pid(self) -> int | None:
        """Process id of the router; None when it does not run."""
        return None if self._child is None else self._child.pid

    def pid_of(self, name: str) -> int | None:
        return None if self._child is None else self._child.descendant("--alias", name)

    async def wait_for_log(self, name: str) -> None:
        await self._log.wait_for_exit(name)


def _arguments(options: RouterOptions, preset_path: Path) -> tuple[str, ...]:
    return (
        *("--host", options.host, "--port", str(options.port)),
        *("--models-preset", str(preset_path), "--models-max", str(options.max_models)),
        "--models-autoload" if options.autoload else "--no-models-autoload",
        *("--log-colors", "off"),
    )


async def _answers(child: Child, api: RouterApi) -> bool:
    """True once the router answers; False when it has ended or takes longer than OPEN_S."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(OPEN_S):
            while child.is_running:
                if await api.is_healthy():
                    return child.is_running
                await asyncio.wait({child.exited}, timeout=OPEN_POLL_S)
    return False


def _check_port(endpoint: Endpoint) -> None:
    """Raise EngineMissing when the port is taken: the program there would be mistaken for the router."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        raise EngineMissing(
            f"The router cannot listen on {endpoint.host}:{endpoint.port} ({exc.strerror}). Set another port for it "
            "(port in the configuration file), or --router-url to use a router that runs there."
        ) from exc


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
