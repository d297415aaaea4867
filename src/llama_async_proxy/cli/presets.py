"""`presets` asks a running service about its presets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llama_async_proxy.cli.service_call import add_address, address_of, call_service
from llama_async_proxy.cli.status import FAILURE
from llama_async_proxy.cli.tables import table
from llama_async_proxy.errors import InvalidInput

_PRESET_ACTIONS = (
    ("list", "every preset, and which one the engine runs with"),
    ("show", "a preset's file, and what is wrong with it"),
    ("validate", "say what the engine would refuse in a file, without storing it"),
    ("import", "make a preset of a file, under the file's name"),
    ("start", "run with a preset from now on"),
    ("stop", "run without a preset from now on"),
)


def add_presets(commands: Any) -> None:
    presets = commands.add_parser(
        "presets",
        help="list, check and choose presets of a running service",
        description="Ask a running service about presets: INI files of engine options, one section per model.",
    )
    actions = presets.add_subparsers(title="actions", required=True, metavar="ACTION")
    for name, help_text in _PRESET_ACTIONS:
        action = actions.add_parser(name, help=help_text, description=help_text.capitalize() + ".")
        if name in ("show", "start"):
            action.add_argument("preset", help="name of the preset")
        if name in ("validate", "import"):
            action.add_argument("file", type=Path, help="INI file")
        action.add_argument("--json", action="store_true", help="print the answer as JSON")
        add_address(action)
        action.set_defaults(command=_presets, action=name)


def _presets(arguments: argparse.Namespace) -> int:
    data = call_service(address_of(arguments), *_preset_request(arguments))["data"]
    print(json.dumps(data, indent=2) if arguments.json else _RENDER_PRESETS[arguments.action](data))
    return FAILURE if data.get("valid") is False or data.get("errors") else 0


def _preset_request(arguments: argparse.Namespace) -> tuple[str, str, Mapping[str, Any]]:
    """Method, path and body."""
    match arguments.action:
        case "list":
            return "GET", "/api/presets", {}
        case "show":
            return "GET", f"/api/presets/{quote(arguments.preset, safe='')}", {}
        case "validate":
            return "POST", "/api/preset-validation", {"content": _ini_text(arguments.file)}
        case "import":
            body = {"name": arguments.file.stem, "content": _ini_text(arguments.file)}
            return "POST", "/api/preset-import", body
        case "start":
            return "POST", "/api/llama-server/preset", {"preset": arguments.preset}
        case _:
            return "DELETE", "/api/llama-server/preset", {}


def _ini_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as exc:
        raise InvalidInput("file", f"cannot read {path}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidInput("file", f"byte {exc.start} of {path} is not UTF-8; save the file as UTF-8") from exc


def _render_presets(data: Any) -> str:
    rows = [("PRESET", "", "DESCRIPTION")]
    for preset in data["presets"]:
        state = "runs" if preset["isActive"] else ("broken" if preset.get("problem") else "")
        rows.append((preset["name"], state, preset.get("problem") or preset["description"]))
    problem = f"\n{data['problem']}" if data.get("problem") else ""
    return table(rows) + problem


def _render_preset(data: Any) -> str:
    return "\n".join((str(data["content"]), *_faults(data)))


def _render_verdict(data: Any) -> str:
    return "\n".join((*_faults(data), "fine" if data["valid"] else "the engine would refuse it"))


def _faults(data: Any) -> list[str]:
    def shown(fault: Any) -> str:
        place = f"line {fault['line']}, column {fault['column']}: " if "line" in fault else ""
        return f"{place}{fault['message']}"

    errors = [f"error: {shown(fault)}" for fault in data["errors"]]
    return errors + [f"warning: {shown(fault)}" for fault in data["warnings"]]


def _render_running(data: Any) -> str:
    return f"the engine is {data['status']}, with preset {data['preset']}" if "preset" in data else "no preset"


_RENDER_PRESETS: dict[str, Callable[[Any], str]] = {
    "list": _render_presets,
    "show": _render_preset,
    "validate": _render_verdict,
    "import": lambda data: f"imported as {data['name']}",
    "start": _render_running,
    "stop": _render_running,
}
