"""Models: list, register, change, forget, scan, load, unload."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from llama_async_proxy.engines.custom_command import COMMAND_OPTIONS, has_command
from llama_async_proxy.errors import Conflict, InvalidInput, NotFound
from llama_async_proxy.events import ModelCreated, ModelDeleted, ModelUpdated
from llama_async_proxy.gguf.reader import GgufError
from llama_async_proxy.inference.requests.variants import RESERVED_PARAMETERS
from llama_async_proxy.operations import network_changes
from llama_async_proxy.operations.commands import check_change, check_options, command_file
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.model_scanner import ScanReport
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.operations.scan import read_model_file, scan_directories
from llama_async_proxy.records.models import BrokenFile, Model, ModelDraft, ModelFile, ModelOrigin, Variant
from llama_async_proxy.records.options import OptionValue, no_options
from llama_async_proxy.records.runtime import ModelRuntime

ModelRef: TypeAlias = int | str
"""A model's id, or anything a request may call it: slug, name, alias, file name."""


class ModelView(Struct, frozen=True):
    """A model and how it is doing now."""

    model: Model
    runtime: ModelRuntime
    served_name: str
    """The name that llama-server's router would give the model."""


class ListModels(Struct, frozen=True):
    pass


class ModelList(Struct, frozen=True):
    models: tuple[ModelView, ...]
    is_complete: bool = True
    """False until the first scan has ended."""


class GetModel(Struct, frozen=True):
    id: ModelRef


class NewModel(Struct, frozen=True):
    path: str | None
    """None for a model that only a command of its own serves; it needs a name then."""
    name: str | None = None
    description: str | None = None
    version: str | None = None
    family: str | None = None
    quantization: str | None = None
    context_size: int | None = None
    options: Mapping[str, OptionValue] = field(default_factory=no_options)


class CreateModels(Struct, frozen=True):
    """All of them or none."""

    models: tuple[NewModel, ...]


class UpdateModel(Struct, frozen=True):
    """Fields left at None keep their value."""

    id: ModelRef
    name: str | None = None
    description: str | None = None
    context_size: int | None = None
    quantization: str | None = None
    family: str | None = None
    options: Mapping[str, OptionValue] | None = None
    aliases: tuple[str, ...] | None = None
    variants: tuple[Variant, ...] | None = None
    is_favorite: bool | None = None
    is_pinned: bool | None = None


class DeleteModel(Struct, frozen=True):
    id: ModelRef


class DeletedModel(Struct, frozen=True):
    id: int
    slug: str
    name: str


class LoadModel(Struct, frozen=True):
    id: ModelRef
    options: Mapping[str, OptionValue] = field(default_factory=no_options)
    """Engine options of this load only; they outrank every other source."""
    force: bool = False
    """Load it although it needs more memory than the machine has."""


class UnloadModel(Struct, frozen=True):
    id: ModelRef


class ScanModels(Struct, frozen=True):
    pass


class DiscoverModels(Struct, frozen=True):
    """Look without registering. No paths: the models directory."""

    paths: tuple[str, ...] = ()
    recursive: bool = True
    include_patterns: tuple[str, ...] = ("*.gguf", "*.bin")
    exclude_patterns: tuple[str, ...] = ()


class Discovery(Struct, frozen=True):
    found: tuple[ModelFile, ...]
    scanned_paths: tuple[str, ...]
    failed: tuple[BrokenFile, ...]


class CleanUpModels(Struct, frozen=True):
    pass


class CleanUpReport(Struct, frozen=True):
    deleted: tuple[DeletedModel, ...]


def find(context: Context, ref: ModelRef) -> Model:
    """The model a caller means. Raises NotFound naming close matches."""
    if isinstance(ref, int):
        return context.store.models.get(ref)
    index = context.names.index
    model = index.resolve(ref)
    if model is None:
        raise NotFound("model", ref, similar=index.similar(ref))
    return model


def view(context: Context, model: Model) -> ModelView:
    runtime = _with_gpu_bytes(context, context.scheduler.runtime(model.id))
    return _view(context, context.store.models.with_last_use(model), runtime)


def _view(context: Context, model: Model, runtime: ModelRuntime) -> ModelView:
    return ModelView(model, runtime, context.planner.served_name(model))


def _with_gpu_bytes(context: Context, runtime: ModelRuntime) -> ModelRuntime:
    """The engine knows the process, the sampler what the driver says of it."""
    used = None if runtime.pid is None else context.sampler.gpu_bytes(runtime.pid)
    return runtime if used is None else replace(runtime, gpu_bytes=used)


@operation("models.list", Effect.READ)
async def list_models(context: Context, _: ListModels) -> ModelList:
    return ModelList(tuple(view(context, model) for model in context.store.models.all()), context.scanner.has_scanned)


@operation("models.get", Effect.READ)
async def get_model(context: Context, request: GetModel) -> ModelView:
    return view(context, find(context, request.id))


@operation("models.create", Effect.MANAGE)
async def create_models(context: Context, request: CreateModels) -> ModelList:
    if not request.models:
        raise InvalidInput("models", "must not be empty")
    settings = context.configuration.settings
    for i, new in enumerate(request.models):
        if new.path is None and not has_command(new.options):
            raise InvalidInput(f"models[{i}].path", "is required, unless options.command says how to serve the model")
        check_options(settings, new.options, has_file=new.path is not None)
        beside = [other.path for other in request.models if other.path is not None]
        await network_changes.check_options(context, _without_command(new.options), beside=beside)
    drafts = [await asyncio.to_thread(_draft, new, f"models[{i}]") for i, new in enumerate(request.models)]
    created = await context.store.models.add_many(drafts)
    for model in created:
        context.bus.publish(ModelCreated(model))
    return ModelList(tuple(view(context, model) for model in created))


def _without_command(options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """Options of the engine: the model's command has a permission of its own."""
    return {key: value for key, value in options.items() if key not in COMMAND_OPTIONS}


def _draft(new: NewModel, field_name: str) -> ModelDraft:
    return ModelDraft(
        file=_file(new, field_name),
        origin=ModelOrigin.REGISTERED,
        name=new.name,
        description=new.description,
        version=new.version,
        family=new.family,
        quantization=new.quantization,
        context_size=new.context_size,
        options=new.options,
    )


def _file(new: NewModel, field_name: str) -> ModelFile:
    if new.path is None:
        if not (new.name or "").strip():
            raise InvalidInput(f"{field_name}.name", "is required: the model has no file to be named after")
        return command_file(str(new.name).strip())
    path = Path(new.path)
    where = f"{field_name}.path"
    if not path.is_absolute():
        raise InvalidInput(where, f"must be an absolute path, not {new.path!r}")
    try:
        return read_model_file(path)
    except GgufError as exc:
        raise InvalidInput(where, f"{path} is not a usable GGUF file: {exc}") from exc
    except (OSError, ValueError) as exc:
        raise InvalidInput(where, f"cannot read {path}: {exc}") from exc


@operation("models.update", Effect.MANAGE)
async def update_model(context: Context, request: UpdateModel) -> ModelView:
    model = find(context, request.id)
    given = asdict(request)
    changes = {name: value for name, value in given.items() if name != "id" and value is not None}
    if not changes:
        return view(context, model)
    _check_variants(request.variants or ())
    if request.options is not None:
        check_change(context.configuration.settings, model, request.options)
        await network_changes.check_options(context, _without_command(request.options), beside=(model.path,))
    model = await context.store.models.update(model.id, **changes)
    context.bus.publish(ModelUpdated(model))
    return view(context, model)


def _check_variants(variants: Sequence[Variant]) -> None:
    for i, variant in enumerate(variants):
        for name in variant.parameters:
            field_name = f"variants[{i}].parameters.{name}"
            if name in RESERVED_PARAMETERS:
                raise InvalidInput(field_name, "belongs to each request and can have no default")
            try:
                json.dumps(variant.parameters[name], allow_nan=False)
            except (TypeError, ValueError) as exc:
                raise InvalidInput(field_name, f"must be JSON: {exc}") from exc


@operation("models.delete", Effect.MANAGE)
async def delete_model(context: Context, request: DeleteModel) -> DeletedModel:
    """Forgets the row, never the file. Raises Conflict while the model is in use."""
    model = find(context, request.id)
    if context.scheduler.runtime(model.id).status.in_use:
        raise Conflict(f"Model {model.name!r} is in use; unload it first.")
    await context.store.models.delete(model.id)
    context.bus.publish(ModelDeleted(model))
    return DeletedModel(model.id, model.slug, model.name)


@operation("models.load", Effect.MANAGE)
async def load_model(context: Context, request: LoadModel) -> ModelView:
    """Answers when the model is ready. Idempotent; callers of one model share one load."""
    model = find(context, request.id)
    await network_changes.check_options(context, request.options)
    runtime = await context.scheduler.load(model, request.options, force=request.force)
    context.store.models.touch(model.id, context.now_ms())
    model = context.store.models.with_last_use(context.store.models.get(model.id))
    return _view(context, model, _with_gpu_bytes(context, runtime))


@operation("models.unload", Effect.MANAGE)
async def unload_model(context: Context, request: UnloadModel) -> ModelView:
    """Raises Conflict when there is nothing to unload."""
    model = find(context, request.id)
    if not context.scheduler.runtime(model.id).status.in_use:
        raise Conflict(f"Model {model.name!r} is not loaded.")
    return _view(context, model, await context.scheduler.unload(model))


@operation("models.scan", Effect.MANAGE)
async def scan_models(context: Context, _: ScanModels) -> ScanReport:
    """Registers new files of the models directory, refreshes changed ones, marks those that are gone."""
    return await context.scanner.scan()


@operation("models.discover", Effect.MANAGE)
async def discover_models(context: Context, request: DiscoverModels) -> Discovery:
    paths = request.paths or (str(context.configuration.settings.models_dir),)
    roots = tuple(Path(path) for path in paths)
    for i, root in enumerate(roots):
        if not root.is_absolute() or not await asyncio.to_thread(root.is_dir):
            raise InvalidInput(f"paths[{i}]", f"{root} is not an existing directory given as an absolute path")
    result = await asyncio.to_thread(
        scan_directories,
        roots,
        recursive=request.recursive,
        include=request.include_patterns,
        exclude=request.exclude_patterns,
    )
    return Discovery(result.found, paths, result.broken)


@operation("models.cleanup", Effect.MANAGE)
async def clean_up_models(context: Context, _: CleanUpModels) -> CleanUpReport:
    """Forgets models whose file is gone, but for those in use."""
    models = context.store.models.all()
    exists = await asyncio.to_thread(lambda: {m.id: not m.has_file or Path(m.path).exists() for m in models})
    gone = [m for m in models if not exists[m.id] and not context.scheduler.runtime(m.id).status.in_use]
    return CleanUpReport(tuple([await delete_model(context, DeleteModel(model.id)) for model in gone]))
