"""Engine options over Socket.IO v1: their list, their values for every model, and starts with a preset."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import Call, Nothing, no_fields
from llama_async_proxy.api.socketio.v1.engine import MODE, STARTING
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations import options as option_operations
from llama_async_proxy.operations.engine import EngineView
from llama_async_proxy.operations.options import (
    ConfigureEngine,
    EngineOptionsView,
    ListOptions,
    OptionList,
    StartWithPreset,
)
from llama_async_proxy.records.options import OptionValue

Changes: TypeAlias = dict[str, OptionValue | None]
"""New values by option; null removes one."""


class EngineSettings(Struct):
    """Every option of the engine may be named, by any of its names and in camelCase."""

    settings: Changes


class Start(Struct):
    filename: str
    options: Changes = {}


class StartNamed(Struct):
    presetName: str  # noqa: N815 - field names are the clients'
    maxModels: int | None = None  # noqa: N815
    ctxSize: int | None = None  # noqa: N815
    threads: int | None = None


class V1Parameter(Struct):
    name: str
    type: str
    default: str | None
    description: str
    names: tuple[str, ...]
    env: tuple[str, ...]
    choices: tuple[str, ...]


class V1Parameters(Struct):
    categories: dict[str, list[V1Parameter]]
    parameters: dict[str, list[V1Parameter]]


class EngineSettingsView(Struct):
    settings: dict[str, OptionValue]


class StartedWithPreset(Struct):
    port: int
    url: str
    mode: str
    preset: str | None


def configure_engine(payload: EngineSettings) -> ConfigureEngine:
    max_models, options = _split(payload.settings)
    return ConfigureEngine(max_models, options)


def start(payload: Start) -> StartWithPreset:
    max_models, options = _split(payload.options)
    return StartWithPreset(payload.filename, max_models, options)


def start_named(payload: StartNamed) -> StartWithPreset:
    given: Changes = {}
    if payload.ctxSize is not None:
        given["ctxSize"] = payload.ctxSize
    if payload.threads is not None:
        given["threads"] = payload.threads
    return StartWithPreset(payload.presetName, payload.maxModels, given)


def _split(settings: Changes) -> tuple[int | None, Changes]:
    """(maxModels, options of the engine). Raises InvalidInput."""
    most = settings.get("maxModels")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int)):
        raise InvalidInput("maxModels", f"must be a whole number, not {most!r}")
    return most, {key: value for key, value in settings.items() if key != "maxModels"}


def parameters(listed: OptionList) -> V1Parameters:
    """The same list under both names by which clients read it."""
    categories = {
        group.name: [
            V1Parameter(
                name=option.name,
                type=option.type,
                default=option.default,
                description=option.description,
                names=option.names,
                env=option.env,
                choices=option.choices,
            )
            for option in group.options
        ]
        for group in listed.groups
    }
    return V1Parameters(categories, categories)


def engine_settings(view: EngineOptionsView) -> EngineSettingsView:
    return EngineSettingsView({"maxModels": view.max_models, **{camel(k): v for k, v in view.options.items()}})


def started_with_preset(view: EngineView) -> StartedWithPreset:
    return StartedWithPreset(view.port, view.url, MODE, view.preset)


def camel(name: str) -> str:
    """Option name in camelCase: ctx-size -> ctxSize."""
    first, *others = name.split("-")
    return first + "".join(part[:1].upper() + part[1:] for part in others)


# --- the table --------------------------------------------------------------------------------------------------------

CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call(
        "presets:get-llama-params", Nothing, no_fields(ListOptions), option_operations.list_options, parameters,
        description="The options that the installed engine lists in its --help.",
    ),
    Call(
        "presets:start-with-preset", Start, start, option_operations.start_with_preset, started_with_preset,
        "START_LLAMA_FAILED", broadcasts=STARTING,
    ),
    Call(
        "llama:start-with-preset", StartNamed, start_named, option_operations.start_with_preset, started_with_preset,
        "START_LLAMA_FAILED", broadcasts=STARTING,
    ),
    Call(
        "llama:config", EngineSettings, configure_engine, option_operations.configure_engine, engine_settings,
        "CONFIG_UPDATE_FAILED", description="Takes effect at the next load of each model.",
    ),
)  # fmt: skip
