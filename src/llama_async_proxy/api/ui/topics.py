"""The topics of the web UI's feed, and the events of the service that they publish."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.api.socketio.watch import Watch
from llama_async_proxy.api.ui import schema
from llama_async_proxy.api.ui.chats import CHAT_EVENTS, ChatTopics
from llama_async_proxy.api.ui.snapshots import Snapshots
from llama_async_proxy.api.ui.topic import Delivery, Snapshot, Topic
from llama_async_proxy.errors import InvalidInput, NotFound
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
from llama_async_proxy.operations import metrics, models, requests
from llama_async_proxy.operations.context import Context

_MOST_WAITING = 10_000
"""Events that may wait to be published: the first scan of a large directory registers each model at once."""
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


class Topics:
    """Finds topics by name, lets clients join and leave them, and fills them from the event bus."""

    def __init__(self, context: Callable[[], Context], emitter: Emitter) -> None:
        self._context = context
        self._emitter = emitter
        self._now = Snapshots(context)
        self._models = self._topic("models", self._now.models, Delivery(interval_s=0.1, lossy=False))
        self._engine = self._topic("engine", self._now.engine, Delivery(interval_s=0.1, lossy=False))
        self._metrics = self._topic(
            "metrics", self._now.metrics, Delivery(interval_s=1.0, lossy=True, render=msgspec.to_builtins)
        )
        self._finished = self._topic(
            "requests", self._now.requests, Delivery(interval_s=0.2, lossy=True, render=schema.rendered_request)
        )
        self._live = self._topic(
            "live", self._now.live, Delivery(interval_s=0.1, lossy=False, kept=1, render=msgspec.to_builtins)
        )
        self._by_name = {
            topic.name: topic for topic in (self._models, self._engine, self._metrics, self._finished, self._live)
        }
        self._chats = ChatTopics(context, self._topic)
        self._metrics_watch = Watch(lambda: metrics.watch_metrics(context()))
        self._live_watch = Watch(lambda: requests.watch_requests(context()))

    def _topic(self, name: str, snapshot: Snapshot, delivery: Delivery) -> Topic:
        return Topic(name, self._emitter, snapshot, delivery)

    # --- clients ------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Topic:
        """The topic of that name. Raises InvalidInput."""
        topic = self._by_name.get(name) or self._chats.find(name)
        if topic is None:
            known = ", ".join((*self._by_name, "chats"))
            raise InvalidInput("topic", f"must be one of {known} or chat:ID, not {name[:100]!r}")
        return topic

    async def join(self, topic: Topic, client: str, since: int | None) -> None:
        """Send the topic's deltas to a client; first the items after delta `since`, or a snapshot."""
        await topic.join(client, since)
        self._update_watches()

    def leave(self, topic: Topic, client: str) -> None:
        """Send no more of a topic to a client."""
        topic.leave(client)
        self._chats.close_unread()
        self._update_watches()

    def leave_all(self, client: str) -> None:
        """Called when a client has left."""
        for topic in (*self._by_name.values(), *self._chats):
            topic.leave(client)
        self._chats.close_unread()
        self._update_watches()

    def _update_watches(self) -> None:
        """The sampler and the list of requests in flight work more while clients watch them."""
        self._metrics_watch.switch(on=self._metrics.is_watched)
        self._live_watch.switch(on=self._live.is_watched)

    # --- events -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish events and send deltas until cancelled."""
        with self._context().bus.subscribe(*_EVENTS, limit=_MOST_WAITING) as events:
            await self._now.read_history()
            async with asyncio.TaskGroup() as tasks:
                for topic in self._by_name.values():
                    tasks.create_task(topic.run())
                tasks.create_task(self._chats.run())
                async for event in events:
                    await self._publish(event)

    async def _publish(self, event: Event) -> None:
        match event:
            case ModelDeleted(model):
                self._models.publish(msgspec.to_builtins(schema.ModelRemove(model.id)), key=model.id)
            case ModelCreated(model) | ModelUpdated(model):
                await self._publish_model(model.id)
            case ModelRuntimeChanged(runtime):
                await self._publish_model(runtime.model_id)
            case EngineChanged() | SettingsChanged():
                self._engine.publish(await self._now.engine_item(), key=0)
            case SampleTaken(sample):
                self._now.add_sample(sample)
                self._metrics.publish(sample, key=sample.timestamp_ms)
            case RequestsFinished(records):
                self._now.add_requests(records)
                self._finished.publish_all({record.id: record for record in records})
            case RequestsProgressed(live):
                self._live.publish(live, key=0)
            case _:
                self._chats.publish(event)

    async def _publish_model(self, model_id: int) -> None:
        with contextlib.suppress(NotFound):  # deleted meanwhile; that event follows
            view = await models.get_model(self._context(), models.GetModel(model_id))
            self._models.publish(msgspec.to_builtins(schema.ModelUpsert(schema.model_summary(view))), key=model_id)
