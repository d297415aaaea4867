"""Turns of conversations: the user's messages, and answers, which are stored while they are generated."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, and_, delete, func, not_, select, update

from llama_async_proxy.errors import InvalidInput, NotFound
from llama_async_proxy.records.chats import (
    AnswerEnd,
    Edit,
    Image,
    Message,
    MessageStatus,
    NewMessage,
    Role,
    Send,
    Turn,
    TurnRequest,
)
from llama_async_proxy.store.chats import MessagePlace, insert_message, load, load_images, load_thread, to_message
from llama_async_proxy.store.database import Database, translate_errors
from llama_async_proxy.store.schema import attachments, conversations, messages
from llama_async_proxy.store.scripts import has_unspaced
from llama_async_proxy.store.writer import Writer


class TurnTable:
    """Stores turns and answers. Every change is committed when its method returns."""

    def __init__(self, database: Database, writer: Writer, now_ms: Callable[[], int]) -> None:
        """Mark the unfinished answers of a killed service as interrupted. Blocks. Raises StoreUnavailable."""
        self._writer = writer
        self._now_ms = now_ms
        with translate_errors(database.path), database.writing.begin() as connection:
            _mark_interrupted(connection)

    async def begin(self, conversation_id: int, request: TurnRequest, model: str) -> Turn:
        """Store the user's message, if the request has one, and an empty answer of `model`.

        Raises NotFound for the conversation or the message, InvalidInput for a message that the request cannot refer
        to, StoreUnavailable.
        """
        return await self._writer.run(lambda connection: self._begin(connection, conversation_id, request, model))

    async def append(self, message_id: int, content: str, reasoning: str) -> None:
        """Append to an answer. Does nothing when it was deleted. Raises StoreUnavailable."""

        def work(connection: Connection) -> None:
            connection.execute(
                update(messages).where(messages.c.id == message_id).values(_appended(content, reasoning))
            )

        await self._writer.run(work)

    async def finish(self, message_id: int, content: str, reasoning: str, end: AnswerEnd) -> Message:
        """Append the rest of an answer and finish it. Raises NotFound when it was deleted, StoreUnavailable."""

        def work(connection: Connection) -> Message:
            connection.execute(
                update(messages).where(messages.c.id == message_id).values(_appended(content, reasoning))
            )
            return self._finish(connection, message_id, end)

        return await self._writer.run(work)

    async def discard(self, turn: Turn) -> None:
        """Delete an answer without text. After a retry the earlier branch becomes active. Raises StoreUnavailable."""

        def work(connection: Connection) -> None:
            connection.execute(delete(messages).where(messages.c.id == turn.answer.id))
            if turn.previous_id is not None and turn.thread[-1].id <= turn.previous_id:
                _activate(connection, turn.conversation.id, turn.previous_id)

        await self._writer.run(work)

    async def choose_branch(self, conversation_id: int, message_id: int) -> None:
        """Make the branch through a message the active one, down to the newest message below it.

        Raises NotFound, StoreUnavailable.
        """

        def work(connection: Connection) -> None:
            load(connection, conversation_id)
            _message(connection, conversation_id, message_id)
            _activate(connection, conversation_id, message_id)

        await self._writer.run(work)

    def _begin(self, connection: Connection, conversation_id: int, request: TurnRequest, model: str) -> Turn:
        load(connection, conversation_id)
        is_active = and_(messages.c.conversation_id == conversation_id, messages.c.is_active)
        previous_id: int | None = connection.scalar(select(func.max(messages.c.id)).where(is_active))
        asked_id = self._message_to_answer(connection, conversation_id, request, previous_id)
        answer = NewMessage(None, Role.ASSISTANT, "", model=model, status=MessageStatus.GENERATING)
        answer_id = self._insert(connection, conversation_id, asked_id, answer)
        if not isinstance(request, Send):
            _activate(connection, conversation_id, answer_id)
        connection.execute(
            update(conversations)
            .where(conversations.c.id == conversation_id)
            .values(model=model, updated_at_ms=func.max(conversations.c.updated_at_ms, self._now_ms()))
        )
        conversation, thread = load_thread(connection, conversation_id)
        return Turn(conversation, thread[:-1], load_images(connection, conversation_id), thread[-1], previous_id)

    def _message_to_answer(
        self, connection: Connection, conversation_id: int, request: TurnRequest, previous_id: int | None
    ) -> int:
        """Id of the message to be answered, which is inserted for Send and Edit."""
        if isinstance(request, Send):
            new = NewMessage(None, Role.USER, request.content, images=request.images)
            return self._insert(connection, conversation_id, previous_id, new)
        target = _message(connection, conversation_id, request.message_id)
        if isinstance(request, Edit):
            if target.role is not Role.USER:
                raise InvalidInput("message_id", "must be a message of the user; an answer can only be given again")
            new = NewMessage(None, Role.USER, request.content, images=_images(connection, target.id))
            return self._insert(connection, conversation_id, target.parent_id, new)
        if target.role is Role.USER:
            return target.id
        if target.role is not Role.ASSISTANT or target.parent_id is None:
            raise InvalidInput("message_id", "must be an answer, or the message that is to be answered")
        return target.parent_id

    def _insert(self, connection: Connection, conversation_id: int, parent_id: int | None, new: NewMessage) -> int:
        place = MessagePlace(conversation_id, parent_id, self._now_ms(), is_active=True)
        return insert_message(connection, place, new)

    def _finish(self, connection: Connection, message_id: int, end: AnswerEnd) -> Message:
        is_this = messages.c.id == message_id
        row = connection.execute(select(messages).where(is_this)).first()
        if row is None:
            raise NotFound("conversation", message_id, "The conversation was deleted while it was answered.")
        values: dict[str, Any] = {
            "status": end.status.value,
            "is_unspaced": has_unspaced(row.content),
            "response_ms": end.response_ms,
            "prompt_tokens": end.prompt_tokens,
            "tokens": end.tokens,
            "tokens_per_second": end.tokens_per_second,
        }
        connection.execute(update(messages).where(is_this).values(**values))
        connection.execute(
            update(conversations)
            .where(conversations.c.id == row.conversation_id)
            .values(updated_at_ms=func.max(conversations.c.updated_at_ms, self._now_ms()))
        )
        return to_message(connection.execute(select(messages).where(is_this)).one())


def _appended(content: str, reasoning: str) -> dict[str, Any]:
    values: dict[str, Any] = {"content": messages.c.content + content}
    if reasoning:
        values["reasoning"] = func.coalesce(messages.c.reasoning, "") + reasoning
    return values


def _message(connection: Connection, conversation_id: int, message_id: int) -> Message:
    is_it = and_(messages.c.id == message_id, messages.c.conversation_id == conversation_id)
    row = connection.execute(select(messages).where(is_it)).first() if abs(message_id) < 1 << 63 else None
    if row is None:
        raise NotFound("message", message_id)
    return to_message(row)


def _activate(connection: Connection, conversation_id: int, message_id: int) -> None:
    in_conversation = messages.c.conversation_id == conversation_id
    rows = connection.execute(select(messages.c.id, messages.c.parent_id).where(in_conversation))
    parents: dict[int, int | None] = {row.id: row.parent_id for row in rows}
    newest_child = {parent: child for child, parent in sorted(parents.items())}
    end = message_id
    while end in newest_child:
        end = newest_child[end]
    path = []
    step: int | None = end
    while step is not None:
        path.append(step)
        step = parents[step]
    # The ids are passed as JSON, because a statement takes a limited number of parameters.
    in_path = messages.c.id.in_(select(func.json_each(json.dumps(path)).table_valued("value").c.value))
    connection.execute(update(messages).where(in_conversation, not_(in_path)).values(is_active=False))
    connection.execute(update(messages).where(in_conversation, in_path).values(is_active=True))


def _images(connection: Connection, message_id: int) -> tuple[Image, ...]:
    query = select(attachments).where(attachments.c.message_id == message_id).order_by(attachments.c.id)
    return tuple(Image(row.media_type, row.data, row.name) for row in connection.execute(query))


def _mark_interrupted(connection: Connection) -> None:
    is_unfinished = messages.c.status == MessageStatus.GENERATING.value
    for row in connection.execute(select(messages.c.id, messages.c.content).where(is_unfinished)).all():
        values: dict[str, Any] = {
            "status": MessageStatus.INTERRUPTED.value,
            "is_unspaced": has_unspaced(row.content),
        }
        connection.execute(update(messages).where(messages.c.id == row.id).values(**values))
