"""Lines of the log."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class LogLine(Struct, frozen=True):
    timestamp_ms: int
    level: LogLevel
    source: str
    """"service", or "model:<slug>" for a child's output."""
    message: str
    id: int | None = None
    """Row id once stored."""
