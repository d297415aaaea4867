"""Parser of llama-server command lines into options. Pure.

llama-server takes no positional arguments (llama.cpp b11434, common/arg.cpp), so an argument that follows a flag and is
none itself is its value. Flags of newer builds are therefore kept without a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType

from msgspec import Struct

from llama_async_proxy.records.options import OptionValue

LONG_NAMES: Mapping[str, str] = MappingProxyType({
    "m": "model", "c": "ctx-size", "ngl": "n-gpu-layers", "gpu-layers": "n-gpu-layers", "t": "threads",
    "tb": "threads-batch", "b": "batch-size", "ub": "ubatch-size", "np": "parallel", "fa": "flash-attn",
    "ctk": "cache-type-k", "ctv": "cache-type-v", "mm": "mmproj", "mmu": "mmproj-url", "md": "model-draft",
    "mu": "model-url", "hf": "hf-repo", "hfr": "hf-repo", "hff": "hf-file", "hft": "hf-token", "dr": "docker-repo",
    "a": "alias", "mg": "main-gpu", "sm": "split-mode", "ts": "tensor-split", "ot": "override-tensor",
    "cmoe": "cpu-moe", "ncmoe": "n-cpu-moe", "cb": "cont-batching", "nocb": "no-cont-batching", "s": "seed",
    "n": "predict", "n-predict": "predict", "dev": "device", "temperature": "temp", "kvu": "kv-unified",
    "no-kvu": "no-kv-unified", "nkvo": "no-kv-offload", "cram": "cache-ram", "fit": "fit", "fitt": "fit-target",
    "fitc": "fit-ctx", "ngld": "n-gpu-layers-draft", "gpu-layers-draft": "n-gpu-layers-draft",
    "devd": "device-draft", "cd": "ctx-size-draft", "ctkd": "cache-type-k-draft", "ctvd": "cache-type-v-draft",
    "lv": "verbosity", "log-verbosity": "verbosity", "v": "verbose", "log-verbose": "verbose", "to": "timeout",
    "sps": "slot-prompt-similarity", "C": "cpu-mask", "Cr": "cpu-range", "typical-p": "typical",
    "embedding": "embeddings", "rerank": "reranking", "draft": "draft-max", "draft-n": "draft-max",
    "draft-n-min": "draft-min",
})  # fmt: skip
"""Long names of short and older spellings."""
PATHS = frozenset({
    "model", "mmproj", "model-draft", "lora", "chat-template-file", "grammar-file", "json-schema-file",
    "slot-save-path", "control-vector", "media-path",
})  # fmt: skip
_JOINED = frozenset({"override-tensor", "lora", "device", "control-vector"})
"""Options that may be repeated. Their values are joined by commas."""
_IGNORED = frozenset({"host", "port", "reuse-port", "metrics", "no-webui", "webui", "log-colors", "log-disable"})
"""Options that the service sets itself. They are left out without a message."""
_SECRET_OR_ROUTER = frozenset({
    "api-key", "api-key-file", "api-prefix", "ssl-key-file", "ssl-cert-file", "model-url", "mmproj-url", "hf-repo",
    "hf-file", "hf-token", "docker-repo", "models-dir", "models-preset", "models-max", "models-autoload",
    "no-models-autoload",
})  # fmt: skip
_PROGRAM = re.compile(r"llama-server\b.*", re.IGNORECASE)
_FLAG = re.compile(r"-{1,2}[A-Za-z]")
_WHOLE = re.compile(r"-?\d{1,18}")
_DECIMAL = re.compile(r"-?\d*\.\d+(?:[eE]-?\d+)?")


class ServerCommand(Struct, frozen=True):
    """Result of parsing a command line."""

    model: str | None
    """Path as written; None when the command has none."""
    aliases: tuple[str, ...]
    options: Mapping[str, OptionValue]
    problems: tuple[str, ...]


def is_llama_server(program: str) -> bool:
    return _PROGRAM.fullmatch(PurePath(program.replace("\\", "/")).name) is not None


def parse(arguments: Sequence[str]) -> ServerCommand:
    """Parse the arguments of llama-server, without the program's name."""
    options: dict[str, OptionValue] = {}
    aliases: list[str] = []
    problems: list[str] = []
    model: str | None = None
    for flag, value in _flags(arguments, problems):
        key = LONG_NAMES.get(flag.lstrip("-"), flag.lstrip("-"))
        if key == "model":
            model = str(value)
        elif key == "alias":
            aliases += [alias.strip() for alias in str(value).split(",")]
        elif key in _SECRET_OR_ROUTER:
            problems.append(f"{flag} is not taken over: {_reason(key)}")
        elif not flag.startswith("--") and flag[1:] not in LONG_NAMES:
            problems.append(f"{flag} is not taken over: its long name is not known; write that instead")
        elif key in options and key in _JOINED:
            options[key] = f"{options[key]},{value}"
        elif key not in _IGNORED:
            options[key] = "on" if (key, value) == ("flash-attn", True) else value
    return ServerCommand(model, tuple(filter(None, aliases)), options, tuple(problems))


def _reason(key: str) -> str:
    if key.startswith(("api-", "ssl-")):
        return "only the service talks to the engine, on this machine"
    return "models are files of this machine; download it first"


def _flags(arguments: Sequence[str], problems: list[str]) -> Iterator[tuple[str, OptionValue]]:
    rest = list(reversed(arguments))
    while rest:
        flag = rest.pop()
        if not _FLAG.match(flag):
            problems.append(f"{flag!r} is not taken over: it belongs to no flag")
        elif rest and not _FLAG.match(rest[-1]):
            yield flag, _value(rest.pop())
        else:
            yield flag, True


def _value(text: str) -> OptionValue:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text
