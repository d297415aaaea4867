"""The engine's part of the configuration file, read and written where the service runs.

A running service reads the file at its start only; to change it at once use `api.update_config`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TypedDict, cast

import platformdirs

FILE_NAME = "llama-server-config.json"


class LlamaServerConfig(TypedDict):
    """-1 leaves a number to the engine; an empty `serverPath` leaves it to the service to find the program."""

    host: str
    port: int
    basePath: str
    serverPath: str
    ctx_size: int
    batch_size: int
    threads: int
    gpu_layers: int


class Validation(TypedDict):
    valid: bool
    errors: list[str]


_LIMITS: Mapping[str, tuple[int, int]] = {
    "port": (1, 65535),
    "ctx_size": (-1, 1 << 31),
    "batch_size": (-1, 1 << 31),
    "threads": (-1, 1 << 31),
    "gpu_layers": (-1, 1 << 31),
}
_PATHS = ("basePath", "serverPath")


def get_default_config() -> LlamaServerConfig:
    """What holds where nothing is configured."""
    return LlamaServerConfig(
        host="localhost",
        port=8134,
        basePath=str(_data_dir() / "models"),
        serverPath="",
        ctx_size=-1,
        batch_size=-1,
        threads=-1,
        gpu_layers=-1,
    )


def load_config(path: Path | None = None) -> LlamaServerConfig:
    """The file at `path`, by default the service's own, with defaults for what it leaves out.

    Raises ValueError for a file that is not a JSON object or has a wrong value; OSError.
    """
    known = get_default_config()
    given = _read(path or _data_dir() / FILE_NAME)
    config = {key: given.get(key, default) for key, default in known.items()}
    _check(config)
    return cast("LlamaServerConfig", config)


def save_config(config: LlamaServerConfig, path: Path | None = None) -> None:
    """Write the file, whole or not at all; what else it holds is kept. Raises ValueError, OSError."""
    _check(config)
    path = path or _data_dir() / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**_read(path), **config}, indent=2) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def validate_config(config: Mapping[str, object]) -> Validation:
    """Whether all or part of a configuration could be saved, and each reason why not."""
    errors = [problem for key, value in config.items() if (problem := _problem(key, value))]
    return Validation(valid=not errors, errors=errors)


def _check(config: Mapping[str, object]) -> None:
    if errors := validate_config(config)["errors"]:
        raise ValueError("; ".join(errors))


def _problem(key: str, value: object) -> str | None:
    if key in _LIMITS:
        least, most = _LIMITS[key]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            return f"{key}: must be a whole number from {least} to {most}, not {value!r}"
    elif not isinstance(value, str):
        return f"{key}: must be a text, not {value!r}"
    elif key in _PATHS and value and not PurePath(value).is_absolute():
        return f"{key}: must be an absolute path, not {value!r}"
    return None


def _read(path: Path) -> dict[str, object]:
    try:
        tree = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    if not isinstance(tree, dict):
        raise ValueError(f"{path} does not hold a JSON object")  # noqa: TRY004 - the file's content, not an argument
    return tree


def _data_dir() -> Path:
    return Path(platformdirs.user_data_dir("llama-async-proxy", appauthor=False))
