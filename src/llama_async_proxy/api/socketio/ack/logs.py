"""Logs in the acknowledged dialect: request `logs:get` and event `logs:entry`. Times are ISO 8601 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from llama_async_proxy.api.socketio.contract import Call, ServerEvent
from llama_async_proxy.api.units import iso_time
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations import logs as log_operations
from llama_async_proxy.operations.logs import ListLogs, LogLines
from llama_async_proxy.records.logs import LogLevel, LogLine


class AckLogQuery(Struct):
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


def list_logs(payload: AckLogQuery) -> ListLogs:
    return ListLogs(payload.limit, payload.level, None if payload.since is None else _milliseconds(payload.since))


def logs(found: LogLines) -> AckLogs:
    lines = [log_line(line) for line in found.lines]
    return AckLogs(lines, len(lines))


def log_line(line: LogLine) -> AckLogLine:
    return AckLogLine(iso_time(line.timestamp_ms), line.level, line.source, line.message)


def log_entry(line: LogLine) -> AckLogEntry:
    return AckLogEntry(log_line(line))


def _milliseconds(text: str) -> int:
    """Milliseconds since the epoch; a time without a zone is UTC. Raises InvalidInput."""
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InvalidInput("since", f"must be a time in ISO 8601, not {text[:100]!r}") from None


# --- the table --------------------------------------------------------------------------------------------------------

ENTRY = ServerEvent("logs:entry", AckLogEntry, "A line was logged; 50 a second at most.")

EVENTS = (ENTRY,)

CALLS: tuple[Call[Any, Any, Any], ...] = (
    Call("logs:get", AckLogQuery, list_logs, log_operations.list_logs, logs, description="Newest first."),
)
