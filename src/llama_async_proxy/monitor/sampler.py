"""One sampler for everybody: it reads the machine often while someone watches, seldom otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

from msgspec import Struct, field

from llama_async_proxy.events import EventBus, SampleTaken, SettingsChanged, Subscription
from llama_async_proxy.monitor.gpu import NO_GPUS, GpuProbe, GpuReading
from llama_async_proxy.monitor.host import Disk, HostReading, Memory, Swap
from llama_async_proxy.records.machine import RequestCounters, Sample

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_FRESH_S = 0.25
"""`now` answers with a sample this old: several doors that ask in one breath cause one reading."""


class ServiceFacts(Struct, frozen=True):
    """What a sample says of the service itself."""

    models_loaded: int = 0
    models_memory_bytes: int = 0
    """RSS of all model processes."""
    requests: RequestCounters = field(default_factory=RequestCounters)
    uptime_s: float = 0.0
    models_private_bytes: int = 0
    """The part of `models_memory_bytes` that is given back when they end; mapped files count as available already."""
    model_pids: tuple[int, ...] = ()


class Intervals(Protocol):
    """The part of the settings that this module reads."""

    @property
    def sample_watched_s(self) -> float: ...

    @property
    def sample_idle_s(self) -> float: ...


class HostReader(Protocol):
    def read(self) -> HostReading: ...


class FailureLog:
    """Logs each kind of failure once: a probe that fails every second must not fill the log."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, type[Exception]]] = set()

    def report(self, action: str, error: Exception) -> None:
        kind = (action, type(error))
        if kind not in self._seen:
            self._seen.add(kind)
            text = "Cannot %s: %s. Further failures of this kind are not logged."
            logger.warning(text, action, error, exc_info=error)


class MachineReading(Struct, frozen=True):
    host: HostReading
    gpu: GpuReading


class Machine:
    """Host and GPUs read together. Thread-safe: readings take their turn. Never raises for what cannot be read."""

    def __init__(self, host: HostReader, gpu: GpuProbe) -> None:
        self._host = host
        self._gpu = gpu
        self._failures = FailureLog()
        self._turn = threading.Lock()

    def read(self) -> MachineReading:
        """Blocks for milliseconds; a driver that hangs makes it seconds."""
        with self._turn:
            return MachineReading(
                host=self._attempt("read the host", self._host.read, _unknown_host),
                gpu=self._attempt("read the GPUs", self._gpu.read, lambda: NO_GPUS),
            )

    def close(self) -> None:
        self._gpu.close()

    def _attempt(self, action: str, read: Callable[[], _T], unknown: Callable[[], _T]) -> _T:
        try:
            return read()
        except Exception as exc:  # a probe's fault must not end the sampling; logged by its kind
            self._failures.report(action, exc)
            return unknown()


def _unknown_host() -> HostReading:
    """Totals of 0 mean "not known", as the records have no other way to say it."""
    return HostReading(0.0, os.cpu_count() or 1, None, Memory(0, 0, 0), Swap(), Disk())


class Sampler:
    """Takes samples, publishes each as SampleTaken, and hands one per `sample_idle_s` to `store`.

    Owned by the event loop; readings happen in a thread. `intervals` and `facts` are asked anew for each sample.
    """

    def __init__(
        self,
        machine: Machine,
        facts: Callable[[], ServiceFacts],
        intervals: Callable[[], Intervals],
        *,
        bus: EventBus,
        store: Callable[[Sample], None],
    ) -> None:
        self._machine = machine
        self._facts = facts
        self._intervals = intervals
        self._bus = bus
        self._store = store
        self._failures = FailureLog()
        self._reading = asyncio.Lock()
        self._wake = asyncio.Event()
        self._watchers: list[Callable[[], float]] = []
        """Intervals that the watchers want, in seconds."""
        self._latest: Sample | None = None
        self._process_bytes: Mapping[int, int] = NO_GPUS.process_bytes
        # Monotonic, so that a change of the machine's clock moves nothing.
        self._read_at_s = -math.inf
        self._ticked_at_s = -math.inf
        self._stored_at_s = -math.inf

    @property
    def latest(self) -> Sample | None:
        """The newest sample; None before the first."""
        return self._latest

    @property
    def interval_s(self) -> float:
        """Seconds between two samples now."""
        return min([self._intervals().sample_idle_s, *(interval_s() for interval_s in self._watchers)])

    def gpu_bytes(self, pid: int) -> int | None:
        """GPU memory of a process at the newest sample; None when no driver told."""
        return self._process_bytes.get(pid)

    @contextlib.contextmanager
    def watch(self, interval_s: Callable[[], float] | None = None) -> Iterator[None]:
        """Sample every `interval_s()` seconds at least until the block ends; by default at the watched pace.

        The first watcher gets a sample at once.
        """
        watcher = interval_s or (lambda: self._intervals().sample_watched_s)
        self._watchers.append(watcher)
        if len(self._watchers) == 1:
            self._ticked_at_s = -math.inf
        self._wake.set()
        try:
            yield
        finally:
            self._watchers.remove(watcher)

    async def now(self) -> Sample:
        """A sample at most a quarter of a second old; callers at the same time share one reading."""
        return await self._sample(_FRESH_S)

    async def run(self) -> None:
        """Sample until cancelled."""
        with self._bus.subscribe(SettingsChanged, limit=1) as changes:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._wake_on(changes))
                while True:
                    await self._tick()
                    await self._until_due()

    async def _wake_on(self, changes: Subscription) -> None:
        async for _ in changes:
            self._wake.set()

    async def _tick(self) -> None:
        self._ticked_at_s = at_s = time.monotonic()
        sample = await self._sample(max_age_s=0.0)
        self._bus.publish(SampleTaken(sample))
        if at_s - self._stored_at_s < self._intervals().sample_idle_s:
            return
        self._stored_at_s = at_s
        try:
            self._store(sample)
        except Exception as exc:  # samples go on without a history
            self._failures.report("store a sample", exc)

    async def _until_due(self) -> None:
        """The interval is looked at anew after each wake-up: it may have changed in mid-sleep."""
        while (wait_s := self._ticked_at_s + self.interval_s - time.monotonic()) > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _sample(self, max_age_s: float) -> Sample:
        async with self._reading:
            sample = self._latest
            if sample is None or time.monotonic() - self._read_at_s > max_age_s:
                reading = await asyncio.to_thread(self._machine.read)
                self._latest = sample = _joined(reading, self._service_facts())
                self._process_bytes = reading.gpu.process_bytes
                self._read_at_s = time.monotonic()
            return sample

    def _service_facts(self) -> ServiceFacts:
        try:
            return self._facts()
        except Exception as exc:  # the machine's numbers are worth having without the service's
            self._failures.report("read the service's state", exc)
            return ServiceFacts()


def _joined(reading: MachineReading, facts: ServiceFacts) -> Sample:
    host = reading.host
    return Sample(
        timestamp_ms=time.time_ns() // 1_000_000,
        cpu_percent=host.cpu_percent,
        cpu_cores=host.cpu_cores,
        load_average=host.load_average,
        memory_used_bytes=host.memory.used_bytes,
        memory_total_bytes=host.memory.total_bytes,
        memory_available_bytes=host.memory.available_bytes,
        swap_used_bytes=host.swap.used_bytes,
        swap_total_bytes=host.swap.total_bytes,
        disk_used_bytes=host.disk.used_bytes,
        disk_total_bytes=host.disk.total_bytes,
        disk_free_bytes=host.disk.free_bytes,
        gpus=reading.gpu.gpus,
        models_loaded=facts.models_loaded,
        models_memory_bytes=facts.models_memory_bytes,
        models_private_bytes=facts.models_private_bytes,
        models_gpu_bytes=sum(reading.gpu.process_bytes.get(pid, 0) for pid in facts.model_pids),
        requests=facts.requests,
        uptime_s=facts.uptime_s,
    )
