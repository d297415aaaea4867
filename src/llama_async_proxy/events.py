"""Events of the service and the bus that carries them from their publishers to their subscribers.

Publishing neither blocks nor fails because of a subscriber: each subscription owns a bounded queue, and a full queue
drops its oldest event and counts the loss. An event carries the whole new state ("this model is ready now"), so a
subscriber that lost one is corrected by the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from msgspec import Struct

from llama_async_proxy.errors import ServiceError
from llama_async_proxy.records.chats import Conversation, Message
from llama_async_proxy.records.engine import EngineEventType, EngineState
from llama_async_proxy.records.logs import LogLine
from llama_async_proxy.records.machine import Sample
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.requests import LiveRequest, RequestRecord
from llama_async_proxy.records.runtime import ModelRuntime


class ModelCreated(Struct, frozen=True):
    """A model was registered."""

    model: Model


class ModelUpdated(Struct, frozen=True):
    """A model's stored record changed."""

    model: Model


class ModelDeleted(Struct, frozen=True):
    """A model's record was deleted; its file stays."""

    model: Model


class ModelRuntimeChanged(Struct, frozen=True):
    """Status or load progress of one model. `previous` tells a status change from mere progress."""

    runtime: ModelRuntime
    previous: ModelRuntime


class EngineChanged(Struct, frozen=True):
    """The engine started or stopped, or one of its processes ended or failed."""

    type: EngineEventType
    state: EngineState
    error: str | None = None
    model_id: int | None = None
    """Model whose process a CLOSED or ERROR event concerns; None: the engine itself."""


class ScanProgressed(Struct, frozen=True):
    """A running scan of the models directory has read `done` of `total` files."""

    done: int
    total: int


class ScanFinished(Struct, frozen=True):
    """Counts of a finished scan: new models, changed models, models registered now, unreadable files."""

    scanned: int
    updated: int
    total: int
    failed: int


class SampleTaken(Struct, frozen=True):
    """The sampler read the machine."""

    sample: Sample


class LogWritten(Struct, frozen=True):
    """The service or a model's process logged a line."""

    line: LogLine


class RequestsProgressed(Struct, frozen=True):
    """Inference requests in flight now, newest first; a long list is cut to the newest."""

    requests: tuple[LiveRequest, ...]


class RequestsFinished(Struct, frozen=True):
    """Inference requests that ended within the same moment, in the order of their ends."""

    records: tuple[RequestRecord, ...]


class SettingsChanged(Struct, frozen=True):
    """Settings got new values."""

    names: tuple[str, ...]
    """Dotted names of the settings."""


class ConversationChanged(Struct, frozen=True):
    """A conversation was created or updated."""

    conversation: Conversation


class ConversationDeleted(Struct, frozen=True):
    """A conversation and its messages were deleted."""

    conversation_id: int


class MessageChanged(Struct, frozen=True):
    """A message was begun or ended; a generated one grows in between. The conversation's branches may have changed."""

    message: Message


class MessageDelta(Struct, frozen=True):
    """Text that an answer gained. `content_at` and `reasoning_at` are the lengths, in characters, it had before."""

    conversation_id: int
    message_id: int
    content: str
    reasoning: str
    content_at: int
    reasoning_at: int


class MessageDeleted(Struct, frozen=True):
    """A message was removed, because its answer failed before the first token."""

    conversation_id: int
    message_id: int


class AnswerFailed(Struct, frozen=True):
    """An answer ended incomplete, or never began, because of `error`."""

    conversation_id: int
    error: ServiceError


class BranchChosen(Struct, frozen=True):
    """Another branch of a conversation became the active one."""

    conversation_id: int


Event: TypeAlias = (
    ModelCreated
    | ModelUpdated
    | ModelDeleted
    | ModelRuntimeChanged
    | EngineChanged
    | ScanProgressed
    | ScanFinished
    | SampleTaken
    | LogWritten
    | RequestsProgressed
    | RequestsFinished
    | SettingsChanged
    | ConversationChanged
    | ConversationDeleted
    | MessageChanged
    | MessageDelta
    | MessageDeleted
    | AnswerFailed
    | BranchChosen
)


class Subscription:
    """An ordered, bounded queue of the events of some types; one task iterates it."""

    def __init__(self, types: tuple[type, ...], limit: int) -> None:
        self.types = types
        self.dropped = 0
        """Events lost because the subscriber was slow."""
        self._queue: deque[Event] = deque(maxlen=limit)
        self._ready = asyncio.Event()

    def put(self, event: Event) -> None:
        """Append `event`; a full queue drops its oldest event first."""
        if len(self._queue) == self._queue.maxlen:
            self.dropped += 1
        self._queue.append(event)
        self._ready.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while self._queue:
                yield self._queue.popleft()
            self._ready.clear()
            await self._ready.wait()


class EventBus:
    """Belongs to the event loop's thread; other threads publish through `loop.call_soon_threadsafe`."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, event: Event) -> None:
        """Queue `event` for every subscription to its type; returns at once."""
        for subscription in self._subscriptions:
            if isinstance(event, subscription.types):
                subscription.put(event)

    @contextmanager
    def subscribe(self, *types: type, limit: int = 1024) -> Iterator[Subscription]:
        """Receive events of `types` published from now on; at most `limit` of them wait in the queue."""
        subscription = Subscription(types, limit)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
