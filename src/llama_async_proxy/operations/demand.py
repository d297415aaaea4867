"""What a load takes of a given machine, and what of it would fit. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.gguf.memory import (
    LoadSettings,
    MemoryBudget,
    MemoryEstimate,
    estimate,
    largest_context,
    most_gpu_layers,
)
from llama_async_proxy.gguf.shape import ModelShape
from llama_async_proxy.inference.scheduling.policy import Capacity
from llama_async_proxy.operations.load_settings import ALL_LAYERS
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import NO_MEMORY, MemoryUse

LEAST_CONTEXT = 4096
"""Tokens. The engine chooses no smaller context by itself (`--fit-ctx`), and neither do we."""
_SMALLER_CACHES = ("q8_0", "q4_0")


class MemoryRequirement(Struct, frozen=True):
    shape: ModelShape
    settings: LoadSettings
    """As asked for, but for the layers on the GPU."""
    gpu_layers: int | None
    """None: the engine chooses."""
    draft: ModelShape | None = None
    """Of the small model that guesses ahead."""
    draft_settings: LoadSettings = LoadSettings(gpu_layers=ALL_LAYERS)

    def placed(self, budget: MemoryBudget) -> LoadSettings:
        """With what the engine chooses where nobody has, on a machine that has `budget` left.

        Like the engine, it rather shortens the context than it leaves layers off the GPU.
        """
        shape, left = self.shape, self._left_by_draft(budget)
        layers = 0 if budget.gpu_bytes is None else ALL_LAYERS if self.gpu_layers is None else self.gpu_layers
        # Like the engine, by what is free there, unless the options say how.
        shares = self.settings.gpu_shares or (budget.gpus if len(budget.gpus) > 1 and any(budget.gpus) else ())
        settings = replace(self.settings, gpu_layers=layers, gpu_shares=shares)
        if not self.settings.context_size:
            fitting = largest_context(shape, settings, left) or 0
            settings = replace(settings, context_size=max(fitting, self._least_context))
        if budget.gpu_bytes is not None and self.gpu_layers is None:
            settings = replace(settings, gpu_layers=most_gpu_layers(shape, settings, left) or 0)
        return settings

    def estimate(self, budget: MemoryBudget) -> MemoryEstimate:
        """Of the model itself, without a draft model."""
        return estimate(self.shape, self.placed(budget))

    def use(self, budget: MemoryBudget) -> MemoryUse:
        """By GPU only where the options say which layers lie where: else the engine puts them where there is room."""
        answer = self.estimate(budget)
        each = tuple(gpu.total_bytes for gpu in answer.gpus) if self.settings.gpu_shares else ()
        return _sum(replace(_use(answer), gpus=each), self._draft_use(budget))

    def fits(self, budget: MemoryBudget) -> bool:
        return Capacity(budget.host_bytes, budget.gpu_bytes, budget.gpus).fits((self.use(budget),))

    def largest_context(self, budget: MemoryBudget) -> int | None:
        """Tokens of all slots together that fit; None when none does."""
        return largest_context(self.shape, self.placed(budget), self._left_by_draft(budget))

    def most_gpu_layers(self, budget: MemoryBudget) -> int | None:
        """Layers that fit the GPU; None without a GPU, or when the rest does not fit the host."""
        if budget.gpu_bytes is None:
            return None
        return most_gpu_layers(self.shape, self.placed(budget), self._left_by_draft(budget))

    def alternatives(self, budget: MemoryBudget) -> Iterator[Mapping[str, OptionValue]]:
        """Options with which the load would fit, each set enough by itself; those that change least first."""
        layers = self.most_gpu_layers(budget)
        if layers is not None and self.gpu_layers is not None and layers < self.gpu_layers:
            yield {"n-gpu-layers": layers}
        for kind in _SMALLER_CACHES:
            smaller = replace(self.settings, cache_type_k=kind, cache_type_v=kind)
            if replace(self, settings=smaller).fits(budget):
                yield {"cache-type-k": kind, "cache-type-v": kind}
                break
        context = self.largest_context(budget)
        if context is not None:
            yield {"ctx-size": context}

    def smaller(self, budget: MemoryBudget) -> Mapping[str, OptionValue] | None:
        """Options of the next smaller load after this one did not fit after all; None when there is none."""
        placed = self.placed(budget)
        tokens = estimate(self.shape, placed).context_size
        if tokens > self._least_context:
            fitting = self.largest_context(budget) or self._least_context
            return {"ctx-size": max(min(fitting, tokens // 2), self._least_context)}
        layers = min(placed.gpu_layers, len(self.shape.layers) + 1)
        return {"n-gpu-layers": layers * 3 // 4} if layers else None

    @property
    def _least_context(self) -> int:
        return min(LEAST_CONTEXT, self.shape.trained_context or LEAST_CONTEXT)

    def _draft_use(self, budget: MemoryBudget) -> MemoryUse:
        if self.draft is None:
            return NO_MEMORY
        layers = 0 if budget.gpu_bytes is None else self.draft_settings.gpu_layers
        context = self.settings.context_size or self._least_context
        return _use(estimate(self.draft, replace(self.draft_settings, context_size=context, gpu_layers=layers)))

    def _left_by_draft(self, budget: MemoryBudget) -> MemoryBudget:
        use = self._draft_use(budget)
        host = None if budget.host_bytes is None else budget.host_bytes - use.host_bytes
        return replace(
            budget, host_bytes=host, gpu_bytes=None if budget.gpu_bytes is None else budget.gpu_bytes - use.gpu_bytes
        )


def _use(answer: MemoryEstimate) -> MemoryUse:
    return MemoryUse(answer.host.total_bytes, answer.gpu.total_bytes)


def _sum(one: MemoryUse, other: MemoryUse) -> MemoryUse:
    return MemoryUse(one.host_bytes + other.host_bytes, one.gpu_bytes + other.gpu_bytes, one.gpus)
