"""Parts of a preset: its models, what it says for all of them, and what holds for one after all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from llama_async_proxy.errors import Conflict, InvalidInput, NotFound, PresetNotFound
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.operations.presets import PresetView, parsed, view, write
from llama_async_proxy.presets.editing import Changes, merged, typed_config
from llama_async_proxy.presets.inheritance import GROUP_KEY, Inheritance, Level, inheritance, is_model, model_sections
from llama_async_proxy.presets.ini import GLOBAL, Document
from llama_async_proxy.presets.validation import checked_name
from llama_async_proxy.records.options import OptionValue


class GetPresetModels(Struct, frozen=True):
    name: str


class PresetModel(Struct, frozen=True):
    """A section of a preset, and what it inherits."""

    name: str
    path: str | None
    """Of the model's file, as written; None: the section is named like a registered model."""
    group: str | None
    own: Mapping[str, OptionValue]
    """What the section itself says, by key as written."""
    options: Mapping[str, OptionValue]
    """With what it inherits, by the options' own names; the engine's defaults are left out."""
    sources: Mapping[str, Level]
    """Where each of `options` comes from."""


class PresetModels(Struct, frozen=True):
    name: str
    models: tuple[PresetModel, ...]


class AddPresetModel(Struct, frozen=True):
    name: str
    model_name: str
    config: Mapping[str, OptionValue]


class UpdatePresetModel(Struct, frozen=True):
    """Values that are not named stay; None removes one."""

    name: str
    model_name: str
    config: Changes


class RemovePresetModel(Struct, frozen=True):
    name: str
    model_name: str


class GetPresetDefaults(Struct, frozen=True):
    name: str


class PresetDefaults(Struct, frozen=True):
    name: str
    config: Mapping[str, OptionValue]
    """What the section [*] says, by key as written."""


class UpdatePresetDefaults(Struct, frozen=True):
    """Values that are not named stay; None removes one."""

    name: str
    config: Changes


class ShowInheritance(Struct, frozen=True):
    name: str
    model_name: str


@operation("presets.models", Effect.READ)
async def get_preset_models(context: Context, request: GetPresetModels) -> PresetModels:
    """Raises PresetNotFound, PresetInvalid."""
    found, document = await _read(context, request.name)
    catalogue = await context.active_preset.catalogue()
    models = []
    for section in model_sections(document):
        inherited = inheritance(document, catalogue, section.name)
        set_here = {name: level for name, level in inherited.sources.items() if level is not Level.DEFAULT}
        models.append(
            PresetModel(
                name=section.name,
                path=section.values().get("model"),
                group=section.values().get(GROUP_KEY),
                own=found.values[section.name],
                options={name: inherited.values[name] for name in set_here},
                sources=set_here,
            )
        )
    return PresetModels(found.summary.name, tuple(models))


@operation("presets.add_model", Effect.MANAGE)
async def add_preset_model(context: Context, request: AddPresetModel) -> PresetView:
    """Raises Conflict when there is such a section, PresetInvalid."""

    def added(document: Document) -> Document:
        if document.section(request.model_name) is not None:
            raise Conflict(f"Preset {request.name!r} has a section [{request.model_name}] already.")
        return merged(document.with_section(request.model_name), request.model_name, request.config, catalogue)

    _check_model_name(request.model_name)
    catalogue = await context.active_preset.catalogue()
    return await _change(context, request.name, added)


@operation("presets.update_model", Effect.MANAGE)
async def update_preset_model(context: Context, request: UpdatePresetModel) -> PresetView:
    """Raises NotFound when there is no such section, PresetInvalid."""

    def updated(document: Document) -> Document:
        _require_section(document, request.name, request.model_name)
        return merged(document, request.model_name, request.config, catalogue)

    catalogue = await context.active_preset.catalogue()
    return await _change(context, request.name, updated)


@operation("presets.remove_model", Effect.MANAGE)
async def remove_preset_model(context: Context, request: RemovePresetModel) -> PresetView:
    def removed(document: Document) -> Document:
        _require_section(document, request.name, request.model_name)
        return document.without_section(request.model_name)

    _check_model_name(request.model_name)
    return await _change(context, request.name, removed)


@operation("presets.defaults", Effect.READ)
async def get_preset_defaults(context: Context, request: GetPresetDefaults) -> PresetDefaults:
    found, document = await _read(context, request.name)
    catalogue = await context.active_preset.catalogue()
    return PresetDefaults(found.summary.name, typed_config(document, catalogue).get(GLOBAL, {}))


@operation("presets.update_defaults", Effect.MANAGE)
async def update_preset_defaults(context: Context, request: UpdatePresetDefaults) -> PresetView:
    catalogue = await context.active_preset.catalogue()
    return await _change(context, request.name, lambda document: merged(document, GLOBAL, request.config, catalogue))


@operation("presets.inheritance", Effect.READ)
async def show_inheritance(context: Context, request: ShowInheritance) -> Inheritance:
    """Raises NotFound when the preset has no such section."""
    found, document = await _read(context, request.name)
    _require_section(document, found.summary.name, request.model_name)
    return inheritance(document, await context.active_preset.catalogue(), request.model_name)


async def _read(context: Context, name: str) -> tuple[PresetView, Document]:
    found = await view(context, checked_name(name))
    return found, parsed(found.summary.name, found.content)


async def _change(context: Context, given_name: str, change: Callable[[Document], Document]) -> PresetView:
    name = checked_name(given_name)

    def new_text(old: str | None) -> str:
        if old is None:
            raise PresetNotFound(name)
        return change(parsed(name, old)).render()

    return await write(context, name, new_text)


def _check_model_name(name: str) -> None:
    if not is_model(name):
        raise InvalidInput("modelName", f"must be the name of a model, not {name!r}")


def _require_section(document: Document, preset: str, section: str) -> None:
    if document.section(section) is None:
        known = tuple(found.name for found in model_sections(document))[:3]
        raise NotFound("model", section, f"Preset {preset!r} has no section [{section}].", similar=known)
