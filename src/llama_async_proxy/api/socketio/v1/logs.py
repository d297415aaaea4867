"""Logs over Socket.IO v1: requests `logs:*` and the event `logs:entry`. Times are milliseconds since the epoch."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from llama_async_proxy.api.socketio.contract import Call, Nothing, ServerEvent, no_fields
from llama_async_proxy.operations import logs as log_operations
from llama_async_proxy.operations.logs import (
    ClearedLogs,
    ClearLogFiles,
    ClearLogs,
    ListLogFiles,
    ListLogs,
    LogFileContent,
    LogFileList,
    LogLines,
    ReadEngineLog,
    ReadLogFile,
)
from llama_async_proxy.records.logs import LogLevel, LogLine


class V1LogQuery(Struct):
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100


class LogFileName(Struct):
    fileName: str | None = None  # noqa: N815 - field names are the clients'


class V1LogLine(Struct):
    level: LogLevel
    message: str
    source: str
    timestamp: int


class V1StoredLogLine(V1LogLine):
    id: int | None


class Logs(Struct):
    logs: list[V1StoredLogLine]


class V1LogFiles(Struct):
    files: list[str]
    size: int


class V1LogFile(Struct):
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


def list_logs(payload: V1LogQuery) -> ListLogs:
    return ListLogs(payload.limit)


def read_log_file(payload: LogFileName) -> ReadLogFile:
    return ReadLogFile() if payload.fileName is None else ReadLogFile(payload.fileName)


def log_line(line: LogLine) -> V1LogLine:
    return V1LogLine(line.level, line.message, line.source, line.timestamp_ms)


def log_entry(line: LogLine) -> LogEntry:
    return LogEntry(log_line(line))


def logs(found: LogLines) -> Logs:
    return Logs(
        [V1StoredLogLine(line.level, line.message, line.source, line.timestamp_ms, line.id) for line in found.lines]
    )


def log_files(listed: LogFileList) -> V1LogFiles:
    return V1LogFiles([file.name for file in listed.files], sum(file.size_bytes for file in listed.files))


def log_file(found: LogFileContent) -> V1LogFile:
    return V1LogFile(found.name, [log_line(line) for line in found.lines], found.content, found.truncated)


def engine_log(found: LogFileContent) -> EngineLog:
    return EngineLog(found.name, [log_line(line) for line in found.lines])


def cleared(report: ClearedLogs) -> Cleared:
    return Cleared(report.cleared)


# --- the table --------------------------------------------------------------------------------------------------------

ENTRY = ServerEvent("logs:entry", LogEntry, "A line was logged; 50 a second at most, one of them counting the rest.")

EVENTS = (ENTRY,)

CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call("logs:get", V1LogQuery, list_logs, log_operations.list_logs, logs, description="Newest first."),
    Call(
        "logs:read-file", LogFileName, read_log_file, log_operations.read_log_file, log_file,
        not_found="NOT_FOUND",
        description="The last MiB of one of the listed files; without a name, of the service's own log.",
    ),
    Call("logs:list-files", Nothing, no_fields(ListLogFiles), log_operations.list_log_files, log_files),
    Call(
        "logs:clear", Nothing, no_fields(ClearLogs), log_operations.clear_logs, cleared,
        description="Deletes the lines in the database; files stay.",
    ),
    Call(
        "logs:clear-files", Nothing, no_fields(ClearLogFiles), log_operations.clear_log_files, cleared,
        description="Empties the files in use and deletes the rotated ones.",
    ),
    Call(
        "logs:read-llama-server", Nothing, no_fields(ReadEngineLog), log_operations.read_engine_log, engine_log,
        description="Output of the models' processes.",
    ),
)  # fmt: skip
