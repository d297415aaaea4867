"""Engine options: all that the engine knows, those of a model, those of every model, and the preset in force."""

from __future__ import annotations

from pydantic import Field

from llama_async_proxy.api.rest.engine import EngineData, engine_answer
from llama_async_proxy.api.rest.routing import BODY, RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.rest.schema import CamelModel, Option, OptionChanges, Options, RestAnswer, StrictModel, Text
from llama_async_proxy.operations import options as option_operations
from llama_async_proxy.operations.options import (
    ConfigureEngine,
    EngineOptionsView,
    GetEngineOptions,
    GetModelOptions,
    LeavePreset,
    ListOptions,
    ModelOptions,
    OptionList,
    StartWithPreset,
)
from llama_async_proxy.records.options import EngineOption

# --- schema -----------------------------------------------------------------------------------------------------------


class EngineOptionsBody(CamelModel):
    """What is absent stays."""

    max_models: int | None = Field(None, ge=0, le=1000)
    options: OptionChanges = Field(default={}, description="By option; null removes one.")


class StartBody(EngineOptionsBody):
    preset: Text


class OptionInfo(CamelModel):
    name: str
    aliases: list[str]
    negative_aliases: list[str]
    env: list[str]
    type: str
    choices: list[str]
    default: str | None = None
    description: str
    is_removed: bool
    is_reserved: bool = Field(description="The service's own business; ignored in presets.")
    is_preset_only: bool = Field(description="For presets, not for loads.")


class OptionGroupInfo(StrictModel):
    name: str
    options: list[OptionInfo]


class OptionCatalogue(StrictModel):
    groups: list[OptionGroupInfo]
    binary: str | None = None
    version: str | None = None


class SetOption(StrictModel):
    name: str
    value: Option
    source: str


class OptionsOfModel(StrictModel):
    id: str
    section: str | None = Field(None, description="Of the preset in force that speaks of the model.")
    options: list[SetOption]


class OptionsOfEngine(CamelModel):
    max_models: int
    options: Options


# --- mapping ----------------------------------------------------------------------------------------------------------


def option_list(listed: OptionList) -> OptionCatalogue:
    groups = [OptionGroupInfo(name=g.name, options=[_option(option) for option in g.options]) for g in listed.groups]
    return OptionCatalogue(groups=groups, binary=listed.binary, version=listed.version)


def _option(option: EngineOption) -> OptionInfo:
    return OptionInfo(
        name=option.name,
        aliases=[name for name in option.names if name != option.name],
        negative_aliases=list(option.negatives),
        env=list(option.env),
        type=option.type.value,
        choices=list(option.choices),
        default=option.default,
        description=option.description,
        is_removed=option.is_removed,
        is_reserved=option.is_reserved,
        is_preset_only=option.is_preset_only,
    )


def options_of_model(found: ModelOptions) -> OptionsOfModel:
    options = [SetOption(name=o.name, value=o.value, source=o.source.value) for o in found.options]
    return OptionsOfModel(id=found.model.slug, section=found.section, options=options)


def options_of_engine(found: EngineOptionsView) -> OptionsOfEngine:
    return OptionsOfEngine(max_models=found.max_models, options=dict(found.options))


# --- routes -----------------------------------------------------------------------------------------------------------


async def list_options(context: ServiceContext) -> RestAnswer[OptionCatalogue]:
    """Every option of the installed engine, grouped for people."""
    return RestAnswer(data=option_list(await option_operations.list_options(context, ListOptions())))


async def get_model_options(context: ServiceContext, model_id: str) -> RestAnswer[OptionsOfModel]:
    """Every option that a load of the model would have, and who set it."""
    return RestAnswer(
        data=options_of_model(await option_operations.get_model_options(context, GetModelOptions(model_id)))
    )


async def get_engine_options(context: ServiceContext) -> RestAnswer[OptionsOfEngine]:
    """What holds for every model, unless a preset, the model or a load says otherwise."""
    return RestAnswer(data=options_of_engine(await option_operations.get_engine_options(context, GetEngineOptions())))


async def configure_engine(context: ServiceContext, body: EngineOptionsBody) -> RestAnswer[OptionsOfEngine]:
    """Change it, from the next load of each model on."""
    request = ConfigureEngine(body.max_models, body.options)
    return RestAnswer(data=options_of_engine(await option_operations.configure_engine(context, request)))


async def start_with_preset(context: ServiceContext, body: StartBody) -> RestAnswer[EngineData]:
    """Run with a preset, over restarts too. Models whose effective options stay the same stay loaded."""
    request = StartWithPreset(body.preset, body.max_models, body.options)
    return engine_answer(
        await option_operations.start_with_preset(context, request), f"The engine runs with preset {body.preset}"
    )


async def leave_preset(context: ServiceContext) -> RestAnswer[EngineData]:
    """Run without a preset."""
    return engine_answer(
        await option_operations.leave_preset(context, LeavePreset()), "The engine runs without a preset"
    )


_ENGINE_OPTIONS = "/api/llama-server/options"
_ENGINE_PRESET = "/api/llama-server/preset"

TABLES = (
    RouteTable(
        "options",
        (
            RestRoute("GET", "/api/options", list_options, RestAnswer[OptionCatalogue], (503,)),
            RestRoute("GET", "/api/models/{model_id}/options", get_model_options, RestAnswer[OptionsOfModel], (404,)),
        ),
    ),
    RouteTable(
        "engine",
        (
            RestRoute("GET", _ENGINE_OPTIONS, get_engine_options, RestAnswer[OptionsOfEngine], (400,)),
            RestRoute("PATCH", _ENGINE_OPTIONS, configure_engine, RestAnswer[OptionsOfEngine], (*BODY, 403, 503)),
            RestRoute("POST", _ENGINE_PRESET, start_with_preset, RestAnswer[EngineData], (*BODY, 403, 404, 503)),
            RestRoute("DELETE", _ENGINE_PRESET, leave_preset, RestAnswer[EngineData], (403, 503)),
        ),
    ),
)
