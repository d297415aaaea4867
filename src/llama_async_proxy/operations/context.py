"""What operations work with: the rooms below, built and joined by the composition root."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from llama_async_proxy.chats.answers import Answers
from llama_async_proxy.engines.contract import Engine
from llama_async_proxy.engines.options_cache import EngineOptionsCache
from llama_async_proxy.events import EventBus
from llama_async_proxy.inference.in_flight import InFlightRequests
from llama_async_proxy.inference.requests.names import Names
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.monitor.connections import ConnectionMeter
from llama_async_proxy.monitor.engine_counters import EngineCounters
from llama_async_proxy.monitor.logfiles import LogFiles
from llama_async_proxy.monitor.requests import RequestMeter
from llama_async_proxy.monitor.sampler import Sampler
from llama_async_proxy.monitor.totals import InferenceTotals
from llama_async_proxy.operations.active_preset import ActivePreset
from llama_async_proxy.operations.configuration import Configuration
from llama_async_proxy.operations.launch import LaunchPlanner
from llama_async_proxy.operations.memory import MemoryPlanner
from llama_async_proxy.operations.model_scanner import ModelScanner
from llama_async_proxy.settings import Settings
from llama_async_proxy.store.store import Store


class Context(Struct, frozen=True):
    configuration: Configuration
    catalogue: EngineOptionsCache
    planner: LaunchPlanner
    active_preset: ActivePreset
    store: Store
    scanner: ModelScanner
    names: Names
    engine: Engine
    scheduler: ModelScheduler
    memory: MemoryPlanner
    in_flight: InFlightRequests
    answers: Answers
    sampler: Sampler
    requests: RequestMeter
    totals: InferenceTotals
    connections: ConnectionMeter
    engine_counters: EngineCounters
    log_files: LogFiles
    bus: EventBus
    now_ms: Callable[[], int]
    """Wall clock, milliseconds since the Unix epoch."""
    started_at_ms: int

    @property
    def settings(self) -> Settings:
        """The settings in force now."""
        return self.configuration.settings
