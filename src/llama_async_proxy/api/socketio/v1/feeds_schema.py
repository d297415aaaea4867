"""The feeds of Socket.IO v1 that are subscribed to: the same records as on /api, at the top level and under `data`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from llama_async_proxy.api.rest.models_schema import registered_model
from llama_async_proxy.api.rest.status_schema import monitoring_data
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.monitor.logtext import timestamp
from llama_async_proxy.operations.metrics import Metrics
from llama_async_proxy.operations.models import ModelView
from llama_async_proxy.records.logs import LogLine

FEEDS = ("metrics", "models", "logs")


class Topic(Struct):
    type: str


class Subscribe(Struct):
    """`{type: "metrics"}`, or typed: `{type: "subscribe", data: {type: "metrics"}}`."""

    type: str
    data: Topic | None = None

    @property
    def feed(self) -> str:
        """Raises InvalidInput."""
        wanted = self.data.type if self.data and self.type == "subscribe" else self.type
        if wanted not in FEEDS:
            raise InvalidInput("type", f"must be one of {', '.join(FEEDS)}, not {wanted[:100]!r}")
        return wanted


class Message(Subscribe):
    pass


class Subscribed(Struct):
    type: str


class MetricsUpdate(Struct):
    type: Literal["metrics_update"]
    data: dict[str, Any]
    timestamp: str
    cpu: dict[str, Any]
    memory: dict[str, Any]
    disk: dict[str, Any]
    models: dict[str, Any]
    requests: dict[str, Any]
    uptime: float
    gpu: list[dict[str, Any]] | UnsetType = UNSET


class ModelsUpdate(Struct):
    type: Literal["models_update"]
    data: dict[str, Any]
    timestamp: str
    models: list[dict[str, Any]]


class FeedLogLine(Struct):
    id: str
    timestamp: str
    level: str
    source: str
    message: str


class LogBatch(Struct):
    logs: list[FeedLogLine]
    timestamp: str


class LogsUpdate(LogBatch):
    type: Literal["logs_update"]
    data: LogBatch


class FeedErrorData(Struct, omit_defaults=True):
    code: str
    message: str
    reconnect: bool = False
    retryIn: int | None = None  # noqa: N815 - names here are the clients'


class FeedError(FeedErrorData):
    type: str = ""
    data: FeedErrorData | None = None
    timestamp: str = ""


def metrics_update(metrics: Metrics, models_registered: int) -> MetricsUpdate:
    shown = monitoring_data(metrics, models_registered).model_dump(mode="json", by_alias=True, exclude_none=True)
    bare = {key: value for key, value in shown.items() if key in MetricsUpdate.__struct_fields__}
    return MetricsUpdate(type="metrics_update", data=shown, **bare)


def models_update(views: Sequence[ModelView], now_ms: int) -> ModelsUpdate:
    models = [registered_model(view).model_dump(mode="json", by_alias=True, exclude_none=True) for view in views]
    data = {"models": models, "timestamp": timestamp(now_ms)}
    return ModelsUpdate("models_update", data, timestamp(now_ms), models)


def logs_update(lines: Sequence[tuple[int, LogLine]], now_ms: int) -> LogsUpdate:
    """`lines` with a number each, for what is not stored yet has no id."""
    shown = [
        FeedLogLine(str(number), timestamp(line.timestamp_ms), line.level, line.source, line.message)
        for number, line in lines
    ]
    batch = LogBatch(shown, timestamp(now_ms))
    return LogsUpdate(shown, batch.timestamp, type="logs_update", data=batch)


def feed_error(data: FeedErrorData, now_ms: int) -> FeedError:
    return FeedError(
        data.code, data.message, data.reconnect, data.retryIn, type="error", data=data, timestamp=timestamp(now_ms)
    )
