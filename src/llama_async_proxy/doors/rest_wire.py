"""What travels on /api: pydantic models, and the functions that make them of what operations answer.

Sizes of memory are MiB, of disks and files bytes; percentages 0 to 100, `errorRate` 0 to 1; times ISO 8601 in UTC.
A field that is not known is absent, but for the ones that say null.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, Generic, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from llama_async_proxy import __version__
from llama_async_proxy.chats import prompt
from llama_async_proxy.doors.http_errors import iso_now
from llama_async_proxy.gguf.memory import Footprint
from llama_async_proxy.monitor.logtext import timestamp
from llama_async_proxy.operations.config import ConfigUpdated
from llama_async_proxy.operations.engine import EngineView
from llama_async_proxy.operations.estimate import Fit, MemoryReport
from llama_async_proxy.operations.health import Health, ServiceStatus
from llama_async_proxy.operations.metrics import History, Metrics
from llama_async_proxy.operations.models import (
    CleanUpReport,
    DeletedModel,
    Discovery,
    ModelList,
    ModelView,
    ScanReport,
)
from llama_async_proxy.records import (
    BrokenFile,
    EngineStatus,
    GpuSample,
    HistoryPoint,
    Model,
    ModelFile,
    ModelOrigin,
    ModelRuntime,
    ModelStatus,
    RequestCounters,
    Sample,
    Sampling,
    Variant,
)
from llama_async_proxy.settings import BY_NAME, Settings

_MIB = 1 << 20

Data = TypeVar("Data")
Option = str | int | float | bool
ContextSize = Annotated[int, Field(ge=0, le=1 << 31, description="Tokens.")]
Text = Annotated[str, Field(max_length=4096)]


class Wire(BaseModel):
    """Types are checked, never converted: "8134" is no port."""

    model_config = ConfigDict(strict=True, populate_by_name=True)


class CamelWire(Wire):
    model_config = ConfigDict(alias_generator=to_camel)


class Envelope(Wire, Generic[Data]):
    success: Literal[True] = True
    data: Data
    timestamp: str = Field(default_factory=iso_now)


class Answer(Envelope[Data], Generic[Data]):
    """Every successful answer."""

    message: str | None = None


class Failure(Wire):
    code: str
    message: str = Field(description="One sentence for people: what failed, why, what to do.")
    type: str = Field(description="What clients of the OpenAI API look for.")
    details: str | None = None


class ErrorAnswer(Wire):
    """Every other answer."""

    success: Literal[False] = False
    error: Failure
    timestamp: str


# --- models -----------------------------------------------------------------------------------------------------------

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


class FoundModel(CamelWire):
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


class ModelVariant(CamelWire):
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
    is_favorite: bool
    is_pinned: bool
    aliases: list[str]
    variants: list[ModelVariant] = Field(description="Further names with defaults of their own, on the same process.")
    options: dict[str, Option] = Field(description="Engine options of this model, by long flag name.")


class Models(Wire):
    count: int
    models: list[RegisteredModel]


class ModelsAnswer(Envelope[Models]):
    """The same list twice: whole in `data`, and as file names beside it."""

    models: list[str]
    count: int
    llamacpp_url: str


class NewModelBody(CamelWire):
    path: Text = Field(description="Absolute path of a GGUF file; for a split model, of its first shard.")
    name: Text | None = None
    description: Text | None = None
    version: Text | None = None
    family: Text | None = None
    quantization: Text | None = None
    context_size: ContextSize | None = None


class NewModelsBody(Wire):
    models: list[NewModelBody] = Field(min_length=1, max_length=1000)


class Registered(Wire):
    registered: int
    models: list[RegisteredModel]


class ModelChangesBody(CamelWire):
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


class LoadBody(Wire):
    options: dict[str, Option] = Field(default={}, description="Engine options of this load, by long flag name.")


class DiscoverBody(CamelWire):
    paths: list[Text] = Field(default=[], max_length=100, description="Absolute; none: the models directory.")
    recursive: bool = True
    include_patterns: list[Text] = Field(default=["*.gguf", "*.bin"], max_length=100)
    exclude_patterns: list[Text] = Field(default=[], max_length=100)


class Broken(Wire):
    path: str
    reason: str


class Discovered(CamelWire):
    discovered: list[FoundModel]
    scanned_paths: list[str]
    total_found: int
    failed: list[Broken]


class Removed(CamelWire):
    model_id: str


class Scanned(Wire):
    scanned: int = Field(description="New models.")
    updated: int = Field(description="Known models whose file changed.")
    total: int
    failed: list[Broken]


class CleanedUp(CamelWire):
    deleted_count: int
    deleted: list[str]


class MemoryFootprint(Wire):
    """MiB."""

    weights: float
    context: float = Field(description="Cached keys and values, and recurrent state.")
    compute: float
    total: float


class MachineMemory(Wire):
    """MiB."""

    host: float
    gpu: float | None = Field(None, description="All GPUs together; absent without one.")


class ModelMemory(CamelWire):
    fits: Fit = Field(description="host_only: not as asked, but without the GPU.")
    is_rough: bool = Field(description="The architecture is not modelled; the numbers may be off by some percent.")
    context_size: int = Field(description="Tokens of all slots together, as the engine rounds them.")
    context_per_slot: int
    slots: int
    gpu_layers: int = Field(description="The output layer counts as one.")
    all_layers: int
    total: float = Field(description="MiB, host and GPU.")
    host: MemoryFootprint
    gpu: MemoryFootprint
    free: MachineMemory = Field(description="Now, and what this model's process would give back.")
    measured: MachineMemory | None = Field(None, description="What the model's process takes; absent while none runs.")
    largest_context: int | None = Field(None, description="Tokens of all slots that fit; absent when none does.")
    most_gpu_layers: int | None = Field(None, description="Absent without a GPU, or when the rest does not fit.")


def model_memory(report: MemoryReport) -> ModelMemory:
    answer = report.estimate
    is_measured = report.measured_host_bytes is not None
    return ModelMemory(
        fits=report.fits,
        is_rough=answer.is_rough,
        context_size=answer.context_size,
        context_per_slot=answer.context_per_slot,
        slots=answer.slots,
        gpu_layers=answer.gpu_layers,
        all_layers=answer.all_layers,
        total=_some_mib(answer.total_bytes),
        host=_footprint(answer.host),
        gpu=_footprint(answer.gpu),
        free=_machine_memory(report.free_host_bytes, report.free_gpu_bytes),
        measured=_machine_memory(report.measured_host_bytes or 0, report.measured_gpu_bytes) if is_measured else None,
        largest_context=report.largest_context,
        most_gpu_layers=report.most_gpu_layers,
    )


def _footprint(part: Footprint) -> MemoryFootprint:
    return MemoryFootprint(
        weights=_some_mib(part.weights_bytes),
        context=_some_mib(part.context_bytes),
        compute=_some_mib(part.compute_bytes),
        total=_some_mib(part.total_bytes),
    )


def _machine_memory(host_bytes: int, gpu_bytes: int | None) -> MachineMemory:
    return MachineMemory(host=_some_mib(host_bytes), gpu=_mib(gpu_bytes))


def _some_mib(value: int) -> float:
    return round(value / _MIB, 1)


def models_answer(listed: ModelList, engine: EngineView) -> ModelsAnswer:
    return ModelsAnswer(
        data=Models(count=len(listed.models), models=[registered_model(view) for view in listed.models]),
        models=[PurePath(view.model.path).name for view in listed.models],
        count=len(listed.models),
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
        loaded_at=_time(runtime.loaded_at_ms),
        last_used=_time(model.last_used_at_ms),
        memory_usage=_mib(_resident_bytes(runtime)),
        error=runtime.error,
        is_favorite=model.is_favorite,
        is_pinned=model.is_pinned,
        aliases=list(model.aliases),
        variants=[_variant(variant) for variant in model.variants],
        options=dict(model.options),
    )


def _variant(variant: Variant) -> ModelVariant:
    parameters = cast("dict[str, JsonValue]", dict(variant.parameters))
    return ModelVariant(name=variant.name, parameters=parameters, system_prompt=variant.system_prompt)


def _status(model: Model, status: ModelStatus) -> Status:
    never_touched = model.origin is ModelOrigin.SCANNED and model.last_used_at_ms is None
    return "discovered" if status is ModelStatus.UNLOADED and never_touched else _STATUS[status]


def registered(created: ModelList) -> Registered:
    models = [registered_model(view, "registered") for view in created.models]
    return Registered(registered=len(models), models=models)


def discovered(found: Discovery) -> Discovered:
    return Discovered(
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


def removed(deleted: DeletedModel) -> Removed:
    return Removed(model_id=deleted.slug)


def scanned(report: ScanReport) -> Scanned:
    return Scanned(scanned=report.scanned, updated=report.updated, total=report.total, failed=_broken(report.failed))


def cleaned_up(report: CleanUpReport) -> CleanedUp:
    return CleanedUp(deleted_count=len(report.deleted), deleted=[deleted.slug for deleted in report.deleted])


def _broken(files: Sequence[BrokenFile]) -> list[Broken]:
    return [Broken(path=file.path, reason=file.reason) for file in files]


# --- configuration ----------------------------------------------------------------------------------------------------


class EngineConfig(Wire):
    """The engine's part of the configuration file; -1 leaves a number to the engine."""

    host: str
    port: int
    basePath: str = Field(description="Directory of the GGUF files.")  # noqa: N815 - the file's own spelling
    serverPath: str = Field(description="The llama-server binary; empty: found by itself.")  # noqa: N815
    ctx_size: int
    batch_size: int
    threads: int
    gpu_layers: int


class ConfigBody(Wire):
    """Any part of the configuration file; what is absent keeps its value."""

    model_config = ConfigDict(extra="allow")

    # Factories, so that the document shows neither null, which is refused, nor a default, which there is none.
    host: str = Field(default_factory=str)
    port: int = Field(default_factory=int)
    basePath: str = Field(default_factory=str)  # noqa: N815
    serverPath: str = Field(default_factory=str)  # noqa: N815
    ctx_size: int = Field(default_factory=int)
    batch_size: int = Field(default_factory=int)
    threads: int = Field(default_factory=int)
    gpu_layers: int = Field(default_factory=int)

    @property
    def changes(self) -> dict[str, object]:
        return self.model_dump(exclude_unset=True)


class Timeouts(Wire):
    llamacpp_timeout: float = Field(description="Seconds without a byte of the answer.")
    llamacpp_connect_timeout: float = Field(description="Seconds.")


class ModelOptions(Wire):
    """Of answers in conversations that say nothing else; null: the model's own default rules."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    num_predict: int | None = None
    repeat_penalty: float | None = None
    stop: list[str] | None = None


class Performance(Wire):
    context_history_limit: int = Field(description="Newest messages of a conversation the model sees; 0: all.")
    num_thread: int
    use_mlock: bool | None = None
    use_mmap: bool | None = None


class ResponseOptimization(Wire):
    stream: bool = Field(description="Whether /api/chat streams when it is not told to.")
    keep_alive: str = Field(description='How long an unused model stays loaded: "600s"; "-1" is for ever.')


class ConfigAnswer(Envelope[EngineConfig]):
    timeouts: Timeouts
    model_options: ModelOptions
    performance: Performance
    response_optimization: ResponseOptimization


class ConfigUpdatedAnswer(Answer[EngineConfig]):
    restartRequired: bool  # noqa: N815
    overridden: list[str] = Field(description="Keys that the command line or the environment set at the next start.")
    warnings: list[str]


def engine_config(settings: Settings) -> EngineConfig:
    return EngineConfig(
        host=settings.engine_host,
        port=settings.engine_port,
        basePath=str(settings.models_dir),
        serverPath=settings.llama_server,
        ctx_size=settings.ctx_size,
        batch_size=settings.batch_size,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
    )


def config_answer(settings: Settings) -> ConfigAnswer:
    ttl_s = settings.idle_ttl_s
    return ConfigAnswer(
        data=engine_config(settings),
        timeouts=Timeouts(
            llamacpp_timeout=settings.first_token_timeout_s, llamacpp_connect_timeout=settings.connect_timeout_s
        ),
        model_options=_model_options(prompt.defaults(settings)),
        performance=Performance(num_thread=settings.threads, context_history_limit=settings.chat_history_limit),
        response_optimization=ResponseOptimization(stream=False, keep_alive=f"{ttl_s:g}s" if ttl_s else "-1"),
    )


def _model_options(sampling: Sampling) -> ModelOptions:
    return ModelOptions(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        num_predict=sampling.num_predict,
        repeat_penalty=sampling.repeat_penalty,
        stop=None if sampling.stop is None else list(sampling.stop),
    )


def config_updated_answer(updated: ConfigUpdated) -> ConfigUpdatedAnswer:
    return ConfigUpdatedAnswer(
        data=engine_config(updated.settings),
        message="Configuration updated successfully",
        restartRequired=updated.change.restart_required,
        overridden=[BY_NAME[name].file_key for name in updated.change.overridden],
        warnings=list(updated.change.warnings),
    )


# --- health and status ------------------------------------------------------------------------------------------------

Wellness = Literal["healthy", "unhealthy"]


class ProxyHealth(Wire):
    status: Wellness
    uptime: float
    version: str


class EngineHealth(Wire):
    status: Wellness
    host: str
    port: int
    models_loaded: int
    last_health_check: str
    error: str | None = None


class ServicesHealth(Wire):
    proxy: ProxyHealth
    llama_server: EngineHealth


class SystemHealth(Wire):
    cpu_usage: float
    memory_usage: float
    disk_usage: float


class HealthData(Wire):
    status: Wellness
    timestamp: str
    services: ServicesHealth
    system: SystemHealth


class Unhealthy(ErrorAnswer):
    """What is wrong in `error`, all the rest as ever in `data`."""

    data: HealthData


class ApplicationStatus(Wire):
    name: str
    version: str
    environment: str
    uptime: float
    start_time: str


class ServerStatus(Wire):
    port: int
    host: str
    ssl: bool
    cors_enabled: bool


class WebsocketStatus(Wire):
    connected_clients: int
    active_connections: int
    messages_per_second: float


class ModelCounts(Wire):
    registered: int
    loaded: int
    loading: int
    failed: int


class PerformanceStatus(Wire):
    requests_total: int
    requests_active: int
    average_response_time: float = Field(description="Milliseconds, over the last minute; 0 without requests.")
    error_rate: float


class StatusData(Wire):
    application: ApplicationStatus
    server: ServerStatus
    websocket: WebsocketStatus
    models: ModelCounts
    performance: PerformanceStatus


def health_data(health: Health) -> HealthData:
    checked_at = timestamp(health.checked_at_ms)
    database_fails = any(problem.startswith("database") for problem in health.problems)
    engine_fails = health.engine.state.status is EngineStatus.ERROR
    return HealthData(
        status=_wellness(health.healthy),
        timestamp=checked_at,
        services=ServicesHealth(
            proxy=ProxyHealth(
                status=_wellness(not database_fails), uptime=round(health.uptime_s, 1), version=__version__
            ),
            llama_server=EngineHealth(
                status=_wellness(not engine_fails),
                host=health.engine.host,
                port=health.engine.port,
                models_loaded=health.models_loaded,
                last_health_check=checked_at,
                error=health.engine.state.error,
            ),
        ),
        system=SystemHealth(
            cpu_usage=_tenth(health.sample.cpu_percent),
            memory_usage=_tenth(health.sample.memory_percent),
            disk_usage=_tenth(health.sample.disk_percent),
        ),
    )


def unhealthy(health: Health) -> Unhealthy:
    failure = Failure(
        code="SERVICE_UNAVAILABLE", message="Not healthy: " + "; ".join(health.problems), type="unavailable_error"
    )
    return Unhealthy(error=failure, data=health_data(health), timestamp=iso_now())


def _wellness(is_well: bool) -> Wellness:
    return "healthy" if is_well else "unhealthy"


def status_data(status: ServiceStatus) -> StatusData:
    return StatusData(
        application=ApplicationStatus(
            name="Llama Async Proxy",
            version=__version__,
            environment="production",
            uptime=round(status.uptime_s, 1),
            start_time=timestamp(status.started_at_ms),
        ),
        server=ServerStatus(
            port=status.settings.port,
            host=status.settings.host,
            ssl=False,
            cors_enabled=bool(status.settings.allowed_origins),
        ),
        websocket=WebsocketStatus(
            connected_clients=status.connected_clients,
            active_connections=status.connected_clients,
            messages_per_second=_tenth(status.messages_per_second),
        ),
        models=ModelCounts(
            registered=status.models_registered,
            loaded=status.models_loaded,
            loading=status.models_loading,
            failed=status.models_failed,
        ),
        performance=PerformanceStatus(
            requests_total=status.requests.total,
            requests_active=status.requests.active,
            average_response_time=_tenth(status.requests.average_response_ms or 0.0),
            error_rate=_error_rate(status.requests),
        ),
    )


def _error_rate(requests: RequestCounters) -> float:
    return round(requests.errors / requests.total, 4) if requests.total else 0.0


# --- monitoring -------------------------------------------------------------------------------------------------------


class Cpu(CamelWire):
    usage: float
    cores: int
    load_average: list[float] = Field(min_length=3, max_length=3, description="1, 5 and 15 minutes.")


class Amount(CamelWire):
    used: float
    total: float
    free: float
    usage_percent: float


class Gpu(CamelWire):
    id: int
    name: str
    memory: Amount | None = None
    utilization: float | None = None
    temperature: float | None = None


class ModelsUse(CamelWire):
    active: int
    total: int
    memory_usage: float


class RequestsUse(CamelWire):
    total: int
    active: int
    average_response_time: float
    error_rate: float


class MonitoringData(CamelWire):
    timestamp: str
    cpu: Cpu
    memory: Amount = Field(description="MiB.")
    disk: Amount = Field(description="Bytes.")
    gpu: list[Gpu] | None = Field(None, description="Absent where there is none.")
    models: ModelsUse
    requests: RequestsUse
    uptime: float


class Period(Wire):
    start: str
    end: str
    resolution: str


class HistoryEntry(CamelWire):
    timestamp: str
    cpu: float
    memory: float
    gpu: float | None = None
    requests: int
    response_time: float


class Summary(CamelWire):
    avg_cpu: float
    max_cpu: float
    avg_memory: float
    max_memory: float
    total_requests: int
    avg_response_time: float


class HistoryData(Wire):
    period: Period
    metrics: list[HistoryEntry]
    summary: Summary


def monitoring_data(metrics: Metrics, models_registered: int) -> MonitoringData:
    sample = metrics.sample
    return MonitoringData(
        timestamp=timestamp(sample.timestamp_ms),
        cpu=Cpu(
            usage=_tenth(sample.cpu_percent),
            cores=sample.cpu_cores,
            load_average=[round(load, 2) for load in sample.load_average or (0.0, 0.0, 0.0)],
        ),
        memory=_memory(sample),
        disk=Amount(
            used=sample.disk_used_bytes,
            total=sample.disk_total_bytes,
            free=sample.disk_free_bytes,
            usage_percent=_tenth(sample.disk_percent),
        ),
        gpu=[_gpu(gpu) for gpu in sample.gpus] or None,
        models=ModelsUse(
            active=sample.models_loaded,
            total=models_registered,
            memory_usage=_mib(sample.models_memory_bytes) or 0.0,
        ),
        requests=RequestsUse(
            total=sample.requests.total,
            active=sample.requests.active,
            average_response_time=_tenth(sample.requests.average_response_ms or 0.0),
            error_rate=_error_rate(sample.requests),
        ),
        uptime=round(sample.uptime_s, 1),
    )


def _memory(sample: Sample) -> Amount:
    return Amount(
        used=_tenth(sample.memory_used_bytes / _MIB),
        total=_tenth(sample.memory_total_bytes / _MIB),
        free=_tenth(sample.memory_available_bytes / _MIB),
        usage_percent=_tenth(sample.memory_percent),
    )


def _gpu(gpu: GpuSample) -> Gpu:
    return Gpu(
        id=gpu.index,
        name=gpu.name,
        memory=_gpu_memory(gpu.memory_used_bytes, gpu.memory_total_bytes),
        utilization=gpu.usage_percent,
        temperature=gpu.temperature_c,
    )


def _gpu_memory(used: int | None, total: int | None) -> Amount | None:
    if used is None or not total:
        return None
    return Amount(
        used=_tenth(used / _MIB),
        total=_tenth(total / _MIB),
        free=_tenth((total - used) / _MIB),
        usage_percent=_tenth(100 * used / total),
    )


def history_data(history: History) -> HistoryData:
    return HistoryData(
        period=Period(start=timestamp(history.start_ms), end=timestamp(history.end_ms), resolution=history.resolution),
        metrics=[_history_entry(point) for point in history.points],
        summary=_summary(history.points),
    )


def _history_entry(point: HistoryPoint) -> HistoryEntry:
    return HistoryEntry(
        timestamp=timestamp(point.timestamp_ms),
        cpu=_tenth(point.cpu_percent),
        memory=_tenth(point.memory_percent),
        gpu=None if point.gpu_percent is None else _tenth(point.gpu_percent),
        requests=point.requests,
        response_time=_tenth(point.response_ms or 0.0),
    )


def _summary(points: Sequence[HistoryPoint]) -> Summary:
    requests = sum(point.requests for point in points)
    waited_ms = sum(point.requests * (point.response_ms or 0.0) for point in points)
    cpu = [point.cpu_percent for point in points] or [0.0]
    memory = [point.memory_percent for point in points] or [0.0]
    return Summary(
        avg_cpu=_tenth(sum(cpu) / len(cpu)),
        max_cpu=_tenth(max(cpu)),
        avg_memory=_tenth(sum(memory) / len(memory)),
        max_memory=_tenth(max(memory)),
        total_requests=requests,
        avg_response_time=_tenth(waited_ms / requests) if requests else 0.0,
    )


# --- the engine -------------------------------------------------------------------------------------------------------


class EngineData(CamelWire):
    status: Literal["idle", "running", "error"]
    mode: Literal["router"] = "router"
    kind: str = Field(description="How models are run: workers, embedded, router.")
    host: str
    port: int
    url: str = Field(description="Where inference is answered.")
    binary: str | None = None
    version: str | None = None
    error: str | None = None
    started_at: str | None = None
    preset: str | None = Field(None, description="The one it runs with.")


def engine_data(view: EngineView) -> EngineData:
    state = view.state
    return EngineData(
        status=state.status.value,
        kind=state.kind,
        host=view.host,
        port=view.port,
        url=view.url,
        binary=state.binary,
        version=state.version,
        error=state.error,
        started_at=_time(state.started_at_ms),
        preset=view.preset,
    )


# --- numbers and times ------------------------------------------------------------------------------------------------


def _tenth(value: float) -> float:
    return round(value, 1)


def _resident_bytes(runtime: ModelRuntime) -> int | None:
    """Main and GPU memory of the model's process; None while nothing was measured."""
    measured = [used for used in (runtime.rss_bytes, runtime.gpu_bytes) if used is not None]
    return sum(measured) if measured else None


def _mib(value: int | None) -> float | None:
    return None if value is None else _tenth(value / _MIB)


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else timestamp(milliseconds)
