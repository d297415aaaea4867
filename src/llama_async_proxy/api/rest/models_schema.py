"""What travels on the routes of models. Sizes of memory are MiB, of files bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, Literal, cast

from pydantic import Field, JsonValue

from llama_async_proxy.api.rest.schema import CamelWire, Envelope, Option, Text, Wire
from llama_async_proxy.api.units import iso_time, mib
from llama_async_proxy.gguf.memory import Footprint
from llama_async_proxy.operations.engine import EngineView
from llama_async_proxy.operations.estimate import Fit, MemoryReport
from llama_async_proxy.operations.model_scanner import ScanReport
from llama_async_proxy.operations.models import (
    CleanUpReport,
    DeletedModel,
    Discovery,
    ModelList,
    ModelView,
)
from llama_async_proxy.records.models import BrokenFile, Model, ModelFile, ModelKind, ModelOrigin, Variant
from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus

ContextSize = Annotated[int, Field(ge=0, le=1 << 31, description="Tokens.")]

Status = Literal["running", "loading", "stopped", "error", "discovered", "registered"]

_STATUS: dict[ModelStatus, Status] = {
    ModelStatus.UNLOADED: "stopped",
    ModelStatus.QUEUED: "loading",
    ModelStatus.LOADING: "loading",
    ModelStatus.READY: "running",
    ModelStatus.SLEEPING: "running",
    ModelStatus.STOPPING: "running",
    ModelStatus.FAILED: "error",
}


class FoundModel(CamelWire):
    """A model file; registered or not."""

    name: str
    description: str | None = None
    version: str | None = None
    path: str
    size: int = Field(description="Bytes, all shards together.")
    family: str = Field(description="Architecture.")
    context_size: int | None = Field(None, description="Tokens.")
    format: Literal["gguf"] = "gguf"
    quantization: str | None = None


class ModelVariant(CamelWire):
    name: Text
    parameters: Annotated[dict[str, JsonValue], Field(max_length=100)] = Field(
        default={}, description="Keys of a request's body, for requests that do not have them."
    )
    system_prompt: Annotated[str, Field(max_length=100_000)] | None = Field(
        None, description="For conversations that have none."
    )


class RegisteredModel(FoundModel):
    id: str
    status: Status
    loaded_at: str | None = None
    last_used: str | None = None
    memory_usage: float | None = Field(None, description="MiB, measured.")
    error: str | None = Field(None, description="Why the last load failed.")
    missing: bool = Field(description="The last scan did not find its file; the model comes back with it.")
    is_favorite: bool
    is_pinned: bool
    aliases: list[str]
    variants: list[ModelVariant] = Field(description="Further names with defaults of their own, on the same process.")
    options: dict[str, Option] = Field(description="Engine options of this model, by long flag name.")


class Models(Wire):
    count: int
    models: list[RegisteredModel]
    scanning: bool = Field(description="The first scan since the start has not ended: models may be missing here.")


class ModelsAnswer(Envelope[Models]):
    """The same list twice: whole in `data`, and as file names beside it."""

    models: list[str]
    count: int
    llamacpp_url: str


class NewModelBody(CamelWire):
    path: Text | None = Field(
        None,
        description="Absolute path of a GGUF file; for a split model, of its first shard. Not needed with a command.",
    )
    name: Text | None = None
    description: Text | None = None
    version: Text | None = None
    family: Text | None = None
    quantization: Text | None = None
    context_size: ContextSize | None = None
    options: dict[str, Option] = Field(default={}, description="Engine options, or the command that serves the model.")


class NewModelsBody(Wire):
    models: list[NewModelBody] = Field(min_length=1, max_length=1000)


class Registered(Wire):
    registered: int
    models: list[RegisteredModel]


class ModelChangesBody(CamelWire):
    """What is absent or null keeps its value."""

    name: Text | None = None
    description: Text | None = None
    family: Text | None = None
    quantization: Text | None = None
    context_size: ContextSize | None = None
    options: dict[str, Option] | None = None
    aliases: Annotated[list[Text], Field(max_length=100)] | None = None
    variants: Annotated[list[ModelVariant], Field(max_length=100)] | None = None
    is_favorite: bool | None = None
    is_pinned: bool | None = None


class LoadBody(Wire):
    options: dict[str, Option] = Field(default={}, description="Engine options of this load, by long flag name.")
    force: bool = Field(default=False, description="Load it although it needs more memory than the machine has.")


class DiscoverBody(CamelWire):
    paths: list[Text] = Field(default=[], max_length=100, description="Absolute; none: the models directory.")
    recursive: bool = True
    include_patterns: list[Text] = Field(default=["*.gguf", "*.bin"], max_length=100)
    exclude_patterns: list[Text] = Field(default=[], max_length=100)


class Broken(Wire):
    path: str
    reason: str


class Discovered(CamelWire):
    discovered: list[FoundModel]
    scanned_paths: list[str]
    total_found: int
    failed: list[Broken]


class Removed(CamelWire):
    model_id: str


class Scanned(Wire):
    scanned: int = Field(description="New models.")
    updated: int = Field(description="Known models whose file changed.")
    total: int
    failed: list[Broken]


class CleanedUp(CamelWire):
    deleted_count: int
    deleted: list[str]


class MemoryFootprint(Wire):
    """MiB."""

    weights: float
    context: float = Field(description="Cached keys and values, and recurrent state.")
    compute: float
    total: float


class MachineMemory(Wire):
    """MiB."""

    host: float
    gpu: float | None = Field(None, description="All GPUs together; absent without one.")


class ModelMemory(CamelWire):
    fits: Fit = Field(
        description="after_evictions: once others were unloaded, which the service does by itself. host_only: not as "
        "asked, but without the GPU. tight: only in what is not free, the system may have to swap."
    )
    is_rough: bool = Field(description="The architecture is not modelled; the numbers may be off by some percent.")
    context_size: int = Field(description="Tokens of all slots together, as the engine rounds them.")
    context_per_slot: int
    slots: int
    gpu_layers: int = Field(description="The output layer counts as one.")
    all_layers: int
    total: float = Field(description="MiB, host and GPU.")
    host: MemoryFootprint
    gpu: MemoryFootprint
    gpus: list[MemoryFootprint] = Field(description="Each GPU, where there are several; else empty.")
    free: MachineMemory = Field(description="Now, and what this model's process would give back.")
    measured: MachineMemory | None = Field(None, description="What the model's process takes; absent while none runs.")
    counted: MachineMemory | None = Field(None, description="By the engine itself after the load, where it tells.")
    with_draft: MachineMemory = Field(description="The estimate, and what a draft model takes.")
    alternatives: list[dict[str, Option]] = Field(
        description="Engine options with which it would fit, each set enough by itself; empty when it fits."
    )
    largest_context: int | None = Field(None, description="Tokens of all slots that fit; absent when none does.")
    most_gpu_layers: int | None = Field(None, description="Absent without a GPU, or when the rest does not fit.")


def model_memory(report: MemoryReport) -> ModelMemory:
    answer = report.estimate
    counted, is_measured = report.counted, report.measured_host_bytes is not None
    return ModelMemory(
        fits=report.fits,
        is_rough=answer.is_rough,
        context_size=answer.context_size,
        context_per_slot=answer.context_per_slot,
        slots=answer.slots,
        gpu_layers=answer.gpu_layers,
        all_layers=answer.all_layers,
        total=mib(answer.total_bytes),
        host=_footprint(answer.host),
        gpu=_footprint(answer.gpu),
        gpus=[_footprint(gpu) for gpu in answer.gpus] if len(answer.gpus) > 1 else [],
        free=_machine_memory(report.free_host_bytes, report.free_gpu_bytes),
        measured=_machine_memory(report.measured_host_bytes or 0, report.measured_gpu_bytes) if is_measured else None,
        counted=_machine_memory(counted.host_bytes, counted.gpu_bytes) if counted else None,
        with_draft=_machine_memory(report.use.host_bytes, report.use.gpu_bytes),
        alternatives=[dict(options) for options in report.alternatives],
        largest_context=report.largest_context,
        most_gpu_layers=report.most_gpu_layers,
    )


def _footprint(part: Footprint) -> MemoryFootprint:
    return MemoryFootprint(
        weights=mib(part.weights_bytes),
        context=mib(part.context_bytes),
        compute=mib(part.compute_bytes),
        total=mib(part.total_bytes),
    )


def _machine_memory(host_bytes: int, gpu_bytes: int | None) -> MachineMemory:
    return MachineMemory(host=mib(host_bytes), gpu=mib(gpu_bytes))


def _is_no_chat_model(model: Model) -> bool:
    return model.facts.kind is not ModelKind.CHAT


def models_answer(listed: ModelList, engine: EngineView) -> ModelsAnswer:
    models = [view.model for view in listed.models if not view.model.is_missing]
    return ModelsAnswer(
        data=Models(
            count=len(listed.models),
            models=[registered_model(view) for view in listed.models],
            scanning=not listed.is_complete,
        ),
        # Clients written for this list chat with its first entry.
        models=[
            PurePath(model.path).name for model in sorted(models, key=lambda m: m.facts.kind is not ModelKind.CHAT)
        ],
        count=len(models),
        llamacpp_url=engine.url,
    )


def registered_model(view: ModelView, status: Status | None = None) -> RegisteredModel:
    model, runtime = view.model, view.runtime
    return RegisteredModel(
        id=model.slug,
        name=model.name,
        description=model.description or model.facts.description,
        version=model.version or model.facts.version,
        path=model.path,
        size=model.size_bytes,
        family=model.family or model.facts.architecture,
        context_size=runtime.context_size or model.context_size or model.facts.context_length,
        quantization=model.quantization or model.facts.quantization,
        status=status or _status(model, runtime.status),
        loaded_at=iso_time(runtime.loaded_at_ms),
        last_used=iso_time(model.last_used_at_ms),
        memory_usage=mib(_resident_bytes(runtime)),
        error=runtime.error,
        missing=model.is_missing,
        is_favorite=model.is_favorite,
        is_pinned=model.is_pinned,
        aliases=list(model.aliases),
        variants=[_variant(variant) for variant in model.variants],
        options=dict(model.options),
    )


def _resident_bytes(runtime: ModelRuntime) -> int | None:
    """Main and GPU memory of the model's process; None while nothing was measured."""
    measured = [used for used in (runtime.rss_bytes, runtime.gpu_bytes) if used is not None]
    return sum(measured) if measured else None


def _variant(variant: Variant) -> ModelVariant:
    parameters = cast("dict[str, JsonValue]", dict(variant.parameters))
    return ModelVariant(name=variant.name, parameters=parameters, system_prompt=variant.system_prompt)


def _status(model: Model, status: ModelStatus) -> Status:
    never_touched = model.origin is ModelOrigin.SCANNED and model.last_used_at_ms is None
    return "discovered" if status is ModelStatus.UNLOADED and never_touched else _STATUS[status]


def registered(created: ModelList) -> Registered:
    models = [registered_model(view, "registered") for view in created.models]
    return Registered(registered=len(models), models=models)


def discovered(found: Discovery) -> Discovered:
    return Discovered(
        discovered=[_found_model(file) for file in found.found],
        scanned_paths=list(found.scanned_paths),
        total_found=len(found.found),
        failed=_broken(found.failed),
    )


def _found_model(file: ModelFile) -> FoundModel:
    facts = file.facts
    return FoundModel(
        name=PurePath(file.path).stem,
        description=facts.description,
        version=facts.version,
        path=file.path,
        size=file.size_bytes,
        family=facts.architecture,
        context_size=facts.context_length,
        quantization=facts.quantization,
    )


def removed(deleted: DeletedModel) -> Removed:
    return Removed(model_id=deleted.slug)


def scanned(report: ScanReport) -> Scanned:
    return Scanned(scanned=report.scanned, updated=report.updated, total=report.total, failed=_broken(report.failed))


def cleaned_up(report: CleanUpReport) -> CleanedUp:
    return CleanedUp(deleted_count=len(report.deleted), deleted=[deleted.slug for deleted in report.deleted])


def _broken(files: Sequence[BrokenFile]) -> list[Broken]:
    return [Broken(path=file.path, reason=file.reason) for file in files]
