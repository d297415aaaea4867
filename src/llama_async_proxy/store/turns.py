"""Turns of a conversation: what a person says or changes, and the answer, stored while it grows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, not_, select, update

from llama_async_proxy.errors import InvalidInput, NotFound
from llama_async_proxy.records.chats import AnswerEnd, Edit, Image, Message, MessageStatus, Opening, Role, Send, Turn
from llama_async_proxy.store.chats import insert_images, load, load_images, load_thread, to_message
from llama_async_proxy.store.database import Database, our_errors
from llama_async_proxy.store.schema import attachments, conversations, messages
from llama_async_proxy.store.scripts import has_unspaced
from llama_async_proxy.store.writer import Writer


class TurnTable:
    """Every change is committed when its method returns."""

    def __init__(self, database: Database, writer: Writer, now_ms: Callable[[], int]) -> None:
        """Marks what a killed service left unfinished; blocks. Raises StoreUnavailable."""
        self._writer = writer
        self._now_ms = now_ms
        with our_errors(database.path), database.writing.begin() as connection:
            _mark_interrupted(connection)

    async def begin(self, conversation_id: int, opening: Opening, model: str) -> Turn:
        """Store what was said and an empty answer by `model`.

        Raises NotFound for the conversation or the message, InvalidInput for a message that cannot be meant,
        StoreUnavailable.
        """
        return await self._writer.run(lambda connection: self._begin(connection, conversation_id, opening, model))

    async def grow(self, message_id: int, content: str, reasoning: str) -> None:
        """Append to an answer. Nothing happens when it is gone. Raises StoreUnavailable."""

        def work(connection: Connection) -> None:
            connection.execute(update(messages).where(messages.c.id == message_id).values(_grown(content, reasoning)))

        await self._writer.run(work)

    async def finish(self, message_id: int, content: str, reasoning: str, end: AnswerEnd) -> Message:
        """Append the rest of an answer and close it. Raises NotFound when it was deleted, StoreUnavailable."""
        return await self._writer.run(lambda connection: self._finish(connection, message_id, content, reasoning, end))

    async def discard(self, turn: Turn) -> None:
        """Take back an answer that never began; what was active before a retry is so again. Raises StoreUnavailable."""

        def work(connection: Connection) -> None:
            connection.execute(delete(messages).where(messages.c.id == turn.answer.id))
            if turn.before is not None and turn.thread[-1].id <= turn.before:
                _activate(connection, turn.conversation.id, turn.before)

        await self._writer.run(work)

    async def choose(self, conversation_id: int, message_id: int) -> None:
        """Make the branch through a message the active one, down to the newest message below it.

        Raises NotFound, StoreUnavailable.
        """

        def work(connection: Connection) -> None:
            load(connection, conversation_id)
            _message(connection, conversation_id, message_id)
            _activate(connection, conversation_id, message_id)

        await self._writer.run(work)

    def _begin(self, connection: Connection, conversation_id: int, opening: Opening, model: str) -> Turn:
        load(connection, conversation_id)
        now_ms = self._now_ms()
        is_active = and_(messages.c.conversation_id == conversation_id, messages.c.is_active)
        before: int | None = connection.scalar(select(func.max(messages.c.id)).where(is_active))
        spoken_id = _spoken(connection, conversation_id, opening, before, now_ms)
        answer_id = _insert(connection, conversation_id, spoken_id, Role.ASSISTANT, "", now_ms, model)
        if not isinstance(opening, Send):
            _activate(connection, conversation_id, answer_id)
        connection.execute(
            update(conversations)
            .where(conversations.c.id == conversation_id)
            .values(model=model, updated_at_ms=func.max(conversations.c.updated_at_ms, now_ms))
        )
        conversation, thread = load_thread(connection, conversation_id)
        return Turn(conversation, thread[:-1], load_images(connection, conversation_id), thread[-1], before)

    def _finish(self, connection: Connection, message_id: int, content: str, reasoning: str, end: AnswerEnd) -> Message:
        is_this = messages.c.id == message_id
        connection.execute(update(messages).where(is_this).values(_grown(content, reasoning)))
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


def _spoken(connection: Connection, conversation_id: int, opening: Opening, before: int | None, now_ms: int) -> int:
    """The message that is to be answered."""
    if isinstance(opening, Send):
        message_id = _insert(connection, conversation_id, before, Role.USER, opening.content, now_ms)
        insert_images(connection, message_id, opening.images)
        return message_id
    target = _message(connection, conversation_id, opening.message_id)
    if isinstance(opening, Edit):
        if target.role is not Role.USER:
            raise InvalidInput("message_id", "must be a message of the user; an answer can only be given again")
        message_id = _insert(connection, conversation_id, target.parent_id, Role.USER, opening.content, now_ms)
        _copy_images(connection, target.id, message_id)
        return message_id
    if target.role is Role.USER:
        return target.id
    if target.role is not Role.ASSISTANT or target.parent_id is None:
        raise InvalidInput("message_id", "must be an answer, or the message that is to be answered")
    return target.parent_id


def _insert(
    connection: Connection,
    conversation_id: int,
    parent_id: int | None,
    role: Role,
    content: str,
    now_ms: int,
    model: str | None = None,
) -> int:
    status = MessageStatus.COMPLETE if role is Role.USER else MessageStatus.GENERATING
    inserted = connection.execute(
        insert(messages)
        .values(
            conversation_id=conversation_id,
            parent_id=parent_id,
            role=role.value,
            content=content,
            model=model,
            status=status.value,
            is_active=True,
            is_unspaced=has_unspaced(content),
            created_at_ms=now_ms,
        )
        .returning(messages.c.id)
    )
    return int(inserted.scalar_one())


def _grown(content: str, reasoning: str) -> dict[str, Any]:
    grown: dict[str, Any] = {"content": messages.c.content + content}
    if reasoning:
        grown["reasoning"] = func.coalesce(messages.c.reasoning, "") + reasoning
    return grown


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
    # As JSON, because a statement takes a limited number of parameters.
    in_path = messages.c.id.in_(select(func.json_each(json.dumps(path)).table_valued("value").c.value))
    connection.execute(update(messages).where(in_conversation, not_(in_path)).values(is_active=False))
    connection.execute(update(messages).where(in_conversation, in_path).values(is_active=True))


def _copy_images(connection: Connection, source_id: int, target_id: int) -> None:
    query = select(attachments).where(attachments.c.message_id == source_id).order_by(attachments.c.id)
    rows = connection.execute(query).all()
    insert_images(connection, target_id, [Image(row.media_type, row.data, row.name) for row in rows])


def _mark_interrupted(connection: Connection) -> None:
    is_left = messages.c.status == MessageStatus.GENERATING.value
    for row in connection.execute(select(messages.c.id, messages.c.content).where(is_left)).all():
        values: dict[str, Any] = {
            "status": MessageStatus.INTERRUPTED.value,
            "is_unspaced": has_unspaced(row.content),
        }
        connection.execute(update(messages).where(messages.c.id == row.id).values(**values))
