from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llama_async_proxy.events import EventBus, SampleTaken, SettingsChanged, Subscription
from llama_async_proxy.monitor.gpu import NO_GPUS, GpuProbe, GpuReading
from llama_async_proxy.monitor.host import HostProbe, HostReading
from llama_async_proxy.monitor.sampler import HostReader, Machine, Sampler, ServiceFacts
from llama_async_proxy.records.machine import GpuSample, RequestCounters, Sample

FAST, NEVER = 0.01, 3600.0


@dataclass
class RateLimiter:
    sample_watched_s: float = FAST
    sample_idle_s: float = NEVER


class OneGpu:
    def read(self) -> GpuReading:
        return GpuReading((GpuSample(0, "Test", "nvidia", usage_percent=50.0),), {42: 1024})

    def close(self) -> None:
        pass


class CountingHost:
    """The real machine, with a count of how often and how many at a time it was read."""

    def __init__(self, directory: Path, slow: threading.Event | None = None) -> None:
        self._probe = HostProbe(directory)
        self._slow = slow
        self._inside = threading.Lock()
        self.entered = threading.Event()
        self.count = 0
        self.threads: set[int] = set()

    def read(self) -> HostReading:
        assert self._inside.acquire(blocking=False), "two readings at a time"
        try:
            self.count += 1
            self.threads.add(threading.get_ident())
            self.entered.set()
            if self._slow:
                self._slow.wait(30)
            return self._probe.read()
        finally:
            self._inside.release()


class Broken:
    def read(self) -> HostReading:
        raise OSError("no such machine")


class BrokenGpu(OneGpu):
    def read(self) -> GpuReading:
        raise RuntimeError("driver on fire")


@dataclass
class Bench:
    """A sampler with everything around it in reach of the test."""

    host: HostReader
    gpu: GpuProbe = field(default_factory=OneGpu)
    pace: RateLimiter = field(default_factory=RateLimiter)
    facts: Callable[[], ServiceFacts] = ServiceFacts
    stored: list[Sample] = field(default_factory=list)
    store: Callable[[Sample], None] | None = None
    bus: EventBus = field(default_factory=EventBus)

    def sampler(self) -> Sampler:
        store = self.store or self.stored.append
        return Sampler(Machine(self.host, self.gpu), lambda: self.facts(), lambda: self.pace, bus=self.bus, store=store)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Sampler, Subscription]]:
        sampler = self.sampler()
        with self.bus.subscribe(SampleTaken) as samples:
            task = asyncio.create_task(sampler.run())
            try:
                yield sampler, samples
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def take(samples: Subscription, count: int) -> list[Sample]:
    taken: list[Sample] = []
    async with asyncio.timeout(30):
        async for event in samples:
            assert isinstance(event, SampleTaken)
            taken.append(event.sample)
            if len(taken) == count:
                break
    return taken


@pytest.fixture
def host(tmp_path: Path) -> CountingHost:
    return CountingHost(tmp_path)


async def test_sample_joins_machine_and_service(host: CountingHost) -> None:
    facts = ServiceFacts(2, 1 << 30, RequestCounters(total=7), 12.5)
    assert Bench(host).sampler().latest is None
    sampler = Bench(host, facts=lambda: facts).sampler()
    before_ms = time.time_ns() // 1_000_000
    sample = await sampler.now()
    assert sample is sampler.latest
    assert before_ms <= sample.timestamp_ms <= time.time_ns() // 1_000_000
    assert 0 < sample.memory_percent < 100
    assert sample.gpus[0].usage_percent == 50.0
    assert (sample.models_loaded, sample.models_memory_bytes, sample.requests.total) == (2, 1 << 30, 7)
    assert sample.uptime_s == 12.5


async def test_memory_of_a_process_on_the_gpu_is_that_of_the_newest_sample(host: CountingHost) -> None:
    sampler = Bench(host).sampler()
    assert sampler.gpu_bytes(42) is None
    await sampler.now()
    assert sampler.gpu_bytes(42) == 1024
    assert sampler.gpu_bytes(43) is None


async def test_machine_is_read_off_the_event_loop(host: CountingHost) -> None:
    await Bench(host).sampler().now()
    assert threading.get_ident() not in host.threads


async def test_callers_at_the_same_time_share_one_reading(host: CountingHost) -> None:
    sampler = Bench(host).sampler()
    samples = await asyncio.gather(*(sampler.now() for _ in range(20)))
    assert host.count == 1
    assert len({id(sample) for sample in samples}) == 1


async def test_now_is_never_older_than_a_quarter_of_a_second(host: CountingHost) -> None:
    sampler = Bench(host).sampler()
    first = await sampler.now()
    await asyncio.sleep(0.26)
    second = await sampler.now()
    assert second.timestamp_ms > first.timestamp_ms
    assert host.count == 2


async def test_caller_who_gives_up_does_not_let_a_second_reading_in(tmp_path: Path) -> None:
    release = threading.Event()
    host = CountingHost(tmp_path, slow=release)
    sampler = Bench(host).sampler()
    impatient = asyncio.create_task(sampler.now())
    await asyncio.to_thread(host.entered.wait, 30)
    impatient.cancel()
    patient = asyncio.create_task(sampler.now())  # would trip the host's own check if it went in at once
    await asyncio.wait([impatient])
    asyncio.get_running_loop().call_later(0.05, release.set)
    assert (await patient).cpu_cores > 0


async def test_unwatched_sampler_takes_one_sample_and_waits(host: CountingHost) -> None:
    async with Bench(host).running() as (sampler, samples):
        await take(samples, 1)
        await asyncio.sleep(10 * FAST)
        assert host.count == 1
        assert sampler.interval_s == NEVER


async def test_watcher_wakes_the_sampler_at_once_and_sets_the_pace(host: CountingHost) -> None:
    async with Bench(host).running() as (sampler, samples):
        await take(samples, 1)
        with sampler.watch():
            await take(samples, 5)
            with sampler.watch():
                await take(samples, 2)
            assert sampler.interval_s == FAST
        assert sampler.interval_s == NEVER


async def test_first_watcher_gets_a_sample_even_in_the_middle_of_an_interval(host: CountingHost) -> None:
    async with Bench(host, pace=RateLimiter(sample_watched_s=NEVER)).running() as (sampler, samples):
        await take(samples, 1)
        with sampler.watch():
            await take(samples, 1)


async def test_the_watcher_with_the_shortest_interval_sets_the_pace(host: CountingHost) -> None:
    async with Bench(host).running() as (sampler, samples):
        await take(samples, 1)
        with sampler.watch(lambda: 60.0):
            assert sampler.interval_s == 60.0
            with sampler.watch(lambda: FAST):
                assert sampler.interval_s == FAST
                await take(samples, 5)
            assert sampler.interval_s == 60.0
        assert sampler.interval_s == NEVER


async def test_changed_interval_holds_at_once(host: CountingHost) -> None:
    bench = Bench(host)
    async with bench.running() as (_, samples):
        await take(samples, 1)
        bench.pace.sample_idle_s = FAST
        bench.bus.publish(SettingsChanged(("sample_idle_s",)))
        await take(samples, 5)


async def test_only_one_sample_per_idle_interval_is_stored(host: CountingHost) -> None:
    bench = Bench(host, pace=RateLimiter(sample_idle_s=0.2))
    async with bench.running() as (sampler, samples):
        with sampler.watch():
            started = time.monotonic()
            taken = await take(samples, 30)
            elapsed = time.monotonic() - started
    assert taken[0] is bench.stored[0]
    assert 1 <= len(bench.stored) <= 2 + elapsed / 0.2
    assert len(bench.stored) < len(taken)


async def test_polling_now_does_not_hold_back_the_samples_of_the_pace(host: CountingHost) -> None:
    async with Bench(host, pace=RateLimiter(sample_watched_s=0.3)).running() as (sampler, samples):
        with sampler.watch():
            arrived = asyncio.create_task(take(samples, 3))
            while not arrived.done():
                await sampler.now()
                await asyncio.sleep(0.02)
            assert len(await arrived) == 3


async def test_probe_that_fails_is_logged_once_and_reads_as_unknown(
    host: CountingHost, caplog: pytest.LogCaptureFixture
) -> None:
    async with Bench(host, gpu=BrokenGpu()).running() as (sampler, samples):
        with sampler.watch():
            taken = await take(samples, 5)
    assert [sample.gpus for sample in taken] == [NO_GPUS.gpus] * 5
    assert all(sample.memory_total_bytes for sample in taken)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "driver on fire" in record.getMessage()


async def test_host_that_fails_still_gives_gpus(caplog: pytest.LogCaptureFixture) -> None:
    sample = await Bench(Broken()).sampler().now()
    assert (sample.memory_total_bytes, sample.disk_total_bytes, sample.load_average) == (0, 0, None)
    assert sample.gpus[0].name == "Test"
    assert "no such machine" in caplog.text


async def test_faults_around_the_sampler_do_not_end_it(host: CountingHost, caplog: pytest.LogCaptureFixture) -> None:
    def no_facts() -> ServiceFacts:
        raise LookupError("no engine")

    def no_store(_: Sample) -> None:
        raise OSError("disk full")

    bench = Bench(host, facts=no_facts, store=no_store, pace=RateLimiter(sample_idle_s=FAST))
    async with bench.running() as (_, samples):
        taken = await take(samples, 5)
    assert taken[-1].models_loaded == 0
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


async def test_jump_of_the_clock_changes_no_interval(host: CountingHost, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(host, pace=RateLimiter(sample_idle_s=0.05))
    async with bench.running() as (_, samples):
        await take(samples, 2)
        monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)  # 1970
        past = await take(samples, 2)
        monkeypatch.setattr(time, "time_ns", lambda: 10**19)  # 2286
        future = await take(samples, 3)
    assert past[-1].timestamp_ms == 1000
    assert future[-1].timestamp_ms == 10**13
    assert len(bench.stored) >= 6


async def test_reading_blocks_nobody_on_the_loop(tmp_path: Path) -> None:
    release = threading.Event()
    host = CountingHost(tmp_path, slow=release)
    sampler = Bench(host).sampler()
    reading = asyncio.create_task(sampler.now())
    await asyncio.to_thread(host.entered.wait, 30)
    longest = -math.inf
    for _ in range(10):
        before = time.monotonic()
        await asyncio.sleep(0)
        longest = max(longest, time.monotonic() - before)
    assert not reading.done()
    assert longest < 0.1
    release.set()
    await reading
