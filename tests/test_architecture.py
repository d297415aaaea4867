"""The rooms of docs/architecture.md, who may import whom, and that nothing lies about unreached."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "llama_async_proxy"
LEAVES = {"errors", "records", "events", "settings"}
ENGINE_ROOMS = {"chats", "gguf", "engines", "importers", "inference", "presets", "monitor", "store"}
PURE = (
    "gguf",
    "presets",
    "inference/scheduling/policy.py",
    "inference/scheduling/queue.py",
    "inference/relay.py",
    "inference/requests/error_formats.py",
    "inference/requests/names.py",
    "inference/requests/routes.py",
    "inference/requests/variants.py",
    "inference/streaming/aggregator.py",
    "inference/streaming/prompt_progress.py",
    "inference/streaming/sse.py",
    "inference/streaming/usage.py",
)
ALLOWED = {
    **dict.fromkeys(LEAVES, LEAVES),
    **dict.fromkeys(ENGINE_ROOMS, LEAVES),
    "operations": LEAVES | ENGINE_ROOMS,
    "client": {"records"},
    # The composition root hands the doors what they need; from the rooms below they use types and pure functions.
    "api": LEAVES | ENGINE_ROOMS | {"operations"},
    "app": LEAVES | ENGINE_ROOMS | {"operations", "api"},
    "cli": LEAVES | ENGINE_ROOMS | {"app", "client", "operations"},
    "__main__": {"cli"},
    "__init__": set(),
}
ENTRY_POINTS = (
    "api.rest.app",
    "cli",
    "client",
    "operations.doctor",
    "engines.embedded",
    "importers.apply",
    "importers.sources",
    "store.migrations",
)
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "migrations/versions" not in p.as_posix())
LIBRARIES = {  # library -> rooms or files that may import it
    "fastapi": ("api/rest/",),
    "starlette": ("api", "app.py"),
    "pydantic": ("api/rest/",),
    "socketio": ("api", "app.py"),
    "engineio": ("api", "app.py"),
    "sqlalchemy": ("store",),
    "alembic": ("store",),
    "yaml": ("importers/llama_swap.py",),
    "psutil": ("monitor", "engines/process.py"),
    "pynvml": ("monitor",),
    "subprocess": ("engines/process.py", "engines/discovery.py"),
    "xllamacpp": ("engines/embedded.py",),
}
IMPURE = {"asyncio", "logging", "time", "threading", "socket", "subprocess", "datetime", "random"}


API_SHARED = {"body", "memory", "boundary", "decode", "units"}
SOCKETIO_SHARED = {
    "contract",
    "dispatch",
    "emitter",
    "frames",
    "log_tail",
    "model_status",
    "namespace",
    "rate_limit",
    "sample_feed",
    "watch",
}
"""Files of `api/socketio/` that the namespaces in its folders, and the web UI's, are built on."""
CONTEXT_FOR_API = {"bus", "now_ms", "settings"}
"""Parts of an operation's context that `api/` uses itself. Everything else it asks operations for."""


def imports(path: Path) -> list[str]:
    """Absolute dotted names of everything a file imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            names += [f"{base}.{alias.name}" if base == PACKAGE.name else base for alias in node.names]
    return names


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_downwards(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    rooms = {n.split(".")[1] for n in imports(path) if n.startswith(f"{PACKAGE.name}.")} - {"__version__"}
    assert rooms <= ALLOWED[room] | {room}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    strays = {
        library
        for library in {name.split(".")[0] for name in imports(path)} & LIBRARIES.keys()
        if not relative(path).startswith(LIBRARIES[library])
    }
    assert not strays


@pytest.mark.parametrize("path", [p for p in FILES if relative(p).startswith(PURE)], ids=relative)
def test_pure_rooms_have_no_clock_log_or_loop(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & IMPURE


def api_folder(path: Path) -> str:
    """`rest`, `socketio`, `socketio/v1`; empty for a file directly in `api/`."""
    return path.relative_to(PACKAGE / "api").parent.as_posix().removeprefix(".")


def imported_api_folders(path: Path) -> set[str]:
    """Folders of `api/` that a file imports from, its own and the shared files apart."""
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[:2] != [PACKAGE.name, "api"] or len(parts) < 3:
            continue
        module = PACKAGE.joinpath(*parts[1:])
        folder = api_folder(module / "__init__.py" if module.is_dir() else module)
        is_shared = module.name in (API_SHARED if folder == "" else SOCKETIO_SHARED if folder == "socketio" else ())
        if folder != api_folder(path) and not is_shared:
            found.add(folder)
    return found


@pytest.mark.parametrize("path", [p for p in FILES if relative(p).startswith("api/")], ids=relative)
def test_ways_in_do_not_import_one_another(path: Path) -> None:
    assert imported_api_folders(path) == set()


def attributes_of_context(tree: ast.Module) -> set[str]:
    """Attributes that are read from `context`, `self._context` or a call of either."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.func if isinstance(node.value, ast.Call) else node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            if name in ("context", "_context"):
                found.add(node.attr)
    return found


@pytest.mark.parametrize("path", [p for p in FILES if relative(p).startswith("api/")], ids=relative)
def test_ways_in_reach_the_service_through_operations_only(path: Path) -> None:
    assert attributes_of_context(ast.parse(path.read_text())) <= CONTEXT_FOR_API


def test_uses_of_the_context_are_found() -> None:
    source = "context.a; self._context().b; self._context.c; context().d; other.e; context.f.g"
    assert attributes_of_context(ast.parse(source)) == {"a", "b", "c", "d", "f"}


def test_every_module_is_reached() -> None:
    # A fresh interpreter: other tests may have imported the orphan already.
    entries = ", ".join(f"llama_async_proxy.{e}" for e in ENTRY_POINTS)
    program = f"import sys, {entries}; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
    # app and what it builds is imported by the commands that need it, so that `--help` stays fast.
    program = "import sys, llama_async_proxy.app; print(*sys.modules)"
    loaded |= set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
    dotted = {".".join((PACKAGE.name, *p.relative_to(PACKAGE).with_suffix("").parts)) for p in FILES}
    modules = {m.removesuffix(".__init__") for m in dotted} - {f"{PACKAGE.name}.__main__"}
    assert modules - loaded == set()
