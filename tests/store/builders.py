"""Builders of valid records. The arguments are the fields that matter to a test."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from llama_async_proxy.records.logs import LogLevel, LogLine
from llama_async_proxy.records.machine import GpuSample, RequestCounters, Sample
from llama_async_proxy.records.models import ModelDraft, ModelFacts, ModelFile, ModelKind, ModelOrigin
from llama_async_proxy.records.requests import RequestRecord

GIB = 1 << 30


def model_file(path: str = "/models/tiny.gguf", **changes: Any) -> ModelFile:
    facts = ModelFacts(
        architecture="llama",
        kind=ModelKind.CHAT,
        name="Tiny",
        quantization="Q4_K_M",
        parameter_count=1_100_048_384,
        has_chat_template=True,
        metadata={"general.name": "Tiny", "tokenizer.ggml.tokens": {"type": "string", "length": 32000}},
    )
    return replace(ModelFile(path, 7 * GIB, 1_700_000_000_123_456_789, facts), **changes)


def scanned(path: str, **changes: Any) -> ModelDraft:
    return ModelDraft(model_file(path), ModelOrigin.SCANNED, **changes)


def registered(path: str, **changes: Any) -> ModelDraft:
    return ModelDraft(model_file(path), ModelOrigin.REGISTERED, **changes)


def gpu(**changes: Any) -> GpuSample:
    return replace(GpuSample(0, "Test 9000", "nvidia"), **changes)


def sample(timestamp_ms: int, *, requests: int = 0, response_ms: float | None = None, **changes: Any) -> Sample:
    values: dict[str, Any] = {
        "cpu_percent": 25.0,
        "cpu_cores": 8,
        "load_average": (0.5, 0.25, 0.125),
        "memory_used_bytes": 4 * GIB,
        "memory_total_bytes": 16 * GIB,
        "memory_available_bytes": 12 * GIB,
        "swap_used_bytes": 0,
        "swap_total_bytes": 2 * GIB,
        "disk_used_bytes": 100 * GIB,
        "disk_total_bytes": 400 * GIB,
        "disk_free_bytes": 300 * GIB,
        "requests": RequestCounters(total=requests, active=1, errors=2, average_response_ms=response_ms),
        "uptime_s": 12.5,
    }
    return Sample(timestamp_ms=timestamp_ms, **values | changes)


def line(message: str = "hello", timestamp_ms: int = 1000, **changes: Any) -> LogLine:
    return replace(LogLine(timestamp_ms, LogLevel.INFO, "service", message), **changes)


def record(request_id: str = "r1", arrived_at_ms: int = 1000, **changes: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "client": "127.0.0.1",
        "route": "/v1/chat/completions",
        "model": "tiny",
        "status": 200,
        "streamed": True,
        "first_token_ms": 12.5,
        "total_ms": 100.0,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "tokens_per_second": 200.0,
        "key": "0a1b2c3d",
    }
    return RequestRecord(id=request_id, arrived_at_ms=arrived_at_ms, **values | changes)
