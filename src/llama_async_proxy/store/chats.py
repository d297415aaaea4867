"""Tables of conversations and messages. `store.turns` writes answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from msgspec import Struct
from msgspec.structs import asdict, replace
from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from llama_async_proxy.errors import NotFound
from llama_async_proxy.records.chats import (
    Attachment,
    Conversation,
    Image,
    Message,
    MessageStatus,
    NewConversation,
    NewMessage,
    Role,
    Sampling,
)
from llama_async_proxy.store.database import Database
from llama_async_proxy.store.schema import attachments, conversations, messages
from llama_async_proxy.store.scripts import has_unspaced
from llama_async_proxy.store.writer import Writer

_MAX_ID = (1 << 63) - 1


class ConversationChanges(TypedDict, total=False):
    """Fields that `ChatTable.update` can change. With a system prompt of None the setting applies."""

    title: str
    has_automatic_title: bool
    model: str
    system_prompt: str | None
    sampling: Sampling
    is_pinned: bool
    is_archived: bool


class RoleTotals(Struct, frozen=True):
    """Totals over the active messages of one role in a conversation."""

    role: Role
    count: int
    average_length: float
    """Mean length in characters."""
    tokens: int
    average_response_ms: float | None


class ChatTable:
    """Reads and changes conversations. Every change is committed when its method returns."""

    def __init__(self, database: Database, writer: Writer, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._writer = writer
        self._now_ms = now_ms

    async def create(self, new: NewConversation) -> Conversation:
        """Create a conversation with all its messages. Raises StoreUnavailable."""

        def work(connection: Connection) -> Conversation:
            now_ms = self._now_ms()
            conversation_id = _insert(connection, new, now_ms)
            ids: list[int] = []
            path = _path([message.parent for message in new.messages], new.active)
            for index, message in enumerate(new.messages):
                parent_id = None if message.parent is None else ids[message.parent]
                place = MessagePlace(conversation_id, parent_id, now_ms, is_active=index in path)
                ids.append(insert_message(connection, place, message))
            return load(connection, conversation_id)

        return await self._writer.run(work)

    async def all(
        self, *, limit: int | None, offset: int = 0, archived: bool | None = False
    ) -> tuple[Conversation, ...]:
        """Conversations, last updated first. `archived` None selects both kinds. Raises StoreUnavailable."""
        c = conversations.c
        query = select(conversations).order_by(c.updated_at_ms.desc(), c.id.desc()).limit(limit).offset(offset)
        if archived is not None:
            query = query.where(c.is_archived == archived)
        return await self._database.read(lambda connection: tuple(map(_conversation, connection.execute(query))))

    async def get(self, conversation_id: int) -> Conversation:
        """One conversation. Raises NotFound, StoreUnavailable."""
        return await self._database.read(lambda connection: load(connection, conversation_id))

    async def thread(self, conversation_id: int) -> tuple[Conversation, tuple[Message, ...]]:
        """The conversation and its active messages, oldest first. Raises NotFound, StoreUnavailable."""
        return await self._database.read(lambda connection: load_thread(connection, conversation_id))

    async def tree(self, conversation_id: int) -> tuple[Conversation, tuple[Message, ...]]:
        """The conversation and all its messages by id, so that parents come before their children."""
        return await self._database.read(lambda connection: load_thread(connection, conversation_id, every=True))

    async def update(self, conversation_id: int, **changes: Unpack[ConversationChanges]) -> Conversation:
        """Change fields of a conversation. Raises NotFound, StoreUnavailable."""
        values: dict[str, Any] = dict(changes)
        if "sampling" in changes:
            values["sampling"] = _plain(changes["sampling"])
        if "title" in changes:
            values["is_unspaced"] = has_unspaced(changes["title"])
        return await self._writer.run(lambda connection: self._update(connection, conversation_id, values))

    async def suggest_title(self, conversation_id: int, title: str) -> Conversation | None:
        """Set the title unless a user has set one.

        Returns None when it is unchanged or the conversation was deleted. Raises StoreUnavailable.
        """
        values = {"title": title, "is_unspaced": has_unspaced(title)}
        is_open = and_(conversations.c.id == conversation_id, conversations.c.has_automatic_title)

        def work(connection: Connection) -> Conversation | None:
            named = connection.execute(update(conversations).where(is_open).values(**values)).rowcount
            return load(connection, conversation_id) if named else None

        return await self._writer.run(work)

    async def delete(self, conversation_id: int) -> None:
        """Delete a conversation with all its messages. Raises NotFound, StoreUnavailable."""

        def work(connection: Connection) -> None:
            load(connection, conversation_id)
            connection.execute(delete(conversations).where(conversations.c.id == conversation_id))

        await self._writer.run(work)

    async def images(self, conversation_id: int) -> dict[int, tuple[Image, ...]]:
        """Images of all messages of a conversation, by message id. Raises StoreUnavailable."""
        return await self._database.read(lambda connection: load_images(connection, conversation_id))

    async def image(self, attachment_id: int) -> Image:
        """One attached image. Raises NotFound, StoreUnavailable."""

        def query(connection: Connection) -> Image:
            if 0 < attachment_id <= _MAX_ID:
                row = connection.execute(select(attachments).where(attachments.c.id == attachment_id)).first()
                if row is not None:
                    return Image(row.media_type, row.data, row.name)
            raise NotFound("attachment", attachment_id)

        return await self._database.read(query)

    async def totals(self, conversation_id: int) -> tuple[RoleTotals, ...]:
        """Totals by role, in the order of the first message. Raises NotFound, StoreUnavailable."""
        return await self._database.read(lambda connection: _totals(connection, conversation_id))

    def _update(self, connection: Connection, conversation_id: int, values: Mapping[str, Any]) -> Conversation:
        before = load(connection, conversation_id)
        # Pinning and archiving do not count as an update of the conversation.
        is_update = values.keys() - {"is_pinned", "is_archived", "has_automatic_title"}
        updated_at_ms = max(self._now_ms(), before.updated_at_ms) if is_update else before.updated_at_ms
        connection.execute(
            update(conversations)
            .where(conversations.c.id == conversation_id)
            .values(**values, updated_at_ms=updated_at_ms)
        )
        return load(connection, conversation_id)


# --- rows, used by store.turns, too -------------------------------------------------------------------


def load(connection: Connection, conversation_id: int) -> Conversation:
    """One conversation. Raises NotFound, also for an id outside of the database's range."""
    row = None
    if 0 < conversation_id <= _MAX_ID:
        row = connection.execute(select(conversations).where(conversations.c.id == conversation_id)).first()
    if row is None:
        raise NotFound("conversation", conversation_id)
    return _conversation(row)


def load_thread(
    connection: Connection, conversation_id: int, *, every: bool = False
) -> tuple[Conversation, tuple[Message, ...]]:
    conversation = load(connection, conversation_id)
    query = select(messages).where(messages.c.conversation_id == conversation_id).order_by(messages.c.id)
    if not every:
        query = query.where(messages.c.is_active)
    rows = connection.execute(query).all()
    by_message = _attachments(connection, conversation_id)
    return conversation, tuple(replace(to_message(row), attachments=tuple(by_message.get(row.id, ()))) for row in rows)


def to_message(row: Row[Any]) -> Message:
    values = dict(row._mapping)
    del values["is_unspaced"]
    return Message(**values | {"role": Role(values["role"]), "status": MessageStatus(values["status"])})


class MessagePlace(Struct, frozen=True):
    """Place of a new message in the tree of a conversation."""

    conversation_id: int
    parent_id: int | None
    now_ms: int
    is_active: bool


def insert_message(connection: Connection, place: MessagePlace, new: NewMessage) -> int:
    """Insert a message with its images, and return its id."""
    inserted = connection.execute(
        insert(messages)
        .values(
            conversation_id=place.conversation_id,
            parent_id=place.parent_id,
            role=new.role.value,
            content=new.content,
            reasoning=new.reasoning,
            model=new.model,
            status=new.status.value,
            is_active=place.is_active,
            is_unspaced=has_unspaced(new.content),
            created_at_ms=place.now_ms if new.created_at_ms is None else new.created_at_ms,
            response_ms=new.response_ms,
            prompt_tokens=new.prompt_tokens,
            tokens=new.tokens,
            tokens_per_second=new.tokens_per_second,
        )
        .returning(messages.c.id)
    )
    message_id = int(inserted.scalar_one())
    _insert_images(connection, message_id, new.images)
    return message_id


def _insert_images(connection: Connection, message_id: int, images: Sequence[Image]) -> None:
    for image in images:
        connection.execute(
            insert(attachments).values(
                message_id=message_id,
                media_type=image.media_type,
                name=image.name,
                size_bytes=len(image.data),
                data=image.data,
            )
        )


def load_images(connection: Connection, conversation_id: int) -> dict[int, tuple[Image, ...]]:
    """Images of all messages of a conversation, by message id."""
    a = attachments.c
    query = (
        select(a.message_id, a.media_type, a.data, a.name)
        .join(messages, messages.c.id == a.message_id)
        .where(messages.c.conversation_id == conversation_id)
        .order_by(a.id)
    )
    found: dict[int, tuple[Image, ...]] = {}
    for row in connection.execute(query):
        image = Image(row.media_type, row.data, row.name)
        found[row.message_id] = (*found.get(row.message_id, ()), image)
    return found


def _conversation(row: Row[Any]) -> Conversation:
    values = dict(row._mapping)
    del values["is_unspaced"]
    sampling = dict(values["sampling"])
    if sampling.get("stop") is not None:
        sampling["stop"] = tuple(sampling["stop"])
    return Conversation(**values | {"sampling": Sampling(**sampling)})


def _plain(sampling: Sampling) -> dict[str, Any]:
    return {name: value for name, value in asdict(sampling).items() if value is not None}


def _insert(connection: Connection, new: NewConversation, now_ms: int) -> int:
    values = {
        "title": new.title,
        "model": new.model,
        "has_automatic_title": new.has_automatic_title,
        "system_prompt": new.system_prompt,
        "sampling": _plain(new.sampling),
        "is_pinned": new.is_pinned,
        "is_archived": new.is_archived,
        "is_unspaced": has_unspaced(new.title),
        "created_at_ms": now_ms if new.created_at_ms is None else new.created_at_ms,
        "updated_at_ms": now_ms if new.updated_at_ms is None else new.updated_at_ms,
    }
    statement = insert(conversations).values(**values).returning(conversations.c.id)
    return int(connection.execute(statement).scalar_one())


def _path(parents: Sequence[int | None], end: int | None) -> set[int]:
    """Indices of the messages from `end` up to the root."""
    path: set[int] = set()
    while end is not None and end not in path:
        path.add(end)
        end = parents[end]
    return path


def _attachments(connection: Connection, conversation_id: int) -> dict[int, list[Attachment]]:
    a = attachments.c
    query = (
        select(a.message_id, a.id, a.media_type, a.name, a.size_bytes)
        .join(messages, messages.c.id == a.message_id)
        .where(messages.c.conversation_id == conversation_id)
        .order_by(a.id)
    )
    found: dict[int, list[Attachment]] = {}
    for message_id, *values in connection.execute(query):
        found.setdefault(message_id, []).append(Attachment(*values))
    return found


def _totals(connection: Connection, conversation_id: int) -> tuple[RoleTotals, ...]:
    load(connection, conversation_id)
    m = messages.c
    query = (
        select(
            m.role,
            func.count().label("number"),
            func.avg(func.length(m.content)).label("average_length"),
            # The same estimate as Message.estimated_tokens.
            func.sum(func.coalesce(m.tokens, (func.length(m.content) + 3) / 4)).label("tokens"),
            func.avg(m.response_ms).label("average_response_ms"),
        )
        .where(m.conversation_id == conversation_id, m.is_active)
        .group_by(m.role)
        .order_by(func.min(m.id))
    )
    return tuple(
        RoleTotals(Role(row.role), row.number, row.average_length, int(row.tokens), row.average_response_ms)
        for row in connection.execute(query)
    )
