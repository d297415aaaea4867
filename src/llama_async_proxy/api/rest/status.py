"""The routes of health, status and monitoring."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from llama_async_proxy.api.rest import status_schema as wire
from llama_async_proxy.api.rest.route_policy import Live, Route, routes_of
from llama_async_proxy.api.rest.schema import Answer
from llama_async_proxy.operations import health as health_operations
from llama_async_proxy.operations import metrics as metrics_operations
from llama_async_proxy.operations.health import GetHealth, GetStatus
from llama_async_proxy.operations.metrics import GetHistory, GetMetrics


async def get_health(context: Live) -> Answer[wire.HealthData] | JSONResponse:
    """200 when all is well, 503 saying what is not."""
    health = await health_operations.get_health(context, GetHealth())
    if health.healthy:
        return Answer(data=wire.health_data(health))
    return JSONResponse(wire.unhealthy(health).model_dump(by_alias=True, exclude_none=True), 503)


async def get_status(context: Live) -> Answer[wire.StatusData]:
    """The service itself: versions, clients, models, requests."""
    return Answer(data=wire.status_data(await health_operations.get_status(context, GetStatus())))


async def get_metrics(context: Live) -> Answer[wire.MonitoringData]:
    """The machine now."""
    return Answer(data=wire.monitoring_data(await metrics_operations.get_metrics(context, GetMetrics())))


async def get_history(
    context: Live,
    hours: Annotated[float, Query(description="1 to 168.")] = 24,
    resolution: Annotated[str, Query(description="1m, 5m, 15m or 1h.")] = "5m",
) -> Answer[wire.HistoryData]:
    """The machine before: means over equal pieces of time, oldest first."""
    history = await metrics_operations.get_history(context, GetHistory(hours, resolution))
    return Answer(data=wire.history_data(history))


_HEALTH: tuple[Route, ...] = (
    Route("GET", "/api/health", get_health, Answer[wire.HealthData], failures={503: wire.Unhealthy}),
    Route("GET", "/api/status", get_status, Answer[wire.StatusData]),
)
_MONITORING: tuple[Route, ...] = (
    Route("GET", "/api/monitoring", get_metrics, Answer[wire.MonitoringData]),
    Route("GET", "/api/monitoring/history", get_history, Answer[wire.HistoryData], (400, 503)),
)


def health_routes() -> APIRouter:
    return routes_of("health", _HEALTH)


def monitoring_routes() -> APIRouter:
    return routes_of("monitoring", _MONITORING)
