from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from api.harness import Client, client, house
from llama_async_proxy.api.socketio.sample_feed import Cadence
from llama_async_proxy.events import SampleTaken


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def due_times(interval_s: float, ticks_s: list[float]) -> list[float]:
    """The ticks at which an event of the cadence is due."""
    clock = Clock()
    cadence = Cadence(lambda: interval_s, clock)
    due = []
    for tick_s in ticks_s:
        clock.now_s = 100 + tick_s
        if cadence.is_due():
            due.append(tick_s)
    return due


def test_frequent_samples_are_thinned_to_the_cadence() -> None:
    assert due_times(10, list(range(31))) == [0, 10, 20, 30]


def test_a_sample_that_comes_a_little_early_is_not_skipped() -> None:
    assert due_times(10, [0, 9.99, 19.98, 29.97]) == [0, 9.99, 19.98, 29.97]


def test_seldom_samples_are_all_due() -> None:
    assert due_times(1, [0, 10, 20]) == [0, 10, 20]


def test_a_changed_interval_takes_effect_at_once() -> None:
    clock = Clock()
    interval_s = [60.0]
    cadence = Cadence(lambda: interval_s[0], clock)
    assert cadence.is_due()
    clock.now_s += 10
    assert not cadence.is_due()
    interval_s[0] = 10
    assert cadence.is_due()


async def test_one_sampler_feeds_every_dialect_at_its_own_cadence(tmp_path: Path, model_files: Path) -> None:
    async with house(tmp_path, model_files, metrics_broadcast_s=0.6, sample_watched_s=0.1) as at:
        sampler = at.context.sampler
        assert sampler.interval_s == at.context.settings.sample_idle_s
        with at.context.bus.subscribe(SampleTaken) as taken:
            async with client(at) as v1, client(at, "/llamaproxws") as ack:
                assert sampler.interval_s == 0.6, "the slower dialects alone need no more"
                async with client(at, "/ui") as ui:
                    await ui.ask("join", {"topic": "metrics"})
                    assert sampler.interval_s == 0.1
                    await received(v1, "metrics:update", 4)
                    await received(ack, "metrics:update", 4)
                    assert ui.all("delta")
                await ack.ask("metrics:unsubscribe")
            async with asyncio.timeout(30):
                while sampler.interval_s != at.context.settings.sample_idle_s:  # the clients' leaving is on its way
                    await asyncio.sleep(0.01)
            newest = await sampler.now()
            at.context.bus.publish(SampleTaken(newest))
            stamps = []
            async for event in taken:
                assert isinstance(event, SampleTaken)
                stamps.append(event.sample.timestamp_ms)
                if event.sample is newest:
                    break
        updates = [update["data"]["metrics"]["timestamp"] for update in v1.all("metrics:update")]
        assert set(updates) <= set(stamps)
        assert len(stamps) > 2 * len(updates)


async def received(page: Client, event: str, count: int) -> None:
    await page.until(event, lambda _: len(page.all(event)) >= count)


@pytest.mark.parametrize("subscribed", [True, False])
async def test_metrics_go_only_to_clients_that_want_them(tmp_path: Path, model_files: Path, subscribed: bool) -> None:
    async with house(tmp_path, model_files, metrics_broadcast_s=0.05) as at, client(at, "/llamaproxws") as page:
        await page.ask("metrics:subscribe" if subscribed else "metrics:unsubscribe")
        assert (at.context.sampler.interval_s == 0.05) is subscribed
