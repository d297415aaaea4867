"""The acknowledged dialect as data: namespace `/llamaproxws`, answers by acknowledgement, bare events."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llama_async_proxy.api.socketio.ack import schema as wire
from llama_async_proxy.api.socketio.contract import Call, ConnectionCall, Dialect, Nothing, ServerEvent, nothing
from llama_async_proxy.api.socketio.v1 import presets_schema as presets
from llama_async_proxy.operations.config import GetConfig, get_config, update_config
from llama_async_proxy.operations.logs import list_logs
from llama_async_proxy.operations.metrics import GetMetrics, get_metrics
from llama_async_proxy.operations.models import ListModels, get_model, list_models, load_model, unload_model
from llama_async_proxy.operations.options import ListOptions, list_options
from llama_async_proxy.operations.presets import (
    ListPresets,
    delete_preset,
    list_presets,
    read_preset,
    save_preset,
    validate_preset,
)


class Subscription(Struct):
    subscribed: bool


class ClientNotice(Struct):
    clientId: str  # noqa: N815 - names here are the clients'


_CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call("models:list", Nothing, nothing(ListModels), list_models, wire.all_models),
    Call(
        "models:load", wire.Load, wire.load_model, load_model, wire.loaded,
        "MODEL_LOAD_FAILED", not_found="MODEL_NOT_FOUND", broadcasts=("models:status", "models:loaded"),
        about="Answers when the model is ready, or failed.",
    ),
    Call(
        "models:unload", wire.ModelId, wire.unload_model, unload_model, wire.unloaded,
        "MODEL_UNLOAD_FAILED", not_found="MODEL_NOT_FOUND", broadcasts=("models:status", "models:unloaded"),
    ),
    Call("models:info", wire.ModelId, wire.get_model, get_model, wire.model_info),
    Call("presets:list", Nothing, nothing(ListPresets), list_presets, wire.preset_list),
    Call(
        "presets:read", wire.PresetName, wire.read_preset, read_preset, wire.preset,
        invalid="CONFIG_INVALID", not_found="PRESET_NOT_FOUND",
    ),
    Call(
        "presets:save", wire.PresetConfig, wire.save_preset, save_preset, wire.saved,
        "PRESET_SAVE_FAILED", invalid="CONFIG_INVALID",
    ),
    Call(
        "presets:delete", wire.PresetName, wire.delete_preset, delete_preset, wire.deleted,
        "PRESET_SAVE_FAILED", not_found="PRESET_NOT_FOUND", invalid="CONFIG_INVALID",
    ),
    Call("presets:get-llama-params", Nothing, nothing(ListOptions), list_options, wire.parameters),
    Call(
        "presets:validate-config", wire.PresetCandidate, wire.validate_preset, validate_preset,
        presets.validated, invalid="CONFIG_INVALID",
    ),
    Call("config:get", Nothing, nothing(GetConfig), get_config, wire.config),
    Call(
        "config:update", dict[str, Any], wire.update_config, update_config, wire.config_updated,
        "CONFIG_INVALID", about="All of it or, when one field is wrong, nothing.",
    ),
    Call("metrics:get", Nothing, nothing(GetMetrics), get_metrics, wire.metrics),
    Call("logs:get", wire.LogQuery, wire.list_logs, list_logs, wire.logs, about="Newest first."),
)  # fmt: skip

ACK = Dialect(
    title="Socket.IO with acknowledgements",
    namespace="/llamaproxws",
    path="/socket.io",
    calls=(
        *_CALLS,
        ConnectionCall("metrics:subscribe", Nothing, Subscription, "A client that just connected is subscribed."),
        ConnectionCall("metrics:unsubscribe", Nothing, Subscription, "No more metrics:update for this client."),
    ),
    emissions=(
        ServerEvent("client:connected", ClientNotice, "20 a second at most."),
        ServerEvent("client:disconnected", ClientNotice, "20 a second at most."),
        ServerEvent("models:status", wire.AckModelStatus, "A model is loading, loaded, unloaded or failed."),
        ServerEvent("models:loaded", wire.AckModelNotice, "A model is ready."),
        ServerEvent("models:unloaded", wire.AckModelNotice, "A model is unloaded."),
        ServerEvent("metrics:update", wire.AckMetrics, "Every 10 s, until metrics:unsubscribe."),
        ServerEvent("logs:entry", wire.AckLogEntry, "A line was logged; 50 a second at most."),
    ),
    codes={
        "MODEL_NOT_FOUND": "There is no such model.",
        "MODEL_LOAD_FAILED": "The model did not come up; the message says why.",
        "MODEL_UNLOAD_FAILED": "The model is not loaded.",
        "PRESET_NOT_FOUND": "There is no preset of that name.",
        "PRESET_SAVE_FAILED": "The preset could not be written.",
        "CONFIG_INVALID": "A value is refused; nothing has changed.",
        "PERMISSION_DENIED": "The operating system or a rule forbids it.",
        "INVALID_REQUEST": "The request is malformed; the message names the field.",
        "SERVER_ERROR": "A fault of the service, or too many requests of this client are running.",
    },
    unexpected="SERVER_ERROR",
    overloaded="SERVER_ERROR",
    not_found="MODEL_NOT_FOUND",
)  # fmt: skip
