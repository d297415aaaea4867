"""Reading and changing the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations.configuration import ConfigurationChange, flatten
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.network_changes import permitted_settings
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.settings import Settings


class GetConfig(Struct, frozen=True):
    pass


class ConfigView(Struct, frozen=True):
    settings: Settings


class UpdateConfig(Struct, frozen=True):
    """`changes` is a tree in the shape of the configuration file; missing keys keep their value.

    `logging.path`, which follows from the data directory, may be there as it is.
    """

    changes: Mapping[str, Any]


class ConfigUpdated(Struct, frozen=True):
    settings: Settings
    change: ConfigurationChange


@operation("config.get", Effect.READ)
async def get_config(context: Context, _: GetConfig) -> ConfigView:
    return ConfigView(context.configuration.settings)


@operation("config.update", Effect.ADMIN)
async def update_config(context: Context, request: UpdateConfig) -> ConfigUpdated:
    """Raises InvalidInput naming the key, PermissionDenied for what takes the owner's hand; nothing changes then."""
    changes = _without_path(request.changes, context.configuration.settings)
    change = await context.configuration.update(await permitted_settings(context, flatten(changes)))
    return ConfigUpdated(context.configuration.settings, change)


def _without_path(changes: Mapping[str, Any], settings: Settings) -> Mapping[str, Any]:
    """Who sends back all that was shown sends this too."""
    logging = changes.get("logging")
    if not isinstance(logging, Mapping) or "path" not in logging:
        return changes
    if logging["path"] != str(settings.logs_dir):
        raise InvalidInput("logging.path", "follows from the data directory; change server.dataDir instead")
    return {**changes, "logging": {key: value for key, value in logging.items() if key != "path"}}
