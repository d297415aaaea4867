from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from llama_async_proxy.gguf.memory import LoadSettings, MemoryBudget
from llama_async_proxy.gguf.reader import read_header
from llama_async_proxy.gguf.shape import ModelShape, model_shape
from llama_async_proxy.operations.demand import LEAST_CONTEXT, MemoryRequirement
from llama_async_proxy.operations.load_settings import ALL_LAYERS
from support.models import write_ghost

GIB = 1 << 30


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    """8 billion parameters: 4.3 GiB, and 128 KiB for each token of context."""
    path = tmp_path_factory.mktemp("ghost") / "large.gguf"
    return model_shape(read_header(write_ghost(path, arch="llama-8b", real_vocab=False)))


def asking(shape: ModelShape, context: int = 0, gpu_layers: int | None = None) -> MemoryRequirement:
    return MemoryRequirement(shape, LoadSettings(context_size=context, slots=1), gpu_layers)


def host(gib: float) -> MemoryBudget:
    return MemoryBudget(round(gib * GIB))


def test_a_context_that_nobody_chose_is_what_fits(shape: ModelShape) -> None:
    roomy, tight = asking(shape).placed(host(64)), asking(shape).placed(host(8))
    assert roomy.context_size == shape.trained_context
    assert LEAST_CONTEXT <= tight.context_size < shape.trained_context
    assert asking(shape).fits(host(8))
    assert not asking(shape).fits(host(2))
    assert asking(shape).placed(host(2)).context_size == LEAST_CONTEXT


def test_a_context_that_somebody_chose_stays(shape: ModelShape) -> None:
    assert asking(shape, 65536).placed(host(8)).context_size == 65536
    assert not asking(shape, 65536).fits(host(8))


def test_layers_nobody_chose_go_to_the_gpu_as_far_as_they_fit(shape: ModelShape) -> None:
    budget = MemoryBudget(32 * GIB, 3 * GIB)
    layers = asking(shape, 4096).placed(budget).gpu_layers
    assert 0 < layers < len(shape.layers)
    assert asking(shape, 4096).fits(budget)
    assert asking(shape, 4096, gpu_layers=99).placed(budget).gpu_layers == 99
    assert not asking(shape, 4096, gpu_layers=99).fits(budget)


def test_without_a_gpu_nothing_goes_there(shape: ModelShape) -> None:
    assert asking(shape, 4096, gpu_layers=99).use(host(32)).gpu_bytes == 0


@pytest.mark.parametrize(
    ("context", "layers", "budget"),
    [(65536, None, host(8)), (32768, None, host(7)), (8192, 33, MemoryBudget(32 * GIB, 4 * GIB))],
)
def test_every_alternative_fits_by_itself(
    shape: ModelShape, context: int, layers: int | None, budget: MemoryBudget
) -> None:
    demand = asking(shape, context, layers)
    assert not demand.fits(budget)
    found = list(demand.alternatives(budget))
    assert found
    for options in found:
        fields: dict[str, Any] = {name.replace("-", "_"): value for name, value in options.items()}
        chosen = fields.pop("n_gpu_layers", layers)
        names = {"ctx_size": "context_size"}
        settings = replace(demand.settings, **{names.get(name, name): value for name, value in fields.items()})
        assert replace(demand, settings=settings, gpu_layers=chosen).fits(budget), options


def test_nothing_is_offered_when_nothing_fits(shape: ModelShape) -> None:
    assert list(asking(shape, 8192).alternatives(host(1))) == []


def test_after_running_out_of_memory_the_context_shrinks_before_layers_leave_the_gpu(shape: ModelShape) -> None:
    budget = MemoryBudget(64 * GIB, 64 * GIB)
    assert asking(shape, 32768).smaller(budget) == {"ctx-size": 16384}
    assert asking(shape, 4096).smaller(budget) == {"n-gpu-layers": 24}
    assert asking(shape, 4096).smaller(host(64)) is None


def test_layers_go_where_there_is_room_unless_the_options_say_where(shape: ModelShape) -> None:
    two = MemoryBudget(64 * GIB, 40 * GIB, (30 * GIB, 10 * GIB))
    asked = asking(shape, 8192, ALL_LAYERS)
    large, small = asked.estimate(two).gpus
    assert large.total_bytes > 2 * small.total_bytes
    assert asked.use(two).gpus == (), "the engine chooses"
    assert asked.fits(two)
    only_small = replace(asked, settings=replace(asked.settings, gpu_shares=(0.0, 1.0)))
    cramped = MemoryBudget(64 * GIB, 40 * GIB, (38 * GIB, 2 * GIB))
    assert only_small.use(cramped).gpus[0] == 0
    assert not only_small.fits(cramped)
    layers = only_small.most_gpu_layers(cramped)
    assert layers is not None
    assert 0 < layers < len(shape.layers) + 1
    assert asked.fits(cramped)


def test_a_draft_model_counts(shape: ModelShape) -> None:
    alone, budget = asking(shape, 8192), host(64)
    drafted = replace(alone, draft=shape)
    assert drafted.use(budget).host_bytes > 1.9 * alone.use(budget).host_bytes
    largest, smaller = alone.largest_context(host(16)), drafted.largest_context(host(16))
    assert largest is not None
    assert smaller is not None
    assert smaller < largest


def test_a_smaller_cache_of_the_draft_model_leaves_more(shape: ModelShape) -> None:
    drafted = replace(asking(shape, 8192), draft=shape)
    quantized = replace(drafted, draft_settings=LoadSettings(cache_type_k="q8_0", cache_type_v="q8_0"))
    assert quantized.use(host(64)).host_bytes < drafted.use(host(64)).host_bytes
