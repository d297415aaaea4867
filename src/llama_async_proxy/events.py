"""What happened, as typed events, and a bounded fan-out to whoever listens.

Publishing never blocks and never fails because of a listener: each subscription owns a bounded queue
and, when it is full, loses its oldest event and counts the loss. Events that state a fact ("this model
is ready now") are self-contained, so a listener that lost one is corrected by the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from llama_async_proxy.errors import ServiceError
from llama_async_proxy.records.chats import Conversation, Message
from llama_async_proxy.records.engine import EngineEventType, EngineState
from llama_async_proxy.records.logs import LogLine
from llama_async_proxy.records.machine import Sample
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.options import PresetChange
from llama_async_proxy.records.requests import LiveRequest, RequestRecord
from llama_async_proxy.records.runtime import ModelRuntime


@dataclass(frozen=True, slots=True)
class ModelCreated:
    model: Model


@dataclass(frozen=True, slots=True)
class ModelUpdated:
    model: Model


@dataclass(frozen=True, slots=True)
class ModelDeleted:
    model: Model


@dataclass(frozen=True, slots=True)
class ModelRuntimeChanged:
    """Status or load progress of one model. `previous` tells a status change from mere progress."""

    runtime: ModelRuntime
    previous: ModelRuntime


@dataclass(frozen=True, slots=True)
class EngineChanged:
    type: EngineEventType
    state: EngineState
    error: str | None = None
    model_id: int | None = None
    """The model whose process it concerns, for CLOSED and ERROR."""


@dataclass(frozen=True, slots=True)
class ScanProgressed:
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class ScanFinished:
    scanned: int
    updated: int
    total: int
    failed: int


@dataclass(frozen=True, slots=True)
class SampleTaken:
    sample: Sample


@dataclass(frozen=True, slots=True)
class LogWritten:
    line: LogLine


@dataclass(frozen=True, slots=True)
class RequestsProgressed:
    """Those in flight now, newest first; of very many only the newest."""

    requests: tuple[LiveRequest, ...]


@dataclass(frozen=True, slots=True)
class RequestsFinished:
    """Within the same moment, in that order."""

    records: tuple[RequestRecord, ...]


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    names: tuple[str, ...]
    """Dotted names of the settings that have a new value."""


@dataclass(frozen=True, slots=True)
class PresetChanged:
    """A preset's file was written, removed, or begun or ceased to be what the engine runs with."""

    name: str
    change: PresetChange
    previous_name: str | None = None
    """Of a RENAMED one."""


@dataclass(frozen=True, slots=True)
class ConversationChanged:
    """Created or updated."""

    conversation: Conversation


@dataclass(frozen=True, slots=True)
class ConversationDeleted:
    conversation_id: int


@dataclass(frozen=True, slots=True)
class MessageChanged:
    """Begun or ended; a message that was generated grows in between. The conversation's branches may have changed."""

    message: Message


@dataclass(frozen=True, slots=True)
class MessageDelta:
    """More of an answer, at the given lengths of what there was before."""

    conversation_id: int
    message_id: int
    content: str
    reasoning: str
    content_at: int
    reasoning_at: int


@dataclass(frozen=True, slots=True)
class MessageDeleted:
    """An answer failed before it began."""

    conversation_id: int
    message_id: int


@dataclass(frozen=True, slots=True)
class AnswerFailed:
    """There is no whole answer, or none at all; why."""

    conversation_id: int
    error: ServiceError


@dataclass(frozen=True, slots=True)
class BranchChosen:
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
    | PresetChanged
    | ConversationChanged
    | ConversationDeleted
    | MessageChanged
    | MessageDelta
    | MessageDeleted
    | AnswerFailed
    | BranchChosen
)


class Subscription:
    """An ordered, bounded view of the events of some types; iterate it in one task."""

    def __init__(self, types: tuple[type, ...], limit: int) -> None:
        self.types = types
        self.dropped = 0
        """Events lost because this listener was slow."""
        self._queue: deque[Event] = deque(maxlen=limit)
        self._ready = asyncio.Event()

    def put(self, event: Event) -> None:
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
    """Owned by the event loop's thread; other threads go through `loop.call_soon_threadsafe`."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, event: Event) -> None:
        for subscription in self._subscriptions:
            if isinstance(event, subscription.types):
                subscription.put(event)

    @contextmanager
    def subscribe(self, *types: type, limit: int = 1024) -> Iterator[Subscription]:
        """Events published from now on, of the given classes; at most `limit` waiting."""
        subscription = Subscription(types, limit)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
