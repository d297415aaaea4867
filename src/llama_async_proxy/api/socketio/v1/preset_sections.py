"""Sections of a preset over Socket.IO v1: its models, its defaults, and the values a model inherits."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import Call
from llama_async_proxy.api.socketio.v1.options import Changes, camel
from llama_async_proxy.api.socketio.v1.presets import PresetByName, preset
from llama_async_proxy.operations import preset_sections as section_operations
from llama_async_proxy.operations.preset_sections import (
    AddPresetModel,
    GetPresetDefaults,
    GetPresetModels,
    PresetDefaults,
    PresetModels,
    RemovePresetModel,
    ShowInheritance,
    UpdatePresetDefaults,
    UpdatePresetModel,
)
from llama_async_proxy.presets.inheritance import Inheritance
from llama_async_proxy.records.options import OptionValue


class SectionByName(Struct):
    filename: str
    modelName: str  # noqa: N815 - field names are the clients'


class SectionChanges(Struct):
    filename: str
    modelName: str  # noqa: N815
    config: Changes


class NewSection(Struct):
    filename: str
    modelName: str  # noqa: N815
    config: dict[str, OptionValue]


class DefaultChanges(Struct):
    filename: str
    config: Changes


class V1PresetModel(Struct):
    model: str | None
    group: str | None
    config: dict[str, OptionValue]
    """Own and inherited values; the engine's defaults are left out."""
    own: dict[str, OptionValue]
    sources: dict[str, str]


class V1PresetModels(Struct):
    filename: str
    models: dict[str, V1PresetModel]


class V1PresetDefaults(Struct):
    filename: str
    defaults: dict[str, OptionValue]


class V1Inheritance(Struct):
    finalConfig: dict[str, OptionValue]  # noqa: N815
    sources: dict[str, str]
    inheritancePath: list[str]  # noqa: N815


def get_models(payload: PresetByName) -> GetPresetModels:
    return GetPresetModels(payload.filename)


def add_model(payload: NewSection) -> AddPresetModel:
    return AddPresetModel(payload.filename, payload.modelName, payload.config)


def update_model(payload: SectionChanges) -> UpdatePresetModel:
    return UpdatePresetModel(payload.filename, payload.modelName, payload.config)


def remove_model(payload: SectionByName) -> RemovePresetModel:
    return RemovePresetModel(payload.filename, payload.modelName)


def get_defaults(payload: PresetByName) -> GetPresetDefaults:
    return GetPresetDefaults(payload.filename)


def update_defaults(payload: DefaultChanges) -> UpdatePresetDefaults:
    return UpdatePresetDefaults(payload.filename, payload.config)


def show_inheritance(payload: SectionByName) -> ShowInheritance:
    return ShowInheritance(payload.filename, payload.modelName)


def preset_models(found: PresetModels) -> V1PresetModels:
    return V1PresetModels(
        found.name,
        {
            model.name: V1PresetModel(
                model.path, model.group, dict(model.options), dict(model.own), dict(model.sources)
            )
            for model in found.models
        },
    )


def preset_defaults(found: PresetDefaults) -> V1PresetDefaults:
    return V1PresetDefaults(found.name, dict(found.config))


def inheritance(found: Inheritance) -> V1Inheritance:
    return V1Inheritance(
        {camel(name): value for name, value in found.values.items()},
        {camel(name): level for name, level in found.sources.items()},
        list(found.path),
    )


# --- the table --------------------------------------------------------------------------------------------------------

CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call(
        "presets:get-models", PresetByName, get_models, section_operations.get_preset_models, preset_models,
        not_found="PRESET_NOT_FOUND", invalid="PRESET_INVALID",
    ),
    Call(
        "presets:add-model", NewSection, add_model, section_operations.add_preset_model, preset,
        "PRESET_SAVE_FAILED",
    ),
    Call(
        "presets:update-model", SectionChanges, update_model, section_operations.update_preset_model, preset,
        "PRESET_SAVE_FAILED", not_found="NOT_FOUND",
        description="Absent keys keep their values; null removes a key.",
    ),
    Call(
        "presets:remove-model", SectionByName, remove_model, section_operations.remove_preset_model, preset,
        "PRESET_SAVE_FAILED", not_found="NOT_FOUND",
    ),
    Call(
        "presets:get-defaults", PresetByName, get_defaults, section_operations.get_preset_defaults, preset_defaults,
        not_found="PRESET_NOT_FOUND", invalid="PRESET_INVALID", description="The values of section [*].",
    ),
    Call(
        "presets:update-defaults", DefaultChanges, update_defaults, section_operations.update_preset_defaults, preset,
        "PRESET_SAVE_FAILED", description="Absent keys keep their values; null removes a key.",
    ),
    Call(
        "presets:show-inheritance", SectionByName, show_inheritance, section_operations.show_inheritance, inheritance,
        not_found="NOT_FOUND", invalid="PRESET_INVALID",
    ),
)  # fmt: skip
