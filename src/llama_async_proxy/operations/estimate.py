"""Would a model fit? What a load would take, beside what is free and, once it runs, what it really takes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from llama_async_proxy.errors import InvalidInput, NotFound
from llama_async_proxy.gguf.memory import (
    CACHE_BYTES_PER_32,
    FlashAttention,
    LoadSettings,
    MemoryBudget,
    MemoryEstimate,
    estimate,
    largest_context,
    most_gpu_layers,
)
from llama_async_proxy.gguf.reader import GgufError, read_header
from llama_async_proxy.gguf.shape import ModelShape, model_shape
from llama_async_proxy.operations.models import ModelRef, ModelView, find, view
from llama_async_proxy.operations.services import Services
from llama_async_proxy.records import LaunchSpec, Model, OptionValue, Sample, no_options

ALL_LAYERS = 1 << 16
"""More than any model has."""
_FLASH: Mapping[str, FlashAttention] = {"on": "on", "off": "off", "auto": "auto", "1": "on", "0": "off", "-1": "auto"}


class Fit(StrEnum):
    YES = "yes"
    HOST_ONLY = "host_only"
    """Not as asked, but without the GPU."""
    NO = "no"


@dataclass(frozen=True, slots=True)
class EstimateMemory:
    id: ModelRef
    options: Mapping[str, OptionValue] = field(default_factory=no_options)
    """Engine options of the load in question, as for LoadModel. Those that do not touch memory are ignored."""


@dataclass(frozen=True, slots=True)
class MemoryReport:
    model: Model
    estimate: MemoryEstimate
    free_host_bytes: int
    """Available now, and what the model's own process would give back."""
    free_gpu_bytes: int | None
    """Likewise; None without a GPU that tells."""
    fits: Fit
    largest_context: int | None
    """Tokens of all slots together that fit with these layers on the GPU; None when none does."""
    most_gpu_layers: int | None
    """None when the rest does not fit the host."""
    measured_host_bytes: int | None
    """Resident memory of the model's process; None while there is none."""
    measured_gpu_bytes: int | None


async def estimate_memory(services: Services, request: EstimateMemory) -> MemoryReport:
    """Raises InvalidInput for an option that llama-server would refuse, NotFound when the file cannot be read."""
    found = view(services, find(services, request.id))
    spec = services.planner.spec(found.model, request.options)
    shape, projector_bytes = await asyncio.to_thread(_read, found.model)
    sample = await services.sampler.now()
    budget = _budget(found, sample, has_gpu=services.engine.state.kind != "embedded")
    settings = replace(_load_settings(spec), projector_bytes=projector_bytes)
    most_layers = most_gpu_layers(shape, settings, budget)
    settings = replace(settings, gpu_layers=_gpu_layers(spec, automatic=most_layers or 0))
    if budget.gpu_bytes is None:
        settings = replace(settings, gpu_layers=0)
    answer = estimate(shape, settings)
    return MemoryReport(
        model=found.model,
        estimate=answer,
        free_host_bytes=budget.host_bytes or 0,
        free_gpu_bytes=budget.gpu_bytes,
        fits=_fit(shape, settings, budget),
        largest_context=largest_context(shape, settings, budget),
        most_gpu_layers=most_layers if budget.gpu_bytes is not None else None,
        measured_host_bytes=found.runtime.rss_bytes,
        measured_gpu_bytes=found.runtime.gpu_bytes,
    )


def _fit(shape: ModelShape, settings: LoadSettings, budget: MemoryBudget) -> Fit:
    if budget.holds(estimate(shape, settings)):
        return Fit.YES
    alone = replace(settings, gpu_layers=0)
    return Fit.HOST_ONLY if settings.gpu_layers and budget.holds(estimate(shape, alone)) else Fit.NO


def _read(model: Model) -> tuple[ModelShape, int]:
    """The model's shape, and bytes of its projector."""
    try:
        headers = [read_header(Path(path)) for path in model.shards or (model.path,)]
        projector = Path(model.mmproj_path).stat().st_size if model.mmproj_path else 0
        return model_shape(*headers), projector
    except OSError as exc:
        raise NotFound("file", model.path, f"The file of model {model.name!r} cannot be read: {exc}.") from exc
    except GgufError as exc:
        raise InvalidInput("model", f"{model.path} {exc}; the file must be replaced") from exc


def _budget(found: ModelView, sample: Sample, *, has_gpu: bool) -> MemoryBudget:
    host = sample.memory_available_bytes + (found.runtime.rss_bytes or 0)
    free = [
        gpu.memory_total_bytes - gpu.memory_used_bytes
        for gpu in sample.gpus
        if gpu.memory_total_bytes is not None and gpu.memory_used_bytes is not None
    ]
    gpu = sum(free) + (found.runtime.gpu_bytes or 0) if free and has_gpu else None
    return MemoryBudget(min(host, sample.memory_total_bytes), gpu)


# --- options ----------------------------------------------------------------------------------------------------------


def _load_settings(spec: LaunchSpec) -> LoadSettings:
    """The options that decide on memory, but for the layers on the GPU. Raises InvalidInput naming an unfit one."""
    options = spec.options
    slots = _integer(options, "parallel", -1)
    layers = ALL_LAYERS if _switch(options, "cpu-moe", default=False) else _integer(options, "n-cpu-moe", 0)
    unified = "kv-unified" in options or "no-kv-unified" in options
    return LoadSettings(
        context_size=_integer(options, "ctx-size", 0),
        slots=slots if slots > 0 else None,
        unified_cache=_switch(options, "kv-unified", default=False) if unified else None,
        batch_size=max(_integer(options, "batch-size", 2048), 1),
        micro_batch_size=max(_integer(options, "ubatch-size", 512), 1),
        cache_type_k=_choice(options, "cache-type-k", CACHE_BYTES_PER_32),
        cache_type_v=_choice(options, "cache-type-v", CACHE_BYTES_PER_32),
        flash_attention=_flash_attention(options),
        full_sliding_cache=_switch(options, "swa-full", default=False),
        cpu_expert_layers=layers,
        offload_cache=_switch(options, "kv-offload", default=True),
    )


def _gpu_layers(spec: LaunchSpec, *, automatic: int) -> int:
    """As asked for; `automatic` when the engine would choose."""
    name = "gpu-layers" if "gpu-layers" in spec.options else "n-gpu-layers"
    match spec.options.get(name, "auto"):
        case "all":
            return ALL_LAYERS
        case "auto":
            return automatic
    layers = _integer(spec.options, name, -1)
    return automatic if layers < 0 else layers


def _integer(options: Mapping[str, OptionValue], name: str, default: int) -> int:
    value = options.get(name, default)
    text = f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
    # Nine digits: what llama-server's 32 bit hold, whatever the number is multiplied with here.
    if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise InvalidInput(f"options.{name}", f"must be a whole number of at most nine digits, not {value!r}")
    return int(text)


def _switch(options: Mapping[str, OptionValue], name: str, *, default: bool) -> bool:
    if f"no-{name}" in options:
        return options[f"no-{name}"] is False
    return options.get(name, default) is not False


def _choice(options: Mapping[str, OptionValue], name: str, choices: Mapping[str, int]) -> str:
    value = options.get(name, "f16")
    if not isinstance(value, str) or value not in choices:
        raise InvalidInput(f"options.{name}", f"must be one of {', '.join(choices)}, not {value!r}")
    return value


def _flash_attention(options: Mapping[str, OptionValue]) -> FlashAttention:
    value = options.get("flash-attn", "auto")
    if isinstance(value, bool):
        return "on" if value else "off"
    chosen = _FLASH.get(str(value))
    if chosen is None:
        raise InvalidInput("options.flash-attn", f"must be on, off or auto, not {value!r}")
    return chosen
