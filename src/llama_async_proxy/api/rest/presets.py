"""The routes of /api for presets and engine options."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from llama_async_proxy.api.rest import presets_schema as wire
from llama_async_proxy.api.rest.engine_schema import EngineData, engine_data
from llama_async_proxy.api.rest.route_policy import BODY, Live, Route, routes_of
from llama_async_proxy.api.rest.schema import Answer
from llama_async_proxy.operations import models_directory as models_directory_operations
from llama_async_proxy.operations import options as option_operations
from llama_async_proxy.operations import preset_sections as section_operations
from llama_async_proxy.operations import presets as preset_operations
from llama_async_proxy.operations.engine import EngineView
from llama_async_proxy.operations.models_directory import ListModelsDirectory
from llama_async_proxy.operations.options import (
    ConfigureEngine,
    GetEngineOptions,
    GetModelOptions,
    LeavePreset,
    ListOptions,
    StartWithPreset,
)
from llama_async_proxy.operations.preset_sections import (
    AddPresetModel,
    GetPresetDefaults,
    GetPresetModels,
    RemovePresetModel,
    ShowInheritance,
    UpdatePresetDefaults,
    UpdatePresetModel,
)
from llama_async_proxy.operations.presets import (
    ClonePreset,
    CreatePreset,
    DeletePreset,
    DiffPresets,
    ExportPreset,
    ImportPreset,
    ListPresets,
    ListPresetVersions,
    ListTemplates,
    PresetView,
    ReadPreset,
    RenamePreset,
    RestorePreset,
    SavePreset,
    ValidatePreset,
)

# --- files ------------------------------------------------------------------------------------------------------------


async def list_presets(context: Live) -> Answer[wire.Presets]:
    """Every preset, and which of them the engine runs with."""
    return Answer(data=wire.preset_list(await preset_operations.list_presets(context, ListPresets())))


async def create_preset(context: Live, body: wire.NewPresetBody) -> Answer[wire.PresetDetails]:
    """Make a preset, empty or from a template."""
    request = CreatePreset(body.name, body.description, body.template)
    return _preset(await preset_operations.create_preset(context, request), "Preset created")


async def read_preset(context: Live, name: str) -> Answer[wire.PresetDetails]:
    """One preset: its text, what it says, and what is wrong with it."""
    return _preset(await preset_operations.read_preset(context, ReadPreset(name)))


async def save_preset(context: Live, name: str, body: wire.PresetBody) -> Answer[wire.PresetDetails]:
    """Make or replace a preset; what the engine would refuse changes nothing."""
    return _preset(
        await preset_operations.save_preset(context, SavePreset(name, body.config, body.content)), "Preset saved"
    )


async def delete_preset(context: Live, name: str) -> Answer[wire.PresetRemoved]:
    """Delete a preset. Its versions stay, so that it can be restored."""
    deleted = await preset_operations.delete_preset(context, DeletePreset(name))
    return Answer(data=wire.PresetRemoved(name=deleted.name), message="Preset deleted")


async def clone_preset(context: Live, name: str, body: wire.NewNameBody) -> Answer[wire.PresetDetails]:
    """Copy a preset."""
    return _preset(await preset_operations.clone_preset(context, ClonePreset(name, body.name)), "Preset copied")


async def rename_preset(context: Live, name: str, body: wire.NewNameBody) -> Answer[wire.PresetDetails]:
    """Rename a preset; its versions go with it."""
    return _preset(await preset_operations.rename_preset(context, RenamePreset(name, body.name)), "Preset renamed")


async def import_preset(context: Live, body: wire.ImportBody) -> Answer[wire.PresetDetails]:
    """Make a preset of the text of a file."""
    request = ImportPreset(body.name, body.content, body.replace)
    return _preset(await preset_operations.import_preset(context, request), "Preset imported")


async def export_preset(
    context: Live,
    name: str,
    flat: Annotated[bool, Query(description="As llama-server reads it: groups written out.")] = False,
) -> Answer[wire.PresetFileText]:
    """A preset's file."""
    exported = await preset_operations.export_preset(context, ExportPreset(name, flat))
    return Answer(data=wire.PresetFileText(file=exported.file, content=exported.content))


async def validate_preset(context: Live, body: wire.PresetBody) -> Answer[wire.PresetVerdict]:
    """What the engine would refuse. Nothing is stored."""
    request = ValidatePreset(body.config, body.content)
    return Answer(data=wire.preset_verdict(await preset_operations.validate_preset(context, request)))


async def list_preset_versions(context: Live, name: str) -> Answer[wire.Versions]:
    """Earlier texts of a preset, at most ten; of a deleted one, too."""
    return Answer(
        data=wire.preset_versions(await preset_operations.list_preset_versions(context, ListPresetVersions(name)))
    )


async def restore_preset(context: Live, name: str, version: int) -> Answer[wire.PresetDetails]:
    """Make an earlier text the present one."""
    return _preset(await preset_operations.restore_preset(context, RestorePreset(name, version)), "Preset restored")


async def diff_presets(
    context: Live, name: str, other: str | None = None, version: int | None = None
) -> Answer[wire.Difference]:
    """What changes from a preset to another one, or to an earlier version of itself."""
    return Answer(
        data=wire.preset_difference(await preset_operations.diff_presets(context, DiffPresets(name, other, version)))
    )


async def list_preset_templates(context: Live) -> Answer[wire.Templates]:
    """Presets to begin with."""
    return Answer(data=wire.template_list(await preset_operations.list_templates(context, ListTemplates())))


def _preset(view: PresetView, message: str | None = None) -> Answer[wire.PresetDetails]:
    return Answer(data=wire.preset_details(view), message=message)


# --- parts ------------------------------------------------------------------------------------------------------------


async def list_preset_models(context: Live, name: str) -> Answer[wire.Sections]:
    """The models of a preset, with what they inherit."""
    return Answer(data=wire.preset_sections(await section_operations.get_preset_models(context, GetPresetModels(name))))


async def add_preset_model(context: Live, name: str, body: wire.SectionBody) -> Answer[wire.PresetDetails]:
    """Add a model's section."""
    request = AddPresetModel(name, body.name, body.config)
    return _preset(await section_operations.add_preset_model(context, request), "Model added")


async def update_preset_model(
    context: Live, name: str, model_name: str, body: wire.ChangesBody
) -> Answer[wire.PresetDetails]:
    """Change some values of a model's section."""
    request = UpdatePresetModel(name, model_name, body.config)
    return _preset(await section_operations.update_preset_model(context, request), "Model updated")


async def remove_preset_model(context: Live, name: str, model_name: str) -> Answer[wire.PresetDetails]:
    """Remove a model's section."""
    request = RemovePresetModel(name, model_name)
    return _preset(await section_operations.remove_preset_model(context, request), "Model removed")


async def get_preset_defaults(context: Live, name: str) -> Answer[wire.Defaults]:
    """What a preset says for every model."""
    found = await section_operations.get_preset_defaults(context, GetPresetDefaults(name))
    return Answer(data=wire.Defaults(name=found.name, config=dict(found.config)))


async def update_preset_defaults(context: Live, name: str, body: wire.ChangesBody) -> Answer[wire.PresetDetails]:
    """Change some of what a preset says for every model."""
    request = UpdatePresetDefaults(name, body.config)
    return _preset(await section_operations.update_preset_defaults(context, request), "Defaults updated")


async def show_inheritance(context: Live, name: str, model: str) -> Answer[wire.Inherited]:
    """What holds for a model of a preset after all, and where each value comes from."""
    return Answer(data=wire.inherited(await section_operations.show_inheritance(context, ShowInheritance(name, model))))


# --- options, and the preset in force ---------------------------------------------------------------------------------


async def list_options(context: Live) -> Answer[wire.Options]:
    """Every option of the installed engine, grouped for people."""
    return Answer(data=wire.option_list(await option_operations.list_options(context, ListOptions())))


async def get_model_options(context: Live, model_id: str) -> Answer[wire.OptionsOfModel]:
    """Every option that a load of the model would have, and who set it."""
    return Answer(
        data=wire.options_of_model(await option_operations.get_model_options(context, GetModelOptions(model_id)))
    )


async def get_engine_options(context: Live) -> Answer[wire.OptionsOfEngine]:
    """What holds for every model, unless a preset, the model or a load says otherwise."""
    return Answer(data=wire.options_of_engine(await option_operations.get_engine_options(context, GetEngineOptions())))


async def configure_engine(context: Live, body: wire.EngineOptionsBody) -> Answer[wire.OptionsOfEngine]:
    """Change it, from the next load of each model on."""
    request = ConfigureEngine(body.max_models, body.options)
    return Answer(data=wire.options_of_engine(await option_operations.configure_engine(context, request)))


async def start_with_preset(context: Live, body: wire.StartBody) -> Answer[EngineData]:
    """Run with a preset, over restarts too. Models whose effective options stay the same stay loaded."""
    request = StartWithPreset(body.preset, body.max_models, body.options)
    return _engine(
        await option_operations.start_with_preset(context, request), f"The engine runs with preset {body.preset}"
    )


async def leave_preset(context: Live) -> Answer[EngineData]:
    """Run without a preset."""
    return _engine(await option_operations.leave_preset(context, LeavePreset()), "The engine runs without a preset")


async def list_models_directory(context: Live) -> Answer[wire.DirectoryInfo]:
    """The files of the models directory, and the GPU memory each would take."""
    return Answer(
        data=wire.directory_info(
            await models_directory_operations.list_models_directory(context, ListModelsDirectory())
        )
    )


def _engine(view: EngineView, message: str) -> Answer[EngineData]:
    return Answer(data=engine_data(view), message=message)


# --- the table --------------------------------------------------------------------------------------------------------


_PRESET = Answer[wire.PresetDetails]
_WRITE = (*BODY, 403, 404, 409, 503)

_PRESETS: tuple[Route, ...] = (
    Route("GET", "/api/presets", list_presets, Answer[wire.Presets], (403, 503)),
    Route("POST", "/api/presets", create_preset, _PRESET, _WRITE),
    Route("GET", "/api/preset-templates", list_preset_templates, Answer[wire.Templates]),
    Route("POST", "/api/preset-validation", validate_preset, Answer[wire.PresetVerdict], (*BODY, 503)),
    Route("POST", "/api/preset-import", import_preset, _PRESET, _WRITE),
    Route("GET", "/api/presets/{name}", read_preset, _PRESET, (400, 403, 404, 503)),
    Route("PUT", "/api/presets/{name}", save_preset, _PRESET, _WRITE),
    Route("DELETE", "/api/presets/{name}", delete_preset, Answer[wire.PresetRemoved], (400, 403, 404, 409, 503)),
    Route("POST", "/api/presets/{name}/clone", clone_preset, _PRESET, _WRITE),
    Route("POST", "/api/presets/{name}/rename", rename_preset, _PRESET, _WRITE),
    Route("GET", "/api/presets/{name}/export", export_preset, Answer[wire.PresetFileText], (400, 403, 404, 503)),
    Route("GET", "/api/presets/{name}/versions", list_preset_versions, Answer[wire.Versions], (400, 404)),
    Route("POST", "/api/presets/{name}/versions/{version}/restore", restore_preset, _PRESET, (400, 403, 404, 409, 503)),
    Route("GET", "/api/presets/{name}/diff", diff_presets, Answer[wire.Difference], (400, 403, 404, 503)),
    Route("GET", "/api/presets/{name}/models", list_preset_models, Answer[wire.Sections], (400, 403, 404, 503)),
    Route("POST", "/api/presets/{name}/models", add_preset_model, _PRESET, _WRITE),
    Route("PATCH", "/api/presets/{name}/models/{model_name:path}", update_preset_model, _PRESET, _WRITE),
    Route("DELETE", "/api/presets/{name}/models/{model_name:path}", remove_preset_model, _PRESET, (400, 403, 404, 503)),
    Route("GET", "/api/presets/{name}/defaults", get_preset_defaults, Answer[wire.Defaults], (400, 403, 404, 503)),
    Route("PATCH", "/api/presets/{name}/defaults", update_preset_defaults, _PRESET, _WRITE),
    Route("GET", "/api/presets/{name}/inheritance", show_inheritance, Answer[wire.Inherited], (400, 403, 404, 503)),
)
_OPTIONS: tuple[Route, ...] = (
    Route("GET", "/api/options", list_options, Answer[wire.Options], (503,)),
    Route("GET", "/api/models/{model_id}/options", get_model_options, Answer[wire.OptionsOfModel], (404,)),
)
_MODELS: tuple[Route, ...] = (
    Route("GET", "/api/models-directory", list_models_directory, Answer[wire.DirectoryInfo], ()),
)
_ENGINE: tuple[Route, ...] = (
    Route("GET", "/api/llama-server/options", get_engine_options, Answer[wire.OptionsOfEngine], (400,)),
    Route("PATCH", "/api/llama-server/options", configure_engine, Answer[wire.OptionsOfEngine], (*BODY, 403, 503)),
    Route("POST", "/api/llama-server/preset", start_with_preset, Answer[EngineData], (*BODY, 403, 404, 503)),
    Route("DELETE", "/api/llama-server/preset", leave_preset, Answer[EngineData], (403, 503)),
)


def preset_routes() -> APIRouter:
    router = APIRouter()
    tagged = {"presets": _PRESETS, "options": _OPTIONS, "models": _MODELS, "engine": _ENGINE}
    for tag, routes in tagged.items():
        router.include_router(routes_of(tag, routes))
    return router
