"""What loads take and what the machine has, for who decides on loads. See `inference.memory.Memory`."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Protocol, TypeAlias

from msgspec.structs import replace

from llama_async_proxy.errors import InvalidInput, LoadFailed, NotEnoughMemory, NotFound
from llama_async_proxy.gguf.memory import MemoryBudget
from llama_async_proxy.gguf.reader import GgufError, read_header
from llama_async_proxy.gguf.shape import ModelShape, model_shape
from llama_async_proxy.inference.scheduling.policy import UNLIMITED, Capacity
from llama_async_proxy.operations.demand import MemoryRequirement
from llama_async_proxy.operations.load_settings import draft_path, draft_settings, gpu_layers, load_settings
from llama_async_proxy.records.engine import EngineState
from llama_async_proxy.records.machine import Sample
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import NO_MEMORY, LaunchSpec, MemoryUse
from llama_async_proxy.settings import Settings

logger = logging.getLogger(__name__)

_OUT_OF_MEMORY = re.compile(
    r"out of memory|failed to allocate|unable to allocate|cannot allocate|bad_alloc|OutOfDeviceMemory", re.IGNORECASE
)
_KILLED = -9
"""What the kernel does to who takes the last memory."""

_Version: TypeAlias = tuple[str, int, int, str | None]


class Samples(Protocol):
    """The part of the sampler that is needed here."""

    @property
    def latest(self) -> Sample | None: ...

    async def now(self) -> Sample: ...


class MemoryPlanner:
    """Reads the header of each version of a file once."""

    def __init__(self, settings: Callable[[], Settings], engine: Callable[[], EngineState], samples: Samples) -> None:
        self._settings = settings
        self._engine = engine
        self._samples = samples
        self._shapes: dict[int, tuple[_Version, ModelShape, int]] = {}
        self._demands: dict[int, MemoryRequirement] = {}
        """The last one of each model, for the words of a refusal."""

    async def demand(self, model: Model, spec: LaunchSpec) -> MemoryRequirement:
        """Raises NotFound when a file cannot be read, InvalidInput for one that is damaged and for an unfit option."""
        shape, projector_bytes = await self._shape(model)
        path = draft_path(spec)
        draft = None if path is None else await asyncio.to_thread(_shape_of, (path,), "draft model")
        settings = replace(load_settings(spec), projector_bytes=projector_bytes)
        return MemoryRequirement(shape, settings, gpu_layers(spec), draft, draft_settings(spec, settings))

    async def requirement(self, model: Model, spec: LaunchSpec) -> MemoryUse:
        if not model.has_file or spec.command is not None:
            return NO_MEMORY
        try:
            demand = await self.demand(model, spec)
        except (InvalidInput, NotFound):
            return NO_MEMORY  # The engine may know better; else it says what is wrong.
        await self._samples.now()
        self._demands[model.id] = demand
        together, alone = self.capacity()
        use = demand.use(budget_of(alone))
        if alone.fits((use,)) and not together.fits((use,)):
            logger.warning(
                "Model %s is expected to take %s, but only %s may be taken: the system may have to swap",
                model.slug,
                _words(use),
                _words_of(together),
            )
        return use

    def capacity(self) -> tuple[Capacity, Capacity]:
        sample, settings = self._samples.latest, self._settings()
        if sample is None:
            return UNLIMITED, UNLIMITED
        each = () if self._engine().kind == "embedded" else gpu_totals(sample)
        gpu_margin_bytes = settings.gpu_memory_margin_mib << 20
        free = Capacity(
            settings.memory_limit_mib << 20 or _host(sample, sample.memory_available_bytes, settings),
            self._gpu(settings.gpu_memory_limit_mib << 20, free_gpu_bytes(sample, gpu_margin_bytes)),
            tuple(max(0, total - gpu_margin_bytes) for total in each),
        )
        if settings.memory_strict:
            return free, free
        total = Capacity(
            settings.memory_limit_mib << 20 or sample.memory_total_bytes or None,
            self._gpu(settings.gpu_memory_limit_mib << 20, total_gpu_bytes(sample)),
            each,
        )
        return free, total

    def shortage(self, model: Model, requirement: MemoryUse, pinned: MemoryUse) -> NotEnoughMemory:
        _, alone = self.capacity()
        budget = _without(budget_of(alone), pinned)
        demand = self._demands.get(model.id)
        options = [] if demand is None else list(demand.alternatives(budget))
        fitting = [" ".join(f"--{name} {value}" for name, value in chosen.items()) for chosen in options]
        advice = f" It would fit with {' or with '.join(fitting)}." if fitting else " No setting would make it fit."
        held = "" if pinned == NO_MEMORY else f", of which pinned models hold {_words(pinned)}"
        return NotEnoughMemory(
            f"Model {model.slug!r} needs {_words(requirement)}, but models may take {_words_of(alone)}{held}.{advice}",
            details="\n".join(fitting) or None,
        )

    async def smaller_load(self, model: Model, spec: LaunchSpec, failure: LoadFailed) -> LaunchSpec | None:
        told = any(_OUT_OF_MEMORY.search(line) for line in (failure.reason, *failure.log_tail))
        if not (told or failure.exit_code == _KILLED) or not model.has_file or spec.command is not None:
            return None
        try:
            demand = await self.demand(model, spec)
        except (InvalidInput, NotFound):
            return None
        options = demand.smaller(budget_of(self.capacity()[0]))
        if options is None:
            return None
        logger.warning("Model %s ran out of memory; it is tried once more with %s", model.slug, dict(options))
        return replace(spec, options={**spec.options, **options})

    async def _shape(self, model: Model) -> tuple[ModelShape, int]:
        """The model's shape, and bytes of its projector."""
        if not model.has_file:
            raise InvalidInput("model", f"{model.name!r} has no file here, so that nothing can be said of its memory")
        version = (model.path, model.mtime_ns, model.size_bytes, model.mmproj_path)
        known = self._shapes.get(model.id)
        if known is None or known[0] != version:
            paths = model.shards or (model.path,)
            shape = await asyncio.to_thread(_shape_of, paths, f"model {model.name!r}")
            known = self._shapes[model.id] = version, shape, await asyncio.to_thread(_size_of, model.mmproj_path)
        return known[1], known[2]

    def _gpu(self, limit_bytes: int, known_bytes: int | None) -> int | None:
        """None where no driver tells, and for an engine that does not use GPUs."""
        if known_bytes is None or self._engine().kind == "embedded":
            return None
        return limit_bytes or known_bytes


def budget_of(capacity: Capacity) -> MemoryBudget:
    return MemoryBudget(capacity.host_bytes, capacity.gpu_bytes, capacity.gpus)


def _without(budget: MemoryBudget, use: MemoryUse) -> MemoryBudget:
    host, gpu = budget.host_bytes, budget.gpu_bytes
    return MemoryBudget(
        None if host is None else max(0, host - use.host_bytes),
        None if gpu is None else max(0, gpu - use.gpu_bytes),
        tuple(max(0, each - used) for each, used in zip_longest(budget.gpus, use.gpus, fillvalue=0))[
            : len(budget.gpus)
        ],
    )


def free_gpu_bytes(sample: Sample, margin_bytes: int = 0) -> int | None:
    """What is free on all GPUs and what our models hold; None without a GPU that tells."""
    free = [
        gpu.memory_total_bytes - gpu.memory_used_bytes - margin_bytes
        for gpu in sample.gpus
        if gpu.memory_total_bytes is not None and gpu.memory_used_bytes is not None
    ]
    return max(0, sum(free) + sample.models_gpu_bytes) if free else None


def gpu_totals(sample: Sample) -> tuple[int, ...]:
    """What each GPU has, where there are several of one kind and all tell; else empty."""
    totals = [gpu.memory_total_bytes for gpu in sample.gpus if gpu.memory_total_bytes is not None]
    is_uniform = len({gpu.vendor for gpu in sample.gpus}) == 1 and len(totals) == len(sample.gpus)
    return tuple(totals) if is_uniform and len(totals) > 1 else ()


def gpus_free(sample: Sample) -> tuple[int, ...]:
    """What is free on each of them now."""
    totals = gpu_totals(sample)
    return tuple(max(0, total - (gpu.memory_used_bytes or 0)) for total, gpu in zip(totals, sample.gpus, strict=False))


def total_gpu_bytes(sample: Sample) -> int | None:
    totals = [gpu.memory_total_bytes for gpu in sample.gpus if gpu.memory_total_bytes is not None]
    return sum(totals) if totals else None


def _host(sample: Sample, available_bytes: int, settings: Settings) -> int | None:
    """What models may take; what the loaded ones hold would be free without them."""
    if not sample.memory_total_bytes:
        return None
    free = min(available_bytes + sample.models_private_bytes, sample.memory_total_bytes)
    return max(0, free - (settings.memory_margin_mib << 20))


def _shape_of(paths: tuple[str, ...], what: str) -> ModelShape:
    try:
        return model_shape(*(read_header(Path(path)) for path in paths))
    except OSError as exc:
        raise NotFound("file", paths[0], f"The file of {what} cannot be read: {exc}.") from exc
    except GgufError as exc:
        raise InvalidInput("model", f"{paths[0]} {exc}; the file must be replaced") from exc


def _size_of(path: str | None) -> int:
    try:
        return Path(path).stat().st_size if path else 0
    except OSError as exc:
        raise NotFound("file", path, f"The projector cannot be read: {exc}.") from exc


def _words(use: MemoryUse) -> str:
    gpu = f" and {_gib(use.gpu_bytes)} of GPU memory" if use.gpu_bytes else ""
    return f"{_gib(use.host_bytes)} of main memory{gpu}"


def _words_of(capacity: Capacity) -> str:
    return _words(MemoryUse(capacity.host_bytes or 0, capacity.gpu_bytes or 0))


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.2f} GiB"
