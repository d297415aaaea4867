"""Metrics in the acknowledged dialect: requests `metrics:*` and the event `metrics:update`.

Sizes are bytes, response times milliseconds, percentages 0 to 100; null means "not known".
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import Call, ConnectionCall, Nothing, ServerEvent, no_fields
from llama_async_proxy.api.units import iso_time, tenth
from llama_async_proxy.operations import metrics as metric_operations
from llama_async_proxy.operations.metrics import GetMetrics, Metrics
from llama_async_proxy.records.machine import Sample


class AckCpu(Struct):
    usage: float
    cores: int


class AckAmount(Struct):
    used: int
    total: int


class AckSystem(Struct):
    cpu: AckCpu
    memory: AckAmount
    disk: AckAmount


class AckRequests(Struct):
    activeConnections: int  # noqa: N815 - field names are the clients'
    requestsProcessed: int  # noqa: N815
    averageResponseTime: float | None  # noqa: N815


class AckGpu(Struct):
    name: str
    usage: float | None
    memoryUsed: int | None  # noqa: N815
    memoryTotal: int | None  # noqa: N815


class AckMetrics(Struct):
    system: AckSystem
    llama: AckRequests
    gpu: list[AckGpu]
    timestamp: str


class MetricsSubscription(Struct):
    subscribed: bool


def metrics(found: Metrics) -> AckMetrics:
    return sample_metrics(found.sample)


def sample_metrics(sample: Sample) -> AckMetrics:
    counters = sample.requests
    average = counters.average_response_ms
    return AckMetrics(
        system=AckSystem(
            AckCpu(tenth(sample.cpu_percent), sample.cpu_cores),
            AckAmount(sample.memory_used_bytes, sample.memory_total_bytes),
            AckAmount(sample.disk_used_bytes, sample.disk_total_bytes),
        ),
        llama=AckRequests(counters.active, counters.total, None if average is None else tenth(average)),
        gpu=[AckGpu(g.name, g.usage_percent, g.memory_used_bytes, g.memory_total_bytes) for g in sample.gpus],
        timestamp=iso_time(sample.timestamp_ms),
    )


# --- the table --------------------------------------------------------------------------------------------------------

UPDATE = ServerEvent("metrics:update", AckMetrics, "Every 10 s, until metrics:unsubscribe.")

EVENTS = (UPDATE,)

SUBSCRIBE = ConnectionCall(
    "metrics:subscribe", Nothing, MetricsSubscription, "Each client is subscribed when it connects."
)
UNSUBSCRIBE = ConnectionCall(
    "metrics:unsubscribe", Nothing, MetricsSubscription, "Ends metrics:update for this client."
)

CALLS: tuple[Call[Any, Any, Any] | ConnectionCall, ...] = (
    Call("metrics:get", Nothing, no_fields(GetMetrics), metric_operations.get_metrics, metrics),
    SUBSCRIBE,
    UNSUBSCRIBE,
)
