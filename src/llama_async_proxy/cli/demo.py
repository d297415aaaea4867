"""`demo` writes a small model to try things with."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from llama_async_proxy.cli.arguments import add_settings, named, settings_of
from llama_async_proxy.errors import InvalidInput, ServiceError
from llama_async_proxy.gguf.demo import write_demo_model

_DEMO_NAME = "demo.gguf"


def add_demo(commands: Any) -> None:
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
    add_settings(demo, named("data_dir", "models_dir"))
    demo.set_defaults(command=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    path: Path = arguments.path or settings_of(arguments).models_dir / _DEMO_NAME
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
