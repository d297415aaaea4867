"""A router that others run, on this machine or another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import replace

from llama_async_proxy.engines.router_api import RouterApi, RouterError
from llama_async_proxy.engines.router_host import OpenRouter
from llama_async_proxy.engines.router_log import OnLog
from llama_async_proxy.engines.router_schema import RouterModel
from llama_async_proxy.errors import EngineMissing, InvalidInput, LoadFailed
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec

_MAX_KEY = 4096


def read_api_key(path: Path) -> str:
    """API key in the first line of a file. Raises EngineMissing when it holds none."""
    try:
        with path.open(encoding="ascii") as file:
            key = file.readline(_MAX_KEY).strip()
    except (OSError, ValueError) as exc:
        raise EngineMissing(f"The router's API key cannot be read from {path}: {exc}") from exc
    if not key or not key.isprintable() or " " in key:
        raise EngineMissing(f"{path} has no API key in its first line (llama.routerApiKeyFile)")
    return key


def parse_url(url: str) -> Endpoint:
    """Endpoint of a router's URL. Raises InvalidInput unless it is a plain http address."""
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
    """`router_host.RouterHost` that never starts or stops the router, and takes the models from its list."""

    retries_forever = True
    keeps_models = True

    def __init__(self, url: str, api_key_file: str = "") -> None:
        """Raises InvalidInput for an invalid URL."""
        self._url = url
        self._api_key_file = api_key_file
        self._endpoint = parse_url(url)
        self._models: Sequence[RouterModel] = ()

    async def open(self, on_log: OnLog) -> OpenRouter:  # noqa: ARG002 - the log stays where the router runs
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
        return OpenRouter(self._endpoint)

    async def wait_until_lost(self) -> str:
        """Never returns: only `RouterEventStream.follow` notices that the router is gone."""
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Leave the router running."""

    def on_models(self, models: Sequence[RouterModel]) -> None:
        self._models = models

    def name_of(self, spec: LaunchSpec) -> str | None:
        """Match by the name under which the model was found there, else by its file, else by its name or alias."""
        if spec.path.startswith("router:"):
            wanted = spec.path.removeprefix("router:")
            return next((model.name for model in self._models if model.name == wanted), None)
        by_file = next((model.name for model in self._models if model.path == spec.path), None)
        named = (model.name for model in self._models if spec.alias in (model.name, *model.aliases))
        return by_file or next(named, None)

    async def register(self, spec: LaunchSpec, running: Sequence[LaunchSpec], api: RouterApi) -> str:  # noqa: ARG002
        """Only models that the router already knows can be used; their options are set there."""
        name = self.name_of(spec)
        if name is None:
            raise LoadFailed(f"The router at {self._url} knows no model {spec.alias!r}; make it known there")
        return name

    def pid_of(self, name: str) -> int | None:  # noqa: ARG002
        return None

    async def wait_for_log(self, name: str) -> None:
        """Return at once, because the log stays where the router runs."""
