"""Conversations out to files, and in from files of this and of other programs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

from llama_async_proxy.chats import archive, import_formats
from llama_async_proxy.events import ConversationChanged
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.records.chats import Conversation, NewConversation


class FileFormat(StrEnum):
    JSON = "json"
    """Keeps everything; can be imported again."""
    MARKDOWN = "markdown"
    """To be read; the active branch only."""


class ExportConversations(Struct, frozen=True):
    """No ids: all conversations, the archived ones too."""

    ids: tuple[int, ...] = ()
    format: FileFormat = FileFormat.JSON


class Export(Struct, frozen=True):
    text: str


class ImportConversations(Struct, frozen=True):
    """`document` is the parsed JSON of an export."""

    document: object


class Imported(Struct, frozen=True):
    conversations: tuple[Conversation, ...]


@operation("chats.export", Effect.CHAT)
async def export_conversations(context: Context, request: ExportConversations) -> Export:
    """Raises NotFound for an id that is none, and then nothing is exported."""
    ids = request.ids or [c.id for c in await context.store.chats.all(limit=None, archived=None)]
    kept = [await _archived(context, conversation_id) for conversation_id in ids]
    return Export(await asyncio.to_thread(_written, kept, request.format))


@operation("chats.import", Effect.CHAT)
async def import_conversations(context: Context, request: ImportConversations) -> Imported:
    """All conversations of a file, or none when it is not as it should be. Raises InvalidInput."""
    found = await asyncio.to_thread(import_formats.conversations_of, request.document)
    created = tuple([await context.store.chats.create(conversation) for conversation in found])
    for conversation in created:
        context.bus.publish(ConversationChanged(conversation))
    return Imported(created)


async def _archived(context: Context, conversation_id: int) -> NewConversation:
    conversation, messages = await context.store.chats.tree(conversation_id)
    return archive.archived(conversation, messages, await context.store.chats.images(conversation_id))


def _written(conversations: Iterable[NewConversation], file_format: FileFormat) -> str:
    if file_format is FileFormat.MARKDOWN:
        return "\n".join(map(archive.to_markdown, conversations))
    return archive.to_json(list(conversations)).decode()
