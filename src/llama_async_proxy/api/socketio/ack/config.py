"""Configuration in the acknowledged dialect: requests `config:*`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import Call, Nothing, no_fields
from llama_async_proxy.operations import config as config_operations
from llama_async_proxy.operations.config import ConfigUpdated, ConfigView, GetConfig, UpdateConfig
from llama_async_proxy.settings import BY_NAME


class AckServer(Struct):
    port: int
    host: str


class AckLlama(Struct):
    serverPath: str  # noqa: N815 - field names are the clients'
    modelsDir: str  # noqa: N815
    port: int
    maxModels: int  # noqa: N815


class AckLogging(Struct):
    level: str
    path: str


class AckConfig(Struct):
    server: AckServer
    llama: AckLlama
    logging: AckLogging


class AckConfigUpdated(Struct):
    updated: bool
    restartRequired: bool  # noqa: N815
    overridden: list[str]
    warnings: list[str]


def update_config(payload: dict[str, Any]) -> UpdateConfig:
    return UpdateConfig(payload)


def config(view: ConfigView) -> AckConfig:
    settings = view.settings
    return AckConfig(
        AckServer(settings.port, settings.host),
        AckLlama(settings.shown_llama_server, str(settings.models_dir), settings.engine_port, settings.max_models),
        AckLogging(settings.log_level, str(settings.logs_dir)),
    )


def config_updated(updated: ConfigUpdated) -> AckConfigUpdated:
    change = updated.change
    overridden = [BY_NAME[name].file_key for name in change.overridden]
    return AckConfigUpdated(True, change.restart_required, overridden, list(change.warnings))


# --- the table --------------------------------------------------------------------------------------------------------

CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call("config:get", Nothing, no_fields(GetConfig), config_operations.get_config, config),
    Call(
        "config:update", dict[str, Any], update_config, config_operations.update_config, config_updated,
        "CONFIG_INVALID", description="Changes every field or, when one is wrong, none.",
    ),
)  # fmt: skip
