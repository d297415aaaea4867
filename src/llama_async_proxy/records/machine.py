"""Measurements of the machine and of the service."""

from __future__ import annotations

from msgspec import Struct


class GpuSample(Struct, frozen=True):
    index: int
    name: str
    vendor: str
    """"nvidia", "amd", "intel", "apple"."""
    usage_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None


class RequestCounters(Struct, frozen=True):
    """HTTP requests on /api, /v1 and the native routes since the service started."""

    total: int = 0
    active: int = 0
    errors: int = 0
    """Answers with status 500 and above, and broken streams."""
    average_response_ms: float | None = None
    """Mean over the last minute; None without traffic."""


class Sample(Struct, frozen=True):
    """The machine and the service at one moment."""

    timestamp_ms: int
    cpu_percent: float
    cpu_cores: int
    load_average: tuple[float, float, float] | None
    """1, 5 and 15 minutes; None where the platform has none."""
    memory_used_bytes: int
    memory_total_bytes: int
    memory_available_bytes: int
    swap_used_bytes: int
    swap_total_bytes: int
    disk_used_bytes: int
    disk_total_bytes: int
    disk_free_bytes: int
    gpus: tuple[GpuSample, ...] = ()
    models_loaded: int = 0
    models_memory_bytes: int = 0
    """RSS of all model processes."""
    models_private_bytes: int = 0
    """The part of it that would be free without them."""
    models_gpu_bytes: int = 0
    """Memory of all GPUs that they hold."""
    requests: RequestCounters = RequestCounters()
    uptime_s: float = 0.0

    @property
    def memory_percent(self) -> float:
        return 100.0 * self.memory_used_bytes / self.memory_total_bytes if self.memory_total_bytes else 0.0

    @property
    def swap_percent(self) -> float:
        return 100.0 * self.swap_used_bytes / self.swap_total_bytes if self.swap_total_bytes else 0.0

    @property
    def disk_percent(self) -> float:
        return 100.0 * self.disk_used_bytes / self.disk_total_bytes if self.disk_total_bytes else 0.0


class HistoryPoint(Struct, frozen=True):
    """Means over one bucket of stored samples; `requests` is the count in the bucket."""

    timestamp_ms: int
    """Start of the bucket."""
    cpu_percent: float
    memory_percent: float
    disk_percent: float
    swap_percent: float
    gpu_percent: float | None
    gpu_memory_used_bytes: int | None
    gpu_memory_total_bytes: int | None
    requests: int
    response_ms: float | None
