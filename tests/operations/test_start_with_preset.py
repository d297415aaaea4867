"""Options of one start of the engine, and starts that fail; on the whole service over a stand-in engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.harness import ServiceHarness, house
from llama_async_proxy.errors import PresetNotFound
from llama_async_proxy.operations.engine import RestartEngine, StopEngine, restart_engine, stop_engine
from llama_async_proxy.operations.options import StartWithPreset, start_with_preset
from llama_async_proxy.operations.presets import ImportPreset, import_preset
from llama_async_proxy.records.engine import EngineStatus


@pytest.fixture
async def at(tmp_path: Path, model_files: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServiceHarness]:
    monkeypatch.setattr("llama_async_proxy.operations.engine._RESTART_PAUSE_S", 0)
    async with house(tmp_path, model_files, ctx_size=4096) as at:
        await import_preset.run(at.context, ImportPreset("mine", "[chat]\nctx-size = 2048\n"))
        yield at


def context_of(at: ServiceHarness, name: str) -> object:
    model = at.context.names.index.resolve(name)
    assert model is not None
    return at.context.planner.spec(model).options.get("ctx-size")


async def test_an_unknown_preset_does_not_start_a_stopped_engine(at: ServiceHarness) -> None:
    await stop_engine.run(at.context, StopEngine())
    with pytest.raises(PresetNotFound):
        await start_with_preset.run(at.context, StartWithPreset("nowhere"))
    assert at.context.engine.state.status is EngineStatus.IDLE


async def test_a_bad_option_does_not_start_a_stopped_engine(at: ServiceHarness) -> None:
    await stop_engine.run(at.context, StopEngine())
    with pytest.raises(Exception, match="ctx-size"):
        await start_with_preset.run(at.context, StartWithPreset("mine", options={"ctx-size": -99}))
    assert at.context.engine.state.status is EngineStatus.IDLE
    assert not at.context.active_preset.name


async def test_options_of_a_start_are_over_everything_until_the_next_and_are_not_kept(at: ServiceHarness) -> None:
    assert context_of(at, "chat") == 4096
    await start_with_preset.run(at.context, StartWithPreset("mine", 1, {"ctxSize": 512}))
    assert (context_of(at, "chat"), context_of(at, "slow")) == (512, 512)
    assert at.context.configuration.settings.max_models == 1
    assert "512" not in at.context.configuration.settings.config_path.read_text()
    await restart_engine.run(at.context, RestartEngine())
    assert (context_of(at, "chat"), context_of(at, "slow")) == (2048, 4096)
    assert at.context.configuration.settings.max_models == 4


async def test_minus_one_leaves_an_option_to_the_engine(at: ServiceHarness) -> None:
    await start_with_preset.run(at.context, StartWithPreset("mine", options={"ctxSize": -1}))
    assert context_of(at, "chat") == 2048
