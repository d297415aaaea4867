"""A service that is about to be killed: `python owner.py BINARY|embedded MODEL loading|ready` loads a model, prints
the pid of its process at that moment, and waits."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from llama_async_proxy.engines.discovery import binary_launcher, embedded_launcher
from llama_async_proxy.engines.supervised import EngineHooks
from llama_async_proxy.engines.workers import WorkersEngine
from llama_async_proxy.events import EventBus, ModelRuntimeChanged
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.runtime import LaunchSpec, ModelStatus


async def main(engine_name: str, model: str, moment: str) -> None:
    bus = EventBus()
    launcher = embedded_launcher() if engine_name == "embedded" else binary_launcher(Path(engine_name))
    with bus.subscribe(ModelRuntimeChanged) as changes:
        hooks = EngineHooks(bus, lambda _: None)
        async with WorkersEngine(hooks, lambda: launcher) as engine, asyncio.TaskGroup() as group:
            await engine.start()
            group.create_task(engine.load(LaunchSpec(1, "m", model, ModelKind.CHAT)))
            async for change in changes:
                runtime = change.runtime  # type: ignore[union-attr]
                loading = runtime.progress is not None and runtime.progress.stage == "text_model"
                if loading if moment == "loading" else runtime.status is ModelStatus.READY:
                    print(runtime.pid, flush=True)


asyncio.run(main(*sys.argv[1:]))
