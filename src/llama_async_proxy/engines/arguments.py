"""Command line arguments of a model's process. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec

RESERVED = frozenset(
    {
        # The service decides how it reaches the child and tells it apart.
        *("host", "port", "reuse-port", "model", "alias", "mmproj-url"),
        *("api-key", "api-key-file", "api-prefix", "ssl-key-file", "ssl-cert-file"),
        # These would load another model than the registered one, or start a router.
        *("model-url", "hf-repo", "hf-file", "hf-token", "docker-repo"),
        *("models-dir", "models-preset", "models-max", "models-autoload", "no-models-autoload"),
        # The service reads the log, in the format that it asks for.
        *("log-jsonl", "log-disable", "log-colors"),
        # A command is another program; it is taken from the options of the registered model only.
        *("command", "command-health", "command-stop", "command-environment", "command-directory"),
        # The program would print something and exit.
        *("help", "usage", "version", "list-devices", "cache-list", "completion-bash"),
    }
)
"""Options that only the engine sets; callers may not pass them."""

SYNONYMS = MappingProxyType({"embedding": "embeddings", "rerank": "reranking"})
KIND_OPTIONS: Mapping[ModelKind, Mapping[str, OptionValue]] = MappingProxyType(
    {ModelKind.CHAT: {}, ModelKind.EMBEDDING: {"embeddings": True}, ModelKind.RERANK: {"reranking": True}}
)
NO_NEGATIVE_FORM = frozenset({"metrics", "embeddings", "reranking"})
"""Switches without a `--no-` form (llama.cpp b11434, common/arg.cpp): False leaves them out."""

_KEY = re.compile(r"[a-z0-9][a-z0-9-]*")
_FLAG_LIKE = re.compile(r"--?[A-Za-z]")


def check_options(options: Mapping[str, OptionValue]) -> None:
    """Raise InvalidInput naming the first option that cannot be passed to a model's process."""
    for key, value in options.items():
        field = f"options.{key}"
        if not _KEY.fullmatch(key):
            raise InvalidInput(field, "must be a long option name without dashes, such as ctx-size")
        if key in RESERVED:
            raise InvalidInput(field, "is set by the engine and cannot be chosen")
        if not isinstance(value, str | int | float):
            raise InvalidInput(field, f"must be text, a number, true or false, not {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(field, f"must be a finite number, not {value}")
        if isinstance(value, str) and "\0" in value:
            raise InvalidInput(field, "must not contain a NUL character")
        if isinstance(value, str) and _FLAG_LIKE.match(value):
            # After a switch, which takes no value, llama-server would read it as another option.
            raise InvalidInput(field, f"must not begin like an option: {value!r}")


def command_line(spec: LaunchSpec, endpoint: Endpoint) -> list[str]:
    """Arguments of llama-server for `spec`, listening on `endpoint`. Raises InvalidInput for an invalid option."""
    check_options(spec.options)
    chosen = {SYNONYMS.get(key, key): value for key, value in spec.options.items()}
    companion: dict[str, OptionValue] = {"mmproj": spec.mmproj_path} if spec.mmproj_path else {}
    merged = {"metrics": True, **KIND_OPTIONS[spec.kind], **companion, **chosen}
    name = spec.served_name or spec.alias
    own = ["--host", endpoint.host, "--port", str(endpoint.port), "--model", spec.path, "--alias", name]
    return own + [item for key, value in merged.items() for item in _flag(key, value)]


def _flag(key: str, value: OptionValue) -> Iterator[str]:
    if value is False:
        if key not in NO_NEGATIVE_FORM:
            yield f"--{key.removeprefix('no-')}" if key.startswith("no-") else f"--no-{key}"
        return
    yield f"--{key}"
    if value is not True:
        yield f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
