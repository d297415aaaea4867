"""The present of the web UI's topics, as JSON values."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from llama_async_proxy.api.ui import schema
from llama_async_proxy.errors import StoreUnavailable
from llama_async_proxy.inference.in_flight import MOST_PUBLISHED
from llama_async_proxy.operations import engine, metrics, models, requests
from llama_async_proxy.operations.context import Context
from llama_async_proxy.records.machine import Sample
from llama_async_proxy.records.requests import RequestRecord

logger = logging.getLogger(__name__)

_SAMPLES_MS = 15 * 60_000
_MOST_SAMPLES = 900
_MOST_REQUESTS = 50


class Snapshots:
    """Reads models and engine from the service; keeps the newest samples and finished requests itself."""

    def __init__(self, context: Callable[[], Context]) -> None:
        self._context = context
        self._samples: deque[Sample] = deque(maxlen=_MOST_SAMPLES)
        self._requests: deque[RequestRecord] = deque(maxlen=_MOST_REQUESTS)

    async def read_history(self) -> None:
        """Read the stored samples and requests, so that a page is not empty after a start of the service."""
        context = self._context()
        since_ms = context.now_ms() - _SAMPLES_MS
        try:
            stored = await metrics.get_samples(context, metrics.GetSamples(_MOST_SAMPLES, since_ms))
            listed = await requests.list_requests(context, requests.ListRequests(limit=_MOST_REQUESTS))
        except StoreUnavailable as exc:
            logger.warning("The UI begins without stored samples and requests: %s", exc.message)
            return
        self._samples.extend(reversed(stored.samples))
        self._requests.extend(reversed(listed.recent))

    def add_sample(self, sample: Sample) -> None:
        """Keep a sample."""
        self._samples.append(sample)

    def add_requests(self, records: Iterable[RequestRecord]) -> None:
        """Keep finished requests."""
        self._requests.extend(records)

    async def models(self) -> object:
        listed = await models.list_models(self._context(), models.ListModels())
        return msgspec.to_builtins(schema.ModelsSnapshot([schema.model_summary(view) for view in listed.models]))

    async def engine(self) -> object:
        return {"engine": await self.engine_item()}

    async def engine_item(self) -> object:
        """The engine as an item of its topic."""
        context = self._context()
        view = await engine.get_engine(context, engine.GetEngine())
        return msgspec.to_builtins(schema.engine_summary(view, context.settings))

    async def metrics(self) -> object:
        return msgspec.to_builtins(schema.MetricsSnapshot(list(self._samples)))

    async def requests(self) -> object:
        return {"records": [schema.rendered_request(record) for record in self._requests]}

    async def live(self) -> object:
        listed = await requests.list_requests(self._context(), requests.ListRequests(limit=0))
        return msgspec.to_builtins(schema.LiveSnapshot(list(listed.live[:MOST_PUBLISHED])))
