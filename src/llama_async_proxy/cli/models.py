"""`models` asks a running service about its models."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from llama_async_proxy.cli.service_call import add_address, address_of, call_service
from llama_async_proxy.cli.tables import mib, size, table
from llama_async_proxy.errors import InvalidInput

_LOAD_OPTION_HELP = "an engine option of this load only, such as ctx-size=4096"


def add_models(commands: Any) -> None:
    models = commands.add_parser(
        "models",
        help="list, scan, load and unload models of a running service, and their memory",
        description="Ask a running service about its models.",
    )
    actions = models.add_subparsers(title="actions", required=True, metavar="ACTION")
    for name, help_text in (
        ("list", "every registered model and its state"),
        ("scan", "look for new and changed files in the models directory"),
        ("load", "load a model and wait until it is ready"),
        ("unload", "stop a model"),
        ("memory", "what a load of a model takes, and what would fit"),
    ):
        action = actions.add_parser(name, help=help_text, description=help_text.capitalize() + ".")
        if name in ("load", "unload", "memory"):
            action.add_argument("model", help="slug, name or file name")
        if name == "load":
            action.add_argument("--force", action="store_true", help="also with more memory than the machine has")
            action.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help=_LOAD_OPTION_HELP)
        action.add_argument("--json", action="store_true", help="print the answer as JSON")
        add_address(action)
        action.set_defaults(command=_models, action=name)


def _models(arguments: argparse.Namespace) -> int:
    base = address_of(arguments)
    name = quote(getattr(arguments, "model", ""), safe="")
    method, path = {
        "list": ("GET", "/api/models"),
        "scan": ("POST", "/api/models/scan"),
        "load": ("POST", f"/api/models/{name}/load"),
        "unload": ("POST", f"/api/models/{name}/unload"),
        "memory": ("GET", f"/api/models/{name}/memory"),
    }[arguments.action]
    answer = call_service(base, method, path, _load_body(arguments) if arguments.action == "load" else None)
    if arguments.json:
        print(json.dumps(answer["data"], indent=2))
    else:
        print(_RENDER[arguments.action](answer["data"]))
    return 0


def _load_body(arguments: argparse.Namespace) -> dict[str, Any]:
    options = {}
    for text in arguments.option:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput("--option", f"must be NAME=VALUE, such as ctx-size=4096, not {text!r}")
        options[name.lstrip("-")] = {"true": True, "false": False}.get(value, value)
    return {"options": options, "force": arguments.force}


def _render_models(data: Any) -> str:
    if not data["models"]:
        return "No models yet: put .gguf files in the models directory and run: llama-async-proxy models scan"
    rows = [("MODEL", "STATE", "SIZE", "MEMORY", "ARCHITECTURE", "QUANTIZATION")]
    rows += [
        (m["id"], m["status"], size(m["size"]), mib(m.get("memoryUsage")), m["family"], m.get("quantization") or "-")
        for m in data["models"]
    ]
    return table(rows)


def _render_scan(data: Any) -> str:
    lines = [f"{data['scanned']} new, {data['updated']} changed, {data['total']} in all"]
    lines += [f"not usable: {broken['path']}: {broken['reason']}" for broken in data["failed"]]
    return "\n".join(lines)


def _render_state(data: Any) -> str:
    return f"{data['id']}: {data['status']}"


def _render_memory(data: Any) -> str:
    """Estimated and, once it is loaded, counted by the engine and measured, side by side."""
    free, needed = data["free"], data["withDraft"]
    counted, measured = data.get("counted") or {}, data.get("measured") or {}
    rows: list[tuple[str, ...]] = [("", "ESTIMATED", "COUNTED", "MEASURED", "FREE")]
    rows += [
        (where, *(mib(found.get(part)) for found in (needed, counted, measured, free)))
        for where, part in (("main memory", "host"), ("GPU memory", "gpu"))
    ]
    lines = [table(rows), f"fits: {data['fits'].replace('_', ' ')}, with a context of {data['contextSize']} tokens"]
    lines += ["the estimate is rough: not all of this architecture is known"] if data["isRough"] else []
    lines += [f"largest context that fits: {tokens} tokens"] if (tokens := data.get("largestContext")) else []
    lines += [f"most layers that fit the GPU: {n}" for n in [data.get("mostGpuLayers")] if n is not None]
    for options in data["alternatives"]:
        lines.append("would fit with " + " ".join(f"--option {name}={value}" for name, value in options.items()))
    return "\n".join(lines)


_RENDER: dict[str, Callable[[Any], str]] = {
    "list": _render_models,
    "scan": _render_scan,
    "load": _render_state,
    "unload": _render_state,
    "memory": _render_memory,
}
