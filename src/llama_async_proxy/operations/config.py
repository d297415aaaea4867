"""Reading and changing the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_async_proxy.operations.configuration import ConfigurationChange, flatten
from llama_async_proxy.operations.services import Services
from llama_async_proxy.settings import Settings


@dataclass(frozen=True, slots=True)
class GetConfig:
    pass


@dataclass(frozen=True, slots=True)
class ConfigView:
    settings: Settings


@dataclass(frozen=True, slots=True)
class UpdateConfig:
    """`changes` is a tree in the shape of the configuration file; missing keys keep their value."""

    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ConfigUpdated:
    settings: Settings
    change: ConfigurationChange


async def get_config(services: Services, _: GetConfig) -> ConfigView:
    return ConfigView(services.configuration.settings)


async def update_config(services: Services, request: UpdateConfig) -> ConfigUpdated:
    change = await services.configuration.update(flatten(request.changes))
    return ConfigUpdated(services.configuration.settings, change)
