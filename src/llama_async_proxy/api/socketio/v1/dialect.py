"""Socket.IO v1 as a table: namespace `/`, enveloped requests answered by acknowledgement or `<event>:result`."""

from __future__ import annotations

from llama_async_proxy.api.socketio.contract import Dialect
from llama_async_proxy.api.socketio.v1 import (
    config,
    connection,
    engine,
    feeds,
    logs,
    metrics,
    models,
    options,
    preset_sections,
    presets,
)

V1 = Dialect(
    title="Socket.IO v1",
    namespace="/",
    path="/llamaproxws",
    calls=(
        *models.CALLS,
        *metrics.CALLS,
        *logs.CALLS,
        *config.CALLS,
        *presets.CALLS,
        *preset_sections.CALLS,
        *options.CALLS,
        *engine.CALLS,
        *connection.CALLS,
        *feeds.CALLS,
    ),
    events=(
        *models.EVENTS,
        *metrics.EVENTS,
        *logs.EVENTS,
        *engine.EVENTS,
        *connection.EVENTS,
        *feeds.EVENTS,
    ),
    codes={
        "LIST_MODELS_FAILED": "Models cannot be listed.",
        "GET_MODEL_FAILED": "There is no such model.",
        "CREATE_MODEL_FAILED": "The file is no model, or it is registered already.",
        "UPDATE_MODEL_FAILED": "A new value is refused.",
        "DELETE_MODEL_FAILED": "There is no such model, or it is in use.",
        "LOAD_MODEL_FAILED": "The model did not come up; the message says why.",
        "UNLOAD_MODEL_FAILED": "The model is not loaded.",
        "SCAN_MODELS_FAILED": "The models directory cannot be read.",
        "START_LLAMA_FAILED": "No engine can be started.",
        "STOP_LLAMA_FAILED": "The engine is stopped already.",
        "PRESET_NOT_FOUND": "There is no preset of that name.",
        "PRESET_SAVE_FAILED": "The preset could not be written, or its name is not allowed.",
        "PRESET_INVALID": "The engine would refuse the preset; the details list every reason.",
        "CONFIG_UPDATE_FAILED": "A value is refused; nothing has changed.",
        "TIMEOUT": "The time limit has passed, or too many requests of this client are running.",
        "NOT_FOUND": "There is no such thing.",
        "PERMISSION_DENIED": "The operating system or a rule forbids the operation.",
        "INVALID_REQUEST": "The request is malformed; the message names the field.",
        "INTERNAL_ERROR": "The service has a fault; its log has the trace.",
    },
    unexpected="INTERNAL_ERROR",
    overloaded="TIMEOUT",
    not_found="NOT_FOUND",
)
