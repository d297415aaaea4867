"""The log of a model's process: parsing its lines, and finding the line that explains a failure. Pure.

The formats are those of llama.cpp b11434: text (common/log.cpp), JSON with LLAMA_ARG_LOG_JSONL, and the state lines
that a router's child prints on stdout (tools/server/server-models.cpp).
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.records.runtime import MemoryUse

TAIL_LINES = 40
MAX_MESSAGE = 2000
"""Characters of a line that are kept to explain a failure: lists show them, and a line may have megabytes."""

_LOG_LINE = re.compile(r"\d+\.\d\d\.\d{3}\.\d{3} ([IWEDT]) (.*)", re.DOTALL)
_LEVELS = MappingProxyType(
    {"I": LogLevel.INFO, "W": LogLevel.WARN, "E": LogLevel.ERROR, "D": LogLevel.DEBUG, "T": LogLevel.DEBUG}
)
_JSON_LEVELS = MappingProxyType(
    {"warn": LogLevel.WARN, "error": LogLevel.ERROR, "debug": LogLevel.DEBUG, "trace": LogLevel.DEBUG}
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PLAIN_ERROR = re.compile(
    r"error\b|fatal\b|failed\b|terminate called|Traceback|.*(GGML_ASSERT|GGML_ABORT)", re.IGNORECASE
)
_PLAIN_WARNING = re.compile(r"warn(ing)?\b", re.IGNORECASE)
_FUNCTION = re.compile(r"(?:\w+\s+)?[\w:()~]+: +")
_PORT_TAKEN = re.compile(r"couldn't bind|address already in use", re.IGNORECASE)
_HARMLESS = re.compile(r"ggml_\w+_init|no usable GPU|no \S*device", re.IGNORECASE)
"""Errors that a build with a GPU backend logs on a machine without that GPU. The build then runs on the CPU."""


def parse_log_line(line: str) -> tuple[LogLevel, str]:
    """Level and message of one log line. A line in an unknown format is the message as a whole."""
    document = _document(line)
    if isinstance(document.get("msg"), str):
        text = document["msg"].rstrip()
        return _JSON_LEVELS.get(str(document.get("level")), LogLevel.INFO), re.sub(r"^(\w+) +", r"\1 ", text)
    text = _ANSI.sub("", line).rstrip()
    if match := _LOG_LINE.fullmatch(text):
        return _LEVELS[match[1]], re.sub(r"^(\w+) +", r"\1 ", match[2])
    if _PLAIN_ERROR.match(text):
        return LogLevel.ERROR, text
    return (LogLevel.WARN if _PLAIN_WARNING.match(text) else LogLevel.INFO), text


def parse_memory_line(line: str) -> MemoryUse | None:
    """Memory breakdown in a JSON line (type `fit_memory_breakdown`), in bytes; None for other lines.

    A process prints several; the last one is final.
    """
    document = _document(line)
    data = document.get("data")
    if document.get("type") != "fit_memory_breakdown" or not isinstance(data, Mapping) or data.get("unit") != "MiB":
        return None
    rows = data.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        return None
    gpu = sum(_mib(row) for row in rows if row.get("kind") == "device")
    return MemoryUse((sum(map(_mib, rows)) - gpu) << 20, gpu << 20)


def _mib(row: Mapping[str, object]) -> int:
    parts = [row.get(name) for name in ("model", "context", "compute")]
    return sum(part for part in parts if isinstance(part, int))


def _document(line: str) -> dict[str, Any]:
    """JSON object in a line; empty for any other line."""
    if not line.startswith("{"):
        return {}
    try:
        document = json.loads(line)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


class EngineLogReader:
    """Keeps the last lines that a process has logged, and finds the one that explains its failure."""

    def __init__(self) -> None:
        self._lines: deque[tuple[LogLevel, str]] = deque(maxlen=TAIL_LINES)

    def add(self, level: LogLevel, message: str) -> None:
        shown = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}…"
        self._lines.append((level, shown))

    @property
    def tail(self) -> tuple[str, ...]:
        """Messages of the last lines, oldest first."""
        return tuple(message for _, message in self._lines)

    @property
    def failure(self) -> str:
        """Reason why a load failed: the first error, since later ones follow from it; without errors the last line."""
        errors = self._errors()
        grave = [error for error in errors if not _HARMLESS.search(error)]
        if grave and grave[0].startswith("Traceback"):
            return self.tail[-1]  # The last line of a Python traceback has the error.
        if errors:
            return _FUNCTION.sub("", (grave or errors)[0], count=1)
        return self.tail[-1] if self._lines else "it printed nothing"

    @property
    def last_error(self) -> str:
        """Last error of a process that had been ready; earlier errors may belong to requests. Empty without errors."""
        return self._errors()[-1] if self._errors() else ""

    @property
    def is_port_taken(self) -> bool:
        """True when the process could not listen on its port."""
        return any(_PORT_TAKEN.search(message) for message in self.tail)

    def _errors(self) -> list[str]:
        return [message for level, message in self._lines if level is LogLevel.ERROR]


class StateLine(Struct, frozen=True):
    """State that a process reports on stdout."""

    state: str
    """`loading`, `ready` or `sleeping`."""
    stage: str | None = None
    """Part that is being loaded, as llama.cpp names it."""
    fraction: float = 0.0
    """Completed part of the stage, 0.0 to 1.0."""


_STATE_PREFIX = "cmd_child_to_router:state:"


def parse_state_line(line: str) -> StateLine | None:
    """State in a line of stdout; None for other lines."""
    if not line.startswith(_STATE_PREFIX):
        return None
    try:
        return parse_state(json.loads(line.removeprefix(_STATE_PREFIX)))
    except ValueError:
        return None


def parse_state(document: object) -> StateLine | None:
    """State in the JSON of such a line, which the router also sends in its events; None when it holds no state."""
    if not isinstance(document, Mapping) or "state" not in document:
        return None
    payload = document.get("payload") or {}
    if not isinstance(payload, Mapping):
        return None
    value, stage = payload.get("value", 0.0), payload.get("current")
    fraction = min(1.0, max(0.0, float(value))) if isinstance(value, int | float) else 0.0
    return StateLine(str(document["state"]), stage if isinstance(stage, str) else None, fraction)
