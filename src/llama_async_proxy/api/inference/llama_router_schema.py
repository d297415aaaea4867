"""Models and their changes as llama-server's router words them."""

from __future__ import annotations

from typing import TypedDict

import msgspec

from llama_async_proxy.engines.options import arguments
from llama_async_proxy.engines.process import LOOPBACK
from llama_async_proxy.engines.router_schema import EVERY_MODEL, section
from llama_async_proxy.errors import NotFound, ServiceError
from llama_async_proxy.events import Event, ModelDeleted, ModelRuntimeChanged
from llama_async_proxy.inference.requests.model_list import entry
from llama_async_proxy.operations.context import Context
from llama_async_proxy.records.models import Model, ModelKind
from llama_async_proxy.records.runtime import Endpoint, ModelRuntime, ModelStatus

_LOADING = (ModelStatus.QUEUED, ModelStatus.LOADING)
_ANSWERING = (ModelStatus.READY, ModelStatus.SLEEPING, ModelStatus.STOPPING)
_FAILURE_CODE = 1
"""What the router says of every process that did not end in order."""


class RouterEvent(TypedDict):
    model: str
    event: str
    data: dict[str, object]


def sse(event: RouterEvent) -> bytes:
    """The router's frames have no `event:` line."""
    return b"data: %b\n\n" % msgspec.json.encode(event)


def router_entry(context: Context, model: Model) -> dict[str, object]:
    """One model of the list: what /v1/models says of it, and what only a router says."""
    runtime = context.scheduler.runtime(model.id)
    shown = entry(model, runtime)
    status: dict[str, object] = {"value": "unloaded", **_mapping(shown["status"]), **_launch(context, model, runtime)}
    if status.get("failed"):
        status["exit_code"] = _code(runtime)
    meta = shown.pop("meta")
    if runtime.status in _ANSWERING:
        shown["meta"] = meta
    inputs = ["text", "image"] if model.mmproj_path else ["text"]
    outputs = ["text"] if model.facts.kind is ModelKind.CHAT else ["embedding"]
    return {
        **shown,
        "tags": [],
        "status": status,
        "architecture": {"input_modalities": inputs, "output_modalities": outputs},
        "source": "preset",
        "can_remove": False,
    }


def _launch(context: Context, model: Model, runtime: ModelRuntime) -> dict[str, object]:
    """The command line and the preset section it amounts to; of a model that cannot be launched as it is, nothing."""
    try:
        spec = context.planner.spec(model)
        if spec.command is not None:
            return {"args": list(spec.command.start)}
        endpoint = runtime.endpoint or Endpoint(LOOPBACK, 0)
        binary = context.engine.state.binary or "llama-server"
        return {"args": [binary, *arguments(spec, endpoint)], "preset": section(spec)}
    except ServiceError:
        return {"args": []}


def event_of(context: Context, event: Event) -> RouterEvent | None:
    """What a router would tell of this; None when nothing."""
    if isinstance(event, ModelRuntimeChanged):
        return _change(context, event.runtime, event.previous)
    if isinstance(event, ModelDeleted):
        return {"model": event.model.slug, "event": "model_remove", "data": {}}
    return {"model": EVERY_MODEL, "event": "models_reload", "data": {}}


def _change(context: Context, runtime: ModelRuntime, previous: ModelRuntime) -> RouterEvent | None:
    try:
        model = context.store.models.get(runtime.model_id)
    except NotFound:
        return None
    if runtime.status in _LOADING and previous.status not in _LOADING:
        return {"model": model.slug, "event": "model_status", "data": {"status": "loading"}}
    data = _details(model, runtime, previous)
    return None if data is None else {"model": model.slug, "event": "status_change", "data": data}


def _details(model: Model, runtime: ModelRuntime, previous: ModelRuntime) -> dict[str, object] | None:
    is_new = runtime.status is not previous.status
    match runtime.status:
        case ModelStatus.LOADING if (progress := runtime.progress) is not None and progress != previous.progress:
            stages = {"stages": [progress.stage], "current": progress.stage, "value": progress.fraction}
            return {"status": "loading", "progress": stages}
        case ModelStatus.READY if is_new:
            return {"status": "loaded", "info": entry(model, runtime)}
        case ModelStatus.SLEEPING if is_new:
            return {"status": "sleeping"}
        case ModelStatus.UNLOADED if is_new:
            return {"status": "unloaded", "exit_code": 0}
        case ModelStatus.FAILED if is_new:
            return {"status": "unloaded", "exit_code": _code(runtime)}
    return None


def _code(runtime: ModelRuntime) -> int:
    """As the router: the exit code, but 1 for a signal and for what never started."""
    return runtime.exit_code if runtime.exit_code is not None and runtime.exit_code > 0 else _FAILURE_CODE


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
