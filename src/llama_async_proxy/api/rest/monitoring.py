"""The machine now and before.

Memory sizes are MiB, disk sizes bytes; percentages are 0 to 100, error rates 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query
from pydantic import Field

from llama_async_proxy.api.rest.routing import RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.rest.schema import CamelModel, RestAnswer, StrictModel
from llama_async_proxy.api.rest.status import error_rate
from llama_async_proxy.api.units import iso_time, mib, tenth
from llama_async_proxy.operations import metrics as metrics_operations
from llama_async_proxy.operations.metrics import GetHistory, GetMetrics, History, Metrics
from llama_async_proxy.records.machine import GpuSample, HistoryPoint, Sample

# --- schema -----------------------------------------------------------------------------------------------------------


class Cpu(CamelModel):
    usage: float
    cores: int
    load_average: list[float] = Field(min_length=3, max_length=3, description="1, 5 and 15 minutes.")


class Amount(CamelModel):
    used: float
    total: float
    free: float
    usage_percent: float


class Gpu(CamelModel):
    id: int
    name: str
    memory: Amount | None = None
    utilization: float | None = None
    temperature: float | None = None


class ModelsUse(CamelModel):
    active: int
    total: int
    memory_usage: float


class RequestsUse(CamelModel):
    total: int
    active: int
    average_response_time: float
    error_rate: float


class MonitoringData(CamelModel):
    timestamp: str
    cpu: Cpu
    memory: Amount = Field(description="MiB.")
    disk: Amount = Field(description="Bytes.")
    gpu: list[Gpu] | None = Field(None, description="Absent where there is none.")
    models: ModelsUse
    requests: RequestsUse
    uptime: float


class Period(StrictModel):
    start: str
    end: str
    resolution: str


class HistoryEntry(CamelModel):
    timestamp: str
    cpu: float
    memory: float
    gpu: float | None = None
    requests: int
    response_time: float


class Summary(CamelModel):
    avg_cpu: float
    max_cpu: float
    avg_memory: float
    max_memory: float
    total_requests: int
    avg_response_time: float


class HistoryData(StrictModel):
    period: Period
    metrics: list[HistoryEntry]
    summary: Summary


# --- mapping ----------------------------------------------------------------------------------------------------------


def monitoring_data(metrics: Metrics) -> MonitoringData:
    sample = metrics.sample
    return MonitoringData(
        timestamp=iso_time(sample.timestamp_ms),
        cpu=Cpu(
            usage=tenth(sample.cpu_percent),
            cores=sample.cpu_cores,
            load_average=[round(load, 2) for load in sample.load_average or (0.0, 0.0, 0.0)],
        ),
        memory=_memory(sample),
        disk=Amount(
            used=sample.disk_used_bytes,
            total=sample.disk_total_bytes,
            free=sample.disk_free_bytes,
            usage_percent=tenth(sample.disk_percent),
        ),
        gpu=[_gpu(gpu) for gpu in sample.gpus] or None,
        models=ModelsUse(
            active=sample.models_loaded,
            total=metrics.models_registered,
            memory_usage=mib(sample.models_memory_bytes) or 0.0,
        ),
        requests=RequestsUse(
            total=sample.requests.total,
            active=sample.requests.active,
            average_response_time=tenth(sample.requests.average_response_ms or 0.0),
            error_rate=error_rate(sample.requests),
        ),
        uptime=round(sample.uptime_s, 1),
    )


def _memory(sample: Sample) -> Amount:
    return Amount(
        used=mib(sample.memory_used_bytes),
        total=mib(sample.memory_total_bytes),
        free=mib(sample.memory_available_bytes),
        usage_percent=tenth(sample.memory_percent),
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
        used=mib(used),
        total=mib(total),
        free=mib(total - used),
        usage_percent=tenth(100 * used / total),
    )


def history_data(history: History) -> HistoryData:
    return HistoryData(
        period=Period(start=iso_time(history.start_ms), end=iso_time(history.end_ms), resolution=history.resolution),
        metrics=[_history_entry(point) for point in history.points],
        summary=_summary(history.points),
    )


def _history_entry(point: HistoryPoint) -> HistoryEntry:
    return HistoryEntry(
        timestamp=iso_time(point.timestamp_ms),
        cpu=tenth(point.cpu_percent),
        memory=tenth(point.memory_percent),
        gpu=None if point.gpu_percent is None else tenth(point.gpu_percent),
        requests=point.requests,
        response_time=tenth(point.response_ms or 0.0),
    )


def _summary(points: Sequence[HistoryPoint]) -> Summary:
    requests = sum(point.requests for point in points)
    waited_ms = sum(point.requests * (point.response_ms or 0.0) for point in points)
    cpu = [point.cpu_percent for point in points] or [0.0]
    memory = [point.memory_percent for point in points] or [0.0]
    return Summary(
        avg_cpu=tenth(sum(cpu) / len(cpu)),
        max_cpu=tenth(max(cpu)),
        avg_memory=tenth(sum(memory) / len(memory)),
        max_memory=tenth(max(memory)),
        total_requests=requests,
        avg_response_time=tenth(waited_ms / requests) if requests else 0.0,
    )


# --- routes -----------------------------------------------------------------------------------------------------------


async def get_metrics(context: ServiceContext) -> RestAnswer[MonitoringData]:
    """The machine now."""
    return RestAnswer(data=monitoring_data(await metrics_operations.get_metrics(context, GetMetrics())))


async def get_history(
    context: ServiceContext,
    hours: Annotated[float, Query(description="1 to 168.")] = 24,
    resolution: Annotated[str, Query(description="1m, 5m, 15m or 1h.")] = "5m",
) -> RestAnswer[HistoryData]:
    """The machine before: means over equal pieces of time, oldest first."""
    history = await metrics_operations.get_history(context, GetHistory(hours, resolution))
    return RestAnswer(data=history_data(history))


TABLES = (
    RouteTable(
        "monitoring",
        (
            RestRoute("GET", "/api/monitoring", get_metrics, RestAnswer[MonitoringData]),
            RestRoute("GET", "/api/monitoring/history", get_history, RestAnswer[HistoryData], (400, 503)),
        ),
    ),
)
