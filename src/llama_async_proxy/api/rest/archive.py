"""Export of conversations to files, and import from files of this service and of other programs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response

from llama_async_proxy.api.rest.chat_routing import ChatModel, ChatRoute, Id
from llama_async_proxy.api.rest.conversations import ConversationInfo, conversation_info
from llama_async_proxy.api.rest.routing import BODY, Responses, RestRoute, RouteTable, ServiceContext
from llama_async_proxy.operations import archive as archive_operations
from llama_async_proxy.operations.archive import ExportConversations, FileFormat, ImportConversations, Imported
from llama_async_proxy.operations.context import Context

_FILE_TYPES = {
    FileFormat.JSON: ("json", "application/json"),
    FileFormat.MARKDOWN: ("md", "text/markdown; charset=utf-8"),
}

# --- schema -----------------------------------------------------------------------------------------------------------
ImportBody = dict[str, Any] | list[Any]
"""A parsed export."""


class ImportedAnswer(ChatModel):
    conversations: list[ConversationInfo]
    count: int


# --- mapping ----------------------------------------------------------------------------------------------------------


def imported_answer(imported: Imported) -> ImportedAnswer:
    shown = [conversation_info(conversation) for conversation in imported.conversations]
    return ImportedAnswer(conversations=shown, count=len(shown))


# --- routes -----------------------------------------------------------------------------------------------------------


async def export_conversation(
    context: ServiceContext,
    conversation_id: Id,
    file_format: Annotated[FileFormat, Query(alias="format", description="json can be imported again.")] = (
        FileFormat.JSON
    ),
) -> Response:
    """A conversation as a file."""
    return await _file(context, (conversation_id,), file_format)


async def export_conversations(context: ServiceContext) -> Response:
    """All conversations as one file, which can be imported again."""
    return await _file(context, (), FileFormat.JSON)


async def _file(context: Context, ids: tuple[int, ...], file_format: FileFormat) -> Response:
    export = await archive_operations.export_conversations(context, ExportConversations(ids, file_format))
    name = f"conversation-{ids[0]}" if ids else "conversations"
    extension, media_type = _FILE_TYPES[file_format]
    headers = {"content-disposition": f'attachment; filename="{name}.{extension}"'}
    return Response(export.text, media_type=media_type, headers=headers)


async def import_conversations(context: ServiceContext, body: ImportBody) -> ImportedAnswer:
    """Add the conversations of a file of this service, of llama.cpp's web UI or of Open WebUI: all or none."""
    return imported_answer(await archive_operations.import_conversations(context, ImportConversations(body)))


_CONVERSATIONS = "/api/conversations"
_EXPORT: Responses = {
    200: {
        "description": "The file.",
        "content": {"application/json": {}, "text/markdown": {"schema": {"type": "string"}}},
    }
}

TABLES = (
    RouteTable(
        "chats",
        (
            RestRoute("GET", _CONVERSATIONS + "/export", export_conversations, None, (503,), responses=_EXPORT),
            RestRoute(
                "POST",
                _CONVERSATIONS + "/import",
                import_conversations,
                ImportedAnswer,
                (*BODY, 503),
                status=201,
            ),
            RestRoute(
                "GET",
                _CONVERSATIONS + "/{conversation_id}/export",
                export_conversation,
                None,
                (400, 404, 503),
                responses=_EXPORT,
            ),
        ),
        ChatRoute,
        shows_null=True,
    ),
)
