"""A model that waits for its turn, as each door shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from api.harness import ServiceHarness, client, house
from llama_async_proxy.errors import ServiceError, Unavailable
from llama_async_proxy.operations import models as model_operations
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import ModelStatus


class Queued:
    """Room for one model: "chat" is busy, somebody waits for "slow"."""

    def __init__(self, at: ServiceHarness) -> None:
        self.at = at
        self.revoked: ServiceError | None = None
        self.over = asyncio.Event()
        self.tasks = [asyncio.create_task(self._hold(self.model("chat"), self._revoke))]

    def model(self, slug: str) -> Model:
        return model_operations.find(self.at.context, slug)

    def _revoke(self, reason: ServiceError) -> None:
        self.revoked = reason
        self.over.set()

    async def _hold(self, model: Model, revoke: Callable[[ServiceError], None]) -> None:
        async with self.at.context.scheduler.lease(model, revoke):
            await self.over.wait()

    async def begin(self) -> None:
        scheduler = self.at.context.scheduler
        async with asyncio.timeout(20):
            while not scheduler.is_ready(self.model("chat")):
                await asyncio.sleep(0.01)
            self.tasks.append(asyncio.create_task(self._hold(self.model("slow"), lambda _: None)))
            while scheduler.runtime(self.model("slow").id).status is not ModelStatus.QUEUED:
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def queued(tmp_path: Path, model_files: Path) -> AsyncIterator[Queued]:
    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(house(tmp_path, model_files, max_models=1))
        queued = Queued(at)
        stack.push_async_callback(queued.end)
        await queued.begin()
        yield queued


async def test_to_rest_it_is_loading(queued: Queued) -> None:
    _, answer = await queued.at.call("GET", "/api/models/slow")
    assert answer["data"]["status"] == "loading"
    status, answer = await queued.at.call("DELETE", "/api/models/slow")
    assert (status, answer["error"]["code"]) == (409, "CONFLICT")


async def test_to_socket_clients_it_is_loading(queued: Queued) -> None:
    async with client(queued.at) as page:
        answer = await page.ask("models:list")
    assert {model["name"]: model["status"] for model in answer["data"]["models"]}["slow"] == "loading"


async def test_the_ui_is_told_its_position_and_why_it_waits(queued: Queued) -> None:
    async with client(queued.at, "/ui") as page:
        await page.ask("join", {"topic": "models"})
        snapshot = await page.until("snapshot")
        [slow] = [model for model in snapshot["data"]["models"] if model["slug"] == "slow"]
        assert slow["status"] == "queued"
        assert (slow["queue"]["position"], slow["queue"]["requests"]) == (1, 1)
        assert slow["queue"]["reason"] == "all places are taken by models that are answering"
        queued.tasks[1].cancel()

        def no_longer_waits(delta: Any) -> bool:
            models = [item["model"] for item in delta["items"] if item["kind"] == "upsert"]
            return ("slow", "unloaded", None) in [(m["slug"], m["status"], m["queue"]) for m in models]

        await page.until("delta", no_longer_waits)


async def test_unloading_it_takes_it_out_of_the_queue(queued: Queued) -> None:
    status, _ = await queued.at.call("POST", "/api/models/slow/unload")
    assert status == 200
    with pytest.raises(Unavailable, match="unloaded while it waited"):
        await queued.tasks[1]


async def test_stopping_the_engine_tells_clients_that_it_was_stopped(queued: Queued) -> None:
    status, _ = await queued.at.call("POST", "/api/llama-server/stop")
    assert status == 200
    assert str(queued.revoked) == "The engine was stopped."
