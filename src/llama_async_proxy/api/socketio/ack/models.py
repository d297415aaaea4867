"""Models in the acknowledged dialect: requests `models:*` and the events about models.

Models are named by their slugs; sizes are bytes, times ISO 8601 in UTC; null means "not known".
"""

from __future__ import annotations

import time
from pathlib import PurePath
from typing import Any

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import Call, Nothing, ServerEvent, no_fields
from llama_async_proxy.api.socketio.model_status import shown_status
from llama_async_proxy.api.units import iso_time
from llama_async_proxy.operations import models as model_operations
from llama_async_proxy.operations.models import GetModel, ListModels, LoadModel, ModelList, ModelView, UnloadModel
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import ModelRuntime


class ModelId(Struct):
    id: str


class Load(ModelId):
    force: bool = False


class AckModel(Struct):
    id: str
    name: str
    path: str
    size: int
    status: str
    parameters: dict[str, dict[str, Any]] | None


class AckModels(Struct):
    models: list[AckModel]
    total: int


class AckModelInfo(AckModel):
    memoryUsage: int | None  # noqa: N815 - field names are the clients'
    loadedAt: str | None  # noqa: N815
    error: str | None


class Loaded(Struct):
    id: str
    status: str
    memoryUsage: int | None  # noqa: N815
    loadedAt: str | None  # noqa: N815


class Unloaded(Struct):
    id: str
    status: str
    unloadedAt: str  # noqa: N815


class AckModelStatus(Struct, omit_defaults=True):
    modelId: str  # noqa: N815
    modelName: str  # noqa: N815
    status: str
    error: str | None = None


class AckModelNotice(Struct):
    modelId: str  # noqa: N815


def get_model(payload: ModelId) -> GetModel:
    return GetModel(payload.id)


def load_model(payload: Load) -> LoadModel:
    return LoadModel(payload.id, force=payload.force)


def unload_model(payload: ModelId) -> UnloadModel:
    return UnloadModel(payload.id)


def all_models(listed: ModelList) -> AckModels:
    models = [
        AckModel(
            id=view.model.slug,
            name=PurePath(view.model.path).name,
            path=view.model.path,
            size=view.model.size_bytes,
            status=shown_status(view.runtime),
            parameters=None,
        )
        for view in listed.models
    ]
    return AckModels(models, len(models))


def model_info(view: ModelView) -> AckModelInfo:
    model, runtime = view.model, view.runtime
    return AckModelInfo(
        id=model.slug,
        name=PurePath(model.path).name,
        path=model.path,
        size=model.size_bytes,
        status=shown_status(runtime),
        parameters=_grouped(model),
        memoryUsage=_memory_bytes(runtime),
        loadedAt=iso_time(runtime.loaded_at_ms),
        error=runtime.error,
    )


def loaded(view: ModelView) -> Loaded:
    runtime = view.runtime
    return Loaded(view.model.slug, shown_status(runtime), _memory_bytes(runtime), iso_time(runtime.loaded_at_ms))


def unloaded(view: ModelView) -> Unloaded:
    return Unloaded(view.model.slug, shown_status(view.runtime), iso_time(time.time_ns() // 1_000_000))


def model_status(model: Model, status: str, error: str | None) -> AckModelStatus:
    return AckModelStatus(model.slug, model.name, status, error)


def _grouped(model: Model) -> dict[str, dict[str, Any]]:
    """Values of the GGUF header. Keys of the architecture are under Model, without the architecture's name."""
    groups: dict[str, dict[str, Any]] = {"General": {}, "Model": {}, "Tokenizer": {}}
    titles = {"general": "General", "tokenizer": "Tokenizer"}
    for key, value in model.facts.metadata.items():
        prefix, _, rest = key.partition(".")
        groups[titles.get(prefix, "Model")][rest or key] = value
    return groups


def _memory_bytes(runtime: ModelRuntime) -> int | None:
    """Main and GPU memory of the model's process."""
    measured = [used for used in (runtime.rss_bytes, runtime.gpu_bytes) if used is not None]
    return sum(measured) if measured else None


# --- the table --------------------------------------------------------------------------------------------------------

STATUS = ServerEvent("models:status", AckModelStatus, "A model is loading, loaded, unloaded or failed.")
LOADED = ServerEvent("models:loaded", AckModelNotice, "A model is ready.")
UNLOADED = ServerEvent("models:unloaded", AckModelNotice, "A model is unloaded.")

EVENTS = (STATUS, LOADED, UNLOADED)

CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call("models:list", Nothing, no_fields(ListModels), model_operations.list_models, all_models),
    Call(
        "models:load", Load, load_model, model_operations.load_model, loaded,
        "MODEL_LOAD_FAILED", not_found="MODEL_NOT_FOUND", broadcasts=(STATUS.event, LOADED.event),
        description="Answers when the model is ready or has failed.",
    ),
    Call(
        "models:unload", ModelId, unload_model, model_operations.unload_model, unloaded,
        "MODEL_UNLOAD_FAILED", not_found="MODEL_NOT_FOUND", broadcasts=(STATUS.event, UNLOADED.event),
    ),
    Call("models:info", ModelId, get_model, model_operations.get_model, model_info),
)  # fmt: skip
