"""Presets as whole files over Socket.IO v1: requests `presets:*`. Values are typed, keys as written in the file."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import Call, Nothing, no_fields
from llama_async_proxy.operations import models_directory as directory_operations
from llama_async_proxy.operations import presets as preset_operations
from llama_async_proxy.operations.models_directory import ListModelsDirectory, ModelsDirectory
from llama_async_proxy.operations.presets import (
    CreatePreset,
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

Sections: TypeAlias = dict[str, dict[str, OptionValue]]
"""Options by section."""


class PresetByName(Struct):
    filename: str


class Save(Struct):
    filename: str
    config: Sections


class Create(Struct):
    filename: str
    description: str | None = None


class Validate(Struct):
    config: Sections


class V1PresetSummary(Struct):
    name: str
    path: str
    file: str
    title: str
    description: str
    isActive: bool  # noqa: N815 - field names are the clients'
    problem: str | None


class V1Presets(Struct):
    presets: list[V1PresetSummary]
    active: str | None


class V1Preset(Struct):
    filename: str
    name: str
    description: str
    path: str
    content: str
    parsed: Sections
    errors: list[str]
    warnings: list[str]


class PresetDeleted(Struct):
    deleted: bool
    filename: str


class DirectoryEntry(Struct):
    name: str
    path: str
    size: int
    sizeFormatted: str  # noqa: N815
    vram: int | None
    vramFormatted: str | None  # noqa: N815
    estimatedVram: int | None  # noqa: N815


class Directory(Struct):
    models: list[DirectoryEntry]
    directory: str


class Validated(Struct):
    valid: bool
    errors: list[str]
    warnings: list[str]


def read_preset(payload: PresetByName) -> ReadPreset:
    return ReadPreset(payload.filename)


def save_preset(payload: Save) -> SavePreset:
    return SavePreset(payload.filename, payload.config)


def create_preset(payload: Create) -> CreatePreset:
    return CreatePreset(payload.filename, payload.description)


def delete_preset(payload: PresetByName) -> DeletePreset:
    return DeletePreset(payload.filename)


def validate(payload: Validate) -> ValidatePreset:
    return ValidatePreset(payload.config)


def preset_list(listed: PresetList) -> V1Presets:
    return V1Presets(
        [
            V1PresetSummary(p.name, p.path, p.file, p.title, p.description, p.is_active, p.problem)
            for p in listed.presets
        ],
        listed.active,
    )


def preset(view: PresetView) -> V1Preset:
    summary = view.summary
    return V1Preset(
        filename=summary.name,
        name=summary.title,
        description=summary.description,
        path=summary.path,
        content=view.content,
        parsed={name: dict(section) for name, section in view.values.items()},
        errors=[str(problem) for problem in view.verdict.errors],
        warnings=[str(problem) for problem in view.verdict.warnings],
    )


def preset_deleted(deleted: DeletedPreset) -> PresetDeleted:
    return PresetDeleted(True, deleted.name)


def models_directory(found: ModelsDirectory) -> Directory:
    return Directory(
        [
            DirectoryEntry(
                name=model.name,
                path=model.path,
                size=model.size_bytes,
                sizeFormatted=formatted_size(model.size_bytes),
                vram=(vram := model.measured_bytes or model.vram_bytes),
                vramFormatted=None if vram is None else formatted_size(vram),
                estimatedVram=model.vram_bytes,
            )
            for model in found.models
        ],
        found.directory,
    )


def validated(validation: Validation) -> Validated:
    verdict = validation.verdict
    return Validated(validation.is_valid, [str(p) for p in verdict.errors], [str(p) for p in verdict.warnings])


def formatted_size(size_bytes: int) -> str:
    """Size for people to read: "4.3 GB", in steps of 1024."""
    size = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


# --- the table --------------------------------------------------------------------------------------------------------

CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call("presets:list", Nothing, no_fields(ListPresets), preset_operations.list_presets, preset_list),
    Call(
        "presets:read", PresetByName, read_preset, preset_operations.read_preset, preset,
        not_found="PRESET_NOT_FOUND", invalid="PRESET_INVALID",
    ),
    Call(
        "presets:save", Save, save_preset, preset_operations.save_preset, preset,
        "PRESET_SAVE_FAILED", description="Creates or replaces; comments in the file are kept.",
    ),
    Call(
        "presets:create", Create, create_preset, preset_operations.create_preset, preset,
        "PRESET_SAVE_FAILED",
    ),
    Call(
        "presets:delete", PresetByName, delete_preset, preset_operations.delete_preset, preset_deleted,
        "PRESET_SAVE_FAILED", not_found="PRESET_NOT_FOUND",
    ),
    Call("presets:validate-config", Validate, validate, preset_operations.validate_preset, validated),
    Call(
        "presets:get-models-dir", Nothing, no_fields(ListModelsDirectory), directory_operations.list_models_directory,
        models_directory, description="Files in the models directory, with the GPU memory each would take.",
    ),
    Call(
        "presets:available-models", Nothing, no_fields(ListModelsDirectory), directory_operations.list_models_directory,
        models_directory, description="The same as presets:get-models-dir.",
    ),
)  # fmt: skip
