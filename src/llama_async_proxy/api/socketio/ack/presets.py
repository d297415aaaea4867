"""Presets in the acknowledged dialect: requests `presets:*`. Values are strings, as written in the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import Call, Nothing, no_fields
from llama_async_proxy.api.units import iso_time
from llama_async_proxy.operations import options as option_operations
from llama_async_proxy.operations import presets as preset_operations
from llama_async_proxy.operations.options import ListOptions, OptionList
from llama_async_proxy.operations.presets import (
    DeletedPreset,
    DeletePreset,
    ListPresets,
    PresetList,
    PresetView,
    ReadPreset,
    SavePreset,
    ValidatePreset,
    Validation,
)
from llama_async_proxy.records.options import OptionValue


class PresetName(Struct):
    filename: str


class PresetConfig(Struct):
    filename: str
    config: dict[str, dict[str, OptionValue]]


class PresetCandidate(Struct):
    config: dict[str, dict[str, OptionValue]]
    filename: str | None = None


class AckPreset(Struct):
    filename: str
    name: str
    description: str
    models: dict[str, dict[str, str]]
    """Every section with its values as written."""


class AckPresets(Struct):
    presets: list[AckPreset]


class AckPresetText(AckPreset):
    content: str


class Saved(Struct):
    filename: str
    savedAt: str  # noqa: N815 - field names are the clients'


class Deleted(Struct):
    deleted: bool


class AckValidated(Struct):
    valid: bool
    errors: list[str]
    warnings: list[str]


class AckParameter(Struct):
    name: str
    type: str
    default: str
    """Empty where the engine names none."""
    description: str


class AckParameters(Struct):
    parameters: dict[str, list[AckParameter]]
    categories: dict[str, list[AckParameter]]


def read_preset(payload: PresetName) -> ReadPreset:
    return ReadPreset(payload.filename)


def save_preset(payload: PresetConfig) -> SavePreset:
    return SavePreset(payload.filename, payload.config)


def delete_preset(payload: PresetName) -> DeletePreset:
    return DeletePreset(payload.filename)


def validate_preset(payload: PresetCandidate) -> ValidatePreset:
    return ValidatePreset(payload.config)


def preset_list(listed: PresetList) -> AckPresets:
    return AckPresets([AckPreset(p.name, p.title, p.description, _sections(p.sections)) for p in listed.presets])


def preset(view: PresetView) -> AckPresetText:
    found = view.summary
    return AckPresetText(found.name, found.title, found.description, _sections(found.sections), view.content)


def saved(view: PresetView) -> Saved:
    return Saved(view.summary.name, iso_time(view.summary.modified_at_ms))


def deleted(_: DeletedPreset) -> Deleted:
    return Deleted(True)


def validated(validation: Validation) -> AckValidated:
    verdict = validation.verdict
    return AckValidated(validation.is_valid, [str(p) for p in verdict.errors], [str(p) for p in verdict.warnings])


def parameters(listed: OptionList) -> AckParameters:
    """The same list under both names by which clients read it."""
    groups = {
        group.name: [
            AckParameter(option.name, option.type, option.default or "", option.description) for option in group.options
        ]
        for group in listed.groups
    }
    return AckParameters(groups, groups)


def _sections(sections: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    return {name: dict(values) for name, values in sections.items()}


# --- the table --------------------------------------------------------------------------------------------------------

CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call("presets:list", Nothing, no_fields(ListPresets), preset_operations.list_presets, preset_list),
    Call(
        "presets:read", PresetName, read_preset, preset_operations.read_preset, preset,
        invalid="CONFIG_INVALID", not_found="PRESET_NOT_FOUND",
    ),
    Call(
        "presets:save", PresetConfig, save_preset, preset_operations.save_preset, saved,
        "PRESET_SAVE_FAILED", invalid="CONFIG_INVALID",
    ),
    Call(
        "presets:delete", PresetName, delete_preset, preset_operations.delete_preset, deleted,
        "PRESET_SAVE_FAILED", not_found="PRESET_NOT_FOUND", invalid="CONFIG_INVALID",
    ),
    Call("presets:get-llama-params", Nothing, no_fields(ListOptions), option_operations.list_options, parameters),
    Call(
        "presets:validate-config", PresetCandidate, validate_preset, preset_operations.validate_preset, validated,
        invalid="CONFIG_INVALID",
    ),
)  # fmt: skip
