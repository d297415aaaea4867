"""The table of operations: everything the service can be asked to do, read top to bottom.

Every door derives from it: an operation's input is a frozen dataclass any door can build from its own wire shape, its
output another that any door can render. `effect` tells a reader (and a later permission check) what it may change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from llama_async_proxy.operations import (
    activity,
    archive,
    chats,
    config,
    engine,
    estimate,
    health,
    logs,
    metrics,
    models,
    models_directory,
    options,
    preferences,
    preset_sections,
    presets,
    requests,
    search,
    usage,
)
from llama_async_proxy.operations.context import Context
from llama_async_proxy.presets.inheritance import Inheritance
from llama_async_proxy.records.chats import Image

Input = TypeVar("Input")
Output = TypeVar("Output")


class Effect(StrEnum):
    READ = "read"
    RUN = "run"
    """Starts or stops processes."""
    WRITE = "write"
    """Changes what is stored."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[Input, Output]):
    name: str
    effect: Effect
    input: type[Input]
    output: type[Output]
    run: Callable[[Context, Input], Awaitable[Output]]


MODELS_LIST = Operation("models.list", Effect.READ, models.ListModels, models.ModelList, models.list_models)
MODELS_GET = Operation("models.get", Effect.READ, models.GetModel, models.ModelView, models.get_model)
MODELS_CREATE = Operation("models.create", Effect.WRITE, models.CreateModels, models.ModelList, models.create_models)
MODELS_UPDATE = Operation("models.update", Effect.WRITE, models.UpdateModel, models.ModelView, models.update_model)
MODELS_DELETE = Operation("models.delete", Effect.WRITE, models.DeleteModel, models.DeletedModel, models.delete_model)
MODELS_LOAD = Operation("models.load", Effect.RUN, models.LoadModel, models.ModelView, models.load_model)
MODELS_ESTIMATE = Operation(
    "models.estimate", Effect.READ, estimate.EstimateMemory, estimate.MemoryReport, estimate.estimate_memory
)
MODELS_UNLOAD = Operation("models.unload", Effect.RUN, models.UnloadModel, models.ModelView, models.unload_model)
MODELS_SCAN = Operation("models.scan", Effect.WRITE, models.ScanModels, models.ScanReport, models.scan_models)
MODELS_DISCOVER = Operation(
    "models.discover", Effect.READ, models.DiscoverModels, models.Discovery, models.discover_models
)
MODELS_CLEANUP = Operation(
    "models.cleanup", Effect.WRITE, models.CleanUpModels, models.CleanUpReport, models.clean_up_models
)
ENGINE_GET = Operation("engine.get", Effect.READ, engine.GetEngine, engine.EngineView, engine.get_engine)
ENGINE_START = Operation("engine.start", Effect.RUN, engine.StartEngine, engine.EngineView, engine.start_engine)
ENGINE_STOP = Operation("engine.stop", Effect.RUN, engine.StopEngine, engine.EngineView, engine.stop_engine)
ENGINE_RESTART = Operation("engine.restart", Effect.RUN, engine.RestartEngine, engine.EngineView, engine.restart_engine)
METRICS_GET = Operation("metrics.get", Effect.READ, metrics.GetMetrics, metrics.Metrics, metrics.get_metrics)
METRICS_SAMPLES = Operation("metrics.samples", Effect.READ, metrics.GetSamples, metrics.Samples, metrics.get_samples)
METRICS_HISTORY = Operation("metrics.history", Effect.READ, metrics.GetHistory, metrics.History, metrics.get_history)
CONFIG_GET = Operation("config.get", Effect.READ, config.GetConfig, config.ConfigView, config.get_config)
CONFIG_UPDATE = Operation(
    "config.update", Effect.WRITE, config.UpdateConfig, config.ConfigUpdated, config.update_config
)
LOGS_LIST = Operation("logs.list", Effect.READ, logs.ListLogs, logs.LogLines, logs.list_logs)
LOGS_CLEAR = Operation("logs.clear", Effect.WRITE, logs.ClearLogs, logs.ClearedLogs, logs.clear_logs)
LOGS_FILES = Operation("logs.files", Effect.READ, logs.ListLogFiles, logs.LogFileList, logs.list_log_files)
LOGS_READ_FILE = Operation("logs.read_file", Effect.READ, logs.ReadLogFile, logs.LogFileContent, logs.read_log_file)
LOGS_READ_ENGINE = Operation(
    "logs.read_engine", Effect.READ, logs.ReadEngineLog, logs.LogFileContent, logs.read_engine_log
)
LOGS_CLEAR_FILES = Operation(
    "logs.clear_files", Effect.WRITE, logs.ClearLogFiles, logs.ClearedLogs, logs.clear_log_files
)
PREFERENCES_GET = Operation(
    "preferences.get", Effect.READ, preferences.GetPreferences, preferences.Preferences, preferences.get_preferences
)
PREFERENCES_UPDATE = Operation(
    "preferences.update",
    Effect.WRITE,
    preferences.UpdatePreferences,
    preferences.Preferences,
    preferences.update_preferences,
)
ENGINE_ACTIVITY = Operation(
    "engine.activity", Effect.READ, activity.GetEngineActivity, activity.EngineActivity, activity.get_engine_activity
)
HEALTH_GET = Operation("health.get", Effect.READ, health.GetHealth, health.Health, health.get_health)
STATUS_GET = Operation("status.get", Effect.READ, health.GetStatus, health.ServiceStatus, health.get_status)
CHATS_LIST = Operation(
    "chats.list", Effect.READ, chats.ListConversations, chats.ConversationList, chats.list_conversations
)
CHATS_GET = Operation("chats.get", Effect.READ, chats.GetConversation, chats.ConversationView, chats.get_conversation)
CHATS_CREATE = Operation(
    "chats.create", Effect.WRITE, chats.CreateConversation, chats.ConversationChange, chats.create_conversation
)
CHATS_UPDATE = Operation(
    "chats.update", Effect.WRITE, chats.UpdateConversation, chats.ConversationChange, chats.update_conversation
)
CHATS_DELETE = Operation(
    "chats.delete", Effect.WRITE, chats.DeleteConversation, chats.DeletedConversation, chats.delete_conversation
)
CHATS_SEND = Operation("chats.send", Effect.RUN, chats.SendMessage, chats.AnswerBegun, chats.send_message)
CHATS_EDIT = Operation("chats.edit", Effect.RUN, chats.EditMessage, chats.AnswerBegun, chats.edit_message)
CHATS_REGENERATE = Operation(
    "chats.regenerate", Effect.RUN, chats.RegenerateAnswer, chats.AnswerBegun, chats.regenerate_answer
)
CHATS_STOP = Operation("chats.stop", Effect.RUN, chats.StopAnswer, chats.StoppedAnswer, chats.stop_answer)
CHATS_CHOOSE = Operation("chats.choose", Effect.WRITE, chats.ChooseBranch, chats.ConversationView, chats.choose_branch)
CHATS_EXPORT = Operation(
    "chats.export", Effect.READ, archive.ExportConversations, archive.Export, archive.export_conversations
)
CHATS_IMPORT = Operation(
    "chats.import", Effect.WRITE, archive.ImportConversations, archive.Imported, archive.import_conversations
)
CHATS_IMAGE = Operation("chats.image", Effect.READ, chats.GetImage, Image, chats.get_image)
CHATS_SEARCH = Operation("chats.search", Effect.READ, search.Search, search.SearchResults, search.search)
USAGE_GET = Operation("usage.get", Effect.READ, usage.GetUsage, usage.Usage, usage.get_usage)
PRESETS_LIST = Operation("presets.list", Effect.READ, presets.ListPresets, presets.PresetList, presets.list_presets)
PRESETS_READ = Operation("presets.read", Effect.READ, presets.ReadPreset, presets.PresetView, presets.read_preset)
PRESETS_SAVE = Operation("presets.save", Effect.WRITE, presets.SavePreset, presets.PresetView, presets.save_preset)
PRESETS_CREATE = Operation(
    "presets.create", Effect.WRITE, presets.CreatePreset, presets.PresetView, presets.create_preset
)
PRESETS_DELETE = Operation(
    "presets.delete", Effect.WRITE, presets.DeletePreset, presets.DeletedPreset, presets.delete_preset
)
PRESETS_CLONE = Operation("presets.clone", Effect.WRITE, presets.ClonePreset, presets.PresetView, presets.clone_preset)
PRESETS_RENAME = Operation(
    "presets.rename", Effect.WRITE, presets.RenamePreset, presets.PresetView, presets.rename_preset
)
PRESETS_IMPORT = Operation(
    "presets.import", Effect.WRITE, presets.ImportPreset, presets.PresetView, presets.import_preset
)
PRESETS_EXPORT = Operation(
    "presets.export", Effect.READ, presets.ExportPreset, presets.ExportedPreset, presets.export_preset
)
PRESETS_VALIDATE = Operation(
    "presets.validate", Effect.READ, presets.ValidatePreset, presets.Validation, presets.validate_preset
)
PRESETS_VERSIONS = Operation(
    "presets.versions", Effect.READ, presets.ListPresetVersions, presets.PresetVersions, presets.list_preset_versions
)
PRESETS_RESTORE = Operation(
    "presets.restore", Effect.WRITE, presets.RestorePreset, presets.PresetView, presets.restore_preset
)
PRESETS_DIFF = Operation("presets.diff", Effect.READ, presets.DiffPresets, presets.PresetDiff, presets.diff_presets)
PRESETS_TEMPLATES = Operation(
    "presets.templates", Effect.READ, presets.ListTemplates, presets.TemplateList, presets.list_templates
)
PRESETS_MODELS = Operation(
    "presets.models",
    Effect.READ,
    preset_sections.GetPresetModels,
    preset_sections.PresetModels,
    preset_sections.get_preset_models,
)
PRESETS_ADD_MODEL = Operation(
    "presets.add_model",
    Effect.WRITE,
    preset_sections.AddPresetModel,
    presets.PresetView,
    preset_sections.add_preset_model,
)
PRESETS_UPDATE_MODEL = Operation(
    "presets.update_model",
    Effect.WRITE,
    preset_sections.UpdatePresetModel,
    presets.PresetView,
    preset_sections.update_preset_model,
)
PRESETS_REMOVE_MODEL = Operation(
    "presets.remove_model",
    Effect.WRITE,
    preset_sections.RemovePresetModel,
    presets.PresetView,
    preset_sections.remove_preset_model,
)
PRESETS_DEFAULTS = Operation(
    "presets.defaults",
    Effect.READ,
    preset_sections.GetPresetDefaults,
    preset_sections.PresetDefaults,
    preset_sections.get_preset_defaults,
)
PRESETS_UPDATE_DEFAULTS = Operation(
    "presets.update_defaults",
    Effect.WRITE,
    preset_sections.UpdatePresetDefaults,
    presets.PresetView,
    preset_sections.update_preset_defaults,
)
PRESETS_INHERITANCE = Operation(
    "presets.inheritance", Effect.READ, preset_sections.ShowInheritance, Inheritance, preset_sections.show_inheritance
)
PRESETS_START = Operation(
    "presets.start", Effect.RUN, options.StartWithPreset, engine.EngineView, options.start_with_preset
)
PRESETS_LEAVE = Operation("presets.leave", Effect.RUN, options.LeavePreset, engine.EngineView, options.leave_preset)
PRESETS_MODELS_DIRECTORY = Operation(
    "presets.models_directory",
    Effect.READ,
    models_directory.ListModelsDirectory,
    models_directory.ModelsDirectory,
    models_directory.list_models_directory,
)
OPTIONS_LIST = Operation("options.list", Effect.READ, options.ListOptions, options.OptionList, options.list_options)
OPTIONS_MODEL = Operation(
    "options.model", Effect.READ, options.GetModelOptions, options.ModelOptions, options.get_model_options
)
OPTIONS_ENGINE = Operation(
    "options.engine", Effect.READ, options.GetEngineOptions, options.EngineOptionsView, options.get_engine_options
)
OPTIONS_CONFIGURE = Operation(
    "options.configure", Effect.WRITE, options.ConfigureEngine, options.EngineOptionsView, options.configure_engine
)
REQUESTS_LIST = Operation(
    "requests.list", Effect.READ, requests.ListRequests, requests.RequestList, requests.list_requests
)
REQUESTS_CANCEL = Operation(
    "requests.cancel", Effect.RUN, requests.CancelRequest, requests.CancelledRequests, requests.cancel_request
)

OPERATIONS: Mapping[str, Operation[Any, Any]] = {
    operation.name: operation
    for operation in (
        MODELS_LIST,
        MODELS_GET,
        MODELS_CREATE,
        MODELS_UPDATE,
        MODELS_DELETE,
        MODELS_LOAD,
        MODELS_ESTIMATE,
        MODELS_UNLOAD,
        MODELS_SCAN,
        MODELS_DISCOVER,
        MODELS_CLEANUP,
        ENGINE_GET,
        ENGINE_START,
        ENGINE_STOP,
        ENGINE_RESTART,
        METRICS_GET,
        METRICS_SAMPLES,
        METRICS_HISTORY,
        CONFIG_GET,
        CONFIG_UPDATE,
        LOGS_LIST,
        LOGS_CLEAR,
        LOGS_FILES,
        LOGS_READ_FILE,
        LOGS_READ_ENGINE,
        LOGS_CLEAR_FILES,
        PREFERENCES_GET,
        PREFERENCES_UPDATE,
        ENGINE_ACTIVITY,
        HEALTH_GET,
        STATUS_GET,
        REQUESTS_LIST,
        REQUESTS_CANCEL,
        PRESETS_LIST,
        PRESETS_READ,
        PRESETS_SAVE,
        PRESETS_CREATE,
        PRESETS_DELETE,
        PRESETS_CLONE,
        PRESETS_RENAME,
        PRESETS_IMPORT,
        PRESETS_EXPORT,
        PRESETS_VALIDATE,
        PRESETS_VERSIONS,
        PRESETS_RESTORE,
        PRESETS_DIFF,
        PRESETS_TEMPLATES,
        PRESETS_MODELS,
        PRESETS_ADD_MODEL,
        PRESETS_UPDATE_MODEL,
        PRESETS_REMOVE_MODEL,
        PRESETS_DEFAULTS,
        PRESETS_UPDATE_DEFAULTS,
        PRESETS_INHERITANCE,
        PRESETS_START,
        PRESETS_LEAVE,
        PRESETS_MODELS_DIRECTORY,
        OPTIONS_LIST,
        OPTIONS_MODEL,
        OPTIONS_ENGINE,
        OPTIONS_CONFIGURE,
        CHATS_LIST,
        CHATS_GET,
        CHATS_CREATE,
        CHATS_UPDATE,
        CHATS_DELETE,
        CHATS_SEND,
        CHATS_EDIT,
        CHATS_REGENERATE,
        CHATS_STOP,
        CHATS_CHOOSE,
        CHATS_EXPORT,
        CHATS_IMPORT,
        CHATS_IMAGE,
        CHATS_SEARCH,
        USAGE_GET,
    )
}
