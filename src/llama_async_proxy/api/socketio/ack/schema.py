"""What travels in the acknowledged dialect: inputs as clients spell them, outputs as they read them.

Models are named by their slugs, sizes are bytes, times ISO 8601 in UTC; null means "not known".
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Annotated, Any

from msgspec import Meta, Struct

from llama_async_proxy.api.socketio.model_status import shown_status
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.monitor.logtext import timestamp
from llama_async_proxy.operations.config import ConfigUpdated, ConfigView, UpdateConfig
from llama_async_proxy.operations.logs import ListLogs, LogLines
from llama_async_proxy.operations.metrics import Metrics
from llama_async_proxy.operations.models import GetModel, LoadModel, ModelList, ModelView, UnloadModel
from llama_async_proxy.operations.options import OptionList
from llama_async_proxy.operations.presets import (
    DeletedPreset,
    DeletePreset,
    PresetList,
    PresetView,
    ReadPreset,
    SavePreset,
    ValidatePreset,
)
from llama_async_proxy.records.logs import LogLevel, LogLine
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import ModelRuntime
from llama_async_proxy.settings import BY_NAME

# --- models -----------------------------------------------------------------------------------------------------------


class ModelId(Struct):
    id: str


class Load(ModelId):
    force: bool = False


class AckModel(Struct):
    id: str
    name: str
    path: str
    size: int
    status: str
    parameters: dict[str, dict[str, Any]] | None


class AckModels(Struct):
    models: list[AckModel]
    total: int


class AckModelInfo(AckModel):
    memoryUsage: int | None  # noqa: N815 - names here are the clients'
    loadedAt: str | None  # noqa: N815
    error: str | None


class Loaded(Struct):
    id: str
    status: str
    memoryUsage: int | None  # noqa: N815
    loadedAt: str | None  # noqa: N815


class Unloaded(Struct):
    id: str
    status: str
    unloadedAt: str  # noqa: N815


class AckModelStatus(Struct, omit_defaults=True):
    modelId: str  # noqa: N815
    modelName: str  # noqa: N815
    status: str
    error: str | None = None


class AckModelNotice(Struct):
    modelId: str  # noqa: N815


def get_model(payload: ModelId) -> GetModel:
    return GetModel(payload.id)


def load_model(payload: Load) -> LoadModel:
    return LoadModel(payload.id, force=payload.force)


def unload_model(payload: ModelId) -> UnloadModel:
    return UnloadModel(payload.id)


def all_models(listed: ModelList) -> AckModels:
    models = [
        AckModel(
            id=view.model.slug,
            name=PurePath(view.model.path).name,
            path=view.model.path,
            size=view.model.size_bytes,
            status=shown_status(view.runtime),
            parameters=None,
        )
        for view in listed.models
    ]
    return AckModels(models, len(models))


def model_info(view: ModelView) -> AckModelInfo:
    model, runtime = view.model, view.runtime
    return AckModelInfo(
        id=model.slug,
        name=PurePath(model.path).name,
        path=model.path,
        size=model.size_bytes,
        status=shown_status(runtime),
        parameters=_grouped(model),
        memoryUsage=_memory_bytes(runtime),
        loadedAt=_time(runtime.loaded_at_ms),
        error=runtime.error,
    )


def loaded(view: ModelView) -> Loaded:
    runtime = view.runtime
    return Loaded(view.model.slug, shown_status(runtime), _memory_bytes(runtime), _time(runtime.loaded_at_ms))


def unloaded(view: ModelView) -> Unloaded:
    return Unloaded(view.model.slug, shown_status(view.runtime), timestamp(time.time_ns() // 1_000_000))


def model_status(model: Model, status: str, error: str | None) -> AckModelStatus:
    return AckModelStatus(model.slug, model.name, status, error)


def _grouped(model: Model) -> dict[str, dict[str, Any]]:
    """The header's values; the architecture's own under Model, without its name in front."""
    groups: dict[str, dict[str, Any]] = {"General": {}, "Model": {}, "Tokenizer": {}}
    titles = {"general": "General", "tokenizer": "Tokenizer"}
    for key, value in model.facts.metadata.items():
        prefix, _, rest = key.partition(".")
        groups[titles.get(prefix, "Model")][rest or key] = value
    return groups


def _memory_bytes(runtime: ModelRuntime) -> int | None:
    """Main and GPU memory of the model's process."""
    measured = [used for used in (runtime.rss_bytes, runtime.gpu_bytes) if used is not None]
    return sum(measured) if measured else None


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else timestamp(milliseconds)


# --- presets ----------------------------------------------------------------------------------------------------------


class PresetName(Struct):
    filename: str


class PresetConfig(Struct):
    filename: str
    config: dict[str, dict[str, OptionValue]]


class PresetCandidate(Struct):
    config: dict[str, dict[str, OptionValue]]
    filename: str | None = None


class AckPreset(Struct):
    filename: str
    name: str
    description: str
    models: dict[str, dict[str, str]]
    """Every section with its values as written."""


class AckPresets(Struct):
    presets: list[AckPreset]


class AckPresetText(AckPreset):
    content: str


class Saved(Struct):
    filename: str
    savedAt: str  # noqa: N815


class Deleted(Struct):
    deleted: bool


class AckParameter(Struct):
    name: str
    type: str
    default: str
    """Empty where the engine names none."""
    description: str


class AckParameters(Struct):
    parameters: dict[str, list[AckParameter]]
    categories: dict[str, list[AckParameter]]


def read_preset(payload: PresetName) -> ReadPreset:
    return ReadPreset(payload.filename)


def save_preset(payload: PresetConfig) -> SavePreset:
    return SavePreset(payload.filename, payload.config)


def delete_preset(payload: PresetName) -> DeletePreset:
    return DeletePreset(payload.filename)


def validate_preset(payload: PresetCandidate) -> ValidatePreset:
    return ValidatePreset(payload.config)


def preset_list(listed: PresetList) -> AckPresets:
    return AckPresets([AckPreset(p.name, p.title, p.description, _sections(p.sections)) for p in listed.presets])


def preset(view: PresetView) -> AckPresetText:
    found = view.summary
    return AckPresetText(found.name, found.title, found.description, _sections(found.sections), view.content)


def saved(view: PresetView) -> Saved:
    return Saved(view.summary.name, timestamp(view.summary.modified_at_ms))


def deleted(_: DeletedPreset) -> Deleted:
    return Deleted(True)


def parameters(listed: OptionList) -> AckParameters:
    """Under both names by which clients ask for them."""
    groups = {
        group.name: [
            AckParameter(option.name, option.type, option.default or "", option.description) for option in group.options
        ]
        for group in listed.groups
    }
    return AckParameters(groups, groups)


def _sections(sections: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    return {name: dict(values) for name, values in sections.items()}


# --- configuration ----------------------------------------------------------------------------------------------------


class AckServer(Struct):
    port: int
    host: str


class AckLlama(Struct):
    serverPath: str  # noqa: N815
    modelsDir: str  # noqa: N815
    port: int
    maxModels: int  # noqa: N815


class AckLogging(Struct):
    level: str
    path: str


class AckConfig(Struct):
    server: AckServer
    llama: AckLlama
    logging: AckLogging


class AckConfigUpdated(Struct):
    updated: bool
    restartRequired: bool  # noqa: N815
    overridden: list[str]
    warnings: list[str]


def update_config(payload: dict[str, Any]) -> UpdateConfig:
    return UpdateConfig(payload)


def config(view: ConfigView) -> AckConfig:
    settings = view.settings
    return AckConfig(
        AckServer(settings.port, settings.host),
        AckLlama(settings.shown_llama_server, str(settings.models_dir), settings.engine_port, settings.max_models),
        AckLogging(settings.log_level, str(settings.logs_dir)),
    )


def config_updated(updated: ConfigUpdated) -> AckConfigUpdated:
    change = updated.change
    overridden = [BY_NAME[name].file_key for name in change.overridden]
    return AckConfigUpdated(True, change.restart_required, overridden, list(change.warnings))


# --- metrics and logs -------------------------------------------------------------------------------------------------


class AckCpu(Struct):
    usage: float
    cores: int


class AckAmount(Struct):
    used: int
    total: int


class AckSystem(Struct):
    cpu: AckCpu
    memory: AckAmount
    disk: AckAmount


class AckRequests(Struct):
    activeConnections: int  # noqa: N815
    requestsProcessed: int  # noqa: N815
    averageResponseTime: float | None  # noqa: N815


class AckGpu(Struct):
    name: str
    usage: float | None
    memoryUsed: int | None  # noqa: N815
    memoryTotal: int | None  # noqa: N815


class AckMetrics(Struct):
    system: AckSystem
    llama: AckRequests
    gpu: list[AckGpu]
    timestamp: str


class LogQuery(Struct):
    level: LogLevel = LogLevel.DEBUG
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    since: str | None = None


class AckLogLine(Struct):
    timestamp: str
    level: LogLevel
    source: str
    message: str


class AckLogs(Struct):
    logs: list[AckLogLine]
    total: int


class AckLogEntry(Struct):
    entry: AckLogLine


def metrics(found: Metrics) -> AckMetrics:
    sample = found.sample
    counters = sample.requests
    average = counters.average_response_ms
    return AckMetrics(
        system=AckSystem(
            AckCpu(round(sample.cpu_percent, 1), sample.cpu_cores),
            AckAmount(sample.memory_used_bytes, sample.memory_total_bytes),
            AckAmount(sample.disk_used_bytes, sample.disk_total_bytes),
        ),
        llama=AckRequests(counters.active, counters.total, None if average is None else round(average, 1)),
        gpu=[AckGpu(g.name, g.usage_percent, g.memory_used_bytes, g.memory_total_bytes) for g in sample.gpus],
        timestamp=timestamp(sample.timestamp_ms),
    )


def list_logs(payload: LogQuery) -> ListLogs:
    return ListLogs(payload.limit, payload.level, None if payload.since is None else _milliseconds(payload.since))


def logs(found: LogLines) -> AckLogs:
    lines = [log_line(line) for line in found.lines]
    return AckLogs(lines, len(lines))


def log_line(line: LogLine) -> AckLogLine:
    return AckLogLine(timestamp(line.timestamp_ms), line.level, line.source, line.message)


def _milliseconds(text: str) -> int:
    """Since the epoch. Raises InvalidInput; a time without a zone is UTC, as all that is sent."""
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InvalidInput("since", f"must be a time in ISO 8601, not {text[:100]!r}") from None
