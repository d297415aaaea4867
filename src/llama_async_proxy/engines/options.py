"""The command line of a model's process, and the meaning of what it prints. Pure."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec, MemoryUse

RESERVED = frozenset(
    {
        # How we reach the child and tell it apart.
        *("host", "port", "reuse-port", "model", "alias", "mmproj-url"),
        *("api-key", "api-key-file", "api-prefix", "ssl-key-file", "ssl-cert-file"),
        # Another model than the one registered, or a router instead of a model.
        *("model-url", "hf-repo", "hf-file", "hf-token", "docker-repo"),
        *("models-dir", "models-preset", "models-max", "models-autoload", "no-models-autoload"),
        # How we read its log.
        *("log-jsonl", "log-disable", "log-colors"),
        # A whole other program; taken from the model itself alone.
        *("command", "command-health", "command-stop", "command-environment", "command-directory"),
        # It would print something and exit.
        *("help", "usage", "version", "list-devices", "cache-list", "completion-bash"),
    }
)
"""Options that are the engine's own business; refused from callers."""

SYNONYMS = MappingProxyType({"embedding": "embeddings", "rerank": "reranking"})
KIND_OPTIONS: Mapping[ModelKind, Mapping[str, OptionValue]] = MappingProxyType(
    {ModelKind.CHAT: {}, ModelKind.EMBEDDING: {"embeddings": True}, ModelKind.RERANK: {"reranking": True}}
)
NO_NEGATIVE_FORM = frozenset({"metrics", "embeddings", "reranking"})
"""Switches we set by ourselves that llama-server can only turn on: False leaves them out."""

_KEY = re.compile(r"[a-z0-9][a-z0-9-]*")
_FLAG_LIKE = re.compile(r"--?[A-Za-z]")


def check_options(options: Mapping[str, OptionValue]) -> None:
    """Raises InvalidInput naming the option that cannot be passed to a model's process."""
    for key, value in options.items():
        field = f"options.{key}"
        if not _KEY.fullmatch(key):
            raise InvalidInput(field, "must be a long option name without dashes, such as ctx-size")
        if key in RESERVED:
            raise InvalidInput(field, "is set by the engine and cannot be chosen")
        if not isinstance(value, str | int | float):
            raise InvalidInput(field, f"must be text, a number, true or false, not {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(field, f"must be a finite number, not {value}")
        if isinstance(value, str) and "\0" in value:
            raise InvalidInput(field, "must not contain a NUL character")
        if isinstance(value, str) and _FLAG_LIKE.match(value):
            # Given to a switch, which takes no value, it would be read as another option.
            raise InvalidInput(field, f"must not begin like an option: {value!r}")


def arguments(spec: LaunchSpec, endpoint: Endpoint) -> list[str]:
    """llama-server's arguments for `spec`, listening on `endpoint`. Raises InvalidInput for an unfit option."""
    check_options(spec.options)
    chosen = {SYNONYMS.get(key, key): value for key, value in spec.options.items()}
    companion: dict[str, OptionValue] = {"mmproj": spec.mmproj_path} if spec.mmproj_path else {}
    merged = {"metrics": True, **KIND_OPTIONS[spec.kind], **companion, **chosen}
    own = ["--host", endpoint.host, "--port", str(endpoint.port), "--model", spec.path, "--alias", spec.alias]
    return own + [item for key, value in merged.items() for item in _flag(key, value)]


def _flag(key: str, value: OptionValue) -> Iterator[str]:
    if value is False:
        if key not in NO_NEGATIVE_FORM:
            yield f"--{key.removeprefix('no-')}" if key.startswith("no-") else f"--no-{key}"
        return
    yield f"--{key}"
    if value is not True:
        yield f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


# --- what it prints -----------------------------------------------------------------------------------

TAIL_LINES = 40

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
"""Errors that a build with a GPU backend logs on a machine without that GPU before it goes on without."""


def parse_log_line(line: str) -> tuple[LogLevel, str]:
    """Level and message of one line of a child's log; a line in no known format is its own message."""
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
    """What the engine takes, as it counts; the last such line holds. None when the line is something else."""
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
    """The JSON object a line is; empty when it is none."""
    if not line.startswith("{"):
        return {}
    try:
        document = json.loads(line)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


class EngineLogReader:
    """The last lines one child has logged, and which of them says why it failed."""

    def __init__(self) -> None:
        self._lines: deque[tuple[LogLevel, str]] = deque(maxlen=TAIL_LINES)

    def add(self, level: LogLevel, message: str) -> None:
        self._lines.append((level, message))

    @property
    def tail(self) -> tuple[str, ...]:
        """Oldest first."""
        return tuple(message for _, message in self._lines)

    @property
    def failure(self) -> str:
        """Of a load: the first error, for later ones follow from it; without one the last line."""
        errors = self._errors()
        grave = [error for error in errors if not _HARMLESS.search(error)]
        if grave and grave[0].startswith("Traceback"):
            return self.tail[-1]  # Python says last what went wrong
        if errors:
            return _FUNCTION.sub("", (grave or errors)[0], count=1)
        return self.tail[-1] if self._lines else "it printed nothing"

    @property
    def last_words(self) -> str:
        """Of a process that served: its last error, for earlier ones may belong to requests; empty without one."""
        return self._errors()[-1] if self._errors() else ""

    @property
    def is_port_taken(self) -> bool:
        """It could not listen where it was told to."""
        return any(_PORT_TAKEN.search(message) for message in self.tail)

    def _errors(self) -> list[str]:
        return [message for level, message in self._lines if level is LogLevel.ERROR]


class StateLine(Struct, frozen=True):
    """What a child says about itself on stdout."""

    state: str
    """"loading", "ready", "sleeping"."""
    stage: str | None = None
    """What is being loaded, as the engine calls it."""
    fraction: float = 0.0
    """0.0 to 1.0 of the stage."""


_STATE_PREFIX = "cmd_child_to_router:state:"


def parse_state_line(line: str) -> StateLine | None:
    """The state in a line of stdout; None when the line is something else."""
    if not line.startswith(_STATE_PREFIX):
        return None
    try:
        return parse_state(json.loads(line.removeprefix(_STATE_PREFIX)))
    except ValueError:
        return None


def parse_state(document: object) -> StateLine | None:
    """The same, of the line's JSON: the router passes its children's on."""
    if not isinstance(document, Mapping) or "state" not in document:
        return None
    payload = document.get("payload") or {}
    if not isinstance(payload, Mapping):
        return None
    value, stage = payload.get("value", 0.0), payload.get("current")
    fraction = min(1.0, max(0.0, float(value))) if isinstance(value, int | float) else 0.0
    return StateLine(str(document["state"]), stage if isinstance(stage, str) else None, fraction)
