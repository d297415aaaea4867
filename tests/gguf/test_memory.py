from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from llama_async_proxy.gguf.memory import (
    FlashAttention,
    LoadSettings,
    MemoryBudget,
    estimate,
    largest_context,
    most_gpu_layers,
)
from llama_async_proxy.gguf.reader import read_header
from llama_async_proxy.gguf.shape import ModelShape, model_shape
from support.ghosts import SHAPES, write_shape
from support.oracle import MIB, Counted, arguments, count

GIB = 1 << 30


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelShape]:
    directory = tmp_path_factory.mktemp("ghosts")
    return {
        name: model_shape(read_header(write_shape(directory / f"{name}.gguf", ghost))) for name, ghost in SHAPES.items()
    }


# --- llama.cpp's own count --------------------------------------------------------------------------------------------

CACHES: tuple[tuple[str, FlashAttention, int], ...] = (
    ("f16", "auto", 512),
    ("q8_0", "on", 512),
    ("f16", "auto", 2048),
    ("f16", "off", 512),
)
LOADS = tuple(
    LoadSettings(
        context, slots, unified, micro_batch_size=batch, cache_type_k=kind, cache_type_v=kind, flash_attention=flash
    )
    for context in (4096, 131072)
    for slots, unified in ((1, None), (8, True), (None, None))
    for kind, flash, batch in CACHES
)


def deviation(shape: ModelShape, load: LoadSettings, counted: Counted) -> float:
    """Of the total, in percent; negative when too little is foretold."""
    return 100 * (estimate(shape, load).total_bytes / counted.total_bytes - 1)


@pytest.mark.engine
@pytest.mark.parametrize("name", SHAPES)
def test_estimate_is_what_llama_cpp_counts(tmp_path: Path, name: str) -> None:
    path = write_shape(tmp_path / "m.gguf", SHAPES[name])
    shape = model_shape(read_header(path))
    counted = count([arguments(path, load) for load in LOADS])
    deviations = [deviation(shape, load, truth) for load, truth in zip(LOADS, counted, strict=True)]
    flashing = [value for value, load in zip(deviations, LOADS, strict=True) if load.flash_attention != "off"]
    assert sum(map(abs, deviations)) / len(deviations) <= 0.5
    assert min(flashing) >= -1
    assert min(deviations) >= -3
    assert max(deviations) <= 3


@pytest.mark.engine
@pytest.mark.parametrize("name", SHAPES)
def test_weights_and_context_are_exact(tmp_path: Path, name: str) -> None:
    path = write_shape(tmp_path / "m.gguf", SHAPES[name])
    shape = model_shape(read_header(path))
    loads = [replace(LOADS[5], context_size=5000), replace(LOADS[0], full_sliding_cache=True)]
    for load, counted in zip(loads, count([arguments(path, load) for load in loads]), strict=True):
        host = estimate(shape, load).host
        assert abs(host.weights_bytes - counted.weights_bytes) <= MIB
        assert abs(host.context_bytes - counted.context_bytes) <= MIB


# --- context ----------------------------------------------------------------------------------------------------------


def test_context_is_rounded_and_shared_as_llama_cpp_does(shapes: dict[str, ModelShape]) -> None:
    def sizes(settings: LoadSettings) -> tuple[int, int, int]:
        answer = estimate(shapes["llama-8b"], settings)
        return answer.context_size, answer.context_per_slot, answer.slots

    assert sizes(LoadSettings()) == (131072, 131072, 4)
    assert sizes(LoadSettings(1000)) == (1024, 1024, 4)
    assert sizes(LoadSettings(4096, slots=3)) == (3 * 1536, 1536, 3)
    assert sizes(LoadSettings(4096, slots=3, unified_cache=True)) == (4096, 4096, 3)


def test_smaller_cache_types_take_less(shapes: dict[str, ModelShape]) -> None:
    plain = estimate(shapes["llama-8b"], LoadSettings(8192, 1))
    quantized = estimate(shapes["llama-8b"], LoadSettings(8192, 1, cache_type_k="q8_0", cache_type_v="q8_0"))
    assert plain.host.context_bytes == GIB
    assert quantized.host.context_bytes == GIB * 34 // 64


def test_state_grows_with_slots_and_not_with_context(shapes: dict[str, ModelShape]) -> None:
    def context(size: int, slots: int) -> int:
        return estimate(shapes["mamba2-1.3b"], LoadSettings(size, slots)).host.context_bytes

    assert context(4096, 1) == context(65536, 1)
    assert context(4096, 8) == 8 * context(4096, 1)


# --- placement --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_is_lost_between_host_and_gpu(shapes: dict[str, ModelShape], name: str) -> None:
    shape = shapes[name]
    alone = estimate(shape, LoadSettings(8192))
    copied = shape.tied_bytes
    for layers in range(1, alone.all_layers + 1):
        split = estimate(shape, LoadSettings(8192, gpu_layers=layers))
        assert split.host.weights_bytes + split.gpu.weights_bytes == alone.host.weights_bytes + copied
        assert split.host.context_bytes + split.gpu.context_bytes == alone.host.context_bytes


def test_without_gpu_layers_the_gpu_is_empty(shapes: dict[str, ModelShape]) -> None:
    assert estimate(shapes["llama-8b"], LoadSettings(8192)).gpu.total_bytes == 0


def test_output_goes_to_the_gpu_first_then_blocks_from_the_last(shapes: dict[str, ModelShape]) -> None:
    shape = shapes["llama-8b"]
    one, two, every = (estimate(shape, LoadSettings(8192, 1, gpu_layers=n)) for n in (1, 2, 99))
    assert (one.gpu.weights_bytes, one.gpu.context_bytes) == (shape.output_bytes, 0)
    assert two.gpu.weights_bytes == shape.output_bytes + shape.layers[-1].weights_bytes
    assert two.gpu.context_bytes == GIB // 32
    assert (every.gpu_layers, every.all_layers) == (33, 33)
    assert every.host.weights_bytes == shape.input_bytes
    assert every.host.context_bytes == 0


def test_gpus_share_the_layers_in_order_and_the_last_has_the_output(shapes: dict[str, ModelShape]) -> None:
    shape = shapes["qwen3-8b"]
    every = len(shape.layers) + 1
    load = LoadSettings(context_size=4096, slots=1, gpu_layers=every)
    one = estimate(shape, load)
    small, large = estimate(shape, replace(load, gpu_shares=(1, 3))).gpus
    assert small.weights_bytes + large.weights_bytes == one.gpu.weights_bytes
    assert small.context_bytes + large.context_bytes == one.gpu.context_bytes
    blocks = sum(1 for index in range(len(shape.layers)) if index / every < 0.25)
    assert small.weights_bytes == sum(layer.weights_bytes for layer in shape.layers[:blocks])
    assert large.compute_bytes == one.gpu.compute_bytes > small.compute_bytes > 0
    assert one.gpus == (one.gpu,)


def test_all_layers_may_be_on_one_gpu_of_several(shapes: dict[str, ModelShape]) -> None:
    shape = shapes["qwen3-8b"]
    load = LoadSettings(context_size=4096, slots=1, gpu_layers=99)
    first, second = estimate(shape, replace(load, gpu_shares=(0, 1))).gpus
    assert (first.total_bytes, second) == (0, estimate(shape, load).gpu)


def test_what_fits_is_limited_by_each_gpu(shapes: dict[str, ModelShape]) -> None:
    shape = shapes["qwen3-8b"]
    load = LoadSettings(context_size=4096, slots=1, gpu_shares=(1, 1))
    free = estimate(shape, replace(load, gpu_layers=99)).gpus
    tight = MemoryBudget(gpus=(free[0].total_bytes - 1, free[1].total_bytes))
    found = most_gpu_layers(shape, load, tight)
    assert found is not None
    assert found < len(shape.layers) + 1
    assert tight.holds(estimate(shape, replace(load, gpu_layers=found)))
    assert not tight.holds(estimate(shape, replace(load, gpu_layers=found + 1)))


def test_tied_embedding_is_copied_to_the_gpu(shapes: dict[str, ModelShape]) -> None:
    shape = shapes["gemma3-4b"]
    every = estimate(shape, LoadSettings(8192, gpu_layers=99))
    assert shape.tied_bytes == shape.input_bytes
    assert every.host.weights_bytes == shape.input_bytes
    assert every.gpu.weights_bytes == shape.weights_bytes


def test_experts_of_first_blocks_stay_on_the_host(shapes: dict[str, ModelShape]) -> None:
    shape = shapes["qwen3moe-30b"]
    every = estimate(shape, LoadSettings(8192, gpu_layers=99))
    kept = estimate(shape, LoadSettings(8192, gpu_layers=99, cpu_expert_layers=10))
    moved = every.gpu.weights_bytes - kept.gpu.weights_bytes
    assert moved == sum(layer.expert_bytes for layer in shape.layers[:10])
    assert kept.host.weights_bytes == every.host.weights_bytes + moved


def test_cache_may_stay_on_the_host(shapes: dict[str, ModelShape]) -> None:
    stays = estimate(shapes["llama-8b"], LoadSettings(8192, 1, gpu_layers=99, offload_cache=False))
    assert (stays.host.context_bytes, stays.gpu.context_bytes) == (GIB, 0)


def test_projector_goes_where_the_output_is(shapes: dict[str, ModelShape]) -> None:
    def weights(layers: int, projector: int) -> tuple[int, int]:
        answer = estimate(shapes["llama-8b"], LoadSettings(8192, gpu_layers=layers, projector_bytes=projector))
        return answer.host.weights_bytes, answer.gpu.weights_bytes

    for layers in (0, 5):
        host, gpu = weights(layers, 0)
        assert weights(layers, GIB) == ((host, gpu + GIB) if layers else (host + GIB, gpu))


# --- the inverse ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("slots", [None, 1, 4])
def test_largest_context_fits_and_the_next_does_not(
    shapes: dict[str, ModelShape], name: str, slots: int | None
) -> None:
    shape, settings = shapes[name], LoadSettings(slots=slots)
    least = estimate(shape, replace(settings, context_size=256 * (slots or 1))).total_bytes
    budget = MemoryBudget(host_bytes=least + 500 * MIB)
    found = largest_context(shape, settings, budget)
    assert found is not None
    assert budget.holds(estimate(shape, replace(settings, context_size=found)))
    step = 256 * (slots or 1)
    if found + step <= shape.trained_context:
        assert not budget.holds(estimate(shape, replace(settings, context_size=found + step)))


def test_no_context_fits_where_the_weights_do_not(shapes: dict[str, ModelShape]) -> None:
    assert largest_context(shapes["llama-8b"], LoadSettings(), MemoryBudget(host_bytes=4 * GIB)) is None


def test_context_never_exceeds_what_the_model_was_trained_for(shapes: dict[str, ModelShape]) -> None:
    for slots in (1, 3, 4):
        found = largest_context(shapes["llama-8b"], LoadSettings(slots=slots), MemoryBudget())
        assert found is not None
        assert 131072 - 256 * slots < found <= 131072


@pytest.mark.parametrize("name", SHAPES)
def test_most_gpu_layers_fit_and_one_more_does_not(shapes: dict[str, ModelShape], name: str) -> None:
    shape, settings = shapes[name], LoadSettings(8192)
    whole = estimate(shape, replace(settings, gpu_layers=999))
    budget = MemoryBudget(gpu_bytes=whole.gpu.total_bytes * 2 // 3)
    layers = most_gpu_layers(shape, settings, budget)
    assert layers is not None
    assert layers < whole.all_layers
    assert budget.holds(estimate(shape, replace(settings, gpu_layers=layers)))
    assert not budget.holds(estimate(shape, replace(settings, gpu_layers=layers + 1)))


def test_gpu_layers_need_room_on_the_host_for_the_rest(shapes: dict[str, ModelShape]) -> None:
    settings, shape = LoadSettings(8192, 1), shapes["llama-8b"]
    assert most_gpu_layers(shape, settings, MemoryBudget(host_bytes=GIB, gpu_bytes=2 * GIB)) is None
    assert most_gpu_layers(shape, settings, MemoryBudget(host_bytes=GIB, gpu_bytes=16 * GIB)) == 33
    assert most_gpu_layers(shape, settings, MemoryBudget(host_bytes=16 * GIB, gpu_bytes=MIB)) == 0
