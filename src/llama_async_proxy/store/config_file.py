"""The JSON configuration file: read as a whole, changed key by key, always either the old or the new one on disk."""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_async_proxy.errors import InvalidInput, PermissionDenied, ServiceError, StoreUnavailable


def read(path: Path) -> dict[str, Any]:
    """The file's object; {} when there is no file.

    Raises InvalidInput with line and column when it is not a JSON object, PermissionDenied or StoreUnavailable when
    it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise _failure("read", path, exc) from exc
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
        # A link stays a link: what it points to is replaced.
        _replace(path.resolve(), content)
    except OSError as exc:
        raise _failure("write", path, exc) from exc


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


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made readable by its owner alone, which is also right for a new file.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            Path(temporary).chmod(stat.S_IMODE(path.stat().st_mode))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make a rename in it last over a power cut. Windows cannot open directories and does it by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(verb: str, path: Path, exc: OSError) -> ServiceError:
    problem = f"Cannot {verb} the configuration file {path}: {exc.strerror or exc}."
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreUnavailable(f"{problem} Free some space on that disk and try again.")
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(f"{problem} Make it and its directory writable, or choose another --data-dir.")
    return StoreUnavailable(f"{problem} Check the path, or choose another --data-dir.")
