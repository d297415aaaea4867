"""How much memory a model takes once it is loaded, foretold from its header and the settings of the load.

Checked against llama.cpp's own count (`llama-fit-params --fit-print on`) by tests/gguf/test_memory.py. What llama.cpp
does not count, neither is counted here: the driver's own share of a GPU, the prompt cache (`--cache-ram`, on the host),
checkpoints of recurrent and sliding layers, the working memory of a multimodal projector.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.gguf.shape import Layer, ModelShape

AUTO_SLOTS = 4
"""llama-server's own choice, with one cache for all of them."""
CELLS = 256
"""Contexts and caches are rounded up to whole multiples of so many tokens."""
STATE_ELEMENT_BYTES = 4
CACHE_BYTES_PER_32: Mapping[str, int] = MappingProxyType({
    "f32": 128, "f16": 64, "bf16": 64, "q8_0": 34, "q5_0": 22, "q5_1": 24, "q4_0": 18, "q4_1": 20, "iq4_nl": 18,
})  # fmt: skip
"""Bytes of 32 cached elements by `--cache-type-k` and `--cache-type-v`."""

FlashAttention: TypeAlias = Literal["on", "auto", "off"]


class LoadSettings(Struct, frozen=True):
    """The engine options that decide on memory, with llama-server's defaults."""

    context_size: int = 0
    """Tokens of all slots together; 0: what the model was trained for."""
    slots: int | None = None
    """None: as many as llama-server chooses."""
    unified_cache: bool | None = None
    """One cache for all slots. None: as llama-server chooses, which is when it chooses the slots."""
    batch_size: int = 2048
    micro_batch_size: int = 512
    """Tokens computed at once."""
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    flash_attention: FlashAttention = "auto"
    full_sliding_cache: bool = False
    """Sliding layers cache the whole context."""
    gpu_layers: int = 0
    """Layers on the GPU, the output layer first, then blocks from the last; more than there are: all."""
    gpu_shares: tuple[float, ...] = ()
    """Proportions in which GPUs share the layers that are there, in the engine's order; empty: one has them all."""
    cpu_expert_layers: int = 0
    """Blocks, from the first, whose experts stay on the host."""
    offload_cache: bool = True
    """The cache is where its layer is; otherwise on the host."""
    projector_bytes: int = 0
    """Size of the multimodal projector's file."""


class Footprint(Struct, frozen=True):
    """Bytes on one device."""

    weights_bytes: int
    context_bytes: int
    """Cached keys and values, and recurrent state."""
    compute_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.context_bytes + self.compute_bytes


class MemoryEstimate(Struct, frozen=True):
    host: Footprint
    gpu: Footprint
    """All GPUs together."""
    gpus: tuple[Footprint, ...]
    """Each GPU that may have a share, in the engine's order."""
    context_size: int
    """Tokens of all slots together, as llama.cpp rounds them."""
    context_per_slot: int
    slots: int
    gpu_layers: int
    all_layers: int
    """Blocks and the output layer: the most `gpu_layers` can be."""
    is_rough: bool

    @property
    def total_bytes(self) -> int:
        return self.host.total_bytes + self.gpu.total_bytes


class MemoryBudget(Struct, frozen=True):
    """Bytes that may be taken. None on a machine where GPU and host share one memory, or without a limit."""

    host_bytes: int | None = None
    gpu_bytes: int | None = None
    """Of all GPUs."""
    gpus: tuple[int, ...] = ()
    """Of each GPU, in the engine's order; empty where only the sum is known."""

    def holds(self, estimate: MemoryEstimate) -> bool:
        host = self.host_bytes is None or estimate.host.total_bytes <= self.host_bytes
        return host and self.holds_on_gpus(estimate)

    def holds_on_gpus(self, estimate: MemoryEstimate) -> bool:
        each = all(part.total_bytes <= free for part, free in zip(estimate.gpus, self.gpus, strict=False))
        return each and (self.gpu_bytes is None or estimate.gpu.total_bytes <= self.gpu_bytes)


def estimate(shape: ModelShape, settings: LoadSettings) -> MemoryEstimate:
    """What the load takes, split as llama.cpp places layers: see `llama_model::load_tensors`.

    Raises KeyError for a cache type that is not a key of CACHE_BYTES_PER_32.
    """
    sizes = _Sizes.of(shape, settings)
    all_layers = len(shape.layers) + 1
    gpu_layers = min(max(settings.gpu_layers, 0), all_layers)
    context = [_context_bytes(layer, sizes, settings) for layer in shape.layers]
    compute = _Compute.of(shape, sizes, settings, gpu_layers)
    gpus = _gpus(shape, settings, gpu_layers, context, compute)
    gpu = _sum(gpus)
    weights = shape.weights_bytes + settings.projector_bytes
    copied = shape.tied_bytes if gpu_layers else 0
    return MemoryEstimate(
        host=Footprint(weights - gpu.weights_bytes + copied, sum(context) - gpu.context_bytes, compute.host_bytes),
        gpu=gpu,
        gpus=gpus,
        context_size=sizes.cells * sizes.streams,
        context_per_slot=sizes.cells,
        slots=sizes.slots,
        gpu_layers=gpu_layers,
        all_layers=all_layers,
        is_rough=shape.is_rough,
    )


def largest_context(shape: ModelShape, settings: LoadSettings, budget: MemoryBudget) -> int | None:
    """Tokens of all slots together, at most what the model was trained for; None when not even the smallest fits.

    Found by bisection. Need grows with the context but for one step, where the mask is large enough to be reused for
    the logits; close to it a larger context may fit as well.
    """

    def fits(steps: int) -> bool:
        return budget.holds(estimate(shape, replace(settings, context_size=steps * step)))

    slots = settings.slots or AUTO_SLOTS
    step = CELLS if _is_unified(settings) else CELLS * slots
    most = max(shape.trained_context // step, 1)
    found = _largest(fits, 1, most)
    return None if found is None else found * step


def most_gpu_layers(shape: ModelShape, settings: LoadSettings, budget: MemoryBudget) -> int | None:
    """The most layers whose GPU part fits; None when the rest does not fit the host."""

    def fits(layers: int) -> bool:
        placed = estimate(shape, replace(settings, gpu_layers=layers))
        return budget.holds_on_gpus(placed)

    # The projector alone may be too much for the GPU, but with no layer there nothing is.
    found = _largest(fits, 1, len(shape.layers) + 1) or 0
    return found if budget.holds(estimate(shape, replace(settings, gpu_layers=found))) else None


def _largest(fits: Callable[[int], bool], least: int, most: int) -> int | None:
    """The largest number that fits, of a property that holds up to some number and not beyond."""
    if not fits(least):
        return None
    while least < most:
        middle = (least + most + 1) // 2
        if fits(middle):
            least = middle
        else:
            most = middle - 1
    return least


def _is_unified(settings: LoadSettings) -> bool:
    return settings.slots is None if settings.unified_cache is None else settings.unified_cache


def _padded(tokens: int) -> int:
    return tokens + -tokens % CELLS


class _Sizes(Struct, frozen=True):
    """What context and batch come to: see `llama_context::llama_context` and `llama_kv_cache_iswa`. All are tokens."""

    slots: int
    streams: int
    """Separate caches."""
    cells: int
    """Of a cache: the context a slot may fill."""
    sliding_cells: int
    batch: int
    """Tokens computed at once."""

    @classmethod
    def of(cls, shape: ModelShape, settings: LoadSettings) -> _Sizes:
        slots = settings.slots or AUTO_SLOTS
        streams = 1 if _is_unified(settings) else slots
        cells = _padded(max(_padded(settings.context_size or shape.trained_context) // streams, 1))
        batch = min(settings.micro_batch_size, settings.batch_size, cells * streams)
        windows = shape.window * (slots if streams == 1 else 1)
        sliding = cells if settings.full_sliding_cache else _padded(min(cells, windows + settings.micro_batch_size))
        return cls(slots, streams, cells, sliding, batch)


def _gpus(
    shape: ModelShape, settings: LoadSettings, gpu_layers: int, context: Sequence[int], compute: _Compute
) -> tuple[Footprint, ...]:
    """What each GPU gets: its share of the last layers, in order; the output layer goes with the last of them."""
    bounds = list(accumulate(settings.gpu_shares)) or [1.0]
    weights, cached = [0] * len(bounds), [0] * len(bounds)
    if gpu_layers == 0:
        return (Footprint(0, 0, 0),) * len(bounds)
    first, output = len(shape.layers) + 1 - gpu_layers, len(shape.layers)

    def device(index: int) -> int:
        return bisect_right(bounds, (index - first) / gpu_layers * bounds[-1])

    for index, layer in enumerate(shape.layers):
        if index >= first:
            experts = layer.expert_bytes if index < settings.cpu_expert_layers else 0
            weights[device(index)] += layer.weights_bytes - experts
            cached[device(index)] += context[index] if settings.offload_cache else 0
    weights[device(output)] += shape.output_bytes + shape.tied_bytes
    weights[device(first)] += settings.projector_bytes
    buffers = [compute.block_bytes if has else 0 for has in weights]
    buffers[device(output)] = compute.output_bytes
    return tuple(Footprint(*parts) for parts in zip(weights, cached, buffers, strict=True))


def _sum(parts: Sequence[Footprint]) -> Footprint:
    return Footprint(
        sum(part.weights_bytes for part in parts),
        sum(part.context_bytes for part in parts),
        sum(part.compute_bytes for part in parts),
    )


def _context_bytes(layer: Layer, sizes: _Sizes, settings: LoadSettings) -> int:
    """Keys and values of every cell (`llama_kv_cache`), state of every slot (`llama_memory_recurrent`, 32 bit)."""
    cells = (sizes.sliding_cells if layer.slides else sizes.cells) * sizes.streams
    keys = layer.key_width * CACHE_BYTES_PER_32[settings.cache_type_k]
    values = layer.value_width * CACHE_BYTES_PER_32[settings.cache_type_v]
    return cells * (keys + values) // 32 + layer.state_width * STATE_ELEMENT_BYTES * sizes.slots


class _Compute(Struct, frozen=True):
    """Bytes that hold what lies between the layers while a batch is computed.

    Fitted to llama.cpp's answers: its allocator (`ggml_gallocr`) reuses what a step no longer needs, so that only the
    widest point of the graph counts. The parts between GPU and host are an upper bound.
    """

    host_bytes: int
    output_bytes: int
    """On the GPU that has the output layer."""
    block_bytes: int
    """On every other GPU with a layer."""

    @classmethod
    def of(cls, shape: ModelShape, sizes: _Sizes, settings: LoadSettings, gpu_layers: int) -> _Compute:
        graph = _Graph(shape, sizes, settings)
        block = graph.widest_block_bytes()
        whole = max(graph.last_layer_bytes(), block)
        if gpu_layers == 0:
            return cls(whole, 0, 0)
        is_split = gpu_layers <= len(shape.layers) or settings.cpu_expert_layers > 0 or not settings.offload_cache
        return cls(block if is_split else graph.input_bytes(), whole, block)


class _Graph:
    """Bytes at the points of the graph that may be its widest. Elements are computed with 32 bit."""

    def __init__(self, shape: ModelShape, sizes: _Sizes, settings: LoadSettings) -> None:
        self._shape = shape
        self._batch = sizes.batch
        self._flashes = settings.flash_attention != "off"
        # Without a cache a token attends to those of its batch.
        self._cells = sizes.cells if shape.keeps_cache else sizes.batch
        attends = not shape.keeps_cache or any(layer.key_width for layer in shape.layers)
        slides = any(layer.slides for layer in shape.layers)
        # Who may see whom, for each token and cell; sliding layers have their own.
        mask_element = 2 if self._flashes else 4
        self._mask = mask_element * self._cells * self._batch if attends else 0
        self._masks = self._mask + (mask_element * sizes.sliding_cells * self._batch if attends and slides else 0)
        self._embedding = 4 * shape.width * self._batch
        self._states = 2 * STATE_ELEMENT_BYTES * sizes.slots * max(layer.state_width for layer in shape.layers)

    def input_bytes(self) -> int:
        return self._masks + self._embedding

    def last_layer_bytes(self) -> int:
        """Logits, and what they are computed from. They take the place of the mask where it is large enough."""
        logits = 4 * self._shape.vocabulary * self._batch
        beside = self._masks + logits + 5 * self._embedding
        return min(beside, self.widest_block_bytes()) if self._mask >= logits > 0 else beside

    def widest_block_bytes(self) -> int:
        hidden = 4 * self._shape.feed_forward * self._batch
        if not self._shape.keeps_cache:
            dense = self._masks + hidden + 5 * self._embedding
        else:
            dense = self._masks + 3 * hidden + 7 * self._embedding + self._states
        return dense if self._flashes else max(dense, self._scores_bytes())

    def _scores_bytes(self) -> int:
        """Without flash attention each head's weight of every cell is there at once."""
        if not self._mask:
            return 0
        keys = max(layer.key_width for layer in self._shape.layers) or self._shape.query_width
        projections = 3 * self._embedding + 4 * (3 * self._shape.query_width + 2 * keys) * self._batch
        return 4 * self._cells * self._shape.heads * self._batch + self._masks + projections
