"""Sections of a preset: one per model, the defaults of all models, and the values that a model inherits."""

from __future__ import annotations

from pydantic import Field

from llama_async_proxy.api.rest.presets import PRESET, READ_ERRORS, WRITE_ERRORS, PresetDetails, preset_answer
from llama_async_proxy.api.rest.routing import RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.rest.schema import CamelModel, OptionChanges, Options, RestAnswer, StrictModel, Text
from llama_async_proxy.operations import preset_sections as section_operations
from llama_async_proxy.operations.preset_sections import (
    AddPresetModel,
    GetPresetDefaults,
    GetPresetModels,
    PresetModels,
    RemovePresetModel,
    ShowInheritance,
    UpdatePresetDefaults,
    UpdatePresetModel,
)
from llama_async_proxy.presets.inheritance import Inheritance

# --- schema -----------------------------------------------------------------------------------------------------------


class SectionBody(StrictModel):
    name: Text
    config: Options = Field(default={}, description="Values by key.")


class ChangesBody(StrictModel):
    config: OptionChanges = Field(description="Values by key; null removes one, what is absent stays.")


class SectionInfo(StrictModel):
    name: str
    path: str | None = None
    group: str | None = None
    config: Options = Field(description="What the section itself says.")
    options: Options = Field(description="With what it inherits, by the options' own names.")
    sources: dict[str, str]


class Sections(StrictModel):
    name: str
    models: list[SectionInfo]


class Defaults(StrictModel):
    name: str
    config: Options


class InheritedOptions(CamelModel):
    final_config: Options
    sources: dict[str, str] = Field(description="default, global, group or model, by the same keys.")
    inheritance_path: list[str]


# --- mapping ----------------------------------------------------------------------------------------------------------


def preset_sections(found: PresetModels) -> Sections:
    return Sections(
        name=found.name,
        models=[
            SectionInfo(
                name=model.name,
                path=model.path,
                group=model.group,
                config=dict(model.own),
                options=dict(model.options),
                sources={name: level.value for name, level in model.sources.items()},
            )
            for model in found.models
        ],
    )


def inherited_options(found: Inheritance) -> InheritedOptions:
    return InheritedOptions(
        final_config=dict(found.values),
        sources={name: level.value for name, level in found.sources.items()},
        inheritance_path=[level.value for level in found.path],
    )


# --- routes -----------------------------------------------------------------------------------------------------------


async def list_preset_models(context: ServiceContext, name: str) -> RestAnswer[Sections]:
    """The models of a preset, with what they inherit."""
    return RestAnswer(data=preset_sections(await section_operations.get_preset_models(context, GetPresetModels(name))))


async def add_preset_model(context: ServiceContext, name: str, body: SectionBody) -> RestAnswer[PresetDetails]:
    """Add a model's section."""
    request = AddPresetModel(name, body.name, body.config)
    return preset_answer(await section_operations.add_preset_model(context, request), "Model added")


async def update_preset_model(
    context: ServiceContext, name: str, model_name: str, body: ChangesBody
) -> RestAnswer[PresetDetails]:
    """Change some values of a model's section."""
    request = UpdatePresetModel(name, model_name, body.config)
    return preset_answer(await section_operations.update_preset_model(context, request), "Model updated")


async def remove_preset_model(context: ServiceContext, name: str, model_name: str) -> RestAnswer[PresetDetails]:
    """Remove a model's section."""
    request = RemovePresetModel(name, model_name)
    return preset_answer(await section_operations.remove_preset_model(context, request), "Model removed")


async def get_preset_defaults(context: ServiceContext, name: str) -> RestAnswer[Defaults]:
    """What a preset says for every model."""
    found = await section_operations.get_preset_defaults(context, GetPresetDefaults(name))
    return RestAnswer(data=Defaults(name=found.name, config=dict(found.config)))


async def update_preset_defaults(context: ServiceContext, name: str, body: ChangesBody) -> RestAnswer[PresetDetails]:
    """Change some of what a preset says for every model."""
    request = UpdatePresetDefaults(name, body.config)
    return preset_answer(await section_operations.update_preset_defaults(context, request), "Defaults updated")


async def show_inheritance(context: ServiceContext, name: str, model: str) -> RestAnswer[InheritedOptions]:
    """What holds for a model of a preset after all, and where each value comes from."""
    return RestAnswer(
        data=inherited_options(await section_operations.show_inheritance(context, ShowInheritance(name, model)))
    )


_PRESET = "/api/presets/{name}"
_MODEL = _PRESET + "/models/{model_name:path}"

TABLES = (
    RouteTable(
        "presets",
        (
            RestRoute("GET", _PRESET + "/models", list_preset_models, RestAnswer[Sections], READ_ERRORS),
            RestRoute("POST", _PRESET + "/models", add_preset_model, PRESET, WRITE_ERRORS),
            RestRoute("PATCH", _MODEL, update_preset_model, PRESET, WRITE_ERRORS),
            RestRoute("DELETE", _MODEL, remove_preset_model, PRESET, READ_ERRORS),
            RestRoute("GET", _PRESET + "/defaults", get_preset_defaults, RestAnswer[Defaults], READ_ERRORS),
            RestRoute("PATCH", _PRESET + "/defaults", update_preset_defaults, PRESET, WRITE_ERRORS),
            RestRoute("GET", _PRESET + "/inheritance", show_inheritance, RestAnswer[InheritedOptions], READ_ERRORS),
        ),
    ),
)
