"""Lines of the log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class LogLine:
    timestamp_ms: int
    level: LogLevel
    source: str
    """"service", or "model:<slug>" for a child's output."""
    message: str
    id: int | None = None
    """Row id once stored."""
