"""Health and status of the service. Percentages are 0 to 100, error rates 0 to 1."""

from __future__ import annotations

from typing import Literal

from fastapi.responses import JSONResponse
from pydantic import Field

from llama_async_proxy import __version__
from llama_async_proxy.api.rest.routing import RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.rest.schema import ErrorAnswer, ErrorContent, RestAnswer, StrictModel
from llama_async_proxy.api.units import iso_now, iso_time, tenth
from llama_async_proxy.operations import health as health_operations
from llama_async_proxy.operations.health import GetHealth, GetStatus, Health, ServiceStatus
from llama_async_proxy.records.engine import EngineStatus
from llama_async_proxy.records.machine import RequestCounters

Wellness = Literal["healthy", "unhealthy"]

# --- schema -----------------------------------------------------------------------------------------------------------


class ProxyHealth(StrictModel):
    status: Wellness
    uptime: float
    version: str


class EngineHealth(StrictModel):
    status: Wellness
    host: str
    port: int
    models_loaded: int
    last_health_check: str
    error: str | None = None


class ServicesHealth(StrictModel):
    proxy: ProxyHealth
    llama_server: EngineHealth


class SystemHealth(StrictModel):
    cpu_usage: float
    memory_usage: float
    disk_usage: float


class HealthData(StrictModel):
    status: Wellness | Literal["starting"] = Field(description="starting: the first scan for models has not ended.")
    timestamp: str
    services: ServicesHealth
    system: SystemHealth


class UnhealthyAnswer(ErrorAnswer):
    """What is wrong in `error`, all the rest as ever in `data`."""

    data: HealthData


class ApplicationStatus(StrictModel):
    name: str
    version: str
    environment: str = Field(description="Always production: there is but one way to run the service.")
    uptime: float
    start_time: str


class ServerStatus(StrictModel):
    port: int
    host: str
    ssl: bool = Field(description="false: the service speaks plain HTTP.")
    cors_enabled: bool = Field(description="Whether other origins may call.")


class WebsocketStatus(StrictModel):
    connected_clients: int = Field(description="Socket.IO sessions.")
    active_connections: int = Field(description="The same: a session is one connection.")
    messages_per_second: float


class ModelCounts(StrictModel):
    registered: int
    loaded: int
    loading: int
    failed: int


class PerformanceStatus(StrictModel):
    requests_total: int
    requests_active: int
    average_response_time: float = Field(description="Milliseconds, over the last minute; 0 without requests.")
    error_rate: float


class StatusData(StrictModel):
    application: ApplicationStatus
    server: ServerStatus
    websocket: WebsocketStatus
    models: ModelCounts
    performance: PerformanceStatus


# --- mapping ----------------------------------------------------------------------------------------------------------


def health_data(health: Health) -> HealthData:
    checked_at = iso_time(health.checked_at_ms)
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


def unhealthy(health: Health) -> UnhealthyAnswer:
    failure = ErrorContent(
        code="SERVICE_UNAVAILABLE", message="Not healthy: " + "; ".join(health.problems), type="unavailable_error"
    )
    return UnhealthyAnswer(error=failure, data=health_data(health), timestamp=iso_now())


def _wellness(is_well: bool) -> Wellness:
    return "healthy" if is_well else "unhealthy"


def status_data(status: ServiceStatus) -> StatusData:
    return StatusData(
        application=ApplicationStatus(
            name="Llama Async Proxy",
            version=__version__,
            environment="production",
            uptime=round(status.uptime_s, 1),
            start_time=iso_time(status.started_at_ms),
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
            error_rate=error_rate(status.requests),
        ),
    )


def error_rate(requests: RequestCounters) -> float:
    return round(requests.errors / requests.total, 4) if requests.total else 0.0


# --- routes -----------------------------------------------------------------------------------------------------------


async def get_health(context: ServiceContext) -> RestAnswer[HealthData] | JSONResponse:
    """200 when all is well, 503 saying what is not."""
    health = await health_operations.get_health(context, GetHealth())
    if health.healthy:
        return RestAnswer(data=health_data(health))
    return JSONResponse(unhealthy(health).model_dump(by_alias=True, exclude_none=True), 503)


async def get_status(context: ServiceContext) -> RestAnswer[StatusData]:
    """The service itself: versions, clients, models, requests."""
    return RestAnswer(data=status_data(await health_operations.get_status(context, GetStatus())))


TABLES = (
    RouteTable(
        "health",
        (
            RestRoute(
                "GET", "/api/health", get_health, RestAnswer[HealthData], responses={503: {"model": UnhealthyAnswer}}
            ),
            RestRoute("GET", "/api/status", get_status, RestAnswer[StatusData]),
        ),
    ),
)
