"""The engine that is to be used."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from llama_async_proxy.records.runtime import Endpoint


class EngineStatus(StrEnum):
    IDLE = "idle"
    """Stopped on purpose; loads are refused."""
    RUNNING = "running"
    """Ready to load on demand; no child needed."""
    ERROR = "error"
    """Nothing that can run models was found, or it broke."""


class EngineState(Struct, frozen=True):
    status: EngineStatus
    kind: str
    """"workers" with a binary, "embedded" for the wheel, "router"."""
    binary: str | None = None
    version: str | None = None
    error: str | None = None
    started_at_ms: int | None = None
    endpoint: Endpoint | None = None
    """Where a router answers by itself; None when the service's own address is the only one."""


class EngineEventType(StrEnum):
    STARTED = "started"
    STOPPED = "stopped"
    CLOSED = "closed"
    """A child exited without being asked."""
    ERROR = "error"
