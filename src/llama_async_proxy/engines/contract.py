"""Contract of every engine. The rest of the service knows engines only by it.

Behaviour by status of a model:

    UNLOADED, FAILED   no process. `load` starts one.
    LOADING            one process, not answering yet. `load` joins the wait; `unload` kills it.
    READY, SLEEPING    answers at `endpoint`. `load` returns at once; `unload` drains and stops the process.
    STOPPING           answers running requests and then ends. `load` waits for the end, then starts anew.

A model whose process dies unasked becomes LOADING again by itself, after back-off (1, 2, 4, 8, 16 s; the count of tries
starts anew after 60 healthy seconds), and FAILED when the tries are used up.

Every change of a model's runtime is published as ModelRuntimeChanged, in order, before the call that caused it returns.
Starts, stops, deaths and errors are published as EngineChanged, exactly once each.
"""

from __future__ import annotations

from typing import Protocol

from llama_async_proxy.records.engine import EngineState
from llama_async_proxy.records.runtime import LaunchSpec, ModelRuntime


class Engine(Protocol):
    """Runs models."""

    @property
    def state(self) -> EngineState: ...

    async def start(self) -> EngineState:
        """Become ready to load models. Idempotent: a running engine returns its state, without an event.

        Raises EngineMissing when no program that can run models is installed; `state` then says so, too.
        """

    async def stop(self) -> None:
        """Stop every child within bounded time, and refuse loads until `start`. Idempotent."""

    def runtime(self, model_id: int) -> ModelRuntime:
        """State of a model now; UNLOADED for a model that this engine does not know."""

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        """States of all models that are not UNLOADED."""

    def measure(self) -> None:
        """Update `rss_bytes` of every runtime, without an event. Takes tens of microseconds per process."""

    async def load(self, spec: LaunchSpec) -> ModelRuntime:
        """Run the model and return once it is READY. Callers of one model share one load, with the options of the
        first. A cancelled caller does not cancel the load.

        Raises LoadFailed with the reason, EngineStopped when the engine is stopped, DeadlineExceeded after
        `spec.load_timeout_s` (the child is gone by then).
        """

    async def unload(self, model_id: int, *, drain_s: float = 10.0) -> ModelRuntime:
        """Stop the model's process: SIGTERM once running requests have ended or `drain_s` has passed, SIGKILL later.

        Does nothing for UNLOADED; FAILED becomes UNLOADED. The caller closes its own upstream connections.
        """
