"""What travels in the `data` of Socket.IO v1: inputs as clients spell them, outputs as they read them.

Percentages are rounded to a tenth, sizes are bytes, times milliseconds since the epoch; null means "not known".
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import astuple

from llama_async_proxy.api.socketio.model_status import shown_status
from llama_async_proxy.engines.custom_command import has_command
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations.config import ConfigUpdated, ConfigView, UpdateConfig
from llama_async_proxy.operations.configuration import as_tree
from llama_async_proxy.operations.engine import EngineView
from llama_async_proxy.operations.metrics import GetSamples, Metrics, Samples
from llama_async_proxy.operations.model_scanner import ScanReport
from llama_async_proxy.operations.models import (
    CleanUpReport,
    CreateModels,
    DeletedModel,
    DeleteModel,
    GetModel,
    LoadModel,
    ModelList,
    ModelRef,
    ModelView,
    NewModel,
    UnloadModel,
    UpdateModel,
)
from llama_async_proxy.records.engine import EngineStatus
from llama_async_proxy.records.machine import GpuSample, Sample
from llama_async_proxy.records.models import ModelKind, Variant
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.settings import BY_NAME

ContextSize = Annotated[int, Meta(ge=0, le=1 << 31)]
Limit = Annotated[int, Meta(ge=1, le=2000)]
Milliseconds = Annotated[int, Meta(ge=0, le=1 << 53)]


# --- models: inputs ---------------------------------------------------------------------------------------------------


class ById(Struct):
    modelId: int  # noqa: N815 - names here are the clients'


class ByName(Struct):
    modelName: str | None = None  # noqa: N815
    modelId: int | None = None  # noqa: N815

    @property
    def ref(self) -> ModelRef:
        """Raises InvalidInput when neither was given."""
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


def get_model(payload: ById) -> GetModel:
    return GetModel(payload.modelId)


def create_models(payload: Creation) -> CreateModels:
    new = payload.model
    if new.model_path is None and not has_command(new.params):
        raise InvalidInput("model.model_path", "is required, unless params.command says how to serve the model")
    return CreateModels(
        (
            NewModel(
                path=new.model_path,
                name=new.name,
                description=new.description,
                version=new.version,
                family=new.type,
                quantization=new.quantization,
                context_size=new.ctx_size,
                options=new.params,
            ),
        )
    )


CREATION_FIELDS = {"models[0].path": "model.model_path", "name": "model.name"}
"""What the operation calls a field, and what its caller did."""


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


UPDATE_FIELDS = {"name": "updates.name", "aliases": "updates.aliases", "variants": "updates.variants"}


def set_favorite(payload: Favorite) -> UpdateModel:
    return UpdateModel(payload.modelId, is_favorite=payload.favorite)


def delete_model(payload: ById) -> DeleteModel:
    return DeleteModel(payload.modelId)


def load_model(payload: LoadByName) -> LoadModel:
    return LoadModel(payload.ref, payload.options, payload.force)


def unload_model(payload: ByName) -> UnloadModel:
    return UnloadModel(payload.ref)


# --- models: outputs --------------------------------------------------------------------------------------------------


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


# --- metrics ----------------------------------------------------------------------------------------------------------


class History(Struct):
    limit: Limit = 100
    start: Milliseconds | None = None
    end: Milliseconds | None = None


class Usage(Struct):
    usage: float


class Used(Struct):
    used: float


class V1Gpu(Struct):
    name: str
    usage: float | None
    memoryUsed: int | None  # noqa: N815
    memoryTotal: int | None  # noqa: N815
    vendor: str


class Gpus(Struct):
    usage: float | None
    memoryUsed: int | None  # noqa: N815
    memoryTotal: int | None  # noqa: N815
    list: tuple[V1Gpu, ...]


class V1Metrics(Struct):
    cpu: Usage
    memory: Used
    swap: Used
    disk: Used
    gpu: Gpus
    uptime: float
    timestamp: int


class CurrentMetrics(Struct):
    metrics: V1Metrics


class MetricsHistory(Struct):
    history: list[V1Metrics]


def get_samples(payload: History) -> GetSamples:
    return GetSamples(payload.limit, payload.start, payload.end)


def current_metrics(metrics: Metrics) -> CurrentMetrics:
    return CurrentMetrics(v1_metrics(metrics.sample))


def metrics_history(samples: Samples) -> MetricsHistory:
    return MetricsHistory([v1_metrics(sample) for sample in samples.samples])


def v1_metrics(sample: Sample) -> V1Metrics:
    return V1Metrics(
        cpu=Usage(_tenth(sample.cpu_percent)),
        memory=Used(_tenth(sample.memory_percent)),
        swap=Used(_tenth(sample.swap_percent)),
        disk=Used(_tenth(sample.disk_percent)),
        gpu=_gpus(sample.gpus),
        uptime=_tenth(sample.uptime_s),
        timestamp=sample.timestamp_ms,
    )


def _gpus(gpus: tuple[GpuSample, ...]) -> Gpus:
    """Mean use and sums of memory over the GPUs that tell."""
    usage = [gpu.usage_percent for gpu in gpus if gpu.usage_percent is not None]
    used = [gpu.memory_used_bytes for gpu in gpus if gpu.memory_used_bytes is not None]
    total = [gpu.memory_total_bytes for gpu in gpus if gpu.memory_total_bytes is not None]
    return Gpus(
        usage=_tenth(sum(usage) / len(usage)) if usage else None,
        memoryUsed=sum(used) if used else None,
        memoryTotal=sum(total) if total else None,
        list=tuple(
            V1Gpu(gpu.name, gpu.usage_percent, gpu.memory_used_bytes, gpu.memory_total_bytes, gpu.vendor)
            for gpu in gpus
        ),
    )


def _tenth(value: float) -> float:
    return round(value, 1)


# --- configuration ----------------------------------------------------------------------------------------------------


class Changes(Struct):
    config: dict[str, Any]


class Configuration(Struct):
    config: dict[str, object]


class ConfigurationUpdate(Configuration):
    restartRequired: bool  # noqa: N815
    overridden: list[str]
    warnings: list[str]


_SPELLINGS = {"models_dir": "baseModelsPath", "log_level": "logLevel"}
"""Settings that clients of this dialect know by another name than the file's. All others: the file's."""


def update_config(payload: Changes) -> UpdateConfig:
    return UpdateConfig(payload.config)


def configuration(view: ConfigView) -> Configuration:
    return Configuration(as_tree(view.settings, _SPELLINGS))


def configuration_update(updated: ConfigUpdated) -> ConfigurationUpdate:
    change = updated.change
    return ConfigurationUpdate(
        config=as_tree(updated.settings, _SPELLINGS),
        restartRequired=change.restart_required,
        overridden=[_SPELLINGS.get(name, BY_NAME[name].file_key) for name in change.overridden],
        warnings=list(change.warnings),
    )


# --- the engine -------------------------------------------------------------------------------------------------------


class V1Engine(Struct, omit_defaults=True):
    status: str
    port: int | None = None
    url: str | None = None
    mode: str | None = None
    preset: str | None = None
    error: str | None = None


class V1EngineStarted(Struct):
    success: bool
    port: int
    url: str
    mode: str


class EngineNotice(Struct):
    type: str
    data: V1Engine


class RouterStopped(Struct):
    reason: str


_MODE = "router"
"""All models together answer at one address, as llama-server's router does."""


def engine(view: EngineView) -> V1Engine:
    state = view.state
    if state.status is EngineStatus.RUNNING:
        return V1Engine(state.status, view.port, view.url, _MODE, view.preset)
    return V1Engine(state.status, error=state.error)


def engine_started(view: EngineView) -> V1EngineStarted:
    return V1EngineStarted(True, view.port, view.url, _MODE)
