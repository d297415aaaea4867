"""The command line: argv -> Settings -> one command.

Heavy imports stay inside the commands that need them, so that `--help` and the demo model cost nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from platformdirs import user_data_path

from llama_async_proxy import __version__
from llama_async_proxy.errors import InvalidInput, ServiceError
from llama_async_proxy.gguf.demo import write_demo_model
from llama_async_proxy.settings import (
    CONFIG_FILE_NAME,
    SETTINGS,
    Setting,
    Settings,
    Value,
    data_dir_of,
    is_loopback,
    parse,
    resolve,
)
from llama_async_proxy.store import config_file
from llama_async_proxy.store.private_files import UMASK

_USAGE_ERROR = 2
_PARTLY = 3
_FAILURE = 1
_DEMO_NAME = "demo.gguf"

_DESCRIPTION = "Finds GGUF models, runs llama.cpp for them, proxies inference to it, shows it all live in a browser."
_EPILOG = """\
first steps:
  llama-async-proxy demo                 write a small model to try things with
  llama-async-proxy serve                then open http://127.0.0.1:3000
  llama-async-proxy doctor               when something does not work

Every setting can also be given in the environment (LLAMA_ASYNC_PROXY_PORT=8080) or in llama-server-config.json in
the data directory; the command line wins over the environment, the environment over the file.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 fine, 1 it failed, 2 it was asked wrongly."""
    os.umask(UMASK)
    arguments = build_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except InvalidInput as exc:
        return _complain(str(exc), _USAGE_ERROR)
    except ServiceError as exc:
        return _complain(str(exc) + (f"\n{exc.details}" if exc.details else ""), _FAILURE)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `doctor | head`: nobody reads the rest, nor what Python would flush at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILURE


def _complain(message: str, status: int) -> int:
    print(f"llama-async-proxy: {message}", file=sys.stderr)
    return status


# --- arguments ------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; docs derive from it."""
    parser = argparse.ArgumentParser(
        prog="llama-async-proxy",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"llama-async-proxy {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_models(commands)
    _add_presets(commands)
    _add_import(commands)
    _add_demo(commands)
    _add_doctor(commands)
    return parser


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser("serve", help="run the service", description="Run the service until Ctrl+C or SIGTERM.")
    _add_settings(serve, SETTINGS)
    serve.set_defaults(command=_serve)


_LOAD_OPTION_HELP = "an engine option of this load only, such as ctx-size=4096"


def _add_models(commands: Any) -> None:
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
        action.add_argument("--url", help="address of the service (default: from the settings)")
        action.add_argument("--json", action="store_true", help="print the answer as JSON")
        _add_settings(action, _named("host", "port", "data_dir"))
        action.set_defaults(command=_models, action=name)


_PRESET_ACTIONS = (
    ("list", "every preset, and which one the engine runs with"),
    ("show", "a preset's file, and what is wrong with it"),
    ("validate", "say what the engine would refuse in a file, without storing it"),
    ("import", "make a preset of a file, under the file's name"),
    ("start", "run with a preset from now on"),
    ("stop", "run without a preset from now on"),
)


def _add_presets(commands: Any) -> None:
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
        action.add_argument("--url", help="address of the service (default: from the settings)")
        action.add_argument("--json", action="store_true", help="print the answer as JSON")
        _add_settings(action, _named("host", "port", "data_dir"))
        action.set_defaults(command=_presets, action=name)


_IMPORTS = (
    ("llama-swap", "CONFIG", "llama-swap's configuration file (default: config.yaml here)"),
    ("ollama", "DIR", "Ollama's directory of manifests and blobs (default: OLLAMA_MODELS, or the usual place)"),
    ("lm-studio", "DIR", "LM Studio's models folder (default: the one of its settings, or the usual place)"),
)


def _add_import(commands: Any) -> None:
    parser = commands.add_parser(
        "import",
        help="take over the models of llama-swap, Ollama or LM Studio",
        description="Register the models of another program with a running service, with their names, options and "
        "sampling defaults. Files stay where they are and are not copied. What cannot be taken over is said line by "
        "line; the exit status is 3 then, and 1 when nothing was. Doing it again adds what is new.",
    )
    sources = parser.add_subparsers(title="programs", required=True, metavar="PROGRAM")
    for name, metavar, help_text in _IMPORTS:
        source = sources.add_parser(name, help=help_text, description=f"Import from {help_text}.")
        source.add_argument("place", nargs="?", type=Path, metavar=metavar, help=help_text)
        source.add_argument("--dry-run", action="store_true", help="only print what would be done; needs no service")
        source.add_argument("--url", help="address of the service (default: from the settings)")
        _add_settings(source, _named("host", "port", "data_dir"))
        source.set_defaults(command=_import, source=name)


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="write a small demo chat model",
        description="Write a demo chat model that streams readable nonsense at a watchable speed: to try things, "
        "not for answers.",
    )
    demo.add_argument(
        "path", nargs="?", type=Path, help=f"file to write (default: {_DEMO_NAME} in the models directory)"
    )
    demo.add_argument("--if-empty", action="store_true", help="do nothing when the models directory holds a model")
    demo.add_argument("--force", action="store_true", help="overwrite an existing file")
    _add_settings(demo, _named("data_dir", "models_dir"))
    demo.set_defaults(command=_demo)


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="check this machine and say what to do",
        description="Check engine, versions, ports, directories, GPU and database, and where each setting came from.",
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    _add_settings(doctor, SETTINGS)
    doctor.set_defaults(command=_doctor)


def _named(*names: str) -> tuple[Setting, ...]:
    return tuple(s for s in SETTINGS if s.name in names)


def _add_settings(parser: argparse.ArgumentParser, settings: Sequence[Setting]) -> None:
    for setting in settings:
        if setting.flag is None:
            continue
        if setting.type is bool:
            parser.add_argument(setting.flag, dest=setting.name, action="store_true", default=None, help=setting.help)
        elif setting.type is tuple:
            parser.add_argument(setting.flag, dest=setting.name, action="append", metavar="NAME", help=setting.help)
        else:
            parser.add_argument(setting.flag, dest=setting.name, metavar=_metavar(setting), help=_help(setting))


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return "{" + ",".join(setting.choices) + "}"
    if setting.is_path:
        return "PATH"
    return {str: "TEXT", int: "N", float: "SECONDS"}[setting.type]


def _help(setting: Setting) -> str:
    if setting.default in ("", None) or "Default:" in setting.help:
        return setting.help
    return f"{setting.help} (default: {setting.default})"


def _settings(arguments: argparse.Namespace) -> Settings:
    """Effective settings of this call. Raises InvalidInput naming the flag, variable or key at fault."""
    given: dict[str, Value] = {}
    for setting in SETTINGS:
        value = getattr(arguments, setting.name, None)
        if value is None:
            continue
        if isinstance(value, str):
            value = parse(setting, value, setting.flag or setting.name)
        given[setting.name] = tuple(value) if isinstance(value, list) else value
    default_data_dir = user_data_path("llama-async-proxy", appauthor=False)
    data_dir = data_dir_of(given, os.environ, default_data_dir)
    file = config_file.read(data_dir / CONFIG_FILE_NAME)
    return resolve(command_line=given, environment=os.environ, file=file, default_data_dir=default_data_dir)


# --- serve ----------------------------------------------------------------------------------------


def _serve(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    runs_router = settings.engine == "router" and not settings.router_url
    if runs_router and not is_loopback(settings.engine_host) and not settings.insecure_no_auth:
        raise InvalidInput(
            "host",
            f"the router would listen on {settings.engine_host}, where other machines reach it, and it has no "
            "authentication; set localhost, or add --insecure-no-auth if you accept that",
        )
    if not is_loopback(settings.host) and not settings.insecure_no_auth:
        raise InvalidInput(
            "--host",
            f"{settings.host} can be reached from other machines and this service has no authentication; keep "
            "127.0.0.1 behind a reverse proxy or a tunnel, or add --insecure-no-auth if you accept that",
        )
    # All that imports make lives as long as the process: collecting among it costs a sixth of the start.
    gc.disable()
    from llama_async_proxy import app

    gc.freeze()
    gc.enable()
    return app.run(settings, lambda: _settings(arguments))


# --- models ---------------------------------------------------------------------------------------


def _models(arguments: argparse.Namespace) -> int:
    base = arguments.url or _service_url(_settings(arguments))
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


def _service_url(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def call_service(base: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """The JSON answer of the running service. Raises ServiceError with the service's own sentence."""
    from llama_async_proxy.client import ApiError, Client, ConnectionFailed, Request

    try:
        client = Client(base)
    except ValueError as exc:
        raise InvalidInput("--url", str(exc)) from exc
    request: Request[Any] = Request(method, path, body=None if method == "GET" else body or {})
    try:
        return client.send(request)
    except ConnectionFailed as exc:
        raise ServiceError(f"{exc.message}; start the service with: llama-async-proxy serve") from exc
    except ApiError as exc:
        raise ServiceError(exc.message, details=exc.details) from exc


def _render_models(data: Any) -> str:
    if not data["models"]:
        return "No models yet: put .gguf files in the models directory and run: llama-async-proxy models scan"
    rows = [("MODEL", "STATE", "SIZE", "MEMORY", "ARCHITECTURE", "QUANTIZATION")]
    rows += [
        (m["id"], m["status"], _size(m["size"]), _mib(m.get("memoryUsage")), m["family"], m.get("quantization") or "-")
        for m in data["models"]
    ]
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


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
        (where, *(_mib(found.get(part)) for found in (needed, counted, measured, free)))
        for where, part in (("main memory", "host"), ("GPU memory", "gpu"))
    ]
    lines = [_table(rows), f"fits: {data['fits'].replace('_', ' ')}, with a context of {data['contextSize']} tokens"]
    lines += ["the estimate is rough: not all of this architecture is known"] if data["isRough"] else []
    lines += [f"largest context that fits: {tokens} tokens"] if (tokens := data.get("largestContext")) else []
    lines += [f"most layers that fit the GPU: {n}" for n in [data.get("mostGpuLayers")] if n is not None]
    for options in data["alternatives"]:
        lines.append("would fit with " + " ".join(f"--option {name}={value}" for name, value in options.items()))
    return "\n".join(lines)


def _mib(mib: float | None) -> str:
    return "-" if mib is None else _size(mib * (1 << 20))


_RENDER: dict[str, Callable[[Any], str]] = {
    "list": _render_models,
    "scan": _render_scan,
    "load": _render_state,
    "unload": _render_state,
    "memory": _render_memory,
}


def _size(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.3g} TiB"


# --- presets --------------------------------------------------------------------------------------


def _presets(arguments: argparse.Namespace) -> int:
    data = call_service(arguments.url or _service_url(_settings(arguments)), *_preset_request(arguments))["data"]
    print(json.dumps(data, indent=2) if arguments.json else _RENDER_PRESETS[arguments.action](data))
    return _FAILURE if data.get("valid") is False or data.get("errors") else 0


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
    return _table(rows) + problem


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


# --- import ---------------------------------------------------------------------------------------


def _import(arguments: argparse.Namespace) -> int:
    from llama_async_proxy.importers.apply import apply, registered_models
    from llama_async_proxy.importers.plan import without_options
    from llama_async_proxy.importers.sources import SOURCES, ImportContext, describe

    plan = SOURCES[arguments.source](arguments.place, ImportContext(Path.home(), os.environ))
    plan = without_options(plan, _refusal_of_import)
    problems = list(plan.problems)
    taken = len(plan.models)
    if arguments.dry_run:
        print("\n".join(map(describe, plan.models)))
    else:
        call = partial(call_service, arguments.url or _service_url(_settings(arguments)))
        known = registered_models(call)
        for model in plan.models:
            outcome = apply(model, known, call)
            print(f"{outcome.name}: {outcome.done}")
            problems += [f"{outcome.name}: {outcome.problem}"] if outcome.problem else []
            taken -= not outcome.is_registered
    print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
    if not taken:
        raise ServiceError("nothing was taken over")
    return _PARTLY if problems else 0


def _refusal_of_import(key: str) -> str | None:
    """Why the service would not take an option over REST. Commands of models have a permission of their own."""
    from llama_async_proxy.engines.custom_command import COMMAND_OPTIONS
    from llama_async_proxy.presets.catalogue import Catalogue
    from llama_async_proxy.presets.option_classes import OptionClass, class_of, reason

    catalogue = Catalogue(())
    if key in COMMAND_OPTIONS or class_of(key, catalogue) is not OptionClass.OWNER:
        return None
    return f"{reason(key, catalogue)}. Write it into the model's section of a preset file by hand, if you want it"


# --- demo -----------------------------------------------------------------------------------------


def _demo(arguments: argparse.Namespace) -> int:
    path: Path = arguments.path or _settings(arguments).models_dir / _DEMO_NAME
    if arguments.if_empty and _has_model(path.parent):
        return 0
    if path.exists() and not arguments.force:
        raise InvalidInput("path", f"{path} exists already; add --force to overwrite it")
    started = time.perf_counter()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_demo_model(path)
    except OSError as exc:
        raise ServiceError(f"cannot write the demo model to {path}: {exc.strerror or exc}") from exc
    print(f"Wrote the demo model to {path} in {time.perf_counter() - started:.1f} s.")
    return 0


def _has_model(directory: Path) -> bool:
    return directory.is_dir() and any(directory.rglob("*.gguf"))


# --- doctor ---------------------------------------------------------------------------------------


def _doctor(arguments: argparse.Namespace) -> int:
    from llama_async_proxy.operations.doctor import Finding, Level, examine

    settings = _settings(arguments)
    findings = asyncio.run(examine(settings))
    if arguments.json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
        return 0
    marks = {Level.OK: "ok  ", Level.WARNING: "warn", Level.PROBLEM: "FAIL"}

    def show(finding: Finding) -> str:
        advice = f"\n       -> {finding.advice}" if finding.advice else ""
        return f"{marks[finding.level]}  {finding.subject}: {finding.found}{advice}"

    print("\n".join(show(finding) for finding in findings))
    print("\nSettings (value, where it came from):")
    for setting in SETTINGS:
        value, source = getattr(settings, setting.name), settings.sources[setting.name]
        print(f"  {setting.name:<26} {_shown(value):<40} {source}")
    return _FAILURE if any(finding.level is Level.PROBLEM for finding in findings) else 0


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return "-" if value in ("", None) else str(value)
