"""What travels on the routes of health, status and monitoring.

Sizes of memory are MiB, of disks bytes; percentages 0 to 100, error rates 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from llama_async_proxy import __version__
from llama_async_proxy.api.rest.schema import CamelWire, ErrorAnswer, ErrorContent, Wire
from llama_async_proxy.api.units import iso_now, mib, tenth
from llama_async_proxy.monitor.logtext import timestamp
from llama_async_proxy.operations.health import Health, ServiceStatus
from llama_async_proxy.operations.metrics import History, Metrics
from llama_async_proxy.records.engine import EngineStatus
from llama_async_proxy.records.machine import GpuSample, HistoryPoint, RequestCounters, Sample

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
    status: Wellness | Literal["starting"] = Field(description="starting: the first scan for models has not ended.")
    timestamp: str
    services: ServicesHealth
    system: SystemHealth


class Unhealthy(ErrorAnswer):
    """What is wrong in `error`, all the rest as ever in `data`."""

    data: HealthData


class ApplicationStatus(Wire):
    name: str
    version: str
    environment: str = Field(description="Always production: there is but one way to run the service.")
    uptime: float
    start_time: str


class ServerStatus(Wire):
    port: int
    host: str
    ssl: bool = Field(description="false: the service speaks plain HTTP.")
    cors_enabled: bool = Field(description="Whether other origins may call.")


class WebsocketStatus(Wire):
    connected_clients: int = Field(description="Socket.IO sessions.")
    active_connections: int = Field(description="The same: a session is one connection.")
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
        status="starting" if health.healthy and health.is_starting else _wellness(health.healthy),
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
            cpu_usage=tenth(health.sample.cpu_percent),
            memory_usage=tenth(health.sample.memory_percent),
            disk_usage=tenth(health.sample.disk_percent),
        ),
    )


def unhealthy(health: Health) -> Unhealthy:
    failure = ErrorContent(
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
            messages_per_second=tenth(status.messages_per_second),
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
            average_response_time=tenth(status.requests.average_response_ms or 0.0),
            error_rate=_error_rate(status.requests),
        ),
    )


def _error_rate(requests: RequestCounters) -> float:
    return round(requests.errors / requests.total, 4) if requests.total else 0.0


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


def monitoring_data(metrics: Metrics) -> MonitoringData:
    sample = metrics.sample
    return MonitoringData(
        timestamp=timestamp(sample.timestamp_ms),
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
            error_rate=_error_rate(sample.requests),
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
        period=Period(start=timestamp(history.start_ms), end=timestamp(history.end_ms), resolution=history.resolution),
        metrics=[_history_entry(point) for point in history.points],
        summary=_summary(history.points),
    )


def _history_entry(point: HistoryPoint) -> HistoryEntry:
    return HistoryEntry(
        timestamp=timestamp(point.timestamp_ms),
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
