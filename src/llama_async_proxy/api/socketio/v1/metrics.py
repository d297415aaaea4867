"""Metrics over Socket.IO v1: requests `metrics:*` and the event `metrics:update`.

Percentages are rounded to a tenth, GPU memory is bytes, times are milliseconds since the epoch, `uptime` is seconds;
null means "not known".
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from llama_async_proxy.api.socketio.contract import Call, Nothing, ServerEvent, no_fields
from llama_async_proxy.api.units import tenth
from llama_async_proxy.operations import metrics as metric_operations
from llama_async_proxy.operations.metrics import GetMetrics, GetSamples, Metrics, Samples
from llama_async_proxy.records.machine import GpuSample, Sample

Limit = Annotated[int, Meta(ge=1, le=2000)]
Milliseconds = Annotated[int, Meta(ge=0, le=1 << 53)]


class HistoryQuery(Struct):
    limit: Limit = 100
    start: Milliseconds | None = None
    end: Milliseconds | None = None


class CpuUsage(Struct):
    usage: float


class Used(Struct):
    used: float


class V1Gpu(Struct):
    name: str
    usage: float | None
    memoryUsed: int | None  # noqa: N815 - field names are the clients'
    memoryTotal: int | None  # noqa: N815
    vendor: str


class Gpus(Struct):
    usage: float | None
    memoryUsed: int | None  # noqa: N815
    memoryTotal: int | None  # noqa: N815
    list: tuple[V1Gpu, ...]


class V1Metrics(Struct):
    cpu: CpuUsage
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


def get_samples(payload: HistoryQuery) -> GetSamples:
    return GetSamples(payload.limit, payload.start, payload.end)


def current_metrics(metrics: Metrics) -> CurrentMetrics:
    return sample_metrics(metrics.sample)


def sample_metrics(sample: Sample) -> CurrentMetrics:
    return CurrentMetrics(v1_metrics(sample))


def metrics_history(samples: Samples) -> MetricsHistory:
    return MetricsHistory([v1_metrics(sample) for sample in samples.samples])


def v1_metrics(sample: Sample) -> V1Metrics:
    return V1Metrics(
        cpu=CpuUsage(tenth(sample.cpu_percent)),
        memory=Used(tenth(sample.memory_percent)),
        swap=Used(tenth(sample.swap_percent)),
        disk=Used(tenth(sample.disk_percent)),
        gpu=_gpus(sample.gpus),
        uptime=tenth(sample.uptime_s),
        timestamp=sample.timestamp_ms,
    )


def _gpus(gpus: tuple[GpuSample, ...]) -> Gpus:
    """Mean usage and summed memory of the GPUs that report them."""
    usage = [gpu.usage_percent for gpu in gpus if gpu.usage_percent is not None]
    used = [gpu.memory_used_bytes for gpu in gpus if gpu.memory_used_bytes is not None]
    total = [gpu.memory_total_bytes for gpu in gpus if gpu.memory_total_bytes is not None]
    return Gpus(
        usage=tenth(sum(usage) / len(usage)) if usage else None,
        memoryUsed=sum(used) if used else None,
        memoryTotal=sum(total) if total else None,
        list=tuple(
            V1Gpu(gpu.name, gpu.usage_percent, gpu.memory_used_bytes, gpu.memory_total_bytes, gpu.vendor)
            for gpu in gpus
        ),
    )


# --- the table --------------------------------------------------------------------------------------------------------

UPDATE = ServerEvent("metrics:update", CurrentMetrics, "Every 10 s.")

EVENTS = (UPDATE,)

CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call("metrics:get", Nothing, no_fields(GetMetrics), metric_operations.get_metrics, current_metrics),
    Call(
        "metrics:history", HistoryQuery, get_samples, metric_operations.get_samples, metrics_history,
        description="Newest first.",
    ),
)  # fmt: skip
