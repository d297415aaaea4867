"""`GET /metrics`: the proxy, its models and the machine in Prometheus's text format 0.0.4.

Names follow Prometheus's own rules: base units (seconds, bytes, ratios of 1), `_total` for what only grows. What is not
known is left out, never zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from llama_async_proxy import __version__
from llama_async_proxy.api.boundary import AsgiBoundary
from llama_async_proxy.errors import ServiceError
from llama_async_proxy.inference.requests.routes import model_in_query
from llama_async_proxy.monitor.totals import InferenceTotals
from llama_async_proxy.operations.context import Context
from llama_async_proxy.records.engine import EngineStatus
from llama_async_proxy.records.machine import GpuSample, Sample
from llama_async_proxy.records.runtime import ModelStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "llama_async_proxy_"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    kind: str
    help: str
    samples: tuple[tuple[Labels, float], ...]


class PrometheusApp:
    """An ASGI application for the requests it `handles`."""

    def __init__(self, context: Callable[[], Context], totals: InferenceTotals) -> None:
        self._context = context
        self._totals = totals
        self._guarded = AsgiBoundary(self._serve, _error_answer)

    @staticmethod
    def handles(scope: Scope) -> bool:
        """With a model the page is the engine's."""
        is_ours = scope["type"] == "http" and scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD")
        return is_ours and model_in_query(scope["query_string"]) is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._guarded(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = self._context()
        context.live.record()  # what ended just now counts, too
        page = render([*_proxy(context, self._totals), *_models(context), *_host(await context.sampler.now())])
        body = "" if Request(scope).method == "HEAD" else page
        await PlainTextResponse(body, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})(
            scope, receive, send
        )


def _error_answer(_: Scope, error: ServiceError) -> PlainTextResponse:
    return PlainTextResponse(error.message, error.status)


def render(families: Iterable[Family]) -> str:
    """The page; families without a sample are left out."""
    lines = []
    for family in families:
        if family.samples:
            name = _PREFIX + family.name
            lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}"]
            lines += [f"{name}{_labels(labels)} {value:.17g}" for labels, value in family.samples]
    return "\n".join([*lines, ""])


def _labels(labels: Labels) -> str:
    pairs = ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _one(kind: str, name: str, text: str, value: float | None, **labels: str) -> Family:
    return Family(name, kind, text, () if value is None else ((labels, value),))


def _proxy(context: Context, totals: InferenceTotals) -> Iterable[Family]:
    http = context.requests.snapshot()
    is_up = context.engine.state.status is EngineStatus.RUNNING
    yield _one("gauge", "build_info", "Always 1; the version is a label.", 1, version=__version__)
    yield _one("gauge", "start_time_seconds", "Unix time of the start.", context.started_at_ms / 1000)
    engine = context.engine.state.kind
    yield _one("gauge", "engine_up", "1 while models can be loaded.", float(is_up), engine=engine)
    yield _one("counter", "http_requests_total", "HTTP requests on the API and inference routes.", http.total)
    yield _one("counter", "http_request_errors_total", "Of them, answered with 5xx or broken off.", http.errors)
    yield _one("gauge", "http_requests_in_progress", "HTTP requests that have not ended.", http.active)
    yield _one("gauge", "inference_requests_in_progress", "Inference requests under way.", len(context.live.all()))
    ended = tuple(
        ({"model": model, "status": str(status)}, count) for (model, status), count in totals.requests.items()
    )
    yield Family("inference_requests_total", "counter", "Inference requests that have ended.", ended)
    yield _by_model("inference_prompt_tokens_total", "Prompt tokens, cached ones included.", totals.prompt_tokens)
    yield _by_model("inference_cached_tokens_total", "Prompt tokens taken from the cache.", totals.cached_tokens)
    yield _by_model("inference_completion_tokens_total", "Tokens generated.", totals.completion_tokens)
    seconds = {model: duration_ms / 1000 for model, duration_ms in totals.duration_ms.items()}
    yield _by_model("inference_request_seconds_total", "Time from arrival to end, of all requests.", seconds)


def _by_model(name: str, text: str, values: Mapping[str, float]) -> Family:
    return Family(name, "counter", text, tuple(({"model": model}, value) for model, value in values.items()))


def _models(context: Context) -> Iterable[Family]:
    models = {model.id: model.slug for model in context.store.models.all()}
    runtimes = [r for r in context.scheduler.runtimes() if r.model_id in models]

    def each(name: str, text: str, values: Iterable[float | None]) -> Family:
        pairs = zip(runtimes, values, strict=True)
        samples = tuple(({"model": models[r.model_id]}, value) for r, value in pairs if value is not None)
        return Family(name, "gauge", text, samples)

    counts = {status: sum(r.status is status for r in runtimes) for status in ModelStatus}
    counts[ModelStatus.UNLOADED] += len(models) - len(runtimes)
    by_status = tuple(({"status": status.value}, float(count)) for status, count in counts.items())
    yield Family("models", "gauge", "Registered models by status.", by_status)
    ready = (ModelStatus.READY, ModelStatus.SLEEPING)
    yield each("model_up", "1 while the model answers.", [float(r.status in ready) for r in runtimes])
    yield each("model_resident_memory_bytes", "Of the model's process.", [r.rss_bytes for r in runtimes])
    gpu = [None if r.pid is None else context.sampler.gpu_bytes(r.pid) for r in runtimes]
    yield each("model_gpu_memory_bytes", "GPU memory of the model's process.", gpu)
    in_flight = [float(context.scheduler.in_flight(r.model_id)) for r in runtimes]
    yield each("model_requests_in_progress", "Requests that run on the model or wait for its load.", in_flight)
    waiting = [float(r.queue.requests if r.queue else 0) for r in runtimes]
    yield each("model_requests_waiting", "Requests that wait for the model's turn.", waiting)
    yield each(
        "model_restarts", "Restarts after a crash since the last healthy minute.", [r.restarts for r in runtimes]
    )


def _host(sample: Sample) -> Iterable[Family]:
    yield _one("gauge", "host_cpu_usage_ratio", "Of all cores together.", sample.cpu_percent / 100)
    yield _one("gauge", "host_memory_used_bytes", "Memory in use.", sample.memory_used_bytes)
    yield _one("gauge", "host_memory_total_bytes", "Memory there is.", sample.memory_total_bytes)
    yield _one("gauge", "host_swap_used_bytes", "Swap in use.", sample.swap_used_bytes)
    yield _one("gauge", "host_disk_free_bytes", "Free on the data directory's disk.", sample.disk_free_bytes)
    yield _one("gauge", "host_disk_total_bytes", "Size of the data directory's disk.", sample.disk_total_bytes)
    load = sample.load_average
    yield _one("gauge", "host_load1", "Load average of one minute.", None if load is None else load[0])
    yield _gpu("gpu_usage_ratio", "GPU in use.", sample.gpus, lambda g: _ratio(g.usage_percent))
    yield _gpu("gpu_memory_used_bytes", "GPU memory in use.", sample.gpus, lambda g: g.memory_used_bytes)
    yield _gpu("gpu_memory_total_bytes", "GPU memory there is.", sample.gpus, lambda g: g.memory_total_bytes)
    yield _gpu("gpu_temperature_celsius", "Temperature.", sample.gpus, lambda g: g.temperature_c)
    yield _gpu("gpu_power_watts", "Power drawn.", sample.gpus, lambda g: g.power_w)


def _gpu(name: str, text: str, gpus: Iterable[GpuSample], value: Callable[[GpuSample], float | None]) -> Family:
    known = ((gpu, value(gpu)) for gpu in gpus)
    samples = tuple(({"gpu": str(gpu.index), "name": gpu.name}, v) for gpu, v in known if v is not None)
    return Family(name, "gauge", text, samples)


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
