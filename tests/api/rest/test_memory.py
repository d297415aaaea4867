from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.harness import ServiceHarness, house
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.monitor.sampler import Sampler
from llama_async_proxy.operations.estimate import EstimateMemory, Fit, MemoryReport, estimate_memory
from llama_async_proxy.operations.load_settings import ALL_LAYERS
from llama_async_proxy.operations.models import ScanModels, find, scan_models
from llama_async_proxy.records.machine import GpuSample, Sample
from llama_async_proxy.records.options import OptionValue
from support.models import write_ghost

GIB = 1 << 30


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files) as at:
        write_ghost(at.models_dir / "large.gguf", arch="llama-8b", real_vocab=False)
        await scan_models(at.context, ScanModels())
        yield at


def machine(*, free: int, gpu_free: int | None = None) -> Sample:
    gpus = () if gpu_free is None else (GpuSample(0, "g", "nvidia", None, 80 * GIB - gpu_free, 80 * GIB),)
    return Sample(0, 0.0, 1, None, 0, 64 * GIB, free, 0, 0, 0, 0, 0, gpus=gpus)


async def report(
    at: ServiceHarness, monkeypatch: pytest.MonkeyPatch, sample: Sample, /, **options: OptionValue
) -> MemoryReport:
    async def now() -> Sample:
        return sample

    monkeypatch.setattr(at.context.sampler, "now", now)
    monkeypatch.setattr(Sampler, "latest", sample)
    given = {name.replace("_", "-"): value for name, value in {"ctx_size": 8192, "parallel": 1, **options}.items()}
    return await estimate_memory(at.context, EstimateMemory("large", given))


async def test_memory_of_a_load_is_answered_beside_what_is_free(at: ServiceHarness) -> None:
    status, answer = await at.call("GET", "/api/models/large/memory?ctx_size=8192&slots=1&gpu_layers=0")
    assert status == 200
    memory = answer["data"]
    assert (memory["contextSize"], memory["slots"], memory["gpuLayers"]) == (8192, 1, 0)
    assert memory["host"]["context"] == 1024
    assert memory["host"]["weights"] == pytest.approx(4437, abs=1)
    assert memory["total"] == pytest.approx(4437 + 1024 + 298, abs=30)
    assert memory["isRough"] is False
    assert memory["free"]["host"] > 0
    assert "measured" not in memory


async def test_half_the_cache_type_takes_about_half_the_context(at: ServiceHarness) -> None:
    path = "/api/models/large/memory?ctx_size=8192&slots=1"
    _, full = await at.call("GET", path)
    _, half = await at.call("GET", f"{path}&cache_type=q8_0")
    assert half["data"]["host"]["context"] == 544
    assert full["data"]["host"]["context"] == 1024


async def test_a_running_model_shows_what_it_takes(at: ServiceHarness) -> None:
    await at.call("POST", "/api/models/chat/load")
    _, answer = await at.call("GET", "/api/models/chat/memory")
    assert answer["data"]["measured"]["host"] > 1
    await at.call("POST", "/api/models/chat/unload")
    _, answer = await at.call("GET", "/api/models/chat/memory")
    assert "measured" not in answer["data"]


@pytest.mark.parametrize(
    ("query", "part"),
    [("ctx_size=-1", "ctx_size"), ("slots=0", "slots"), ("gpu_layers=x", "gpu_layers"), ("cache_type=q3", "q8_0")],
)
async def test_a_wrong_question_names_the_field(at: ServiceHarness, query: str, part: str) -> None:
    status, answer = await at.call("GET", f"/api/models/large/memory?{query}")
    assert (status, answer["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert part in answer["error"]["message"]


async def test_an_unknown_model_and_a_lost_file_are_not_found(at: ServiceHarness) -> None:
    assert (await at.call("GET", "/api/models/nobody/memory"))[0] == 404
    (at.models_dir / "large.gguf").unlink()
    status, answer = await at.call("GET", "/api/models/large/memory")
    assert status == 404
    assert "cannot be read" in answer["error"]["message"]


async def test_a_load_fits_where_there_is_room(at: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await report(at, monkeypatch, machine(free=8 * GIB))).fits is Fit.YES
    small = await report(at, monkeypatch, machine(free=11 * GIB // 2))
    assert small.fits is Fit.TIGHT
    assert small.largest_context is not None
    assert 256 <= small.largest_context < 8192
    none = await report(at, monkeypatch, machine(free=GIB))
    assert (none.fits, none.largest_context) == (Fit.TIGHT, None)
    huge = await report(at, monkeypatch, machine(free=60 * GIB), ctx_size=1 << 20)
    assert huge.fits is Fit.NO
    assert {"ctx-size": huge.largest_context} in huge.alternatives


async def test_without_a_gpu_no_layer_goes_there(at: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = await report(at, monkeypatch, machine(free=8 * GIB), n_gpu_layers=99)
    assert answer.estimate.gpu.total_bytes == 0
    assert (answer.free_gpu_bytes, answer.most_gpu_layers) == (None, None)


async def test_as_many_layers_as_fit_go_to_the_gpu(at: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    room = await report(at, monkeypatch, machine(free=8 * GIB, gpu_free=20 * GIB))
    assert (room.estimate.gpu_layers, room.most_gpu_layers, room.fits) == (33, 33, Fit.YES)
    tight = await report(at, monkeypatch, machine(free=8 * GIB, gpu_free=3 * GIB))
    assert 0 < tight.estimate.gpu_layers < 33
    assert tight.fits is Fit.YES
    forced = await report(at, monkeypatch, machine(free=8 * GIB, gpu_free=3 * GIB), n_gpu_layers="all")
    assert (forced.estimate.gpu_layers, forced.fits) == (33, Fit.HOST_ONLY)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"parallel": 3, "kv-unified": True}, {"slots": 3, "unified_cache": True}),
        ({"no-kv-offload": True}, {"offload_cache": False}),
        ({"kv-offload": False}, {"offload_cache": False}),
        ({"swa-full": True, "cpu-moe": True}, {"full_sliding_cache": True, "cpu_expert_layers": ALL_LAYERS}),
        ({"flash-attn": False, "ubatch-size": "64"}, {"flash_attention": "off", "micro_batch_size": 64}),
    ],
)
async def test_every_option_that_matters_is_understood(
    at: ServiceHarness, options: dict[str, OptionValue], settings: dict[str, Any]
) -> None:
    model = find(at.context, "large")
    demand = await at.context.memory.demand(model, at.context.planner.spec(model, options))
    assert {name: getattr(demand.settings, name) for name in settings} == settings


@pytest.mark.parametrize(
    "options",
    [{"ctx-size": "x"}, {"ctx-size": True}, {"ctx-size": 10**30}, {"cache-type-v": 8}, {"flash-attn": "maybe"}],
)
async def test_an_option_llama_server_would_refuse_is_refused(
    at: ServiceHarness, options: dict[str, OptionValue]
) -> None:
    with pytest.raises(InvalidInput, match="options"):
        await estimate_memory(at.context, EstimateMemory("large", options))
