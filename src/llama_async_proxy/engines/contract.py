"""What every engine promises. Doors, operations and the data path know engines only by this.

Per status of a model:

    UNLOADED, FAILED   no process. `load` starts one.
    LOADING            one process, not answering yet. `load` joins the wait; `unload` kills it.
    READY, SLEEPING    answers at `endpoint`. `load` returns at once; `unload` drains and stops it.
    STOPPING           answers what it already has; gone soon. `load` waits for the end, then starts anew.

A model whose process dies unasked goes to LOADING again by itself (exponential back-off: 1, 2, 4 ... 30 s,
5 tries, the count forgotten after 60 healthy seconds) and to FAILED when the tries are used up.

Every change of a model's runtime is published as ModelRuntimeChanged, in order, before the call that caused
it returns; starts, stops, deaths and errors as EngineChanged, exactly once each.
"""

from __future__ import annotations

from typing import Protocol

from llama_async_proxy.records.engine import EngineState
from llama_async_proxy.records.runtime import LaunchSpec, ModelRuntime


class Engine(Protocol):
    @property
    def state(self) -> EngineState: ...

    async def start(self) -> EngineState:
        """Become ready to load. Idempotent: a running engine answers its state, without an event.

        Raises EngineMissing when nothing that can run models is installed; `state` then says so too.
        """

    async def stop(self) -> None:
        """Stop every child, bounded, and refuse loads until `start`. Idempotent."""

    def runtime(self, model_id: int) -> ModelRuntime:
        """State now; UNLOADED for a model this engine does not know."""

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        """Every model that is not UNLOADED."""

    def measure(self) -> None:
        """Bring `rss_bytes` of every runtime up to date, without an event: tens of microseconds per process."""

    async def load(self, spec: LaunchSpec) -> ModelRuntime:
        """Run the model and answer once it is READY. Callers of one model share one load; the options of the
        first count. A cancelled caller does not cancel the load.

        Raises LoadFailed with the reason, EngineStopped when the engine is stopped, DeadlineExceeded after
        `spec.load_timeout_s` (the child is then gone).
        """

    async def unload(self, model_id: int, *, drain_s: float = 10.0) -> ModelRuntime:
        """Stop the model's process: SIGTERM after running requests ended or `drain_s` passed, SIGKILL later.

        A no-op for UNLOADED; FAILED becomes UNLOADED. The caller closes its own upstream connections.
        """
