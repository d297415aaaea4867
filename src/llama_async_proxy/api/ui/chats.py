"""The chats' part of the web UI's feed: `chats`, and `chat:ID` with the tokens of an answer as they come.

What is stored a page asks for by the operations chats.list and chats.get after it has joined; a snapshot holds only
what is not stored yet.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from llama_async_proxy.api.ui import schema as wire
from llama_async_proxy.api.ui.topic import Topic
from llama_async_proxy.chats.answer import Position, RunningAnswer
from llama_async_proxy.chats.answers import Answers
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
_LIST_S = 0.1
_TOKENS_S = 0.03
"""Two frames of a screen."""
_NAME = re.compile(r"chat:([1-9]\d{0,18})")


class MakeTopic(Protocol):
    def __call__(self, name: str, snapshot: Callable[[], object], interval_s: float, *, lossy: bool) -> Topic: ...


class ChatTopics:
    def __init__(self, answers: Callable[[], Answers], make: MakeTopic) -> None:
        self._answers = answers
        self._make = make
        self._list = make("chats", lambda: {"answering": list(answers().conversations)}, _LIST_S, lossy=False)
        self._open: dict[int, Topic] = {}
        """Conversations that somebody reads."""
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._opened = asyncio.Event()

    def find(self, name: str) -> Topic | None:
        """The topic of that name; one of a conversation begins with its first reader."""
        if name == self._list.name:
            return self._list
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        conversation_id = int(match[1])
        if conversation_id not in self._open:
            self._open[conversation_id] = self._make(
                name, lambda: self._answer_now(conversation_id), _TOKENS_S, lossy=False
            )
            self._opened.set()
        return self._open[conversation_id]

    def __iter__(self) -> Iterator[Topic]:
        return iter((self._list, *self._open.values()))

    def close_unread(self) -> None:
        """Give up the topics that nobody reads any more."""
        for conversation_id in [key for key, topic in self._open.items() if not topic.is_watched]:
            del self._open[conversation_id]
            if conversation_id in self._sending:
                self._sending.pop(conversation_id).cancel()

    async def run(self) -> None:
        """Send deltas until cancelled."""
        self._sending.clear()  # of an earlier run that a fault ended
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._list.run())
            while True:
                for conversation_id in self._open.keys() - self._sending.keys():
                    self._sending[conversation_id] = tasks.create_task(self._open[conversation_id].run())
                self._opened.clear()
                await self._opened.wait()

    def publish(self, event: Event) -> None:
        match event:
            case ConversationChanged(conversation):
                upsert = wire.ChatUpsert(wire.ui_conversation(conversation))
                self._publish(conversation.id, upsert, key="conversation", listed=True)
            case ConversationDeleted(conversation_id):
                self._publish(conversation_id, wire.ChatRemove(conversation_id), key="conversation", listed=True)
            case MessageChanged(message):
                item = wire.MessageUpsert(wire.ui_message(message))
                self._publish(message.conversation_id, item, key=f"{message.id} {message.status}")
                if message.model is not None:
                    self._publish_answering(message.conversation_id, message.status is MessageStatus.GENERATING)
            case MessageDelta():
                grown = wire.MessageGrow(
                    event.message_id, event.content, event.reasoning, event.content_at, event.reasoning_at
                )
                key = f"{event.message_id} {event.content_at} {event.reasoning_at}"
                self._publish(event.conversation_id, grown, key=key)
            case MessageDeleted(conversation_id, message_id):
                self._publish(conversation_id, wire.MessageRemove(message_id), key=f"{message_id} removed")
                self._publish_answering(conversation_id, False)
            case AnswerFailed(conversation_id, error):
                self._publish(conversation_id, wire.Failure(error.rest_code, error.message), key="failure")
            case BranchChosen(conversation_id):
                self._publish(conversation_id, wire.Branches(), key="branches")

    def _publish(self, conversation_id: int, item: msgspec.Struct, *, key: str, listed: bool = False) -> None:
        plain = msgspec.to_builtins(item)
        if listed:
            self._list.publish(plain, key=f"{conversation_id} {key}")
        topic = self._open.get(conversation_id)
        if topic is not None:
            topic.publish(plain, key=key)

    def _publish_answering(self, conversation_id: int, is_answering: bool) -> None:
        item = wire.Answering(conversation_id, is_answering)
        self._list.publish(msgspec.to_builtins(item), key=f"{conversation_id} answering")

    def _answer_now(self, conversation_id: int) -> object:
        answer = self._answers().running(conversation_id)
        return {"answer": None if answer is None else _growing(answer)}


def _growing(answer: RunningAnswer) -> object:
    if answer.turn is None:
        return None
    grown = answer.delta_since(Position())
    message = wire.ui_message(answer.turn.answer)
    message.content, message.reasoning = grown.content, grown.reasoning or None
    return msgspec.to_builtins(message)
