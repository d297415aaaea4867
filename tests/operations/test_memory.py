from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from llama_async_proxy.errors import LoadFailed, NotEnoughMemory
from llama_async_proxy.inference.scheduling.policy import UNLIMITED, Capacity
from llama_async_proxy.operations.memory import MemoryPlanner
from llama_async_proxy.operations.scan import read_model_file
from llama_async_proxy.records.engine import EngineState, EngineStatus
from llama_async_proxy.records.machine import GpuSample, Sample
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import NO_MEMORY, LaunchSpec, MemoryUse
from support.models import write_ghost
from support.upstream import make_model, make_settings, make_spec

GIB = 1 << 30
GPU = GpuSample(0, "g", "nvidia", None, 20 * GIB, 24 * GIB)
MACHINE = Sample(0, 0.0, 1, None, 0, 32 * GIB, 20 * GIB, 0, 0, 0, 0, 0, gpus=(GPU,))


class Samples:
    def __init__(self, latest: Sample | None) -> None:
        self.latest = latest

    async def now(self) -> Sample:
        assert self.latest is not None
        return self.latest


def book(sample: Sample | None = MACHINE, kind: str = "workers", **settings: Any) -> MemoryPlanner:
    chosen = make_settings(**settings)
    return MemoryPlanner(lambda: chosen, lambda: EngineState(EngineStatus.RUNNING, kind), Samples(sample))


@pytest.fixture
def large(tmp_path: Path) -> Model:
    file = read_model_file(write_ghost(tmp_path / "large.gguf", arch="llama-8b", real_vocab=False))
    return replace(make_model(1, "large"), path=file.path, size_bytes=file.size_bytes, mtime_ns=file.mtime_ns)


def spec(model: Model, options: Mapping[str, Any]) -> LaunchSpec:
    return replace(make_spec(model, options), path=model.path)


def test_before_the_first_sample_nothing_is_limited() -> None:
    assert book(None).capacity() == (UNLIMITED, UNLIMITED)


def test_models_may_take_what_is_free_and_one_alone_what_the_machine_has() -> None:
    margins: dict[str, Any] = {"memory_margin_mib": 1024, "gpu_memory_margin_mib": 2048}
    assert book(**margins).capacity() == (Capacity(19 * GIB, 2 * GIB), Capacity(32 * GIB, 24 * GIB))
    strict, _ = book(**margins, memory_strict=True).capacity()
    assert book(**margins, memory_strict=True).capacity() == (strict, strict)


def test_what_loaded_models_hold_counts_as_theirs() -> None:
    held = replace(MACHINE, models_private_bytes=5 * GIB, models_gpu_bytes=15 * GIB)
    assert book(held, memory_margin_mib=0, gpu_memory_margin_mib=0).capacity()[0] == Capacity(25 * GIB, 19 * GIB)


def test_a_limit_that_was_set_holds() -> None:
    limited = book(memory_limit_mib=1024, gpu_memory_limit_mib=2048)
    assert limited.capacity() == (Capacity(GIB, 2 * GIB), Capacity(GIB, 2 * GIB))


def test_each_gpu_of_several_has_its_own_bound() -> None:
    gpu = replace(MACHINE.gpus[0], memory_total_bytes=24 * GIB)
    two = replace(MACHINE, gpus=(gpu, gpu))
    together, alone = book(two, gpu_memory_margin_mib=1024).capacity()
    assert (together.gpus, alone.gpus) == ((23 * GIB, 23 * GIB), (24 * GIB, 24 * GIB)), "less the margin"
    mixed = replace(two, gpus=(gpu, replace(gpu, vendor="amd")))
    assert book(mixed).capacity()[1].gpus == (), "their order for the engine is not known"
    assert book(two, kind="embedded").capacity()[1].gpus == ()


def test_the_built_in_engine_uses_no_gpu() -> None:
    assert book(kind="embedded").capacity()[1] == Capacity(32 * GIB, None)


async def test_the_requirement_is_estimated_from_the_header(large: Model) -> None:
    requirement = await book(replace(MACHINE, gpus=())).requirement(
        large, spec(large, {"ctx-size": 8192, "parallel": 1})
    )
    assert 5 * GIB < requirement.host_bytes < 7 * GIB
    assert requirement.gpu_bytes == 0


async def test_where_nobody_can_tell_nothing_is_asked_for(large: Model) -> None:
    gone = replace(large, path="/nowhere/gone.gguf")
    assert await book().requirement(gone, spec(gone, {})) == NO_MEMORY
    assert await book().requirement(large, spec(large, {"cache-type-k": "new_kind"})) == NO_MEMORY


async def test_a_refusal_has_numbers_and_settings_that_would_fit(large: Model) -> None:
    small = book(replace(MACHINE, gpus=()), memory_limit_mib=8192)
    requirement = await small.requirement(large, spec(large, {"ctx-size": 65536, "parallel": 1}))
    refusal = small.shortage(large, requirement, NO_MEMORY)
    assert "needs 1" in refusal.message
    assert "8.00 GiB" in refusal.message
    assert "pinned" not in refusal.message
    assert "--ctx-size" in (refusal.details or "")


async def test_settings_that_would_fit_leave_pinned_models_what_they_hold(large: Model) -> None:
    small = book(replace(MACHINE, gpus=()), memory_limit_mib=8192)
    requirement = await small.requirement(large, spec(large, {"ctx-size": 65536, "parallel": 1}))
    beside = small.shortage(large, requirement, MemoryUse(GIB))
    assert "of which pinned models hold 1.00 GiB" in beside.message

    def context(refusal: NotEnoughMemory) -> int:
        [tokens] = re.findall(r"--ctx-size (\d+)", refusal.message)
        return int(tokens)

    assert context(beside) < context(small.shortage(large, requirement, NO_MEMORY))
    assert "No setting" in small.shortage(large, requirement, MemoryUse(8 * GIB)).message


@pytest.mark.parametrize(
    ("failure", "tries_again"),
    [
        (LoadFailed("ggml_backend_alloc: failed to allocate buffer"), True),
        (LoadFailed("it ended", exit_code=1, log_tail=("cudaMalloc failed: out of memory",)), True),
        (LoadFailed("it ended", exit_code=-9), True),
        (LoadFailed("unknown model architecture", exit_code=1), False),
    ],
)
async def test_only_a_load_that_ran_out_of_memory_is_made_smaller(
    large: Model, failure: LoadFailed, tries_again: bool
) -> None:
    asked = spec(large, {"ctx-size": 32768, "parallel": 1})
    smaller = await book(replace(MACHINE, gpus=())).smaller_load(large, asked, failure)
    assert (smaller is not None) is tries_again
    if smaller is not None:
        assert smaller.options == {"ctx-size": 16384, "parallel": 1}
