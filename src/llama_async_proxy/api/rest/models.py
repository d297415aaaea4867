"""The routes of models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from llama_async_proxy.api.rest import models_schema as wire
from llama_async_proxy.api.rest.route_policy import BODY, Live, Route, routes_of
from llama_async_proxy.api.rest.schema import Answer
from llama_async_proxy.operations import engine as engine_operations
from llama_async_proxy.operations import estimate as estimate_operations
from llama_async_proxy.operations import models as model_operations
from llama_async_proxy.operations.engine import GetEngine
from llama_async_proxy.operations.estimate import EstimateMemory
from llama_async_proxy.operations.models import (
    CleanUpModels,
    CreateModels,
    DeleteModel,
    DiscoverModels,
    GetModel,
    ListModels,
    LoadModel,
    ModelView,
    NewModel,
    ScanModels,
    UnloadModel,
    UpdateModel,
)
from llama_async_proxy.records.models import Variant


async def list_models(context: Live) -> wire.ModelsAnswer:
    """Registered models and how they are doing."""
    listed = await model_operations.list_models(context, ListModels())
    return wire.models_answer(listed, await engine_operations.get_engine(context, GetEngine()))


async def create_models(context: Live, body: wire.NewModelsBody) -> Answer[wire.Registered]:
    """Register model files: all of them or none."""
    models = tuple(NewModel(**model.model_dump()) for model in body.models)
    created = await model_operations.create_models(context, CreateModels(models))
    return Answer(data=wire.registered(created), message="Models registered successfully")


async def discover_models(context: Live, body: wire.DiscoverBody | None = None) -> Answer[wire.Discovered]:
    """Look for model files without registering them."""
    asked = body or wire.DiscoverBody()
    request = DiscoverModels(
        tuple(asked.paths), asked.recursive, tuple(asked.include_patterns), tuple(asked.exclude_patterns)
    )
    return Answer(data=wire.discovered(await model_operations.discover_models(context, request)))


async def get_model(context: Live, model_id: str) -> Answer[wire.RegisteredModel]:
    """One model, by its id or any other name of it."""
    return _model(await model_operations.get_model(context, GetModel(model_id)))


async def update_model(context: Live, model_id: str, body: wire.ModelChangesBody) -> Answer[wire.RegisteredModel]:
    """Change what is stored of a model. Its id never changes."""
    changes = body.model_dump(exclude={"aliases", "variants"})
    aliases = None if body.aliases is None else tuple(body.aliases)
    variants = None if body.variants is None else tuple(Variant(**variant.model_dump()) for variant in body.variants)
    request = UpdateModel(model_id, **changes, aliases=aliases, variants=variants)
    return _model(await model_operations.update_model(context, request), "Model updated successfully")


async def delete_model(context: Live, model_id: str) -> Answer[wire.Removed]:
    """Forget a model. Its file stays."""
    deleted = await model_operations.delete_model(context, DeleteModel(model_id))
    return Answer(data=wire.removed(deleted), message="Model removed successfully")


async def load_model(context: Live, model_id: str, body: wire.LoadBody | None = None) -> Answer[wire.RegisteredModel]:
    """Run a model; answers when it is ready."""
    request = LoadModel(model_id, body.options, body.force) if body else LoadModel(model_id)
    return _model(await model_operations.load_model(context, request), "Model loaded successfully")


async def get_model_memory(
    context: Live,
    model_id: str,
    ctx_size: Annotated[int | None, Query(ge=0, description="Tokens of all slots; 0: as trained.")] = None,
    slots: Annotated[int | None, Query(ge=1, le=1024)] = None,
    gpu_layers: Annotated[int | None, Query(ge=0, description="Default: as many as fit.")] = None,
    cache_type: Annotated[str | None, Query(description="Of cached keys and values, such as f16 or q8_0.")] = None,
) -> Answer[wire.ModelMemory]:
    """What a load would take, beside what is free and what the model takes while it runs."""
    asked = {
        "ctx-size": ctx_size,
        "parallel": slots,
        "n-gpu-layers": gpu_layers,
        "cache-type-k": cache_type,
        "cache-type-v": cache_type,
    }
    options = {name: value for name, value in asked.items() if value is not None}
    report = await estimate_operations.estimate_memory(context, EstimateMemory(model_id, options))
    return Answer(data=wire.model_memory(report))


async def unload_model(context: Live, model_id: str) -> Answer[wire.RegisteredModel]:
    """Stop a model once its requests have ended."""
    return _model(await model_operations.unload_model(context, UnloadModel(model_id)), "Model unloaded successfully")


def _model(view: ModelView, message: str | None = None) -> Answer[wire.RegisteredModel]:
    return Answer(data=wire.registered_model(view), message=message)


async def scan_models(context: Live) -> Answer[wire.Scanned]:
    """Register the new files of the models directory and refresh the changed ones."""
    report = await model_operations.scan_models(context, ScanModels())
    return Answer(data=wire.scanned(report), message="Models directory scanned")


async def clean_up_models(context: Live) -> Answer[wire.CleanedUp]:
    """Forget the models whose file is gone."""
    report = await model_operations.clean_up_models(context, CleanUpModels())
    return Answer(data=wire.cleaned_up(report), message="Missing models removed")


_MODEL = Answer[wire.RegisteredModel]

_ROUTES: tuple[Route, ...] = (
    Route("GET", "/api/models", list_models, wire.ModelsAnswer),
    Route("POST", "/api/models", create_models, Answer[wire.Registered], (*BODY, 403, 409, 503)),
    Route("POST", "/api/models/discover", discover_models, Answer[wire.Discovered], BODY),
    Route("POST", "/api/models/scan", scan_models, Answer[wire.Scanned], (400, 503)),
    Route("POST", "/api/models/cleanup", clean_up_models, Answer[wire.CleanedUp], (503,)),
    Route("GET", "/api/models/{model_id}", get_model, _MODEL, (404,)),
    Route("PATCH", "/api/models/{model_id}", update_model, _MODEL, (*BODY, 403, 404, 409, 503)),
    Route("DELETE", "/api/models/{model_id}", delete_model, Answer[wire.Removed], (404, 409, 503)),
    Route("GET", "/api/models/{model_id}/memory", get_model_memory, Answer[wire.ModelMemory], (400, 403, 404)),
    Route("POST", "/api/models/{model_id}/load", load_model, _MODEL, (*BODY, 403, 404, 429, 503, 504, 507)),
    Route("POST", "/api/models/{model_id}/unload", unload_model, _MODEL, (404, 409)),
    Route(
        "POST",
        "/api/models/{model_id}/start",
        load_model,
        _MODEL,
        (*BODY, 403, 404, 429, 503, 504, 507),
        "start_model",
    ),
    Route("POST", "/api/models/{model_id}/stop", unload_model, _MODEL, (404, 409), "stop_model"),
)


def model_routes() -> APIRouter:
    return routes_of("models", _ROUTES)
