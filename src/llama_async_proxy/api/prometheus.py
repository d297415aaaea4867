"""`GET /metrics`: the proxy, its models and the machine in Prometheus's text format 0.0.4.

Names follow Prometheus's own rules: base units (seconds, bytes, ratios of 1), `_total` for counters. A value that is
not known is left out, never zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from llama_async_proxy import __version__
from llama_async_proxy.api.boundary import AsgiBoundary
from llama_async_proxy.errors import ServiceError
from llama_async_proxy.inference.requests.routes import model_in_query
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.counters import (
    GetCounters,
    ModelGauges,
    ModelTotals,
    ServiceCounters,
    get_counters,
)
from llama_async_proxy.records.engine import EngineStatus
from llama_async_proxy.records.machine import GpuSample, Sample
from llama_async_proxy.records.runtime import ModelStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "llama_async_proxy_"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Labels = Mapping[str, str]


class Family(Struct, frozen=True):
    """One metric with its samples, each a value and its labels."""

    name: str
    """Name without the prefix that all metrics of the service have."""
    kind: str
    """counter or gauge."""
    help: str
    samples: tuple[tuple[Labels, float], ...]


class PrometheusApp:
    """An ASGI application for the requests that `handles` accepts."""

    def __init__(self, context: Callable[[], Context]) -> None:
        self._context = context
        self._guarded = AsgiBoundary(self._serve, _error_answer)

    @staticmethod
    def handles(scope: Scope) -> bool:
        """True for the service's own page. With a model in the query the page is the engine's."""
        is_ours = scope["type"] == "http" and scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD")
        return is_ours and model_in_query(scope["query_string"]) is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._guarded(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = render(families(await get_counters(self._context(), GetCounters())))
        body = "" if scope["method"] == "HEAD" else page
        headers = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}
        await PlainTextResponse(body, headers=headers)(scope, receive, send)


def _error_answer(_: Scope, error: ServiceError) -> PlainTextResponse:
    return PlainTextResponse(error.message, error.status)


def render(metrics: Iterable[Family]) -> str:
    """The page. Families without a sample are left out."""
    lines = []
    for family in metrics:
        if family.samples:
            name = _PREFIX + family.name
            lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}"]
            lines += [f"{name}{_labels(labels)} {value:.17g}" for labels, value in family.samples]
    return "\n".join([*lines, ""])


def _labels(labels: Labels) -> str:
    pairs = ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def families(counters: ServiceCounters) -> Iterable[Family]:
    yield from _proxy(counters)
    yield from _inference(counters)
    yield from _models(counters)
    yield from _host(counters.sample)


def _gauge(name: str, text: str, value: float | None, **labels: str) -> Family:
    return Family(name, "gauge", text, () if value is None else ((labels, value),))


def _counter(name: str, text: str, value: float) -> Family:
    return Family(name, "counter", text, (({}, value),))


def _proxy(counters: ServiceCounters) -> Iterable[Family]:
    http, engine = counters.http, counters.engine
    is_up = engine.status is EngineStatus.RUNNING
    yield _gauge("build_info", "Always 1; the version is a label.", 1, version=__version__)
    yield _gauge("start_time_seconds", "Unix time of the start.", counters.started_at_ms / 1000)
    yield _gauge("engine_up", "1 while models can be loaded.", float(is_up), engine=engine.kind)
    yield _counter("http_requests_total", "HTTP requests on the API and inference routes.", http.total)
    yield _counter("http_request_errors_total", "HTTP requests answered with 5xx or broken off.", http.errors)
    yield _gauge("http_requests_in_progress", "HTTP requests that have not ended.", http.active)


def _inference(counters: ServiceCounters) -> Iterable[Family]:
    yield _gauge("inference_requests_in_progress", "Inference requests under way.", counters.inference_in_flight)
    ended = tuple(({"model": e.model, "status": str(e.status)}, float(e.count)) for e in counters.ended)
    yield Family("inference_requests_total", "counter", "Inference requests that have ended.", ended)

    def each(name: str, text: str, value: Callable[[ModelTotals], float]) -> Family:
        return Family(name, "counter", text, tuple(({"model": t.model}, value(t)) for t in counters.totals))

    yield each("inference_prompt_tokens_total", "Prompt tokens, cached ones included.", lambda t: t.prompt_tokens)
    yield each("inference_cached_tokens_total", "Prompt tokens taken from the cache.", lambda t: t.cached_tokens)
    yield each("inference_completion_tokens_total", "Tokens generated.", lambda t: t.completion_tokens)
    yield each(
        "inference_request_seconds_total", "Time from arrival to end, of all requests.", lambda t: t.duration_ms / 1000
    )


def _models(counters: ServiceCounters) -> Iterable[Family]:
    by_status = tuple(({"status": count.status.value}, float(count.models)) for count in counters.statuses)
    yield Family("models", "gauge", "Registered models by status.", by_status)
    answering = (ModelStatus.READY, ModelStatus.SLEEPING)

    def each(name: str, text: str, value: Callable[[ModelGauges], float | None]) -> Family:
        values = ((model, value(model)) for model in counters.models)
        return Family(name, "gauge", text, tuple(({"model": m.model}, v) for m, v in values if v is not None))

    yield each("model_up", "1 while the model answers.", lambda m: float(m.runtime.status in answering))
    yield each("model_resident_memory_bytes", "Main memory of the model's process.", lambda m: m.runtime.rss_bytes)
    yield each("model_gpu_memory_bytes", "GPU memory of the model's process.", lambda m: m.gpu_bytes)
    yield each(
        "model_requests_in_progress", "Requests that run on the model or wait for its load.", lambda m: m.in_flight
    )
    yield each("model_requests_waiting", "Requests that wait for the model's turn.", _waiting)
    yield each("model_restarts", "Restarts after a crash since the last healthy minute.", lambda m: m.runtime.restarts)


def _waiting(model: ModelGauges) -> int:
    return model.runtime.queue.requests if model.runtime.queue else 0


def _host(sample: Sample) -> Iterable[Family]:
    yield _gauge("host_cpu_usage_ratio", "Usage of all cores together.", sample.cpu_percent / 100)
    yield _gauge("host_memory_used_bytes", "Memory in use.", sample.memory_used_bytes)
    yield _gauge("host_memory_total_bytes", "Memory of the machine.", sample.memory_total_bytes)
    yield _gauge("host_swap_used_bytes", "Swap in use.", sample.swap_used_bytes)
    yield _gauge("host_disk_free_bytes", "Free bytes on the data directory's disk.", sample.disk_free_bytes)
    yield _gauge("host_disk_total_bytes", "Size of the data directory's disk.", sample.disk_total_bytes)
    load = sample.load_average
    yield _gauge("host_load1", "Load average of one minute.", None if load is None else load[0])
    yield _gpu("gpu_usage_ratio", "GPU in use.", sample.gpus, lambda g: _ratio(g.usage_percent))
    yield _gpu("gpu_memory_used_bytes", "GPU memory in use.", sample.gpus, lambda g: g.memory_used_bytes)
    yield _gpu("gpu_memory_total_bytes", "Memory of the GPU.", sample.gpus, lambda g: g.memory_total_bytes)
    yield _gpu("gpu_temperature_celsius", "Temperature.", sample.gpus, lambda g: g.temperature_c)
    yield _gpu("gpu_power_watts", "Power drawn.", sample.gpus, lambda g: g.power_w)


def _gpu(name: str, text: str, gpus: Iterable[GpuSample], value: Callable[[GpuSample], float | None]) -> Family:
    known = ((gpu, value(gpu)) for gpu in gpus)
    samples = tuple(({"gpu": str(gpu.index), "name": gpu.name}, v) for gpu, v in known if v is not None)
    return Family(name, "gauge", text, samples)


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
