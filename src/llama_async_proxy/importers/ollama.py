"""Importer of Ollama's local store.

    manifests/registry.ollama.ai/library/llama3.2/latest    JSON: a digest for each layer
    blobs/sha256-...                                         the layers: GGUF files, parameters, prompts

The layout is that of github.com/ollama/ollama, manifest/ and types/model/name.go. Several names may share one GGUF
file; names that differ in sampling or system prompt become variants. Ollama's templates are in a language of their own
and are not used; the chat template of the GGUF file applies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import cast

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.importers.plan import ImportPlan, PlannedModel, as_parameters, merged
from llama_async_proxy.records.models import Variant
from llama_async_proxy.records.options import OptionValue

MAX_TEXT_BYTES = 1 << 20
"""Largest manifest, parameters or prompt in bytes."""
_MANIFESTS = ("manifests", "manifests-v2")
_DEFAULT_HOSTS = frozenset({"registry.ollama.ai", "ollama.com"})
_DEFAULT_NAMESPACE, _DEFAULT_TAG = "library", "latest"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LAYER = "application/vnd.ollama.image."
_OPTIONS: Mapping[str, str] = MappingProxyType({
    "num_ctx": "ctx-size", "num_batch": "batch-size", "num_gpu": "n-gpu-layers", "main_gpu": "main-gpu",
    "num_thread": "threads", "num_keep": "keep", "temperature": "temp", "top_k": "top-k", "top_p": "top-p",
    "min_p": "min-p", "typical_p": "typical", "repeat_last_n": "repeat-last-n", "repeat_penalty": "repeat-penalty",
    "presence_penalty": "presence-penalty", "frequency_penalty": "frequency-penalty", "mirostat": "mirostat",
    "mirostat_tau": "mirostat-ent", "mirostat_eta": "mirostat-lr", "seed": "seed", "num_predict": "predict",
})  # fmt: skip
"""Ollama's parameters as llama-server's options."""
_LOADING = frozenset({"ctx-size", "batch-size", "n-gpu-layers", "main-gpu", "threads", "keep", "mmproj", "lora"})
_IGNORED_PARAMETERS = frozenset(
    {"stop", "penalize_newline", "numa", "low_vram", "f16_kv", "use_mmap", "use_mlock", "vocab_only"}
)
"""Parameters without a counterpart: the chat template defines stops; the others are obsolete or up to the engine."""


def default_directory(home: Path, environment: Mapping[str, str]) -> Path:
    """Ollama's store: OLLAMA_MODELS, else the user's, else that of the Linux service."""
    if given := environment.get("OLLAMA_MODELS"):
        return Path(given)
    own, service = home / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")
    return service if not own.is_dir() and service.is_dir() else own


def read(directory: Path) -> ImportPlan:
    """Plan for a store, the directory with `manifests` and `blobs`. Raises InvalidInput when it is none."""
    root = directory / "models" if (directory / "models" / "manifests").is_dir() else directory
    if not (root / "blobs").is_dir() or not any((root / name).is_dir() for name in _MANIFESTS):
        raise InvalidInput("DIR", f"{directory} holds no manifests and blobs as Ollama keeps them; set OLLAMA_MODELS")
    models: list[PlannedModel] = []
    problems: list[str] = []
    for name, manifest in _manifests(root):
        try:
            models.append(_Layers.of(root, manifest).model(name, problems))
        except (ValueError, OSError) as exc:
            problems.append(f"{name}: not taken over: {exc}")
    return merged(_plain_first(models), problems)


def display_name(parts: tuple[str, ...]) -> str:
    """Name of a manifest as `ollama list` shows it. `parts` of its path: host, namespace ..., model, tag."""
    host, *namespace, model, tag = parts
    before = [] if host in _DEFAULT_HOSTS else [host]
    before += [] if namespace == [_DEFAULT_NAMESPACE] else namespace
    return "/".join([*before, model]) + f":{tag}"


def _manifests(root: Path) -> Iterator[tuple[str, Path]]:
    found: dict[str, Path] = {}
    for directory in _MANIFESTS:
        for path in sorted((root / directory).rglob("*")):
            parts = path.relative_to(root / directory).parts
            if len(parts) >= 3 and path.is_file() and not path.name.startswith("."):
                found.setdefault(display_name(parts), path)
    yield from found.items()


def _plain_first(models: list[PlannedModel]) -> list[PlannedModel]:
    """Sort names without own sampling first, because they name the file and others become their variants."""
    return sorted(models, key=lambda model: (bool(model.variants), len(model.options)))


class _Layers(Struct, frozen=True):
    """Layers of one manifest."""

    model_path: Path
    options: Mapping[str, OptionValue]
    parameters: Mapping[str, object]
    system: str | None
    has_messages: bool

    @classmethod
    def of(cls, root: Path, manifest: Path) -> _Layers:
        """Layers of a manifest. Raises ValueError with the problem, OSError when a file cannot be read."""
        layers = _document(manifest).get("layers")
        blobs: dict[str, Path] = {}
        for layer in layers if isinstance(layers, list) else []:
            kind, blob = _blob(root, layer)
            blobs.setdefault(kind, blob)
        if "model" not in blobs:
            kinds = ", ".join(sorted(blobs)) or "nothing"
            raise ValueError(f"it has no GGUF file, but {kinds}; only GGUF can be loaded")
        companions = {"projector": "mmproj", "adapter": "lora"}
        return cls(
            model_path=blobs["model"],
            options={option: str(blobs[kind]) for kind, option in companions.items() if kind in blobs},
            parameters=_document(blobs["params"]) if "params" in blobs else {},
            system=_read(blobs["system"]).decode("utf-8", "replace").strip() or None if "system" in blobs else None,
            has_messages="messages" in blobs,
        )

    def model(self, name: str, problems: list[str]) -> PlannedModel:
        """Model `name`; with a system prompt, the model that has `name` as a variant."""
        options = dict(self.options)
        for key, value in self.parameters.items():
            if key in _OPTIONS and isinstance(value, int | float):
                options[_OPTIONS[key]] = value
            elif key not in _IGNORED_PARAMETERS:
                problems.append(f"{name}: its parameter {key} is not taken over: the engine has none like it")
        if self.has_messages:
            problems.append(f"{name}: its messages are not taken over: a conversation begins with its system prompt")
        if options.get("n-gpu-layers", 0) == -1:
            del options["n-gpu-layers"]
        base = name.removesuffix(f":{_DEFAULT_TAG}")
        names = dict.fromkeys((base, name))
        if self.system is None:
            return PlannedModel(str(self.model_path), base, options=options, aliases=tuple(names)[1:])
        sampling = as_parameters({key: value for key, value in options.items() if key not in _LOADING})
        return PlannedModel(
            str(self.model_path),
            f"{base} (without prompt)",
            options={key: value for key, value in options.items() if key in _LOADING},
            variants=tuple(Variant(each, sampling, self.system) for each in names),
            has_given_name=False,
        )


def _blob(root: Path, layer: object) -> tuple[str, Path]:
    """Kind and path of one layer. Raises ValueError."""
    entry = cast("dict[str, object]", layer) if isinstance(layer, dict) else {}
    digest = _DIGEST.fullmatch(str(entry.get("digest")))
    media_type = str(entry.get("mediaType"))
    if digest is None or not media_type.startswith(_LAYER):
        raise ValueError("its manifest has a layer without digest or type")
    path = root / "blobs" / f"sha256-{digest[1]}"
    if not path.is_file():
        raise ValueError(f"its file {path.name} is missing; pull it again with Ollama")
    return media_type.removeprefix(_LAYER).partition(";")[0], path


def _document(path: Path) -> dict[str, object]:
    try:
        document = json.loads(_read(path))
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"{path.name} is not JSON: {exc}") from exc
    return document if isinstance(document, dict) else {}


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_TEXT_BYTES >> 20} MiB")
    return content
