"""Where a router runs: as a child of ours, or elsewhere, to be left as it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.engines.discovery import Launcher
from llama_async_proxy.engines.environment import child_environment, passed_environment
from llama_async_proxy.engines.instance import family_argv
from llama_async_proxy.engines.process import Child, describe_exit
from llama_async_proxy.engines.program_trust import safe_directory
from llama_async_proxy.engines.router_api import RouterApi, RouterError, RouterRefused
from llama_async_proxy.engines.router_log import RouterLog, Say
from llama_async_proxy.engines.router_schema import RouterModel, bare, is_writable, preset_ini, section
from llama_async_proxy.errors import EngineMissing, InvalidInput, LoadFailed
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec

OPEN_S = 30.0
"""For our router to listen. It loads nothing, but a first run from a slow disk takes seconds."""
OPEN_POLL_S = 0.05
STOP_GRACE_S = 5.0


class Opened(Struct, frozen=True):
    """A router that answers."""

    endpoint: Endpoint
    binary: str | None = None
    version: str | None = None


class Host(Protocol):
    @property
    def is_patient(self) -> bool:
        """It may come back at any time, so that it is tried for ever."""

    @property
    def leaves_models(self) -> bool:
        """Models go on when we stop: they are not ours alone."""

    async def open(self, say: Say) -> Opened:
        """Make it answer. Raises EngineMissing."""

    async def lost(self) -> str:
        """Return, with why, when it has ended."""

    async def close(self) -> None:
        """End it, if it is ours. Idempotent."""

    def learn(self, models: Sequence[RouterModel]) -> None:
        """What it lists now."""

    def name_of(self, spec: LaunchSpec) -> str | None:
        """Its name of a model; None when it has none."""

    async def offer(self, spec: LaunchSpec, running: Sequence[LaunchSpec], api: RouterApi) -> str:
        """Make it know `spec` as it is, without touching those `running`; its name. Raises ServiceError."""

    def pid_of(self, name: str) -> int | None:
        """The process of a model, if it runs on this machine."""

    async def settled(self, name: str) -> None:
        """Return when all that an ended process of this model had to say was heard."""


class RouterOptions(Struct, frozen=True):
    host: str
    port: int
    max_models: int
    """0: no limit."""
    autoload: bool
    """Whether requests at the router's own address load models."""


class OwnRouter:
    """A router of ours. Its preset file names every registered model with its effective options."""

    is_patient = False
    leaves_models = False

    def __init__(
        self,
        find_launcher: Callable[[], Launcher],
        options: Callable[[], RouterOptions],
        registered: Callable[[], Sequence[LaunchSpec]],
        preset_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`find_launcher` may block and raises EngineMissing; `environment` is what the router gets."""
        self._find_launcher = find_launcher
        self._options = options
        self._registered = registered
        self._preset_path = preset_path
        self._environment = passed_environment(os.environ) if environment is None else environment
        self._preset = _Preset()
        self._log = RouterLog()
        self._child: Child | None = None
        self._offering = asyncio.Lock()

    async def open(self, say: Say) -> Opened:
        launcher = await asyncio.to_thread(self._find_launcher)
        if launcher.binary is None:
            raise EngineMissing("The built-in engine has no router: install llama-server and set --llama-server PATH")
        options = self._options()
        endpoint = Endpoint(options.host, options.port)
        _check_port(endpoint)
        specs = [spec for spec in self._registered() if is_writable(spec)]
        try:
            await self._run(launcher.binary, options, specs, say)
        except _BadPreset:
            # One option that nobody knows would keep all models from running: each brings its own when it is loaded.
            await self._run(launcher.binary, options, [bare(spec) for spec in specs], say)
        return Opened(endpoint, launcher.binary, launcher.version)

    async def _run(self, binary: str, options: RouterOptions, specs: Sequence[LaunchSpec], say: Say) -> None:
        await self._write(preset_ini(specs))
        self._log = log = RouterLog(say)
        try:
            self._child = child = await Child.spawn(
                family_argv((binary, *_arguments(options, self._preset_path))),
                lambda _, line: log.line(line),
                router_environment(self._environment),
                safe_directory(),
            )
        except OSError as exc:
            raise EngineMissing(f"{binary} cannot be run: {exc.strerror}") from exc
        if await _answers(child, RouterApi(Endpoint(options.host, options.port))):
            return
        await self.close()
        if log.is_preset_bad:
            raise _BadPreset(log.digest.failure)
        raise EngineMissing(f"The router did not start: {log.digest.failure}", details="\n".join(log.digest.tail))

    async def lost(self) -> str:
        if self._child is None:
            return "The router is not running"
        code = await self._child.wait()
        words = self._log.digest.last_words
        return f"The router ended unexpectedly: {describe_exit(code)}" + (f"; {words}" if words else "")

    async def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop(STOP_GRACE_S)

    def learn(self, models: Sequence[RouterModel]) -> None:
        """Nothing: it lists what we wrote."""

    def name_of(self, spec: LaunchSpec) -> str | None:
        return spec.alias

    async def offer(self, spec: LaunchSpec, running: Sequence[LaunchSpec], api: RouterApi) -> str:
        if spec.command is not None:
            raise LoadFailed("The router runs llama.cpp only; a model with a command of its own needs --engine workers")
        async with self._offering:
            wanted = {s.model_id: s for s in self._registered() if is_writable(s)}
            fixed = {s.model_id: s for s in (*running, spec)}
            section(spec)
            refusal = await self._reloaded({**wanted, **fixed}, api)
            if refusal is not None:
                # It may be the options of a model that nobody wants now.
                plain = {model_id: bare(other) for model_id, other in wanted.items()}
                refusal = await self._reloaded({**plain, **fixed}, api)
            if refusal is not None:
                raise LoadFailed(f"The router refuses the model's options: {refusal}")
        return spec.alias

    async def _reloaded(self, specs: Mapping[int, LaunchSpec], api: RouterApi) -> str | None:
        """Have the router read these; why it did not."""
        text, before = preset_ini(specs[model_id] for model_id in sorted(specs)), self._preset.text
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
        self._preset.text = text

    @property
    def pid(self) -> int | None:
        """Of the router itself; None when it does not run."""
        return None if self._child is None else self._child.pid

    def pid_of(self, name: str) -> int | None:
        return None if self._child is None else self._child.descendant("--alias", name)

    async def settled(self, name: str) -> None:
        await self._log.settled(name)


def router_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What a model's process gets, less what would make it one: the router passes its environment on."""
    return {name: text for name, text in child_environment(ours).items() if name != "LLAMA_SERVER_ROUTER_PORT"}


def _arguments(options: RouterOptions, preset_path: Path) -> tuple[str, ...]:
    return (
        *("--host", options.host, "--port", str(options.port)),
        *("--models-preset", str(preset_path), "--models-max", str(options.max_models)),
        "--models-autoload" if options.autoload else "--no-models-autoload",
        *("--log-colors", "off"),
    )


async def _answers(child: Child, api: RouterApi) -> bool:
    """True once it does; False when it ended, or took too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(OPEN_S):
            while child.is_running:
                if await api.is_healthy():
                    return child.is_running
                await asyncio.wait({child.exited}, timeout=OPEN_POLL_S)
    return False


def _check_port(endpoint: Endpoint) -> None:
    """A stranger on the port would be taken for the router. Raises EngineMissing."""
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


_MAX_KEY = 4096


class _BadPreset(Exception):
    """The router does not read the file we wrote."""


class _Preset(Struct):
    text: str = ""
    """What the file holds."""


# --- elsewhere ----------------------------------------------------------------------------------------


def read_api_key(path: Path) -> str:
    """The first line of a file. Raises EngineMissing when it holds no key."""
    try:
        with path.open(encoding="ascii") as file:
            key = file.readline(_MAX_KEY).strip()
    except (OSError, ValueError) as exc:
        raise EngineMissing(f"The router's API key cannot be read from {path}: {exc}") from exc
    if not key or not key.isprintable() or " " in key:
        raise EngineMissing(f"{path} has no API key in its first line (llama.routerApiKeyFile)")
    return key


def parse_url(url: str) -> Endpoint:
    """Where a router answers. Raises InvalidInput for what is no plain http address."""
    field_name = "llama.routerUrl"
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as exc:
        raise InvalidInput(field_name, f"is no address: {exc}") from exc
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise InvalidInput(field_name, f"must look like http://host:8080, without TLS, path or password, not {url!r}")
    return Endpoint(parts.hostname, port)


class RemoteRouter:
    """A router that others run: never started, never stopped, its models known by what it lists."""

    is_patient = True
    leaves_models = True

    def __init__(self, url: str, api_key_file: str = "") -> None:
        """Raises InvalidInput for an address that is none."""
        self._url = url
        self._api_key_file = api_key_file
        self._endpoint = parse_url(url)
        self._models: Sequence[RouterModel] = ()

    async def open(self, say: Say) -> Opened:  # noqa: ARG002 - its log is elsewhere
        if self._api_key_file:
            key = await asyncio.to_thread(read_api_key, Path(self._api_key_file))
            self._endpoint = replace(self._endpoint, api_key=key)
        try:
            self._models = await RouterApi(self._endpoint).models()
        except RouterError as exc:
            raise EngineMissing(
                f"No router answers at {self._url}: {exc}. Start it there (llama-server without a model), or change "
                "llama.routerUrl (--router-url)."
            ) from exc
        return Opened(self._endpoint)

    async def lost(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Nothing: it is not ours."""

    def learn(self, models: Sequence[RouterModel]) -> None:
        self._models = models

    def name_of(self, spec: LaunchSpec) -> str | None:
        """By the name we gave it when it was found there, else by its file, else by its name."""
        if spec.path.startswith("router:"):
            wanted = spec.path.removeprefix("router:")
            return next((model.name for model in self._models if model.name == wanted), None)
        by_file = next((model.name for model in self._models if model.path == spec.path), None)
        named = (model.name for model in self._models if spec.alias in (model.name, *model.aliases))
        return by_file or next(named, None)

    async def offer(self, spec: LaunchSpec, running: Sequence[LaunchSpec], api: RouterApi) -> str:  # noqa: ARG002
        name = self.name_of(spec)
        if name is None:
            raise LoadFailed(f"The router at {self._url} knows no model {spec.alias!r}; make it known there")
        return name

    def pid_of(self, name: str) -> int | None:  # noqa: ARG002
        return None

    async def settled(self, name: str) -> None:
        """At once: its log does not come here."""
