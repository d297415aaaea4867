"""Feeds of Socket.IO v1: `subscribe` and its events, which carry the records of /api at the top level and in `data`.

Sizes of memory are MiB, of disks and files bytes; percentages are 0 to 100, error rates 0 to 1, times ISO 8601 in UTC.
A field that is not known is absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import ConnectionCall, ServerEvent
from llama_async_proxy.api.units import iso_time, mib, tenth
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations.metrics import Metrics
from llama_async_proxy.operations.models import ModelView
from llama_async_proxy.records.logs import LogLine
from llama_async_proxy.records.machine import GpuSample, RequestCounters, Sample
from llama_async_proxy.records.models import Model, ModelOrigin
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus

FEEDS = ("metrics", "models", "logs")


# --- subscribing ------------------------------------------------------------------------------------------------------


class FeedName(Struct):
    type: str


class Subscribe(Struct):
    """`{type: "metrics"}`, or typed: `{type: "subscribe", data: {type: "metrics"}}`."""

    type: str
    data: FeedName | None = None

    @property
    def feed(self) -> str:
        """Name of the wanted feed. Raises InvalidInput when there is no such feed."""
        wanted = self.data.type if self.data and self.type == "subscribe" else self.type
        if wanted not in FEEDS:
            raise InvalidInput("type", f"must be one of {', '.join(FEEDS)}, not {wanted[:100]!r}")
        return wanted


class FeedMessage(Subscribe):
    pass


class Subscribed(Struct):
    type: str


# --- metrics ----------------------------------------------------------------------------------------------------------


class FeedCpu(Struct, rename="camel"):
    usage: float
    cores: int
    load_average: tuple[float, ...]


class FeedAmount(Struct, rename="camel"):
    used: float
    total: float
    free: float
    usage_percent: float


class FeedGpu(Struct, omit_defaults=True):
    id: int
    name: str
    memory: FeedAmount | None = None
    utilization: float | None = None
    temperature: float | None = None


class FeedModelCounts(Struct, rename="camel"):
    active: int
    total: int
    memory_usage: float


class FeedRequests(Struct, rename="camel"):
    total: int
    active: int
    average_response_time: float
    error_rate: float


class FeedMetrics(Struct, omit_defaults=True):
    timestamp: str
    cpu: FeedCpu
    memory: FeedAmount
    disk: FeedAmount
    models: FeedModelCounts
    requests: FeedRequests
    uptime: float
    gpu: list[FeedGpu] | None = None


class MetricsUpdate(FeedMetrics, omit_defaults=True, kw_only=True):
    type: Literal["metrics_update"]
    data: FeedMetrics


def metrics_update(metrics: Metrics) -> MetricsUpdate:
    data = _metrics(metrics)
    fields = {name: getattr(data, name) for name in FeedMetrics.__struct_fields__}
    return MetricsUpdate(type="metrics_update", data=data, **fields)


def _metrics(metrics: Metrics) -> FeedMetrics:
    sample = metrics.sample
    return FeedMetrics(
        timestamp=iso_time(sample.timestamp_ms),
        cpu=FeedCpu(
            tenth(sample.cpu_percent),
            sample.cpu_cores,
            tuple(round(load, 2) for load in sample.load_average or (0.0, 0.0, 0.0)),
        ),
        memory=_memory(sample),
        disk=FeedAmount(
            sample.disk_used_bytes, sample.disk_total_bytes, sample.disk_free_bytes, tenth(sample.disk_percent)
        ),
        models=FeedModelCounts(sample.models_loaded, metrics.models_registered, mib(sample.models_memory_bytes)),
        requests=_requests(sample.requests),
        uptime=tenth(sample.uptime_s),
        gpu=[_gpu(gpu) for gpu in sample.gpus] or None,
    )


def _memory(sample: Sample) -> FeedAmount:
    return FeedAmount(
        mib(sample.memory_used_bytes),
        mib(sample.memory_total_bytes),
        mib(sample.memory_available_bytes),
        tenth(sample.memory_percent),
    )


def _requests(counters: RequestCounters) -> FeedRequests:
    error_rate = round(counters.errors / counters.total, 4) if counters.total else 0.0
    return FeedRequests(counters.total, counters.active, tenth(counters.average_response_ms or 0.0), error_rate)


def _gpu(gpu: GpuSample) -> FeedGpu:
    memory = _gpu_memory(gpu.memory_used_bytes, gpu.memory_total_bytes)
    return FeedGpu(gpu.index, gpu.name, memory, gpu.usage_percent, gpu.temperature_c)


def _gpu_memory(used: int | None, total: int | None) -> FeedAmount | None:
    if used is None or not total:
        return None
    return FeedAmount(mib(used), mib(total), mib(total - used), tenth(100 * used / total))


# --- models -----------------------------------------------------------------------------------------------------------

_STATUS = {
    ModelStatus.UNLOADED: "stopped",
    ModelStatus.QUEUED: "loading",
    ModelStatus.LOADING: "loading",
    ModelStatus.READY: "running",
    ModelStatus.SLEEPING: "running",
    ModelStatus.STOPPING: "running",
    ModelStatus.FAILED: "error",
}


class FeedVariant(Struct, rename="camel", omit_defaults=True):
    name: str
    parameters: dict[str, Any]
    system_prompt: str | None = None


class FeedModel(Struct, rename="camel", omit_defaults=True):
    id: str
    name: str
    path: str
    size: int
    family: str
    format: str
    status: str
    missing: bool
    is_favorite: bool
    is_pinned: bool
    aliases: list[str]
    variants: list[FeedVariant]
    options: dict[str, OptionValue]
    description: str | None = None
    version: str | None = None
    context_size: int | None = None
    quantization: str | None = None
    loaded_at: str | None = None
    last_used: str | None = None
    memory_usage: float | None = None
    error: str | None = None


class FeedModels(Struct):
    models: list[FeedModel]
    timestamp: str


class ModelsUpdate(FeedModels):
    type: Literal["models_update"]
    data: FeedModels


def models_update(views: Sequence[ModelView], now_ms: int) -> ModelsUpdate:
    data = FeedModels([_model(view) for view in views], iso_time(now_ms))
    return ModelsUpdate(data.models, data.timestamp, "models_update", data)


def _model(view: ModelView) -> FeedModel:
    model, runtime = view.model, view.runtime
    return FeedModel(
        id=model.slug,
        name=model.name,
        path=model.path,
        size=model.size_bytes,
        family=model.family or model.facts.architecture,
        format="gguf",
        status=_status(model, runtime.status),
        missing=model.is_missing,
        is_favorite=model.is_favorite,
        is_pinned=model.is_pinned,
        aliases=list(model.aliases),
        variants=[FeedVariant(each.name, dict(each.parameters), each.system_prompt) for each in model.variants],
        options=dict(model.options),
        description=model.description or model.facts.description,
        version=model.version or model.facts.version,
        context_size=runtime.context_size or model.context_size or model.facts.context_length,
        quantization=model.quantization or model.facts.quantization,
        loaded_at=iso_time(runtime.loaded_at_ms),
        last_used=iso_time(model.last_used_at_ms),
        memory_usage=_memory_usage(runtime),
        error=runtime.error,
    )


def _status(model: Model, status: ModelStatus) -> str:
    never_used = model.origin is ModelOrigin.SCANNED and model.last_used_at_ms is None
    return "discovered" if status is ModelStatus.UNLOADED and never_used else _STATUS[status]


def _memory_usage(runtime: ModelRuntime) -> float | None:
    """Measured main and GPU memory of the model's process, in MiB."""
    measured = [used for used in (runtime.rss_bytes, runtime.gpu_bytes) if used is not None]
    return mib(sum(measured)) if measured else None


# --- logs -------------------------------------------------------------------------------------------------------------


class FeedLogLine(Struct):
    id: str
    timestamp: str
    level: str
    source: str
    message: str


class LogBatch(Struct):
    logs: list[FeedLogLine]
    timestamp: str


class LogsUpdate(LogBatch):
    type: Literal["logs_update"]
    data: LogBatch


def logs_update(lines: Sequence[tuple[int, LogLine]], now_ms: int) -> LogsUpdate:
    """`lines` come with a number each, because lines that are not stored yet have no id."""
    logs = [
        FeedLogLine(str(number), iso_time(line.timestamp_ms), line.level, line.source, line.message)
        for number, line in lines
    ]
    data = LogBatch(logs, iso_time(now_ms))
    return LogsUpdate(logs, data.timestamp, "logs_update", data)


# --- errors -----------------------------------------------------------------------------------------------------------


class FeedErrorData(Struct, omit_defaults=True):
    code: str
    message: str
    reconnect: bool = False
    retryIn: int | None = None  # noqa: N815 - field names are the clients'


class FeedError(FeedErrorData):
    type: str = ""
    data: FeedErrorData | None = None
    timestamp: str = ""


def feed_error(data: FeedErrorData, now_ms: int) -> FeedError:
    return FeedError(
        data.code, data.message, data.reconnect, data.retryIn, type="error", data=data, timestamp=iso_time(now_ms)
    )


# --- the table --------------------------------------------------------------------------------------------------------

METRICS = ServerEvent("metrics_update", MetricsUpdate, "To subscribers of metrics, every 10 s; bare.")
MODELS = ServerEvent("models_update", ModelsUpdate, "To subscribers of models, every 30 s and on changes; bare.")
LOGS = ServerEvent("logs_update", LogsUpdate, "To subscribers of logs, every 15 s; bare.")
ERROR = ServerEvent("error", FeedError, "A subscription was refused, or the service stops; bare.")

EVENTS = (METRICS, MODELS, LOGS, ERROR)

SUBSCRIBE = ConnectionCall(
    "subscribe", Subscribe, Subscribed, "Subscribes to a feed; answered only by an acknowledgement."
)
MESSAGE = ConnectionCall("message", FeedMessage, Subscribed, "The same request as a typed message.")

CALLS = (SUBSCRIBE, MESSAGE)
