"""A model's process: how it is started, what it takes, and what it does."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.options import OptionValue, no_options


class ModelStatus(StrEnum):
    UNLOADED = "unloaded"
    QUEUED = "queued"
    LOADING = "loading"
    READY = "ready"
    SLEEPING = "sleeping"
    STOPPING = "stopping"
    FAILED = "failed"

    @property
    def in_use(self) -> bool:
        """True while a process exists or is about to."""
        return self not in (ModelStatus.UNLOADED, ModelStatus.FAILED)


class LoadProgress(Struct, frozen=True):
    stage: str
    """What the engine does now: "starting", "text_model", "warmup" ... as it reports it."""
    fraction: float
    """0.0 to 1.0 of the stage."""
    started_at_ms: int


class Endpoint(Struct, frozen=True):
    """Where a model's process answers HTTP/1.1."""

    host: str
    port: int
    model: str | None = None
    """What requests must call the model, where a router answers for several; None: it does not matter."""
    api_key: str | None = None
    """The key that the server there asks for."""

    def __repr__(self) -> str:
        return f"Endpoint({self.host!r}, {self.port}, model={self.model!r})"  # a key must not reach the log

    def __hash__(self) -> int:
        return self.port  # pools of connections look endpoints up for each request


class MemoryUse(Struct, frozen=True):
    """Bytes of main memory, and of all GPUs together."""

    host_bytes: int = 0
    gpu_bytes: int = 0
    gpus: tuple[int, ...] = ()
    """Of each GPU, in the driver's order; empty where the engine chooses, and where nobody knows."""


NO_MEMORY = MemoryUse()


class QueueState(Struct, frozen=True):
    """Who waits for a model that has no place now, or whose turn is over."""

    position: int
    """Of the model among all that wait, counted from 1."""
    requests: int
    """How many wait for this model."""
    reason: str
    """Why, for people."""
    since_ms: int
    """Arrival of the request that has waited longest."""


class ModelRuntime(Struct, frozen=True):
    """Live state of one model in the engine. A model the engine never heard of is UNLOADED."""

    model_id: int
    status: ModelStatus = ModelStatus.UNLOADED
    endpoint: Endpoint | None = None
    """Set exactly while status is READY, SLEEPING or STOPPING."""
    pid: int | None = None
    progress: LoadProgress | None = None
    """Set while LOADING."""
    error: str | None = None
    """Why it is FAILED."""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    loaded_at_ms: int | None = None
    load_duration_ms: int | None = None
    context_size: int | None = None
    """Tokens per slot, as the engine reports."""
    slots: int | None = None
    rss_bytes: int | None = None
    """LoadedModel memory of the process when last measured."""
    gpu_bytes: int | None = None
    memory: MemoryUse | None = None
    """What the engine itself counts: weights, context and working memory. Set while loaded, where it tells."""
    restarts: int = 0
    """Automatic restarts since the last healthy minute."""
    options: Mapping[str, OptionValue] = field(default_factory=no_options)
    """What it was started with."""
    queue: QueueState | None = None
    """Set while QUEUED, and while newcomers to a loaded model wait because others have their turn."""


class CustomCommand(Struct, frozen=True):
    """How a server of another kind is run for a model. Arguments may hold {port}, {model} and {alias}."""

    start: tuple[str, ...]
    health_path: str = "/health"
    """Answers 200 once the server is ready."""
    stop: tuple[str, ...] = ()
    """Run before the server's processes are ended; empty: they are only ended."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside what the service itself was started with."""
    directory: str | None = None
    """To run in; None: the service's own."""


class LaunchSpec(Struct, frozen=True):
    """All an engine needs to run one model."""

    model_id: int
    alias: str
    """The name the child answers to; what `model` in its responses shows."""
    path: str
    kind: ModelKind
    options: Mapping[str, OptionValue] = field(default_factory=no_options)
    """Effective options by long flag name without dashes ("ctx-size": 4096). Only what somebody set."""
    mmproj_path: str | None = None
    load_timeout_s: float = 600.0
    command: CustomCommand | None = None
    """Set for a model that is no llama.cpp's; `options` are then ignored."""
    stop_timeout_s: float | None = None
    """How long it may take to end in order before it is killed; None: as the engine likes."""
    served_name: str | None = None
    """The name that `model` in answers shows, where that is not the alias: llama-server's router would give it."""
