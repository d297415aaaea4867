"""Configuration over Socket.IO v1: requests `config:*` for the service's settings, `settings:*` for the user's."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import Call, Nothing, no_fields
from llama_async_proxy.operations import config as config_operations
from llama_async_proxy.operations import preferences as preference_operations
from llama_async_proxy.operations.config import ConfigUpdated, ConfigView, GetConfig, UpdateConfig
from llama_async_proxy.operations.configuration import as_tree
from llama_async_proxy.operations.preferences import GetPreferences, Preferences, UpdatePreferences
from llama_async_proxy.settings import BY_NAME

_FIELD_NAMES = {"models_dir": "baseModelsPath", "log_level": "logLevel"}
"""Settings whose name in this dialect differs from their key in the configuration file."""


class ConfigChanges(Struct):
    config: dict[str, Any]


class V1Config(Struct):
    config: dict[str, object]


class V1ConfigUpdated(V1Config):
    restartRequired: bool  # noqa: N815 - field names are the clients'
    overridden: list[str]
    warnings: list[str]


class SettingsChanges(Struct):
    settings: dict[str, Any]


class UserSettings(Struct):
    settings: dict[str, Any]


def update_config(payload: ConfigChanges) -> UpdateConfig:
    return UpdateConfig(payload.config)


def config(view: ConfigView) -> V1Config:
    return V1Config(as_tree(view.settings, _FIELD_NAMES))


def config_updated(updated: ConfigUpdated) -> V1ConfigUpdated:
    change = updated.change
    return V1ConfigUpdated(
        config=as_tree(updated.settings, _FIELD_NAMES),
        restartRequired=change.restart_required,
        overridden=[_FIELD_NAMES.get(name, BY_NAME[name].file_key) for name in change.overridden],
        warnings=list(change.warnings),
    )


def update_settings(payload: SettingsChanges) -> UpdatePreferences:
    return UpdatePreferences(payload.settings)


def user_settings(found: Preferences) -> UserSettings:
    return UserSettings(dict(found.values))


# --- the table --------------------------------------------------------------------------------------------------------

CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call("config:get", Nothing, no_fields(GetConfig), config_operations.get_config, config),
    Call(
        "config:update", ConfigChanges, update_config, config_operations.update_config, config_updated,
        "CONFIG_UPDATE_FAILED", description="Changes every field or, when one is wrong, none.",
    ),
    Call("settings:get", Nothing, no_fields(GetPreferences), preference_operations.get_preferences, user_settings),
    Call(
        "settings:update", SettingsChanges, update_settings, preference_operations.update_preferences, user_settings,
        "CONFIG_UPDATE_FAILED", description="Absent preferences keep their values; null removes one.",
    ),
)  # fmt: skip
