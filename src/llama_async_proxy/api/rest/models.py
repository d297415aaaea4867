"""Models: list, register, change, remove, scan, load, unload. Memory sizes are MiB, file sizes bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, Literal, cast

from pydantic import Field, JsonValue

from llama_async_proxy.api.rest.routing import BODY, RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.rest.schema import CamelModel, Envelope, Option, RestAnswer, StrictModel, Text
from llama_async_proxy.api.units import iso_time, mib
from llama_async_proxy.operations import engine as engine_operations
from llama_async_proxy.operations import models as model_operations
from llama_async_proxy.operations.engine import EngineView, GetEngine
from llama_async_proxy.operations.model_scanner import ScanReport
from llama_async_proxy.operations.models import (
    CleanUpModels,
    CleanUpReport,
    CreateModels,
    DeletedModel,
    DeleteModel,
    DiscoverModels,
    Discovery,
    GetModel,
    ListModels,
    LoadModel,
    ModelList,
    ModelView,
    NewModel,
    ScanModels,
    UnloadModel,
    UpdateModel,
)
from llama_async_proxy.records.models import BrokenFile, Model, ModelFile, ModelKind, ModelOrigin, Variant
from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus

ContextSize = Annotated[int, Field(ge=0, le=1 << 31, description="Tokens.")]
Status = Literal["running", "loading", "stopped", "error", "discovered", "registered"]
_STATUS: dict[ModelStatus, Status] = {
    ModelStatus.UNLOADED: "stopped",
    ModelStatus.QUEUED: "loading",
    ModelStatus.LOADING: "loading",
    ModelStatus.READY: "running",
    ModelStatus.SLEEPING: "running",
    ModelStatus.STOPPING: "running",
    ModelStatus.FAILED: "error",
}

# --- schema -----------------------------------------------------------------------------------------------------------


class FoundModel(CamelModel):
    """A model file; registered or not."""

    name: str
    description: str | None = None
    version: str | None = None
    path: str
    size: int = Field(description="Bytes, all shards together.")
    family: str = Field(description="Architecture.")
    context_size: int | None = Field(None, description="Tokens.")
    format: Literal["gguf"] = "gguf"
    quantization: str | None = None


class ModelVariant(CamelModel):
    name: Text
    parameters: Annotated[dict[str, JsonValue], Field(max_length=100)] = Field(
        default={}, description="Keys of a request's body, for requests that do not have them."
    )
    system_prompt: Annotated[str, Field(max_length=100_000)] | None = Field(
        None, description="For conversations that have none."
    )


class RegisteredModel(FoundModel):
    id: str
    status: Status
    loaded_at: str | None = None
    last_used: str | None = None
    memory_usage: float | None = Field(None, description="MiB, measured.")
    error: str | None = Field(None, description="Why the last load failed.")
    missing: bool = Field(description="The last scan did not find its file; the model comes back with it.")
    is_favorite: bool
    is_pinned: bool
    aliases: list[str]
    variants: list[ModelVariant] = Field(description="Further names with defaults of their own, on the same process.")
    options: dict[str, Option] = Field(description="Engine options of this model, by long flag name.")


class ModelsData(StrictModel):
    count: int
    models: list[RegisteredModel]
    scanning: bool = Field(description="The first scan since the start has not ended: models may be missing here.")


class ModelsAnswer(Envelope[ModelsData]):
    """The same list twice: whole in `data`, and as file names beside it."""

    models: list[str]
    count: int
    llamacpp_url: str


class NewModelBody(CamelModel):
    path: Text | None = Field(
        None,
        description="Absolute path of a GGUF file; for a split model, of its first shard. Not needed with a command.",
    )
    name: Text | None = None
    description: Text | None = None
    version: Text | None = None
    family: Text | None = None
    quantization: Text | None = None
    context_size: ContextSize | None = None
    options: dict[str, Option] = Field(default={}, description="Engine options, or the command that serves the model.")


class NewModelsBody(StrictModel):
    models: list[NewModelBody] = Field(min_length=1, max_length=1000)


class RegisteredModels(StrictModel):
    registered: int
    models: list[RegisteredModel]


class ModelChangesBody(CamelModel):
    """What is absent or null keeps its value."""

    name: Text | None = None
    description: Text | None = None
    family: Text | None = None
    quantization: Text | None = None
    context_size: ContextSize | None = None
    options: dict[str, Option] | None = None
    aliases: Annotated[list[Text], Field(max_length=100)] | None = None
    variants: Annotated[list[ModelVariant], Field(max_length=100)] | None = None
    is_favorite: bool | None = None
    is_pinned: bool | None = None


class LoadBody(StrictModel):
    options: dict[str, Option] = Field(default={}, description="Engine options of this load, by long flag name.")
    force: bool = Field(default=False, description="Load it although it needs more memory than the machine has.")


class DiscoverBody(CamelModel):
    paths: list[Text] = Field(default=[], max_length=100, description="Absolute; none: the models directory.")
    recursive: bool = True
    include_patterns: list[Text] = Field(default=["*.gguf", "*.bin"], max_length=100)
    exclude_patterns: list[Text] = Field(default=[], max_length=100)


class BrokenModelFile(StrictModel):
    path: str
    reason: str


class DiscoveredModels(CamelModel):
    discovered: list[FoundModel]
    scanned_paths: list[str]
    total_found: int
    failed: list[BrokenModelFile]


class RemovedModel(CamelModel):
    model_id: str


class ScannedModels(StrictModel):
    scanned: int = Field(description="New models.")
    updated: int = Field(description="Known models whose file changed.")
    total: int
    failed: list[BrokenModelFile]


class CleanedUpModels(CamelModel):
    deleted_count: int
    deleted: list[str]


# --- mapping ----------------------------------------------------------------------------------------------------------


def models_answer(listed: ModelList, engine: EngineView) -> ModelsAnswer:
    present = [view.model for view in listed.models if not view.model.is_missing]
    # Clients written for this list chat with its first entry.
    chat_models_first = sorted(present, key=lambda model: model.facts.kind is not ModelKind.CHAT)
    return ModelsAnswer(
        data=ModelsData(
            count=len(listed.models),
            models=[registered_model(view) for view in listed.models],
            scanning=not listed.is_complete,
        ),
        models=[PurePath(model.path).name for model in chat_models_first],
        count=len(present),
        llamacpp_url=engine.url,
    )


def registered_model(view: ModelView, status: Status | None = None) -> RegisteredModel:
    model, runtime = view.model, view.runtime
    return RegisteredModel(
        id=model.slug,
        name=model.name,
        description=model.description or model.facts.description,
        version=model.version or model.facts.version,
        path=model.path,
        size=model.size_bytes,
        family=model.family or model.facts.architecture,
        context_size=runtime.context_size or model.context_size or model.facts.context_length,
        quantization=model.quantization or model.facts.quantization,
        status=status or _status(model, runtime.status),
        loaded_at=iso_time(runtime.loaded_at_ms),
        last_used=iso_time(model.last_used_at_ms),
        memory_usage=mib(_resident_bytes(runtime)),
        error=runtime.error,
        missing=model.is_missing,
        is_favorite=model.is_favorite,
        is_pinned=model.is_pinned,
        aliases=list(model.aliases),
        variants=[_variant(variant) for variant in model.variants],
        options=dict(model.options),
    )


def _resident_bytes(runtime: ModelRuntime) -> int | None:
    """Main and GPU memory of the model's process; None while nothing was measured."""
    measured = [used for used in (runtime.rss_bytes, runtime.gpu_bytes) if used is not None]
    return sum(measured) if measured else None


def _variant(variant: Variant) -> ModelVariant:
    parameters = cast("dict[str, JsonValue]", dict(variant.parameters))
    return ModelVariant(name=variant.name, parameters=parameters, system_prompt=variant.system_prompt)


def _status(model: Model, status: ModelStatus) -> Status:
    never_touched = model.origin is ModelOrigin.SCANNED and model.last_used_at_ms is None
    return "discovered" if status is ModelStatus.UNLOADED and never_touched else _STATUS[status]


def registered_models(created: ModelList) -> RegisteredModels:
    models = [registered_model(view, "registered") for view in created.models]
    return RegisteredModels(registered=len(models), models=models)


def discovered_models(found: Discovery) -> DiscoveredModels:
    return DiscoveredModels(
        discovered=[_found_model(file) for file in found.found],
        scanned_paths=list(found.scanned_paths),
        total_found=len(found.found),
        failed=_broken(found.failed),
    )


def _found_model(file: ModelFile) -> FoundModel:
    facts = file.facts
    return FoundModel(
        name=PurePath(file.path).stem,
        description=facts.description,
        version=facts.version,
        path=file.path,
        size=file.size_bytes,
        family=facts.architecture,
        context_size=facts.context_length,
        quantization=facts.quantization,
    )


def removed_model(deleted: DeletedModel) -> RemovedModel:
    return RemovedModel(model_id=deleted.slug)


def scanned_models(report: ScanReport) -> ScannedModels:
    return ScannedModels(
        scanned=report.scanned, updated=report.updated, total=report.total, failed=_broken(report.failed)
    )


def cleaned_up_models(report: CleanUpReport) -> CleanedUpModels:
    return CleanedUpModels(deleted_count=len(report.deleted), deleted=[deleted.slug for deleted in report.deleted])


def _broken(files: Sequence[BrokenFile]) -> list[BrokenModelFile]:
    return [BrokenModelFile(path=file.path, reason=file.reason) for file in files]


# --- routes -----------------------------------------------------------------------------------------------------------


async def list_models(context: ServiceContext) -> ModelsAnswer:
    """Registered models and how they are doing."""
    listed = await model_operations.list_models(context, ListModels())
    return models_answer(listed, await engine_operations.get_engine(context, GetEngine()))


async def create_models(context: ServiceContext, body: NewModelsBody) -> RestAnswer[RegisteredModels]:
    """Register model files: all of them or none."""
    models = tuple(NewModel(**model.model_dump()) for model in body.models)
    created = await model_operations.create_models(context, CreateModels(models))
    return RestAnswer(data=registered_models(created), message="Models registered successfully")


async def discover_models(context: ServiceContext, body: DiscoverBody | None = None) -> RestAnswer[DiscoveredModels]:
    """Look for model files without registering them."""
    asked = body or DiscoverBody()
    request = DiscoverModels(
        tuple(asked.paths), asked.recursive, tuple(asked.include_patterns), tuple(asked.exclude_patterns)
    )
    return RestAnswer(data=discovered_models(await model_operations.discover_models(context, request)))


async def get_model(context: ServiceContext, model_id: str) -> RestAnswer[RegisteredModel]:
    """One model, by its id or any other name of it."""
    return _model(await model_operations.get_model(context, GetModel(model_id)))


async def update_model(context: ServiceContext, model_id: str, body: ModelChangesBody) -> RestAnswer[RegisteredModel]:
    """Change what is stored of a model. Its id never changes."""
    changes = body.model_dump(exclude={"aliases", "variants"})
    aliases = None if body.aliases is None else tuple(body.aliases)
    variants = None if body.variants is None else tuple(Variant(**variant.model_dump()) for variant in body.variants)
    request = UpdateModel(model_id, **changes, aliases=aliases, variants=variants)
    return _model(await model_operations.update_model(context, request), "Model updated successfully")


async def delete_model(context: ServiceContext, model_id: str) -> RestAnswer[RemovedModel]:
    """Forget a model. Its file stays."""
    deleted = await model_operations.delete_model(context, DeleteModel(model_id))
    return RestAnswer(data=removed_model(deleted), message="Model removed successfully")


async def load_model(
    context: ServiceContext, model_id: str, body: LoadBody | None = None
) -> RestAnswer[RegisteredModel]:
    """Run a model; answers when it is ready."""
    request = LoadModel(model_id, body.options, body.force) if body else LoadModel(model_id)
    return _model(await model_operations.load_model(context, request), "Model loaded successfully")


async def unload_model(context: ServiceContext, model_id: str) -> RestAnswer[RegisteredModel]:
    """Stop a model once its requests have ended."""
    return _model(await model_operations.unload_model(context, UnloadModel(model_id)), "Model unloaded successfully")


async def scan_models(context: ServiceContext) -> RestAnswer[ScannedModels]:
    """Register the new files of the models directory and refresh the changed ones."""
    report = await model_operations.scan_models(context, ScanModels())
    return RestAnswer(data=scanned_models(report), message="Models directory scanned")


async def clean_up_models(context: ServiceContext) -> RestAnswer[CleanedUpModels]:
    """Forget the models whose file is gone."""
    report = await model_operations.clean_up_models(context, CleanUpModels())
    return RestAnswer(data=cleaned_up_models(report), message="Missing models removed")


def _model(view: ModelView, message: str | None = None) -> RestAnswer[RegisteredModel]:
    return RestAnswer(data=registered_model(view), message=message)


_MODEL = RestAnswer[RegisteredModel]
_LOAD_ERRORS = (*BODY, 403, 404, 429, 503, 504, 507)

TABLES = (
    RouteTable(
        "models",
        (
            RestRoute("GET", "/api/models", list_models, ModelsAnswer),
            RestRoute("POST", "/api/models", create_models, RestAnswer[RegisteredModels], (*BODY, 403, 409, 503)),
            RestRoute("POST", "/api/models/discover", discover_models, RestAnswer[DiscoveredModels], BODY),
            RestRoute("POST", "/api/models/scan", scan_models, RestAnswer[ScannedModels], (400, 503)),
            RestRoute("POST", "/api/models/cleanup", clean_up_models, RestAnswer[CleanedUpModels], (503,)),
            RestRoute("GET", "/api/models/{model_id}", get_model, _MODEL, (404,)),
            RestRoute("PATCH", "/api/models/{model_id}", update_model, _MODEL, (*BODY, 403, 404, 409, 503)),
            RestRoute("DELETE", "/api/models/{model_id}", delete_model, RestAnswer[RemovedModel], (404, 409, 503)),
            RestRoute("POST", "/api/models/{model_id}/load", load_model, _MODEL, _LOAD_ERRORS),
            RestRoute("POST", "/api/models/{model_id}/unload", unload_model, _MODEL, (404, 409)),
            RestRoute("POST", "/api/models/{model_id}/start", load_model, _MODEL, _LOAD_ERRORS, "start_model"),
            RestRoute("POST", "/api/models/{model_id}/stop", unload_model, _MODEL, (404, 409), "stop_model"),
        ),
    ),
)
