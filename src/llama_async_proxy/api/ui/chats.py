"""Topics of the web UI about chats: `chats`, and `chat:ID` with the text of an answer as it comes.

A snapshot holds only what is not stored yet. A page reads the rest by the operations chats.list and chats.get after it
has joined.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import msgspec

from llama_async_proxy.api.ui import schema
from llama_async_proxy.api.ui.topic import Delivery, Snapshot, Topic
from llama_async_proxy.events import (
    AnswerFailed,
    BranchChosen,
    ConversationChanged,
    ConversationDeleted,
    Event,
    MessageChanged,
    MessageDeleted,
    MessageDelta,
)
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.running_answers import (
    GetRunningAnswer,
    ListRunningAnswers,
    get_running_answer,
    list_running_answers,
)
from llama_async_proxy.records.chats import MessageStatus

CHAT_EVENTS = (
    ConversationChanged,
    ConversationDeleted,
    MessageChanged,
    MessageDelta,
    MessageDeleted,
    AnswerFailed,
    BranchChosen,
)
_LIST = Delivery(interval_s=0.1, lossy=False)
_TEXT = Delivery(interval_s=0.03, lossy=False)
"""Twice the time that a screen of 60 Hz shows one frame."""
_NAME = re.compile(r"chat:([1-9]\d{0,18})")


class MakeTopic(Protocol):
    def __call__(self, name: str, snapshot: Snapshot, delivery: Delivery) -> Topic: ...


class ChatTopics:
    """The list of conversations, and one topic for each conversation that a client reads."""

    def __init__(self, context: Callable[[], Context], make_topic: MakeTopic) -> None:
        self._context = context
        self._make_topic = make_topic
        self._list = make_topic("chats", self._answering_now, _LIST)
        self._open: dict[int, Topic] = {}
        """Topics of the conversations that clients read."""
        self._sending: dict[int, asyncio.Task[None]] = {}
        """Running topics among `_open`."""
        self._opened = asyncio.Event()

    def find(self, name: str) -> Topic | None:
        """The topic of that name, or None; the topic of a conversation is made for its first reader."""
        if name == self._list.name:
            return self._list
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        conversation_id = int(match[1])
        if conversation_id not in self._open:
            self._open[conversation_id] = self._make_topic(name, partial(self._answer_now, conversation_id), _TEXT)
            self._opened.set()
        return self._open[conversation_id]

    def __iter__(self) -> Iterator[Topic]:
        return iter((self._list, *self._open.values()))

    def close_unread(self) -> None:
        """Drop the topics of conversations without a reader."""
        for conversation_id in [key for key, topic in self._open.items() if not topic.is_watched]:
            del self._open[conversation_id]
            if conversation_id in self._sending:
                self._sending.pop(conversation_id).cancel()

    async def run(self) -> None:
        """Send deltas until cancelled."""
        self._sending.clear()  # its tasks belong to an earlier run, which a fault ended
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._list.run())
            while True:
                for conversation_id in self._open.keys() - self._sending.keys():
                    self._sending[conversation_id] = tasks.create_task(self._open[conversation_id].run())
                self._opened.clear()
                await self._opened.wait()

    def publish(self, event: Event) -> None:
        """Pass an event of a type in CHAT_EVENTS on to the topics."""
        match event:
            case ConversationChanged(conversation):
                upsert = schema.ConversationUpsert(conversation)
                self._publish(conversation.id, upsert, key="conversation", listed=True)
            case ConversationDeleted(conversation_id):
                self._publish(
                    conversation_id, schema.ConversationRemove(conversation_id), key="conversation", listed=True
                )
            case MessageChanged(message):
                item = schema.MessageUpsert(message)
                self._publish(message.conversation_id, item, key=f"{message.id} {message.status}")
                if message.model is not None:
                    self._publish_answering(message.conversation_id, message.status is MessageStatus.GENERATING)
            case MessageDelta():
                grown = schema.MessageGrow(
                    event.message_id, event.content, event.reasoning, event.content_at, event.reasoning_at
                )
                key = f"{event.message_id} {event.content_at} {event.reasoning_at}"
                self._publish(event.conversation_id, grown, key=key)
            case MessageDeleted(conversation_id, message_id):
                self._publish(conversation_id, schema.MessageRemove(message_id), key=f"{message_id} removed")
                self._publish_answering(conversation_id, False)
            case AnswerFailed(conversation_id, error):
                self._publish(conversation_id, schema.AnswerFailure(error.rest_code, error.message), key="failure")
            case BranchChosen(conversation_id):
                self._publish(conversation_id, schema.BranchesChanged(), key="branches")

    def _publish(self, conversation_id: int, item: msgspec.Struct, *, key: str, listed: bool = False) -> None:
        plain = msgspec.to_builtins(item)
        if listed:
            self._list.publish(plain, key=f"{conversation_id} {key}")
        topic = self._open.get(conversation_id)
        if topic is not None:
            topic.publish(plain, key=key)

    def _publish_answering(self, conversation_id: int, is_answering: bool) -> None:
        item = schema.ConversationAnswering(conversation_id, is_answering)
        self._list.publish(msgspec.to_builtins(item), key=f"{conversation_id} answering")

    async def _answering_now(self) -> object:
        running = await list_running_answers(self._context(), ListRunningAnswers())
        return msgspec.to_builtins(schema.ConversationsSnapshot(list(running.conversation_ids)))

    async def _answer_now(self, conversation_id: int) -> object:
        running = await get_running_answer(self._context(), GetRunningAnswer(conversation_id))
        return msgspec.to_builtins(schema.AnswerSnapshot(running.message))
