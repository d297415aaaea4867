"""The engine's options: what there are, what holds for a model and why, and what holds for all; the preset in force."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from msgspec import Struct, field

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.engine import EngineView, view
from llama_async_proxy.operations.launch import EffectiveOption, parse_engine_options
from llama_async_proxy.operations.models import ModelRef, find
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.presets.catalogue import BadValue, Catalogue, OptionGroup, as_text, typed
from llama_async_proxy.presets.option_limits import is_passed
from llama_async_proxy.presets.validation import checked_name
from llama_async_proxy.records.engine import EngineStatus
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.options import OptionValue

_OPTIONS_KEY = "llama.options"
_MAX_MODELS_KEY = "maxModels"


class ListOptions(Struct, frozen=True):
    pass


class OptionList(Struct, frozen=True):
    groups: tuple[OptionGroup, ...]
    binary: str | None
    """Path of the program they were read from; None for the built-in engine."""
    version: str | None


class GetModelOptions(Struct, frozen=True):
    id: ModelRef


class ModelOptions(Struct, frozen=True):
    model: Model
    section: str | None
    """Of the preset in force that speaks of this model."""
    options: tuple[EffectiveOption, ...]


class GetEngineOptions(Struct, frozen=True):
    pass


class EngineOptionsView(Struct, frozen=True):
    max_models: int
    options: Mapping[str, OptionValue]
    """For every model, unless a preset, the model or the load says otherwise."""


class ConfigureEngine(Struct, frozen=True):
    """What is not named stays; an option that is None is removed. Holds from the next load of each model on."""

    max_models: int | None = None
    options: Mapping[str, OptionValue | None] = field(default_factory=dict)
    """By any spelling the engine knows, camelCase too ("ctxSize")."""


class StartWithPreset(Struct, frozen=True):
    """`max_models` and `options` are of this start: they outrank everything until the engine's next start."""

    name: str
    max_models: int | None = None
    options: Mapping[str, OptionValue | None] = field(default_factory=dict)


class LeavePreset(Struct, frozen=True):
    pass


@operation("options.list", Effect.READ)
async def list_options(context: Context, _: ListOptions) -> OptionList:
    """Raises EngineMissing, EngineStopped."""
    found = await context.catalogue.get()
    return OptionList(Catalogue(found.options).groups(), found.binary, found.version)


@operation("options.model", Effect.READ)
async def get_model_options(context: Context, request: GetModelOptions) -> ModelOptions:
    model = find(context, request.id)
    preset = context.planner.preset
    return ModelOptions(model, preset.section_of(model) if preset else None, context.planner.effective(model))


@operation("options.engine", Effect.READ)
async def get_engine_options(context: Context, _: GetEngineOptions) -> EngineOptionsView:
    settings = context.configuration.settings
    return EngineOptionsView(
        settings.max_models, parse_engine_options(settings.engine_options, context.planner.catalogue)
    )


@operation("options.configure", Effect.ADMIN)
async def configure_engine(context: Context, request: ConfigureEngine) -> EngineOptionsView:
    """Remembered. Raises InvalidInput naming an option or value that the engine does not have, PermissionDenied for an
    option that may not come over the network; nothing changes then.
    """
    catalogue = await context.active_preset.catalogue()
    current = parse_engine_options(context.configuration.settings.engine_options, catalogue)
    changes: dict[str, object] = {}
    for key, value in request.options.items():
        name, checked = _checked(key, value, catalogue)
        if checked is None:
            current.pop(name, None)
        elif current.get(name) != checked:
            await asyncio.to_thread(context.planner.policy.check, {name: checked}, catalogue)
            current[name] = checked
    if request.options:
        changes[_OPTIONS_KEY] = [f"{name}={as_text(value)}" for name, value in current.items()]
    if request.max_models is not None:
        changes[_MAX_MODELS_KEY] = request.max_models
    if changes:
        await context.configuration.update(changes)
    return await get_engine_options(context, GetEngineOptions())


def _checked(key: str, value: OptionValue | None, catalogue: Catalogue) -> tuple[str, OptionValue | None]:
    option = catalogue.find(key) or catalogue.find(re.sub("([A-Z])", r"-\1", key).lower())
    if option is None or option.is_removed or option.is_preset_only:
        similar = catalogue.similar(key)
        hint = f"; did you mean {', '.join(similar)}?" if similar else ""
        raise InvalidInput(key, f"is not an option of the installed engine{hint}")
    if option.is_reserved:
        raise InvalidInput(key, "is set by the engine and cannot be chosen")
    if value is None or not is_passed(value):
        return option.name, None
    try:
        return option.name, typed(option, key, as_text(value))
    except BadValue as exc:
        raise InvalidInput(key, str(exc)) from exc


@operation("presets.start", Effect.MANAGE)
async def start_with_preset(context: Context, request: StartWithPreset) -> EngineView:
    """Run with a preset from now on, over restarts too; a stopped engine is started.

    Models whose effective options stay the same stay loaded. Raises PresetNotFound, PresetInvalid, EngineMissing.
    """
    name = checked_name(request.name)
    was_running = context.engine.state.status is EngineStatus.RUNNING
    await asyncio.to_thread(context.store.presets.read, name)  # which needs no engine
    await context.engine.start()
    try:
        await context.active_preset.check(name)
        options = await _start_options(context, request.options)
        context.configuration.hold_max_models(request.max_models)
        context.planner.start_options = options
        await context.active_preset.choose(name)
    except BaseException:
        # A start that fails leaves nothing done.
        if not was_running:
            await context.engine.stop()
        raise
    return view(context)


async def _start_options(context: Context, given: Mapping[str, OptionValue | None]) -> Mapping[str, OptionValue]:
    catalogue = await context.active_preset.catalogue()
    checked = [_checked(key, value, catalogue) for key, value in given.items()]
    options = {name: value for name, value in checked if value is not None}
    await asyncio.to_thread(context.planner.policy.check, options, catalogue)
    return options


@operation("presets.leave", Effect.MANAGE)
async def leave_preset(context: Context, _: LeavePreset) -> EngineView:
    """Run without a preset. Nothing happens when there is none."""
    await context.active_preset.leave()
    return view(context)
