"""Sizes and names of the package's parts stay within the limits that CONTRIBUTING.md asks for."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "llama_async_proxy"
FILE_LINES = 450
FUNCTION_LINES = 45
ARGUMENTS = 4
INTERNAL_IMPORTS = 10
# Written by a generator; the names are the interface's.
GENERATED = {"client/api.py"}
ROOT = {"app.py"}

# Exceptions that stay, each with its reason.
MORE_ARGUMENTS = {
    "api/rest/search.py:search": "FastAPI: one argument for each parameter of the query",
    "api/rest/answers.py:edit_message": "FastAPI: path, body and dependencies are arguments",
    "api/rest/answers.py:regenerate_answer": "FastAPI: path, body and dependencies are arguments",
    "api/rest/model_memory.py:get_model_memory": "FastAPI: one argument for each parameter of the query",
    "api/http/protocol.py:__init__": "the signature is uvicorn's",
    "chats/answers.py:__init__": "the composition root hands in each dependency by name",
    "engines/http_client.py:send_request": "an HTTP request has five parts",
    "engines/local_router.py:__init__": "the composition root hands in each dependency by name",
    "api/socketio/server.py:_handle_event_internal": "the signature is python-socketio's",
}
MORE_IMPORTS = {"store/store.py": "opens and closes every table"}
# Places that are not brought within the limits yet. The lists only become shorter.
REPEATED_NAMES = {
    "Answer",
    "Conflict",
    "Failure",
    "Level",
    "NotFound",
    "Samples",
    "Unavailable",
    "Usage",
    "Validation",
}
UNFINISHED_ARGUMENTS = {
    "gguf/memory.py:_gpus",
    "inference/proxy.py:__init__",
    "monitor/logs.py:__init__",
    "monitor/sampler.py:__init__",
    "operations/active_preset.py:__init__",
    "operations/presets.py:_require_permitted",
    "operations/scan.py:scan_directories",
}
UNFINISHED_IMPORTS = {
    "api/inference/app.py",
    "cli.py",
    "inference/completion.py",
    "inference/fast_path.py",
    "inference/proxy.py",
    "operations/active_preset.py",
    "operations/chats.py",
    "operations/context.py",
    "operations/estimate.py",
    "operations/launch.py",
    "operations/memory.py",
    "operations/models.py",
    "operations/option_policy.py",
    "operations/options.py",
    "operations/presets.py",
}


def files() -> dict[str, ast.Module]:
    """Syntax tree of each module, by its path inside the package."""
    paths = (p for p in sorted(PACKAGE.rglob("*.py")) if "migrations/versions" not in p.as_posix())
    return {p.relative_to(PACKAGE).as_posix(): ast.parse(p.read_text()) for p in paths}


FILES = files()


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name, tree in FILES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, node


def internal_modules(tree: ast.AST) -> set[str]:
    """Modules of the package that are imported anywhere in the tree."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE.name}."):
            found.add(node.module or "")
    return found


def arguments_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    declared = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [a.arg for a in declared if a.arg not in {"self", "cls"}]


def test_a_class_name_has_one_meaning() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path, tree in FILES.items():
        if path not in GENERATED:
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    homes[node.name].append(path)
    assert {n: h for n, h in homes.items() if len(h) > 1 and n not in REPEATED_NAMES} == {}


def test_nine_of_ten_files_are_short() -> None:
    lengths = sorted((PACKAGE / path).read_text().count("\n") for path in FILES if path not in GENERATED)
    assert lengths[len(lengths) * 9 // 10] <= FILE_LINES


def test_functions_are_short() -> None:
    lengths = {
        f"{path}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path, node in functions()
        if path not in ROOT
    }
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}


def test_functions_take_few_arguments() -> None:
    many = {f"{p}:{n.name}": arguments_of(n) for p, n in functions() if len(arguments_of(n)) > ARGUMENTS}
    allowed = MORE_ARGUMENTS.keys() | UNFINISHED_ARGUMENTS
    assert {
        name: found for name, found in many.items() if name not in allowed and name.split(":")[0] not in GENERATED
    } == {}


def test_modules_import_few_others() -> None:
    allowed = MORE_IMPORTS.keys() | UNFINISHED_IMPORTS
    counts = {path: len(internal_modules(tree)) for path, tree in FILES.items() if path not in ROOT}
    assert {p: n for p, n in counts.items() if n > INTERNAL_IMPORTS and p not in allowed} == {}


def test_only_the_command_line_imports_late() -> None:
    late = {f"{path}:{node.name}" for path, node in functions() if internal_modules(node)}
    assert {name for name in late if not name.startswith("cli")} == set()
