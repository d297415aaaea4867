"""The engine as a whole: state, start, stop, restart, and how it runs a model."""

from __future__ import annotations

import asyncio

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.engines.arguments import command_line
from llama_async_proxy.engines.process import LOOPBACK
from llama_async_proxy.engines.router_schema import section
from llama_async_proxy.errors import Conflict
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.models import ModelRef, find
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.records.engine import EngineState, EngineStatus
from llama_async_proxy.records.options import NO_OPTIONS
from llama_async_proxy.records.runtime import Endpoint

_RESTART_PAUSE_S = 2.0
"""Documented to clients: a restart stops, waits two seconds, starts."""


class GetEngine(Struct, frozen=True):
    pass


class StartEngine(Struct, frozen=True):
    pass


class StopEngine(Struct, frozen=True):
    pass


class RestartEngine(Struct, frozen=True):
    pass


class EngineView(Struct, frozen=True):
    state: EngineState
    host: str
    port: int
    """Where inference is answered."""
    preset: str | None = None
    """The one the engine runs with."""

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class GetCommandLine(Struct, frozen=True):
    id: ModelRef


class CommandLine(Struct, frozen=True):
    arguments: tuple[str, ...]
    """The program, then its arguments."""
    preset: str | None
    """Text of the section in the INI format of llama-server's router; None for a model with a command of its own."""


def view(context: Context) -> EngineView:
    settings, state = context.configuration.started_with, context.engine.state
    where = state.endpoint or settings
    if state.endpoint is not None:  # a router's key is for the service alone
        state = replace(state, endpoint=replace(state.endpoint, api_key=None))
    return EngineView(state, where.host, where.port, context.active_preset.name)


def describe_engine(state: EngineState) -> str:
    """For people."""
    version = f", version {state.version}" if state.version else ""
    if state.endpoint is not None:
        where = f"{state.endpoint.host}:{state.endpoint.port}"
        return f"a router at {where}" + (f", {state.binary}{version}" if state.binary else "")
    return f"{state.binary or 'the built-in engine'}{version}"


@operation("engine.get", Effect.READ)
async def get_engine(context: Context, _: GetEngine) -> EngineView:
    return view(context)


@operation("engine.command_line", Effect.READ)
async def get_command_line(context: Context, request: GetCommandLine) -> CommandLine:
    """Show how the model's process would be started now.

    Raises NotFound, and another ServiceError for a model whose options keep it from being started.
    """
    model = find(context, request.id)
    spec = context.planner.spec(model)
    if spec.command is not None:
        return CommandLine(spec.command.start, None)
    endpoint = context.scheduler.runtime(model.id).endpoint or Endpoint(LOOPBACK, 0)
    program = context.engine.state.binary or "llama-server"
    return CommandLine((program, *command_line(spec, endpoint)), section(spec))


@operation("engine.start", Effect.MANAGE)
async def start_engine(context: Context, _: StartEngine) -> EngineView:
    if context.engine.state.status is not EngineStatus.RUNNING:
        forget_start_options(context)
    await context.engine.start()
    return view(context)


@operation("engine.stop", Effect.MANAGE)
async def stop_engine(context: Context, _: StopEngine) -> EngineView:
    """Unloads everything; loads and inference fail until a start. Raises Conflict when already stopped."""
    if context.engine.state.status is EngineStatus.IDLE:
        raise Conflict("The engine is not running.")
    await _stop(context)
    return view(context)


@operation("engine.restart", Effect.MANAGE)
async def restart_engine(context: Context, _: RestartEngine) -> EngineView:
    await _stop(context)
    await asyncio.sleep(_RESTART_PAUSE_S)
    forget_start_options(context)
    await context.engine.start()
    return view(context)


def forget_start_options(context: Context) -> None:
    """What was given with one start holds until the next."""
    context.planner.start_options = NO_OPTIONS
    context.configuration.hold_max_models(None)


async def _stop(context: Context) -> None:
    # With its streams still open llama-server would take seconds to notice SIGTERM.
    context.scheduler.revoke_all("The engine was stopped.")
    await context.engine.stop()
