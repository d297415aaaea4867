"""Is it well? How is it doing?"""

from __future__ import annotations

from msgspec import Struct

from llama_async_proxy.errors import StoreUnavailable
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.engine import EngineView
from llama_async_proxy.operations.engine import view as engine_view
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.records.engine import EngineStatus
from llama_async_proxy.records.machine import RequestCounters, Sample
from llama_async_proxy.records.runtime import ModelStatus
from llama_async_proxy.settings import Settings


class GetHealth(Struct, frozen=True):
    pass


class Health(Struct, frozen=True):
    """Healthy: the engine runs or was stopped on purpose, and the database answers."""

    healthy: bool
    is_starting: bool
    """The first scan has not ended; requests for known models are served."""
    problems: tuple[str, ...]
    checked_at_ms: int
    uptime_s: float
    engine: EngineView
    models_loaded: int
    sample: Sample


class GetStatus(Struct, frozen=True):
    pass


class ServiceStatus(Struct, frozen=True):
    started_at_ms: int
    uptime_s: float
    settings: Settings
    connected_clients: int
    messages_per_second: float
    models_registered: int
    models_loaded: int
    models_loading: int
    models_failed: int
    requests: RequestCounters


def _count(context: Context, *statuses: ModelStatus) -> int:
    return sum(runtime.status in statuses for runtime in context.scheduler.runtimes())


@operation("health.get", Effect.READ)
async def get_health(context: Context, _: GetHealth) -> Health:
    now_ms = context.now_ms()
    engine = engine_view(context)
    problems = []
    if engine.state.status is EngineStatus.ERROR:
        problems.append(f"engine: {engine.state.error or 'unknown error'}")
    try:
        await context.store.check()
    except StoreUnavailable as exc:
        problems.append(f"database: {exc}")
    return Health(
        healthy=not problems,
        is_starting=not context.scanner.has_scanned,
        problems=tuple(problems),
        checked_at_ms=now_ms,
        uptime_s=(now_ms - context.started_at_ms) / 1000,
        engine=engine,
        models_loaded=_count(context, ModelStatus.READY, ModelStatus.SLEEPING),
        sample=await context.sampler.now(),
    )


@operation("status.get", Effect.READ)
async def get_status(context: Context, _: GetStatus) -> ServiceStatus:
    return ServiceStatus(
        started_at_ms=context.started_at_ms,
        uptime_s=(context.now_ms() - context.started_at_ms) / 1000,
        settings=context.configuration.started_with,
        connected_clients=context.connections.clients,
        messages_per_second=context.connections.messages_per_second,
        models_registered=len(context.store.models.all()),
        models_loaded=_count(context, ModelStatus.READY, ModelStatus.SLEEPING),
        models_loading=_count(context, ModelStatus.QUEUED, ModelStatus.LOADING),
        models_failed=_count(context, ModelStatus.FAILED),
        requests=context.requests.snapshot(),
    )
