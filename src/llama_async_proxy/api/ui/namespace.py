"""The web UI's own namespace, `/ui`: topics to join, and every operation to call by its name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from llama_async_proxy.api.decode import decode
from llama_async_proxy.api.socketio.emitter import TOO_LARGE, Emitter
from llama_async_proxy.api.ui import schema as wire
from llama_async_proxy.api.ui.chats import CHAT_EVENTS, ChatTopics
from llama_async_proxy.api.ui.topic import Topic
from llama_async_proxy.errors import InvalidInput, NotFound, ServiceError, StoreUnavailable
from llama_async_proxy.events import (
    EngineChanged,
    Event,
    ModelCreated,
    ModelDeleted,
    ModelRuntimeChanged,
    ModelUpdated,
    RequestsFinished,
    RequestsProgressed,
    SampleTaken,
    SettingsChanged,
)
from llama_async_proxy.inference.in_flight import MOST_PUBLISHED
from llama_async_proxy.operations import engine as engine_operations
from llama_async_proxy.operations import models as model_operations
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.table import OPERATIONS
from llama_async_proxy.records.requests import LiveRequest, RequestRecord

logger = logging.getLogger(__name__)

_SAMPLES_MS = 15 * 60_000
_MOST_SAMPLES = 900
_MOST_REQUESTS = 50
_MOST_WAITING = 10_000
"""A first scan of a large directory announces each model at once."""
_EVENTS = (
    ModelCreated,
    ModelUpdated,
    ModelDeleted,
    ModelRuntimeChanged,
    EngineChanged,
    SettingsChanged,
    SampleTaken,
    RequestsFinished,
    RequestsProgressed,
    *CHAT_EVENTS,
)


class _Join(msgspec.Struct):
    topic: str
    since: int | None = None


class _Leave(msgspec.Struct):
    topic: str


class _Call(msgspec.Struct):
    operation: str
    input: dict[str, Any] = {}


class UiNamespace:
    def __init__(self, context: Callable[[], Context], outlet: Emitter) -> None:
        self._context = context
        self._clients: set[str] = set()
        self._samples: deque[object] = deque(maxlen=_MOST_SAMPLES)
        self._requests: deque[RequestRecord] = deque(maxlen=_MOST_REQUESTS)
        # Milliseconds run faster than deltas: a restarted service begins above all that was sent before.
        first_seq = time.time_ns() // 1_000_000

        def topic(name: str, snapshot: Callable[[], object], interval_s: float, *, lossy: bool) -> Topic:
            return Topic(name, outlet, snapshot, interval_s=interval_s, lossy=lossy, first_seq=first_seq)

        self._models = topic("models", self._all_models, 0.1, lossy=False)
        self._engine = topic("engine", lambda: {"engine": self._engine_now()}, 0.1, lossy=False)
        self._metrics = topic("metrics", lambda: {"samples": list(self._samples)}, 1.0, lossy=True)
        self._log = Topic(
            "requests",
            outlet,
            lambda: {"records": [_shown(record) for record in self._requests]},
            interval_s=0.2,
            lossy=True,
            first_seq=first_seq,
            render=_shown,
        )
        self._live = Topic(
            "live",
            outlet,
            lambda: {"live": _shown_live(context().in_flight.all()[:MOST_PUBLISHED])},
            interval_s=0.1,
            lossy=False,
            first_seq=first_seq,
            render=_shown_live,
            keeps=1,
        )
        self._topics = {t.name: t for t in (self._models, self._engine, self._metrics, self._log, self._live)}
        self._chats = ChatTopics(lambda: context().answers, topic)
        self._metrics_watch, self._live_watch = _Watch(), _Watch()
        """Of the sampler and of the requests in flight, who have more to do while somebody looks."""

    def connected(self, client: str) -> None:
        self._clients.add(client)

    def disconnected(self, client: str) -> None:
        self._clients.discard(client)
        for topic in (*self._topics.values(), *self._chats):
            topic.leave(client)
        self._chats.close_unread()
        self._set_pace()

    # --- requests -----------------------------------------------------------------------------------------------------

    async def answer(self, client: str, event: object, payload: object, *, acknowledged: bool) -> object:  # noqa: ARG002
        """{"ok": true, "data": ...} or {"ok": false, "error": ...}."""
        try:
            return {"ok": True, "data": await self._answer(client, event, payload)}
        except ServiceError as error:
            return {"ok": False, "error": _error(error)}
        except Exception:  # the door's boundary: whatever it was, the caller gets an answer and the log the trace
            trace_id = uuid.uuid4().hex[:12]
            logger.exception("%r failed unexpectedly, trace %s", event, trace_id)
            message = f"Something failed that should not have; see trace {trace_id} in the service's log."
            return {"ok": False, "error": _error(ServiceError(message))}

    async def _answer(self, client: str, event: object, payload: object) -> object:
        if payload is TOO_LARGE:
            raise InvalidInput("payload", "must not be larger than 1 MB")
        match event:
            case "join":
                asked = decode(payload, _Join)
                topic = self._topic(asked.topic)
                if client in self._clients:  # else it left while its event waited, and nobody would take it out again
                    await topic.join(client, asked.since)
                self._set_pace()
            case "leave":
                self._topic(decode(payload, _Leave).topic).leave(client)
                self._chats.close_unread()
                self._set_pace()
            case "call":
                return await self._call(decode(payload, _Call))
            case _:
                raise InvalidInput("event", "must be join, leave or call")
        return None

    def _topic(self, name: str) -> Topic:
        topic = self._topics.get(name) or self._chats.find(name)
        if topic is None:
            known = ", ".join((*self._topics, "chats"))
            raise InvalidInput("topic", f"must be one of {known} or chat:ID, not {name[:100]!r}")
        return topic

    async def _call(self, call: _Call) -> object:
        operation = OPERATIONS.get(call.operation)
        if operation is None:
            raise NotFound("operation", call.operation, f"There is no operation {call.operation[:100]!r}.")
        request = decode(call.input, operation.input)
        output = await operation(self._context(), request)
        return msgspec.to_builtins(output, enc_hook=_plain)

    def _set_pace(self) -> None:
        context = self._context()
        self._metrics_watch.turn(context.sampler.watch, on=self._metrics.is_watched)
        self._live_watch.turn(context.in_flight.watch, on=self._live.is_watched)

    # --- feeds --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        with self._context().bus.subscribe(*_EVENTS, limit=_MOST_WAITING) as events:
            await self._remember()
            async with asyncio.TaskGroup() as tasks:
                for topic in self._topics.values():
                    tasks.create_task(topic.run())
                tasks.create_task(self._chats.run())
                async for event in events:
                    self._publish(event)

    async def _remember(self) -> None:
        """What was stored before this start, so that a page does not begin empty."""
        context = self._context()
        start_ms = context.now_ms() - _SAMPLES_MS
        try:
            samples = await context.store.metrics.recent(limit=_MOST_SAMPLES, start_ms=start_ms)
            records = await context.store.requests.recent(limit=_MOST_REQUESTS)
        except StoreUnavailable as exc:
            logger.warning("The UI begins without what was stored before: %s", exc.message)
            return
        self._samples.extend(msgspec.to_builtins(wire.ui_sample(sample)) for sample in reversed(samples))
        self._requests.extend(reversed(records))

    def _publish(self, event: Event) -> None:
        match event:
            case ModelDeleted(model):
                self._models.publish(msgspec.to_builtins(wire.Remove(model.id)), key=model.id)
            case ModelCreated(model) | ModelUpdated(model):
                self._publish_model(model.id)
            case ModelRuntimeChanged(runtime):
                self._publish_model(runtime.model_id)
            case EngineChanged() | SettingsChanged():
                self._engine.publish(self._engine_now(), key=0)
            case SampleTaken(sample):
                item = msgspec.to_builtins(wire.ui_sample(sample))
                self._samples.append(item)
                self._metrics.publish(item, key=sample.timestamp_ms)
            case RequestsFinished(records):
                self._requests.extend(records)
                self._log.publish_all({record.id: record for record in records})
            case RequestsProgressed(live):
                self._live.publish(live, key=0)
            case _:
                self._chats.publish(event)

    def _publish_model(self, model_id: int) -> None:
        with contextlib.suppress(NotFound):  # deleted in between; that event follows
            view = model_operations.view(self._context(), self._context().store.models.get(model_id))
            self._models.publish(msgspec.to_builtins(wire.Upsert(wire.ui_model(view))), key=model_id)

    def _all_models(self) -> object:
        context = self._context()
        views = (model_operations.view(context, model) for model in context.store.models.all())
        return {"models": [msgspec.to_builtins(wire.ui_model(view)) for view in views]}

    def _engine_now(self) -> object:
        context = self._context()
        view = engine_operations.view(context)
        return msgspec.to_builtins(wire.ui_engine(view, context.configuration.settings))


class _Watch:
    """A context entered while it is on."""

    def __init__(self) -> None:
        self._entered = contextlib.ExitStack()
        self._is_on = False

    def turn(self, watch: Callable[[], contextlib.AbstractContextManager[None]], *, on: bool) -> None:
        if on and not self._is_on:
            self._entered.enter_context(watch())
        elif self._is_on and not on:
            self._entered.close()
        self._is_on = on


def _shown_live(live: Sequence[LiveRequest]) -> object:
    return msgspec.to_builtins(live)


def _shown(record: RequestRecord) -> object:
    return msgspec.to_builtins(wire.ui_request(record))


def _error(error: ServiceError) -> Mapping[str, str]:
    shown = {"code": error.rest_code, "message": error.message}
    if isinstance(error, InvalidInput) and error.field:
        shown["field"] = error.field
    if error.details:
        shown["details"] = error.details
    return shown


def _plain(value: object) -> object:
    """JSON for what msgspec does not know."""
    if isinstance(value, MappingProxyType):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"no JSON for {type(value)}")
