"""What lies in the models directory, registered or not, and the memory each would take."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.gguf.memory import LoadSettings, estimate
from llama_async_proxy.gguf.reader import GgufError, read_header
from llama_async_proxy.gguf.shape import model_shape
from llama_async_proxy.inference.scheduling.memory import memory_in_use
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.models import view
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.operations.scan import scan_directories
from llama_async_proxy.records.models import BrokenFile, Model, ModelFile
from llama_async_proxy.records.runtime import NO_MEMORY

_USUAL_CONTEXT = 4096
"""Tokens where no setting says how many: what a model was trained for is often more than fits anywhere."""


class ListModelsDirectory(Struct, frozen=True):
    pass


class DirectoryModel(Struct, frozen=True):
    name: str
    """Name of the file."""
    path: str
    size_bytes: int
    """All shards together."""
    vram_bytes: int | None
    """GPU memory of weights, cache and buffers with every layer there; None when the file cannot be read any more."""
    context_size: int | None
    """Tokens that `vram_bytes` holds for."""
    measured_bytes: int | None = None
    """What it takes of host and GPU now that it is loaded; None while it is not."""


class ModelsDirectory(Struct, frozen=True):
    directory: str
    models: tuple[DirectoryModel, ...]
    failed: tuple[BrokenFile, ...]


@operation("presets.models_directory", Effect.READ)
async def list_models_directory(context: Context, _: ListModelsDirectory) -> ModelsDirectory:
    """Registers nothing. A directory that does not exist holds nothing."""
    settings = context.configuration.settings
    context_tokens = settings.ctx_size if settings.is_set("ctx_size") and settings.ctx_size > 0 else _USUAL_CONTEXT
    known = {model.path: model for model in context.store.models.all()}
    found = await asyncio.to_thread(_look, settings.models_dir, known, context_tokens)
    measured = {known_model.path: _measured(context, known_model) for known_model in known.values()}
    return replace(found, models=tuple(replace(m, measured_bytes=measured.get(m.path)) for m in found.models))


def _measured(context: Context, model: Model) -> int | None:
    runtime = view(context, model).runtime
    if runtime.endpoint is None:
        return None
    use = memory_in_use(runtime, NO_MEMORY)
    return use.host_bytes + use.gpu_bytes or None


def _look(root: Path, known: Mapping[str, Model], context: int) -> ModelsDirectory:
    if not root.is_dir():
        return ModelsDirectory(str(root), (), ())
    result = scan_directories((root,), known=known)
    found: list[ModelFile | Model] = sorted((*result.found, *result.unchanged), key=lambda file: file.path)
    return ModelsDirectory(str(root), tuple(_entry(file, context) for file in found), result.broken)


def _entry(file: ModelFile | Model, context: int) -> DirectoryModel:
    memory = _memory(file, min(context, file.facts.context_length or context))
    return DirectoryModel(
        name=Path(file.path).name,
        path=file.path,
        size_bytes=file.size_bytes,
        vram_bytes=None if memory is None else memory[0],
        context_size=None if memory is None else memory[1],
    )


def _memory(file: ModelFile | Model, context: int) -> tuple[int, int] | None:
    """(bytes, tokens)."""
    try:
        shape = model_shape(*(read_header(Path(path)) for path in file.shards or (file.path,)))
        projector = Path(file.mmproj_path).stat().st_size if file.mmproj_path else 0
    except (GgufError, OSError):
        return None  # It vanished, or broke, since it was listed.
    settings = LoadSettings(context_size=context, gpu_layers=len(shape.layers) + 1, projector_bytes=projector)
    answer = estimate(shape, settings)
    return answer.gpu.total_bytes, answer.context_size
