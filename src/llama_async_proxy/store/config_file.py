"""The JSON configuration file: read as a whole, changed key by key, replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.store.atomic import file_failure, replace_file


def read(path: Path) -> dict[str, Any]:
    """Object in the file; {} without a file.

    Raises InvalidInput with line and column when it is not a JSON object, PermissionDenied or StoreUnavailable when
    it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise file_failure("read", f"the configuration file {path}", exc) from exc
    try:
        tree = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse)
    except json.JSONDecodeError as exc:
        raise InvalidInput(
            str(path), f"line {exc.lineno}, column {exc.colno}: {exc.msg}. Correct it, or move the file away."
        ) from exc
    except UnicodeDecodeError as exc:
        raise InvalidInput(str(path), f"byte {exc.start} is not UTF-8. Save the file as UTF-8.") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInput(str(path), f"is not usable JSON: {exc}. Correct it, or move the file away.") from exc
    if not isinstance(tree, dict):
        raise InvalidInput(str(path), "must hold a JSON object: { ... }. Correct it, or move the file away.")
    return tree


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def merge_write(path: Path, changes: Mapping[str, Any]) -> None:
    """Set `changes`, values by dotted key, and keep everything else: other keys, their order, the file's mode.

    Raises InvalidInput when the present file is broken or a key leads through something that is no object,
    PermissionDenied or StoreUnavailable when it cannot be written. Then the file is as it was.
    """
    tree = read(path)
    for key, value in changes.items():
        _set(tree, key, value, path)
    try:
        content = json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except ValueError as exc:
        raise InvalidInput(", ".join(changes), f"cannot be written as JSON: {exc}") from exc
    try:
        # A symbolic link stays, and the file that it points to is replaced.
        replace_file(path.resolve(), content)
    except OSError as exc:
        raise file_failure("write", f"the configuration file {path}", exc) from exc


def _set(tree: dict[str, Any], dotted: str, value: Any, path: Path) -> None:
    *parents, last = dotted.split(".")
    node = tree
    for i, part in enumerate(parents):
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            group = ".".join(parents[: i + 1])
            raise InvalidInput(dotted, f"cannot be saved, because {group!r} in {path} is not an object. Remove it.")
        node = child
    node[last] = value
