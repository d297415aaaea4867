"""Socket.IO v1 as data: namespace `/`, enveloped requests answered by acknowledgement or `<event>:result`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import Call, ConnectionCall, Dialect, Nothing, ServerEvent, nothing
from llama_async_proxy.api.socketio.v1 import feeds_schema as feeds
from llama_async_proxy.api.socketio.v1 import logs_schema as logs
from llama_async_proxy.api.socketio.v1 import presets_schema as presets
from llama_async_proxy.api.socketio.v1 import schema as wire
from llama_async_proxy.operations.activity import GetEngineActivity, get_engine_activity
from llama_async_proxy.operations.config import GetConfig, get_config, update_config
from llama_async_proxy.operations.engine import (
    GetEngine,
    RestartEngine,
    StartEngine,
    StopEngine,
    get_engine,
    restart_engine,
    start_engine,
    stop_engine,
)
from llama_async_proxy.operations.logs import (
    ClearLogFiles,
    ClearLogs,
    ListLogFiles,
    ReadEngineLog,
    clear_log_files,
    clear_logs,
    list_log_files,
    list_logs,
    read_engine_log,
    read_log_file,
)
from llama_async_proxy.operations.metrics import GetMetrics, get_metrics, get_samples
from llama_async_proxy.operations.models import (
    CleanUpModels,
    ListModels,
    ScanModels,
    clean_up_models,
    create_models,
    delete_model,
    get_model,
    list_models,
    load_model,
    scan_models,
    unload_model,
    update_model,
)
from llama_async_proxy.operations.models_directory import ListModelsDirectory, list_models_directory
from llama_async_proxy.operations.options import ListOptions, configure_engine, list_options, start_with_preset
from llama_async_proxy.operations.preferences import GetPreferences, get_preferences, update_preferences
from llama_async_proxy.operations.preset_sections import (
    add_preset_model,
    get_preset_defaults,
    get_preset_models,
    remove_preset_model,
    show_inheritance,
    update_preset_defaults,
    update_preset_model,
)
from llama_async_proxy.operations.presets import (
    ListPresets,
    create_preset,
    delete_preset,
    list_presets,
    read_preset,
    save_preset,
    validate_preset,
)


class Established(Struct):
    clientId: str  # noqa: N815 - names here are the clients'
    timestamp: int


class Acknowledged(Struct):
    clientId: str  # noqa: N815


_STARTED = ("llama:status", "llama:server-event")
_STOPPED = (*_STARTED, "models:router-stopped")

_MODELS: tuple[Call[Any, Any, Any], ...] = (
    Call("models:list", Nothing, nothing(ListModels), list_models, wire.all_models, "LIST_MODELS_FAILED"),
    Call("models:get", wire.ById, wire.get_model, get_model, wire.one_model, "GET_MODEL_FAILED"),
    Call(
        "models:create", wire.Creation, wire.create_models, create_models, wire.created_model,
        "CREATE_MODEL_FAILED", spelling=wire.CREATION_FIELDS, broadcasts=("models:created",),
    ),
    Call(
        "models:update", wire.Update, wire.update_model, update_model, wire.one_model,
        "UPDATE_MODEL_FAILED", not_found="NOT_FOUND", spelling=wire.UPDATE_FIELDS, broadcasts=("models:updated",),
    ),
    Call(
        "models:delete", wire.ById, wire.delete_model, delete_model, wire.deletion,
        "DELETE_MODEL_FAILED", broadcasts=("models:deleted",), about="The file stays.",
    ),
    Call(
        "models:toggle-favorite", wire.Favorite, wire.set_favorite, update_model, wire.one_model,
        not_found="NOT_FOUND", broadcasts=("models:updated",),
    ),
    Call(
        "models:load", wire.LoadByName, wire.load_model, load_model, wire.model_state,
        "LOAD_MODEL_FAILED", broadcasts=("models:status",), about="Answers when the model is ready, or failed.",
    ),
    Call(
        "models:unload", wire.ByName, wire.unload_model, unload_model, wire.model_state,
        "UNLOAD_MODEL_FAILED", broadcasts=("models:status",), about="Running answers may end first.",
    ),
    Call(
        "models:scan", Nothing, nothing(ScanModels), scan_models, wire.scan_counts,
        "SCAN_MODELS_FAILED", broadcasts=("models:scanned", "models:scan-progress"),
    ),
    Call(
        "models:cleanup", Nothing, nothing(CleanUpModels), clean_up_models, wire.clean_up,
        broadcasts=("models:deleted",), about="Forgets models whose file is gone.",
    ),
)  # fmt: skip
_MACHINE: tuple[Call[Any, Any, Any], ...] = (
    Call("metrics:get", Nothing, nothing(GetMetrics), get_metrics, wire.current_metrics),
    Call(
        "metrics:history", wire.History, wire.get_samples, get_samples, wire.metrics_history,
        about="Newest first.",
    ),
    Call("logs:get", logs.LogQuery, logs.list_logs, list_logs, logs.logs, about="Newest first."),
    Call(
        "logs:read-file", logs.LogFileName, logs.read_log_file, read_log_file, logs.log_file,
        not_found="NOT_FOUND",
        about="The last MiB of one of the listed files; without a name, of the service's own log.",
    ),
    Call("logs:list-files", Nothing, nothing(ListLogFiles), list_log_files, logs.log_files),
    Call("logs:clear", Nothing, nothing(ClearLogs), clear_logs, logs.cleared, about="Those in the database."),
    Call(
        "logs:clear-files", Nothing, nothing(ClearLogFiles), clear_log_files, logs.cleared,
        about="Files in use are emptied, rotated ones deleted.",
    ),
    Call(
        "logs:read-llama-server", Nothing, nothing(ReadEngineLog), read_engine_log, logs.engine_log,
        about="Output of the models' processes.",
    ),
    Call("config:get", Nothing, nothing(GetConfig), get_config, wire.configuration),
    Call(
        "config:update", wire.Changes, wire.update_config, update_config, wire.configuration_update,
        "CONFIG_UPDATE_FAILED", about="All of it or, when one field is wrong, nothing.",
    ),
    Call("settings:get", Nothing, nothing(GetPreferences), get_preferences, logs.user_settings),
    Call(
        "settings:update", logs.SettingsChanges, logs.update_settings, update_preferences, logs.user_settings,
        "CONFIG_UPDATE_FAILED", about="What is not named stays; null removes a preference.",
    ),
)  # fmt: skip
_PRESETS: tuple[Call[Any, Any, Any], ...] = (
    Call("presets:list", Nothing, nothing(ListPresets), list_presets, presets.preset_list),
    Call(
        "presets:read", presets.Named, presets.read_preset, read_preset, presets.preset,
        not_found="PRESET_NOT_FOUND", invalid="PRESET_INVALID",
    ),
    Call(
        "presets:save", presets.Save, presets.save_preset, save_preset, presets.preset,
        "PRESET_SAVE_FAILED", about="Creates or replaces; comments in the file are kept.",
    ),
    Call(
        "presets:create", presets.Create, presets.create_preset, create_preset, presets.preset,
        "PRESET_SAVE_FAILED",
    ),
    Call(
        "presets:delete", presets.Named, presets.delete_preset, delete_preset, presets.preset_deleted,
        "PRESET_SAVE_FAILED", not_found="PRESET_NOT_FOUND",
    ),
    Call(
        "presets:get-models", presets.Named, presets.get_models, get_preset_models, presets.preset_models,
        not_found="PRESET_NOT_FOUND", invalid="PRESET_INVALID",
    ),
    Call(
        "presets:add-model", presets.NewSection, presets.add_model, add_preset_model, presets.preset,
        "PRESET_SAVE_FAILED",
    ),
    Call(
        "presets:update-model", presets.SectionChanges, presets.update_model, update_preset_model,
        presets.preset, "PRESET_SAVE_FAILED", not_found="NOT_FOUND",
        about="What is not named stays; null removes a key.",
    ),
    Call(
        "presets:remove-model", presets.Section, presets.remove_model, remove_preset_model, presets.preset,
        "PRESET_SAVE_FAILED", not_found="NOT_FOUND",
    ),
    Call(
        "presets:get-defaults", presets.Named, presets.get_defaults, get_preset_defaults, presets.preset_defaults,
        not_found="PRESET_NOT_FOUND", invalid="PRESET_INVALID", about="What the section [*] says.",
    ),
    Call(
        "presets:update-defaults", presets.DefaultChanges, presets.update_defaults, update_preset_defaults,
        presets.preset, "PRESET_SAVE_FAILED", about="What is not named stays; null removes a key.",
    ),
    Call(
        "presets:get-models-dir", Nothing, nothing(ListModelsDirectory), list_models_directory,
        presets.models_directory, about="Files in the models directory, with the GPU memory each would take.",
    ),
    Call(
        "presets:available-models", Nothing, nothing(ListModelsDirectory), list_models_directory,
        presets.models_directory, about="The same as presets:get-models-dir.",
    ),
    Call(
        "presets:get-llama-params", Nothing, nothing(ListOptions), list_options, presets.parameters,
        about="The options of the installed engine, as its --help tells.",
    ),
    Call("presets:validate-config", presets.Validate, presets.validate, validate_preset, presets.validated),
    Call(
        "presets:show-inheritance", presets.Section, presets.show_inheritance, show_inheritance,
        presets.inherited, not_found="NOT_FOUND", invalid="PRESET_INVALID",
    ),
    Call(
        "presets:start-with-preset", presets.Start, presets.start, start_with_preset, presets.started_with_preset,
        "START_LLAMA_FAILED", broadcasts=_STARTED,
    ),
    Call(
        "presets:stop-server", Nothing, nothing(StopEngine), stop_engine, wire.engine,
        "STOP_LLAMA_FAILED", broadcasts=_STOPPED,
    ),
)  # fmt: skip
_ENGINE: tuple[Call[Any, Any, Any], ...] = (
    Call("llama:status", Nothing, nothing(GetEngine), get_engine, wire.engine),
    Call(
        "llama:start", Nothing, nothing(StartEngine), start_engine, wire.engine_started,
        "START_LLAMA_FAILED", broadcasts=_STARTED,
    ),
    Call(
        "llama:stop", Nothing, nothing(StopEngine), stop_engine, wire.engine,
        "STOP_LLAMA_FAILED", broadcasts=_STOPPED, about="Every model is unloaded; loads are refused until a start.",
    ),
    Call(
        "llama:restart", Nothing, nothing(RestartEngine), restart_engine, wire.engine_started,
        "START_LLAMA_FAILED", answers_as="llama:start", broadcasts=_STOPPED,
    ),
    Call(
        "llama:config", presets.EngineSettings, presets.configure_engine, configure_engine,
        presets.engine_settings, "CONFIG_UPDATE_FAILED", about="Holds from the next load of each model on.",
    ),
    Call(
        "llama:start-with-preset", presets.StartNamed, presets.start_named, start_with_preset,
        presets.started_with_preset, "START_LLAMA_FAILED", broadcasts=_STARTED,
    ),
    Call(
        "llama-server:status", Nothing, nothing(GetEngineActivity), get_engine_activity, logs.engine_activity,
        about="Null where no model's process tells.",
    ),
)  # fmt: skip
_LOCAL = (
    ConnectionCall("connection:ack", Nothing, Acknowledged, "Answered with connection:established."),
    ConnectionCall("subscribe", feeds.Subscribe, feeds.Subscribed, "Asks for a feed; answered on request only."),
    ConnectionCall("message", feeds.Message, feeds.Subscribed, "The same as a typed message."),
)  # fmt: skip

V1 = Dialect(
    title="Socket.IO v1",
    namespace="/",
    path="/llamaproxws",
    calls=(*_MODELS, *_MACHINE, *_PRESETS, *_ENGINE, *_LOCAL),
    emissions=(
        ServerEvent("models:created", wire.OneModel, "A model was registered."),
        ServerEvent("models:updated", wire.OneModel, "A model's record changed."),
        ServerEvent("models:deleted", wire.DeletionNotice, "A model was forgotten."),
        ServerEvent("models:status", wire.ModelState, "A model is loading, loaded, unloaded or failed."),
        ServerEvent("models:scanned", wire.ScanCounts, "A scan has ended."),
        ServerEvent("models:scan-progress", wire.ScanProgress, "How far a scan is, twice a second at most."),
        ServerEvent("models:router-stopped", wire.RouterStopped, "The engine was stopped."),
        ServerEvent("metrics:update", wire.CurrentMetrics, "Every 10 s."),
        ServerEvent(
            "logs:entry", logs.LogEntry, "A line was logged; 50 a second at most, one of them counting the rest."
        ),
        ServerEvent("llama:status", wire.V1Engine, "The engine's state changed."),
        ServerEvent("llama:server-event", wire.EngineNotice, "Something started, stopped, died or failed."),
        ServerEvent("llama-server:status", logs.V1EngineActivity, "Every 20 s while the engine runs."),
        ServerEvent("connection:established", Established, "Answers connection:ack, to that client only."),
        ServerEvent("metrics_update", feeds.MetricsUpdate, "To subscribers of metrics, every 10 s; bare."),
        ServerEvent("models_update", feeds.ModelsUpdate, "To subscribers of models, every 30 s and on changes; bare."),
        ServerEvent("logs_update", feeds.LogsUpdate, "To subscribers of logs, every 15 s; bare."),
        ServerEvent("error", feeds.FeedError, "A subscription was not understood, or the service stops; bare."),
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
        "PRESET_SAVE_FAILED": "The preset could not be written, or its name is none.",
        "PRESET_INVALID": "The engine would refuse the preset; the details list every reason.",
        "CONFIG_UPDATE_FAILED": "A value is refused; nothing has changed.",
        "TIMEOUT": "It took longer than the limit, or too many requests of this client are running.",
        "NOT_FOUND": "There is no such thing.",
        "PERMISSION_DENIED": "The operating system or a rule forbids it.",
        "INVALID_REQUEST": "The request is malformed; the message names the field.",
        "INTERNAL_ERROR": "A fault of the service; its log has the trace.",
    },
    unexpected="INTERNAL_ERROR",
    overloaded="TIMEOUT",
    not_found="NOT_FOUND",
)
