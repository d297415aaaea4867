"""Formats of llama-server's router: preset file, list of models, events and log. Pure.

All as in llama.cpp b11434, tools/server/server-models.cpp and common/preset.cpp.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.engines.arguments import KIND_OPTIONS, NO_NEGATIVE_FORM, SYNONYMS, check_options
from llama_async_proxy.engines.log import StateLine, parse_state
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.records.options import NO_OPTIONS, OptionValue
from llama_async_proxy.records.runtime import LaunchSpec

EVERY_MODEL = "*"
RUNNING_STATUSES = frozenset({"loading", "loaded", "sleeping"})
STOP_TIMEOUT_S = 2
"""Seconds for which the router waits until a model's process ends by itself. Requests were drained before."""

_NOT_IN_INI = re.compile(r"[;#\r\n]")
"""Characters that end a value. The file has neither quotes nor escapes."""
_FROM_A_CHILD = re.compile(r"\[(\d+)\] (.*)", re.DOTALL)
_SPAWNED = re.compile(r"spawning server instance with name=(.+) on port (\d+)$")
_EXITED = re.compile(r"instance name=(.+) exited with status ")


class NotARouter(Exception):
    """The answer is not that of a router."""


class RouterModel(Struct, frozen=True):
    """One entry of the router's list of models."""

    name: str
    status: str
    """`unloaded`, `loading`, `loaded`, `sleeping`, `downloading` or `downloaded`."""
    exit_code: int | None = None
    """Exit code of the last load, when it failed."""
    path: str | None = None
    """Path of the model's file on the router's machine."""
    aliases: tuple[str, ...] = ()


class RouterModelEvent(Struct, frozen=True):
    """A change of one model, or of the whole list when the name is EVERY_MODEL."""

    name: str
    status: str
    exit_code: int | None = None
    """Exit code of a process that has ended."""
    progress: StateLine | None = None


def parse_models(document: object) -> tuple[RouterModel, ...]:
    """Models in the answer to a request for the list. Raises NotARouter when it is no list of a router."""
    entries = document.get("data") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise NotARouter("is not a list of models")
    return tuple(_model(entry) for entry in entries)


def _model(entry: object) -> RouterModel:
    status = entry.get("status") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(status, Mapping):
        raise NotARouter("lists models without a status, so it is no router's")
    arguments = [item for item in _list(status.get("args")) if isinstance(item, str)]
    path = arguments[arguments.index("--model") + 1] if "--model" in arguments[:-1] else None
    code = status.get("exit_code")
    return RouterModel(
        name=str(entry.get("id")),
        status=str(status.get("value")),
        exit_code=code if status.get("failed") is True and isinstance(code, int) else None,
        path=path,
        aliases=tuple(alias for alias in _list(entry.get("aliases")) if isinstance(alias, str)),
    )


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def parse_event(data: str) -> RouterModelEvent | None:
    """Event from the `data` of the stream; None for events that change no model's state."""
    try:
        document = json.loads(data)
        name = document["model"]
        if name == EVERY_MODEL:
            return RouterModelEvent(EVERY_MODEL, str(document["event"]))
        details = document["data"]
        status = details["status"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(name, str) or not isinstance(status, str):
        return None
    code = details.get("exit_code")
    progress = parse_state({"state": status, "payload": details.get("progress")}) if "progress" in details else None
    return RouterModelEvent(name, status, code if isinstance(code, int) else None, progress)


# --- the preset file ----------------------------------------------------------------------------------


def preset_ini(specs: Iterable[LaunchSpec]) -> str:
    """Content of the file for `--models-preset`. Raises InvalidInput for a value that the format cannot hold."""
    return "version = 1\n\n" + "\n".join(map(section, specs))


def section(spec: LaunchSpec) -> str:
    """Section that makes the router run `spec` under its alias. Raises InvalidInput naming an unwritable option."""
    check_options(spec.options)
    chosen = {SYNONYMS.get(key, key): value for key, value in spec.options.items()}
    companion: dict[str, OptionValue] = {"mmproj": spec.mmproj_path} if spec.mmproj_path else {}
    stop_s = STOP_TIMEOUT_S if spec.stop_timeout_s is None else spec.stop_timeout_s
    own: dict[str, OptionValue] = {"model": spec.path, "stop-timeout": stop_s, "metrics": True}
    merged = {**own, **KIND_OPTIONS[spec.kind], **companion, **chosen}
    lines = [line for key, value in merged.items() if (line := _line(key, value)) is not None]
    return "\n".join([f"[{spec.alias}]", *lines, ""])


def is_writable(spec: LaunchSpec) -> bool:
    """True when a preset file can hold the model's path and options, and llama.cpp runs it."""
    try:
        section(spec)
    except InvalidInput:
        return False
    return spec.command is None


def without_options(spec: LaunchSpec) -> LaunchSpec:
    """The same model without options, so that the router has none to refuse."""
    return replace(spec, options=NO_OPTIONS)


def _line(key: str, value: OptionValue) -> str | None:
    if value is False:
        if key in NO_NEGATIVE_FORM:
            return None
        return f"{key.removeprefix('no-') if key.startswith('no-') else f'no-{key}'} = true"
    text = "true" if value is True else f"{value:.0f}" if _is_whole(value) else str(value).strip()
    if _NOT_IN_INI.search(text):
        field = key if key == "model" else f"options.{key}"
        raise InvalidInput(field, f"cannot be passed to the router, whose presets know no ; # or line end: {text!r}")
    return f"{key} = {text}"


def _is_whole(value: OptionValue) -> bool:
    return isinstance(value, float) and value.is_integer()


# --- the log ------------------------------------------------------------------------------------------


class Spawned(Struct, frozen=True):
    """Start of a model's process, whose log lines carry this port."""

    name: str
    port: int


def split_line(line: str) -> tuple[int | None, str]:
    """Port and text of a line of output. The port tells the model's process; None for the router's own lines."""
    found = _FROM_A_CHILD.fullmatch(line)
    return (int(found[1]), found[2]) if found else (None, line)


def parse_spawned(message: str) -> Spawned | None:
    found = _SPAWNED.search(message)
    return Spawned(found[1], int(found[2])) if found else None


def parse_exited(message: str) -> str | None:
    """Name of the model whose process has ended. The router logs it after the last line of that process."""
    found = _EXITED.search(message)
    return found[1] if found else None
