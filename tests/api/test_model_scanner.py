"""The models directory and the table of models, kept in step; on the whole service over a stand-in engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.harness import ServiceHarness, house
from llama_async_proxy.errors import NotFound
from llama_async_proxy.operations.models import LoadModel, load_model
from support.models import write_chat


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files) as at:
        yield at


async def test_scans_at_the_same_time_are_one_scan(at: ServiceHarness) -> None:
    write_chat(at.models_dir / "new.gguf", name="New")
    reports = await asyncio.gather(*(at.context.scanner.scan() for _ in range(5)))
    assert [report.scanned for report in reports] == [1] * 5
    assert len({id(report) for report in reports}) == 1


async def test_one_who_leaves_does_not_end_the_scan_of_the_others(at: ServiceHarness) -> None:
    write_chat(at.models_dir / "new.gguf", name="New")
    leaving, staying = (asyncio.create_task(at.context.scanner.scan()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).scanned == 1


async def test_a_file_that_goes_leaves_the_lists_and_comes_back_with_its_id(at: ServiceHarness) -> None:
    path = write_chat(at.models_dir / "here.gguf", name="Here")
    await at.context.scanner.scan()
    before = at.context.names.index.resolve("here")
    assert before is not None
    kept = path.rename(path.with_suffix(".away"))
    report = await at.context.scanner.scan()
    assert (report.updated, report.scanned) == (1, 0)
    gone = at.context.store.models.get(before.id)
    assert gone.is_missing
    assert gone not in at.context.names.index.listed
    with pytest.raises(NotFound, match="is gone"):
        await load_model.run(at.context, LoadModel("here"))
    kept.rename(path)
    assert (await at.context.scanner.scan()).updated == 1
    back = at.context.store.models.get(before.id)
    assert (back.slug, back.is_missing) == ("here", False)


async def test_a_model_says_at_once_when_it_was_used(at: ServiceHarness) -> None:
    [model, *_] = at.context.store.models.all()
    at.context.store.models.touch(model.id, 123_456)
    assert at.context.store.models.with_last_use(model).last_used_at_ms == 123_456
