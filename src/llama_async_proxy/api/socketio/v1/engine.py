"""The engine over Socket.IO v1: requests `llama:*` and `llama-server:status`, and the events about the engine."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import Call, Nothing, ServerEvent, no_fields
from llama_async_proxy.operations import activity as activity_operations
from llama_async_proxy.operations import engine as engine_operations
from llama_async_proxy.operations.activity import EngineActivity, GetEngineActivity
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.engine import EngineView, GetEngine, RestartEngine, StartEngine, StopEngine
from llama_async_proxy.records.engine import EngineStatus

MODE = "router"
"""All models together answer at one address, as llama-server's router does."""


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


class V1EngineMetrics(Struct):
    activeModels: int  # noqa: N815 - field names are the clients'
    tokensPerSecond: float | None  # noqa: N815
    queueSize: int  # noqa: N815
    totalRequests: int | None  # noqa: N815


class V1EngineActivity(Struct):
    status: str
    metrics: V1EngineMetrics
    uptime: float


def engine(view: EngineView) -> V1Engine:
    state = view.state
    if state.status is EngineStatus.RUNNING:
        return V1Engine(state.status, view.port, view.url, MODE, view.preset)
    return V1Engine(state.status, error=state.error)


def engine_started(view: EngineView) -> V1EngineStarted:
    return V1EngineStarted(True, view.port, view.url, MODE)


def engine_activity(activity: EngineActivity) -> V1EngineActivity:
    rate = activity.tokens_per_second
    return V1EngineActivity(
        activity.status,
        V1EngineMetrics(
            activeModels=activity.active_models,
            tokensPerSecond=None if rate is None else round(rate, 1),
            queueSize=activity.queue_size,
            totalRequests=activity.total_requests,
        ),
        round(activity.uptime_s, 1),
    )


async def current_activity(context: Context) -> V1EngineActivity | None:
    """Activity of the engine; None while it is not running."""
    if (await engine_operations.get_engine(context, GetEngine())).state.status is not EngineStatus.RUNNING:
        return None
    return engine_activity(await activity_operations.get_engine_activity(context, GetEngineActivity()))


# --- the table --------------------------------------------------------------------------------------------------------

STATUS = ServerEvent("llama:status", V1Engine, "The engine's state changed.")
SERVER_EVENT = ServerEvent(
    "llama:server-event", EngineNotice, "The engine or a model's process started, stopped, died or failed."
)
ROUTER_STOPPED = ServerEvent("models:router-stopped", RouterStopped, "The engine was stopped.")
ACTIVITY = ServerEvent("llama-server:status", V1EngineActivity, "Every 20 s while the engine runs.")

EVENTS = (STATUS, SERVER_EVENT, ROUTER_STOPPED, ACTIVITY)

STARTING = (STATUS.event, SERVER_EVENT.event)
"""Events that every client receives when the engine starts."""
STOPPING = (*STARTING, ROUTER_STOPPED.event)
"""Events that every client receives when the engine stops."""

CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call("llama:status", Nothing, no_fields(GetEngine), engine_operations.get_engine, engine),
    Call(
        "llama:start", Nothing, no_fields(StartEngine), engine_operations.start_engine, engine_started,
        "START_LLAMA_FAILED", broadcasts=STARTING,
    ),
    Call(
        "llama:stop", Nothing, no_fields(StopEngine), engine_operations.stop_engine, engine,
        "STOP_LLAMA_FAILED", broadcasts=STOPPING,
        description="Every model is unloaded; loads are refused until a start.",
    ),
    Call(
        "presets:stop-server", Nothing, no_fields(StopEngine), engine_operations.stop_engine, engine,
        "STOP_LLAMA_FAILED", broadcasts=STOPPING, description="The same as llama:stop.",
    ),
    Call(
        "llama:restart", Nothing, no_fields(RestartEngine), engine_operations.restart_engine, engine_started,
        "START_LLAMA_FAILED", answers_as="llama:start", broadcasts=STOPPING,
    ),
    Call(
        "llama-server:status", Nothing, no_fields(GetEngineActivity), activity_operations.get_engine_activity,
        engine_activity,
        description="Numbers that no model's process reports are null.",
    ),
)  # fmt: skip
