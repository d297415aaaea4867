"""Models over Socket.IO v1: requests `models:*` and the events about models.

Sizes are bytes, times milliseconds since the epoch.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import astuple

from llama_async_proxy.api.socketio.contract import Call, Nothing, ServerEvent, no_fields
from llama_async_proxy.api.socketio.model_status import shown_status
from llama_async_proxy.engines.custom_command import has_command
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations import models as model_operations
from llama_async_proxy.operations.model_scanner import ScanReport
from llama_async_proxy.operations.models import (
    CleanUpModels,
    CleanUpReport,
    CreateModels,
    DeletedModel,
    DeleteModel,
    GetModel,
    ListModels,
    LoadModel,
    ModelList,
    ModelRef,
    ModelView,
    NewModel,
    ScanModels,
    UnloadModel,
    UpdateModel,
)
from llama_async_proxy.records.models import ModelKind, Variant
from llama_async_proxy.records.options import OptionValue

ContextSize = Annotated[int, Meta(ge=0, le=1 << 31)]
"""Context window in tokens."""


# --- requests ---------------------------------------------------------------------------------------------------------


class ById(Struct):
    modelId: int  # noqa: N815 - field names are the clients'


class ByName(Struct):
    modelName: str | None = None  # noqa: N815
    modelId: int | None = None  # noqa: N815

    @property
    def ref(self) -> ModelRef:
        """Model that is meant. Raises InvalidInput when both fields are absent."""
        found = self.modelName if self.modelId is None else self.modelId
        if found is None:
            raise InvalidInput("modelName", "is required (or modelId)")
        return found


class LoadByName(ByName):
    options: dict[str, OptionValue] = {}
    force: bool = False


class NewModelFields(Struct):
    name: str
    model_path: str | None = None
    params: dict[str, OptionValue] = {}
    type: str | None = None
    ctx_size: ContextSize | None = None
    quantization: str | None = None
    description: str | None = None
    version: str | None = None


class Creation(Struct):
    model: NewModelFields


class VariantFields(Struct):
    name: str
    parameters: dict[str, Any] = {}
    system_prompt: str | None = None


class ModelFields(Struct):
    name: str | None = None
    ctx_size: ContextSize | None = None
    quantization: str | None = None
    type: str | None = None
    description: str | None = None
    params: dict[str, OptionValue] | None = None
    aliases: tuple[str, ...] | None = None
    variants: tuple[VariantFields, ...] | None = None
    is_favorite: bool | None = None
    is_pinned: bool | None = None


class Update(Struct):
    modelId: int  # noqa: N815
    updates: ModelFields


class Favorite(Struct):
    modelId: int  # noqa: N815
    favorite: bool


_CREATION_ALIASES = {"models[0].path": "model.model_path", "name": "model.name"}
_UPDATE_ALIASES = {"name": "updates.name", "aliases": "updates.aliases", "variants": "updates.variants"}


def get_model(payload: ById) -> GetModel:
    return GetModel(payload.modelId)


def create_models(payload: Creation) -> CreateModels:
    new = payload.model
    if new.model_path is None and not has_command(new.params):
        raise InvalidInput("model.model_path", "is required, unless params.command says how to serve the model")
    model = NewModel(
        path=new.model_path,
        name=new.name,
        description=new.description,
        version=new.version,
        family=new.type,
        quantization=new.quantization,
        context_size=new.ctx_size,
        options=new.params,
    )
    return CreateModels((model,))


def update_model(payload: Update) -> UpdateModel:
    fields = payload.updates
    if all(getattr(fields, name) is None for name in fields.__struct_fields__):
        raise InvalidInput("updates", f"must hold at least one of {', '.join(fields.__struct_fields__)}")
    return UpdateModel(
        payload.modelId,
        name=fields.name,
        description=fields.description,
        context_size=fields.ctx_size,
        quantization=fields.quantization,
        family=fields.type,
        options=fields.params,
        aliases=fields.aliases,
        variants=None if fields.variants is None else tuple(Variant(*astuple(each)) for each in fields.variants),
        is_favorite=fields.is_favorite,
        is_pinned=fields.is_pinned,
    )


def set_favorite(payload: Favorite) -> UpdateModel:
    return UpdateModel(payload.modelId, is_favorite=payload.favorite)


def delete_model(payload: ById) -> DeleteModel:
    return DeleteModel(payload.modelId)


def load_model(payload: LoadByName) -> LoadModel:
    return LoadModel(payload.ref, payload.options, payload.force)


def unload_model(payload: ByName) -> UnloadModel:
    return UnloadModel(payload.ref)


# --- answers and events -----------------------------------------------------------------------------------------------


class V1Model(Struct):
    id: int
    name: str
    slug: str
    model_path: str
    type: str
    kind: ModelKind
    status: str
    error: str | None
    file_size: int
    params: dict[str, OptionValue]
    quantization: str | None
    ctx_size: int | None
    description: str | None
    aliases: tuple[str, ...]
    variants: list[VariantFields]
    is_favorite: bool
    is_pinned: bool
    created_at: int
    updated_at: int
    last_used_at: int | None


class OneModel(Struct):
    model: V1Model


class AllModels(Struct):
    models: list[V1Model]


class Deletion(Struct):
    deletedId: int  # noqa: N815


class DeletionNotice(Deletion):
    modelName: str  # noqa: N815


class ModelState(Struct, omit_defaults=True):
    modelName: str  # noqa: N815
    status: str
    error: str | None = None


class ScanCounts(Struct):
    scanned: int
    updated: int
    total: int
    failed: int


class ScanProgress(Struct):
    done: int
    total: int


class CleanUp(Struct):
    deletedCount: int  # noqa: N815


def model(view: ModelView) -> V1Model:
    stored, facts = view.model, view.model.facts
    return V1Model(
        id=stored.id,
        name=stored.name,
        slug=stored.slug,
        model_path=stored.path,
        type=stored.family or facts.architecture,
        kind=facts.kind,
        status=shown_status(view.runtime),
        error=view.runtime.error,
        file_size=stored.size_bytes,
        params=dict(stored.options),
        quantization=stored.quantization or facts.quantization,
        ctx_size=view.runtime.context_size or stored.context_size or facts.context_length,
        description=stored.description or facts.description,
        aliases=stored.aliases,
        variants=[VariantFields(each.name, dict(each.parameters), each.system_prompt) for each in stored.variants],
        is_favorite=stored.is_favorite,
        is_pinned=stored.is_pinned,
        created_at=stored.created_at_ms,
        updated_at=stored.updated_at_ms,
        last_used_at=stored.last_used_at_ms,
    )


def one_model(view: ModelView) -> OneModel:
    return OneModel(model(view))


def all_models(listed: ModelList) -> AllModels:
    return AllModels([model(view) for view in listed.models])


def created_model(created: ModelList) -> OneModel:
    [view] = created.models
    return OneModel(model(view))


def deletion(deleted: DeletedModel) -> Deletion:
    return Deletion(deleted.id)


def model_state(view: ModelView) -> ModelState:
    return ModelState(view.model.name, shown_status(view.runtime), view.runtime.error)


def scan_counts(report: ScanReport) -> ScanCounts:
    return ScanCounts(report.scanned, report.updated, report.total, len(report.failed))


def clean_up(report: CleanUpReport) -> CleanUp:
    return CleanUp(len(report.deleted))


# --- the table --------------------------------------------------------------------------------------------------------

CREATED = ServerEvent("models:created", OneModel, "A model was registered.")
UPDATED = ServerEvent("models:updated", OneModel, "A model's record changed.")
DELETED = ServerEvent("models:deleted", DeletionNotice, "A model's record was deleted.")
STATUS = ServerEvent("models:status", ModelState, "A model is loading, loaded, unloaded or failed.")
SCANNED = ServerEvent("models:scanned", ScanCounts, "A scan has ended.")
SCAN_PROGRESS = ServerEvent("models:scan-progress", ScanProgress, "Progress of a running scan, twice a second at most.")

EVENTS = (CREATED, UPDATED, DELETED, STATUS, SCANNED, SCAN_PROGRESS)

CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call("models:list", Nothing, no_fields(ListModels), model_operations.list_models, all_models, "LIST_MODELS_FAILED"),
    Call("models:get", ById, get_model, model_operations.get_model, one_model, "GET_MODEL_FAILED"),
    Call(
        "models:create", Creation, create_models, model_operations.create_models, created_model,
        "CREATE_MODEL_FAILED", field_aliases=_CREATION_ALIASES, broadcasts=("models:created",),
    ),
    Call(
        "models:update", Update, update_model, model_operations.update_model, one_model,
        "UPDATE_MODEL_FAILED", not_found="NOT_FOUND", field_aliases=_UPDATE_ALIASES, broadcasts=("models:updated",),
    ),
    Call(
        "models:delete", ById, delete_model, model_operations.delete_model, deletion,
        "DELETE_MODEL_FAILED", broadcasts=("models:deleted",), description="The file stays.",
    ),
    Call(
        "models:toggle-favorite", Favorite, set_favorite, model_operations.update_model, one_model,
        not_found="NOT_FOUND", broadcasts=("models:updated",),
    ),
    Call(
        "models:load", LoadByName, load_model, model_operations.load_model, model_state,
        "LOAD_MODEL_FAILED", broadcasts=("models:status",),
        description="Answers when the model is ready or has failed.",
    ),
    Call(
        "models:unload", ByName, unload_model, model_operations.unload_model, model_state,
        "UNLOAD_MODEL_FAILED", broadcasts=("models:status",), description="Running answers may end first.",
    ),
    Call(
        "models:scan", Nothing, no_fields(ScanModels), model_operations.scan_models, scan_counts,
        "SCAN_MODELS_FAILED", broadcasts=("models:scanned", "models:scan-progress"),
    ),
    Call(
        "models:cleanup", Nothing, no_fields(CleanUpModels), model_operations.clean_up_models, clean_up,
        broadcasts=("models:deleted",), description="Deletes the records of models whose file no longer exists.",
    ),
)  # fmt: skip
