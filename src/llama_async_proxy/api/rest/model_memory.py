"""Memory that a model would take, beside the memory that is free. Sizes are MiB."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import Field

from llama_async_proxy.api.rest.routing import RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.rest.schema import CamelModel, Option, RestAnswer, StrictModel
from llama_async_proxy.api.units import mib
from llama_async_proxy.gguf.memory import Footprint
from llama_async_proxy.operations import estimate as estimate_operations
from llama_async_proxy.operations.estimate import EstimateMemory, Fit, MemoryReport

# --- schema -----------------------------------------------------------------------------------------------------------


class MemoryFootprint(StrictModel):
    """MiB."""

    weights: float
    context: float = Field(description="Cached keys and values, and recurrent state.")
    compute: float
    total: float


class MachineMemory(StrictModel):
    """MiB."""

    host: float
    gpu: float | None = Field(None, description="All GPUs together; absent without one.")


class ModelMemory(CamelModel):
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


# --- mapping ----------------------------------------------------------------------------------------------------------


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


# --- routes -----------------------------------------------------------------------------------------------------------


async def get_model_memory(
    context: ServiceContext,
    model_id: str,
    ctx_size: Annotated[int | None, Query(ge=0, description="Tokens of all slots; 0: as trained.")] = None,
    slots: Annotated[int | None, Query(ge=1, le=1024)] = None,
    gpu_layers: Annotated[int | None, Query(ge=0, description="Default: as many as fit.")] = None,
    cache_type: Annotated[str | None, Query(description="Of cached keys and values, such as f16 or q8_0.")] = None,
) -> RestAnswer[ModelMemory]:
    """What a load would take, beside what is free and what the model takes while it runs."""
    asked = {
        "ctx-size": ctx_size,
        "parallel": slots,
        "n-gpu-layers": gpu_layers,
        "cache-type-k": cache_type,
        "cache-type-v": cache_type,
    }
    options = {name: value for name, value in asked.items() if value is not None}
    report = await estimate_operations.estimate_memory(context, EstimateMemory(model_id, options))
    return RestAnswer(data=model_memory(report))


TABLES = (
    RouteTable(
        "models",
        (
            RestRoute(
                "GET", "/api/models/{model_id}/memory", get_model_memory, RestAnswer[ModelMemory], (400, 403, 404)
            ),
        ),
    ),
)
