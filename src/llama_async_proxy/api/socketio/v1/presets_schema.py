"""Presets as Socket.IO v1 has them: values typed, keys as written in the file."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations.engine import EngineView
from llama_async_proxy.operations.models_directory import ModelsDirectory
from llama_async_proxy.operations.options import ConfigureEngine, EngineOptionsView, OptionList, StartWithPreset
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
from llama_async_proxy.operations.presets import (
    CreatePreset,
    DeletedPreset,
    DeletePreset,
    PresetList,
    PresetView,
    ReadPreset,
    SavePreset,
    ValidatePreset,
    Validation,
)
from llama_async_proxy.presets.inheritance import Inheritance
from llama_async_proxy.records.options import OptionValue

Sections: TypeAlias = dict[str, dict[str, OptionValue]]
Changes: TypeAlias = dict[str, OptionValue | None]

# --- inputs -----------------------------------------------------------------------------------------------------------


class Named(Struct):
    filename: str


class Save(Struct):
    filename: str
    config: Sections


class Create(Struct):
    filename: str
    description: str | None = None


class SectionChanges(Struct):
    filename: str
    modelName: str  # noqa: N815 - names here are the clients'
    config: Changes


class NewSection(Struct):
    filename: str
    modelName: str  # noqa: N815
    config: dict[str, OptionValue]


class Section(Struct):
    filename: str
    modelName: str  # noqa: N815


class DefaultChanges(Struct):
    filename: str
    config: Changes


class Validate(Struct):
    config: Sections


class EngineSettings(Struct):
    """Every option of the engine may be named, in any spelling it knows and in camelCase."""

    settings: dict[str, OptionValue | None]


class Start(Struct):
    filename: str
    options: dict[str, OptionValue | None] = {}


class StartNamed(Struct):
    presetName: str  # noqa: N815
    maxModels: int | None = None  # noqa: N815
    ctxSize: int | None = None  # noqa: N815
    threads: int | None = None


def read_preset(payload: Named) -> ReadPreset:
    return ReadPreset(payload.filename)


def save_preset(payload: Save) -> SavePreset:
    return SavePreset(payload.filename, payload.config)


def create_preset(payload: Create) -> CreatePreset:
    return CreatePreset(payload.filename, payload.description)


def delete_preset(payload: Named) -> DeletePreset:
    return DeletePreset(payload.filename)


def get_models(payload: Named) -> GetPresetModels:
    return GetPresetModels(payload.filename)


def add_model(payload: NewSection) -> AddPresetModel:
    return AddPresetModel(payload.filename, payload.modelName, payload.config)


def update_model(payload: SectionChanges) -> UpdatePresetModel:
    return UpdatePresetModel(payload.filename, payload.modelName, payload.config)


def remove_model(payload: Section) -> RemovePresetModel:
    return RemovePresetModel(payload.filename, payload.modelName)


def get_defaults(payload: Named) -> GetPresetDefaults:
    return GetPresetDefaults(payload.filename)


def update_defaults(payload: DefaultChanges) -> UpdatePresetDefaults:
    return UpdatePresetDefaults(payload.filename, payload.config)


def validate(payload: Validate) -> ValidatePreset:
    return ValidatePreset(payload.config)


def show_inheritance(payload: Section) -> ShowInheritance:
    return ShowInheritance(payload.filename, payload.modelName)


def configure_engine(payload: EngineSettings) -> ConfigureEngine:
    max_models, options = _split(payload.settings)
    return ConfigureEngine(max_models, options)


def start(payload: Start) -> StartWithPreset:
    max_models, options = _split(payload.options)
    return StartWithPreset(payload.filename, max_models, options)


def start_named(payload: StartNamed) -> StartWithPreset:
    given: dict[str, OptionValue | None] = {}
    if payload.ctxSize is not None:
        given["ctxSize"] = payload.ctxSize
    if payload.threads is not None:
        given["threads"] = payload.threads
    return StartWithPreset(payload.presetName, payload.maxModels, given)


def _split(settings: Changes) -> tuple[int | None, Changes]:
    """(maxModels, the engine's options). Raises InvalidInput."""
    most = settings.get("maxModels")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int)):
        raise InvalidInput("maxModels", f"must be a whole number, not {most!r}")
    return most, {key: value for key, value in settings.items() if key != "maxModels"}


# --- outputs ----------------------------------------------------------------------------------------------------------


class V1PresetSummary(Struct):
    name: str
    path: str
    file: str
    title: str
    description: str
    isActive: bool  # noqa: N815
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


class V1PresetModel(Struct):
    model: str | None
    group: str | None
    config: dict[str, OptionValue]
    """With what is inherited, but for the engine's defaults."""
    own: dict[str, OptionValue]
    sources: dict[str, str]


class V1PresetModels(Struct):
    filename: str
    models: dict[str, V1PresetModel]


class V1PresetDefaults(Struct):
    filename: str
    defaults: dict[str, OptionValue]


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


class Parameter(Struct):
    name: str
    type: str
    default: str | None
    description: str
    names: tuple[str, ...]
    env: tuple[str, ...]
    choices: tuple[str, ...]


class Parameters(Struct):
    categories: dict[str, list[Parameter]]
    parameters: dict[str, list[Parameter]]


class Validated(Struct):
    valid: bool
    errors: list[str]
    warnings: list[str]


class Inherited(Struct):
    finalConfig: dict[str, OptionValue]  # noqa: N815
    sources: dict[str, str]
    inheritancePath: list[str]  # noqa: N815


class EngineSettingsView(Struct):
    settings: dict[str, OptionValue]


class StartedWithPreset(Struct):
    port: int
    url: str
    mode: str
    preset: str | None


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


def parameters(listed: OptionList) -> Parameters:
    """Under both names by which clients ask for them."""
    categories = {
        group.name: [
            Parameter(
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
    return Parameters(categories, categories)


def validated(validation: Validation) -> Validated:
    verdict = validation.verdict
    return Validated(validation.is_valid, [str(p) for p in verdict.errors], [str(p) for p in verdict.warnings])


def inherited(found: Inheritance) -> Inherited:
    return Inherited(
        {_camel(name): value for name, value in found.values.items()},
        {_camel(name): level for name, level in found.sources.items()},
        list(found.path),
    )


def engine_settings(view: EngineOptionsView) -> EngineSettingsView:
    return EngineSettingsView({"maxModels": view.max_models, **{_camel(k): v for k, v in view.options.items()}})


def started_with_preset(view: EngineView) -> StartedWithPreset:
    return StartedWithPreset(view.port, view.url, "router", view.preset)


def formatted_size(size_bytes: int) -> str:
    """For people: "4.3 GB", in steps of 1024."""
    size = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


def _camel(name: str) -> str:
    first, *others = name.split("-")
    return first + "".join(part[:1].upper() + part[1:] for part in others)
