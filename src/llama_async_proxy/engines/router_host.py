"""Contract of a router's host: the part that runs a llama-server router, or connects to one that others run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from llama_async_proxy.engines.router_api import RouterApi
from llama_async_proxy.engines.router_log import OnLog
from llama_async_proxy.engines.router_schema import RouterModel
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec


class OpenRouter(Struct, frozen=True):
    """A router that answers at `endpoint`."""

    endpoint: Endpoint
    binary: str | None = None
    version: str | None = None


class RouterHost(Protocol):
    """Runs or finds a router. Implemented by `local_router.LocalRouter` and `remote_router.RemoteRouter`."""

    @property
    def retries_forever(self) -> bool:
        """True when the router may come back at any time, so that connecting to it is retried without end."""

    @property
    def keeps_models(self) -> bool:
        """True when models go on running after this service has stopped, because others use them, too."""

    async def open(self, on_log: OnLog) -> OpenRouter:
        """Start or connect to the router, and return once it answers. Raises EngineMissing."""

    async def wait_until_lost(self) -> str:
        """Return the reason once the router has ended."""

    async def close(self) -> None:
        """End the router, if this service has started it. Idempotent."""

    def on_models(self, models: Sequence[RouterModel]) -> None:
        """Called with the router's list of models whenever it may have changed."""

    def name_of(self, spec: LaunchSpec) -> str | None:
        """The router's name of a model; None when the router does not know it."""

    async def register(self, spec: LaunchSpec, running: Sequence[LaunchSpec], api: RouterApi) -> str:
        """Make the router know `spec` with its options, without restarting the `running` models.

        Returns the router's name of the model. Raises ServiceError.
        """

    def pid_of(self, name: str) -> int | None:
        """Process id of a model, if it runs on this machine."""

    async def wait_for_log(self, name: str) -> None:
        """Return once the whole log of this model's ended process was delivered."""
