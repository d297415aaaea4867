"""An engine of one's own for a test: real children, every event and log line kept."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Generic, Self, TypeVar

import psutil

from llama_async_proxy.engines.discovery import Launcher
from llama_async_proxy.engines.router import RouterEngine
from llama_async_proxy.engines.supervised import EngineHooks
from llama_async_proxy.engines.supervisor import Timing
from llama_async_proxy.engines.workers import WorkersEngine
from llama_async_proxy.events import EngineChanged, Event, EventBus, ModelRuntimeChanged
from llama_async_proxy.presets.option_classes import OPTION_CLASSES, OptionClass
from llama_async_proxy.records.engine import EngineEventType
from llama_async_proxy.records.logs import LogLine
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import LaunchSpec, ModelRuntime, ModelStatus
from support.service import clean_environment

FAKE_LLAMA = Path(__file__).with_name("fake_llama.py")
FAKE_LAUNCHER = Launcher("workers", (sys.executable, "-I", "-S", str(FAKE_LLAMA)), "fake", str(FAKE_LLAMA))
FAKE_CLASSES = {
    **OPTION_CLASSES,
    **dict.fromkeys(("fake-gate", "fake-fail", "fake-progress", "fake-note", "fake-option"), OptionClass.HARMLESS),
}
"""With the options of the program that stands in for llama-server."""
QUICK = Timing(restart_delays_s=(0.01, 0.01, 0.01), healthy_s=60.0, stop_grace_s=2.0)


EngineT = TypeVar("EngineT", WorkersEngine, RouterEngine)


class EngineRig(Generic[EngineT]):
    """An engine with what it published, in order."""

    def __init__(self, make: Callable[[EngineHooks], EngineT], timing: Timing = QUICK) -> None:
        self.bus = EventBus()
        self.events: list[Event] = []
        self.lines: list[LogLine] = []
        self._arrived = asyncio.Event()
        self.engine: EngineT = make(EngineHooks(self.bus, self._keep_line, timing=timing))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        with self.bus.subscribe(EngineChanged, ModelRuntimeChanged, limit=10_000) as subscription:

            async def collect() -> None:
                async for event in subscription:
                    self.events.append(event)
                    self._arrived.set()

            collecting = asyncio.create_task(collect())
            try:
                async with self.engine:
                    await self.engine.start()
                    yield self
                await asyncio.sleep(0)  # the last events
            finally:
                collecting.cancel()
                await asyncio.wait({collecting})

    def _keep_line(self, line: LogLine) -> None:
        self.lines.append(line)
        self._arrived.set()

    async def until(self, condition: Callable[[Self], object]) -> None:
        """Wait until an event or a log line has made `condition` true."""
        while not condition(self):
            self._arrived.clear()
            await self._arrived.wait()

    async def until_status(self, status: ModelStatus, model_id: int = 1) -> ModelRuntime:
        await self.until(lambda _: self.engine.runtime(model_id).status is status)
        return self.engine.runtime(model_id)

    async def settle(self) -> None:
        """Let the collector read what was published."""
        for _ in range(3):
            await asyncio.sleep(0)

    def statuses(self, model_id: int = 1) -> list[ModelStatus]:
        """Each status the model went through, repetitions dropped."""
        changes = (e.runtime for e in self.events if isinstance(e, ModelRuntimeChanged))
        return [status for status, _ in groupby(r.status for r in changes if r.model_id == model_id)]

    def engine_events(self) -> list[EngineEventType]:
        return [event.type for event in self.events if isinstance(event, EngineChanged)]


class Rig(EngineRig[WorkersEngine]):
    """The default engine."""

    def __init__(self, launcher: Launcher = FAKE_LAUNCHER, timing: Timing = QUICK) -> None:
        super().__init__(lambda hooks: WorkersEngine(hooks, lambda: launcher, environment=clean_environment()), timing)


def fake_spec(
    model_id: int = 1, *, options: Mapping[str, OptionValue] | None = None, timeout_s: float = 20.0
) -> LaunchSpec:
    """A model for the fake program; `options` without their `fake-` prefix."""
    prefixed = {f"fake-{key}": value for key, value in (options or {}).items()}
    return LaunchSpec(
        model_id, f"m{model_id}", f"/models/{model_id}.gguf", ModelKind.CHAT, prefixed, load_timeout_s=timeout_s
    )


def is_alive(pid: int) -> bool:
    """Whether a process of that id runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def children_of_this_process() -> set[int]:
    return {p.pid for p in psutil.Process(os.getpid()).children(recursive=True) if is_alive(p.pid)}


async def get(runtime: ModelRuntime, path: str) -> object:
    """The JSON a model's process answers."""
    assert runtime.endpoint is not None
    url = f"http://{runtime.endpoint.host}:{runtime.endpoint.port}{path}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {runtime.endpoint.api_key}"})

    def fetch() -> object:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    return await asyncio.to_thread(fetch)
