"""Logs, what a user chose, and the engine's activity, as Socket.IO v1 has them. Times: ms since the epoch."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from llama_async_proxy.monitor.logfiles import SERVICE_LOG
from llama_async_proxy.operations.activity import EngineActivity
from llama_async_proxy.operations.logs import ClearedLogs, ListLogs, LogFileContent, LogFileList, LogLines, ReadLogFile
from llama_async_proxy.operations.preferences import Preferences, UpdatePreferences
from llama_async_proxy.records.logs import LogLevel, LogLine


class LogQuery(Struct):
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100


class LogFileName(Struct):
    fileName: str | None = None  # noqa: N815 - names here are the clients'


class V1LogLine(Struct):
    level: LogLevel
    message: str
    source: str
    timestamp: int


class V1StoredLogLine(V1LogLine):
    id: int | None


class Logs(Struct):
    logs: list[V1StoredLogLine]


class LogFiles(Struct):
    files: list[str]
    size: int


class LogFile(Struct):
    fileName: str  # noqa: N815
    logs: list[V1LogLine]
    content: str
    truncated: bool


class EngineLog(Struct):
    fileName: str  # noqa: N815
    logs: list[V1LogLine]


class Cleared(Struct):
    cleared: int


class LogEntry(Struct):
    entry: V1LogLine


def list_logs(payload: LogQuery) -> ListLogs:
    return ListLogs(payload.limit)


def read_log_file(payload: LogFileName) -> ReadLogFile:
    return ReadLogFile(SERVICE_LOG if payload.fileName is None else payload.fileName)


def log_line(line: LogLine) -> V1LogLine:
    return V1LogLine(line.level, line.message, line.source, line.timestamp_ms)


def log_entry(line: LogLine) -> LogEntry:
    return LogEntry(log_line(line))


def logs(found: LogLines) -> Logs:
    return Logs(
        [V1StoredLogLine(line.level, line.message, line.source, line.timestamp_ms, line.id) for line in found.lines]
    )


def log_files(listed: LogFileList) -> LogFiles:
    return LogFiles([file.name for file in listed.files], sum(file.size_bytes for file in listed.files))


def log_file(found: LogFileContent) -> LogFile:
    return LogFile(found.name, [log_line(line) for line in found.lines], found.content, found.truncated)


def engine_log(found: LogFileContent) -> EngineLog:
    return EngineLog(found.name, [log_line(line) for line in found.lines])


def cleared(report: ClearedLogs) -> Cleared:
    return Cleared(report.cleared)


# --- what a user chose ------------------------------------------------------------------------------------------------


class SettingsChanges(Struct):
    settings: dict[str, Any]


class UserSettings(Struct):
    settings: dict[str, Any]


def update_settings(payload: SettingsChanges) -> UpdatePreferences:
    return UpdatePreferences(payload.settings)


def user_settings(found: Preferences) -> UserSettings:
    return UserSettings(dict(found.values))


# --- the engine's activity --------------------------------------------------------------------------------------------


class V1EngineMetrics(Struct):
    activeModels: int  # noqa: N815
    tokensPerSecond: float | None  # noqa: N815
    queueSize: int  # noqa: N815
    totalRequests: int | None  # noqa: N815


class V1EngineActivity(Struct):
    status: str
    metrics: V1EngineMetrics
    uptime: float


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
