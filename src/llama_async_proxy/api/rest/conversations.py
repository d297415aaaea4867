"""The chat routes of /api: conversations, answers (whole or as a stream), statistics and search.

They have an error answer of their own, which says the same as everywhere else in the form that chat clients read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from msgspec import Struct, field
from pydantic import BaseModel

from llama_async_proxy.api.rest import conversations_schema as wire
from llama_async_proxy.api.rest import search_schema as search_wire
from llama_async_proxy.api.rest import usage_schema as usage_wire
from llama_async_proxy.api.rest.route_policy import BODY, Live, ResourceRoute, RoutePolicy, retry_after
from llama_async_proxy.chats.answer import AnswerDelta, Position, RunningAnswer, event_id, missing_part, parse_event_id
from llama_async_proxy.errors import InvalidInput, ServiceError
from llama_async_proxy.operations import archive as archive_operations
from llama_async_proxy.operations import chats as chat_operations
from llama_async_proxy.operations import search as search_operations
from llama_async_proxy.operations import usage as usage_operations
from llama_async_proxy.operations.archive import ExportConversations, FileFormat, ImportConversations
from llama_async_proxy.operations.chats import (
    ChooseBranch,
    CreateConversation,
    DeleteConversation,
    EditMessage,
    GetConversation,
    GetImage,
    ListConversations,
    RegenerateAnswer,
    SendMessage,
    StopAnswer,
    UpdateConversation,
    running_answer,
    start_answer,
)
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.search import Search
from llama_async_proxy.operations.usage import GetUsage
from llama_async_proxy.records.chats import Message, MessageStatus, Role

HOLD_S = 5.0
"""A stream's head is held back so long, so that most failures have a status of their own."""
COMMENT_S = 3.0
_BODY_LIMIT = 32 << 20
"""Pictures travel in the bodies."""
_COMMENT = b": waiting\n\n"
_FILE_TYPES = {
    FileFormat.JSON: ("json", "application/json"),
    FileFormat.MARKDOWN: ("md", "text/markdown; charset=utf-8"),
}
_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
Id = int
"""Beyond what a database can hold there is nothing, which is no error of the caller's."""


def failure(error: ServiceError) -> JSONResponse:
    answer = wire.error_answer(error)
    return JSONResponse(answer.model_dump(exclude_none=True), wire.error_status(error), retry_after(error))


class _ChatRoute(ResourceRoute):
    """Renders every failure as wire.ChatErrorAnswer."""

    policy = RoutePolicy(failure, body_limit=_BODY_LIMIT)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise _invalid(error) from None

        return handled


def _invalid(error: RequestValidationError) -> InvalidInput:
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        return InvalidInput("body", f"is not valid JSON: {problem['ctx']['error']}")
    _, *path = problem["loc"]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    if problem["type"] == "missing":
        return _Missing(field or "body")
    text: str = problem["msg"]
    return InvalidInput(field or "body", text[:1].lower() + text[1:])


class _Missing(InvalidInput):
    def __init__(self, field: str) -> None:
        super().__init__(field, "")
        self.message = f"Missing required field: {field}"


# --- conversations ----------------------------------------------------------------------------------------------------


async def list_conversations(
    context: Live,
    limit: Annotated[int | None, Query(description="Default: all.")] = None,
    offset: int = 0,
    archived: Annotated[bool, Query(description="Those put away instead of the others.")] = False,
) -> wire.ConversationsAnswer:
    """Conversations, last updated first."""
    listed = await chat_operations.list_conversations(context, ListConversations(limit, offset, archived))
    return wire.conversations_answer(listed)


async def create_conversation(context: Live, body: wire.NewConversationBody) -> wire.ConversationCreated:
    """Begin a conversation."""
    request = CreateConversation(body.model, body.title, body.system_prompt, body.options.record)
    created = await chat_operations.create_conversation(context, request)
    return wire.ConversationCreated(conversation_id=created.conversation.id)


async def get_conversation(
    context: Live,
    conversation_id: Id,
    branches: Annotated[bool, Query(description="All messages, not only those of the active branch.")] = False,
) -> wire.ConversationAnswer:
    """A conversation with its messages, oldest first."""
    return wire.conversation_answer(
        await chat_operations.get_conversation(context, GetConversation(conversation_id, every_branch=branches))
    )


async def update_conversation(
    context: Live, conversation_id: Id, body: wire.ConversationChangesBody
) -> wire.ConversationUpdated:
    """Rename, pin or archive a conversation, or change its model, system prompt or options."""
    given = body.model_fields_set
    request = UpdateConversation(
        conversation_id,
        title=body.title if "title" in given else None,
        model=body.model if "model" in given else None,
        system_prompt=body.system_prompt,
        uses_default_system_prompt="system_prompt" in given and body.system_prompt is None,
        sampling=body.options.record if "options" in given else None,
        is_pinned=body.pinned if "pinned" in given else None,
        is_archived=body.archived if "archived" in given else None,
    )
    changed = await chat_operations.update_conversation(context, request)
    return wire.ConversationUpdated(title=changed.conversation.title)


async def delete_conversation(context: Live, conversation_id: Id) -> wire.Done:
    """Delete a conversation and all its messages; an answer that is being generated ends."""
    await chat_operations.delete_conversation(context, DeleteConversation(conversation_id))
    return wire.Done()


async def choose_branch(context: Live, conversation_id: Id, message_id: Id) -> wire.ConversationAnswer:
    """Make the branch through a message the one that is read and continued."""
    return wire.conversation_answer(
        await chat_operations.choose_branch(context, ChooseBranch(conversation_id, message_id))
    )


async def export_conversation(
    context: Live,
    conversation_id: Id,
    file_format: Annotated[FileFormat, Query(alias="format", description="json can be imported again.")] = (
        FileFormat.JSON
    ),
) -> Response:
    """A conversation as a file."""
    return await _file(context, (conversation_id,), file_format)


async def export_conversations(context: Live) -> Response:
    """All conversations as one file, which can be imported again."""
    return await _file(context, (), FileFormat.JSON)


async def _file(context: Context, ids: tuple[int, ...], file_format: FileFormat) -> Response:
    export = await archive_operations.export_conversations(context, ExportConversations(ids, file_format))
    name = f"conversation-{ids[0]}" if ids else "conversations"
    extension, media_type = _FILE_TYPES[file_format]
    headers = {"content-disposition": f'attachment; filename="{name}.{extension}"'}
    return Response(export.text, media_type=media_type, headers=headers)


async def import_conversations(context: Live, body: wire.ImportBody) -> wire.ImportedAnswer:
    """Add the conversations of a file of this service, of llama.cpp's web UI or of Open WebUI: all or none."""
    return wire.imported_answer(await archive_operations.import_conversations(context, ImportConversations(body)))


async def get_attachment(context: Live, attachment_id: Id) -> Response:
    """An image of a message."""
    image = await chat_operations.get_image(context, GetImage(attachment_id))
    headers = {"cache-control": "private, max-age=31536000, immutable", "x-content-type-options": "nosniff"}
    return Response(image.data, media_type=image.media_type, headers=headers)


# --- answers ----------------------------------------------------------------------------------------------------------


async def chat(request: Request, context: Live, body: wire.ChatBody) -> wire.ChatAnswer | Response:
    """Send something and get the answer. It is generated to its end and stored, whether or not its reader stays."""
    asked = SendMessage(body.conversation_id, body.message, body.model, body.image_records, _client(request))
    return await _answered(await start_answer(context, asked), streamed=body.stream)


async def edit_message(
    request: Request, context: Live, conversation_id: Id, message_id: Id, body: wire.EditBody
) -> wire.ChatAnswer | Response:
    """Send something else in place of an earlier message, in a branch of its own."""
    asked = EditMessage(conversation_id, message_id, body.message, body.model, _client(request))
    return await _answered(await start_answer(context, asked), streamed=body.stream)


async def regenerate_answer(
    request: Request,
    context: Live,
    conversation_id: Id,
    message_id: Id,
    body: wire.RegenerateBody | None = None,
) -> wire.ChatAnswer | Response:
    """Answer again, beside the earlier answer."""
    body = body or wire.RegenerateBody()
    asked = RegenerateAnswer(conversation_id, message_id, body.model, _client(request))
    return await _answered(await start_answer(context, asked), streamed=body.stream)


async def stop_answer(context: Live, conversation_id: Id) -> wire.Stopped:
    """End the answer that is being generated; what there is of it is kept."""
    return wire.stopped_answer(await chat_operations.stop_answer(context, StopAnswer(conversation_id)))


async def resume_stream(
    context: Live,
    conversation_id: Id,
    last_event_id: Annotated[str | None, Header(description="Of the last event that was received.")] = None,
) -> Response:
    """The answer that is being generated, or the rest of the one that was being read; 204 when there is no more."""
    view = await chat_operations.get_conversation(context, GetConversation(conversation_id, every_branch=True))
    running = running_answer(context, conversation_id)
    if last_event_id is None:
        return Response(status_code=204) if running is None else _stream(running, Position())
    message_id, has = parse_event_id(last_event_id)
    if running is not None and running.turn is not None and running.turn.answer.id == message_id:
        return _stream(running, has)
    stored = next((m for m in view.messages if m.id == message_id and m.role is Role.ASSISTANT), None)
    rest = None if stored is None else missing_part(stored, has)
    if stored is None or rest is None or not (rest.content or rest.reasoning):
        return Response(status_code=204)
    return StreamingResponse(_stored(stored, rest), media_type="text/event-stream", headers=_STREAM_HEADERS)


def _client(request: Request) -> str:
    return request.client.host if request.client else ""


async def _answered(answer: RunningAnswer, *, streamed: bool) -> wire.ChatAnswer | Response:
    if not streamed:
        return wire.chat_answer(await answer.wait_until_ended(), answer.left_out)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HOLD_S):
            await answer.wait_until_first_text()
    return _stream(answer, Position())


def _stream(answer: RunningAnswer, has: Position) -> StreamingResponse:
    return StreamingResponse(_events(answer, has), media_type="text/event-stream", headers=_STREAM_HEADERS)


async def _events(answer: RunningAnswer, has: Position) -> AsyncIterator[bytes]:
    """The whole stream. A reader that leaves ends it, not the answer."""
    is_announced = False
    try:
        async for growth in answer.follow(has, COMMENT_S):
            if answer.turn is not None and not is_announced:
                is_announced = True
                yield _event(wire.started(answer.turn), event_id(answer.turn.answer.id, has))
            elif answer.turn is None or not (growth.content or growth.reasoning):
                yield _COMMENT
            if answer.turn is not None and (growth.content or growth.reasoning):
                yield _token(answer.turn.answer.id, growth)
        message = await answer.wait_until_ended()
        yield _event(wire.finished(message, answer.left_out), event_id(message.id, answer.position))
    except ServiceError as error:
        yield _event(wire.broken(error))


async def _stored(message: Message, rest: AnswerDelta) -> AsyncIterator[bytes]:
    yield _token(message.id, rest)
    if message.status is not MessageStatus.GENERATING:
        yield _event(wire.finished(message), event_id(message.id, rest.position))


def _token(message_id: int, growth: AnswerDelta) -> bytes:
    token = wire.Token(content=growth.content, reasoning=growth.reasoning)
    return _event(token, event_id(message_id, growth.position))


def _event(data: BaseModel, number: str = "") -> bytes:
    kind = getattr(data, "type", "message")
    marked = f"id: {number}\n" if number else ""
    exclude_none = isinstance(data, wire.Broken)
    return f"{marked}event: {kind}\ndata: {data.model_dump_json(exclude_none=exclude_none)}\n\n".encode()


# --- statistics and search --------------------------------------------------------------------------------------------


async def get_conversation_stats(context: Live, conversation_id: Id) -> usage_wire.ConversationStats:
    """Messages, lengths, tokens and response times of one conversation."""
    return usage_wire.conversation_stats(
        await chat_operations.get_conversation(context, GetConversation(conversation_id))
    )


async def get_usage(
    context: Live, days: Annotated[int, Query(description="Up to today, in UTC; 1 to 366.")] = 30
) -> usage_wire.UsageAnswer:
    """Requests, tokens and speed by model and by day, of all inference and not only of chats."""
    return usage_wire.usage_answer(await usage_operations.get_usage(context, GetUsage(days)))


async def search(
    request: Request,
    context: Live,
    q: Annotated[str, Query(description='Words; "several words" stand together; a trailing * finds beginnings.')],
    limit: int = 50,
    sort: Annotated[Literal["rank", "newest"], Query()] = "rank",
    typing: Annotated[bool, Query(description="The last word may be unfinished.")] = True,
    client: Annotated[str, Query(description="A newer search of the same client breaks this one off.")] = "",
) -> search_wire.SearchAnswer | Response:
    """Find messages, and conversations by their title."""
    asked = Search(q, limit, newest_first=sort == "newest", is_typing=typing, client=client)
    searching = asyncio.ensure_future(search_operations.search(context, asked))
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({searching, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not searching.done():
            return Response(status_code=499)  # nobody is there to read it
        return search_wire.search_answer(q, searching.result().hits)
    finally:
        for task in (searching, leaving):
            task.cancel()
        await asyncio.gather(searching, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# --- routes -----------------------------------------------------------------------------------------------------------

_ANSWER = (*BODY, 404, 429, 503)
_EVENTS: dict[str, Any] = {
    "description": "The answer; with `stream` as server-sent events: start, token (several), then done or error.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


class _Chat(Struct, frozen=True):
    method: str
    path: str
    endpoint: Callable[..., Any]
    answer: type[BaseModel] | None
    errors: tuple[int, ...] = ()
    """Statuses it may fail with, besides 500."""
    status: int = 200
    successes: Mapping[int | str, dict[str, Any]] = field(default_factory=dict)


_CONVERSATION = "/api/conversations/{conversation_id}"
_MESSAGE = _CONVERSATION + "/messages/{message_id}"
_STREAM: Mapping[int | str, dict[str, Any]] = {200: _EVENTS}
_RESUME: Mapping[int | str, dict[str, Any]] = {200: _EVENTS, 204: {"description": "There is nothing to read."}}
_EXPORT: Mapping[int | str, dict[str, Any]] = {
    200: {
        "description": "The file.",
        "content": {"application/json": {}, "text/markdown": {"schema": {"type": "string"}}},
    }
}
_PICTURE: Mapping[int | str, dict[str, Any]] = {
    200: {"description": "The image.", "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
}

_ROUTES: tuple[_Chat, ...] = (
    _Chat("GET", "/api/conversations", list_conversations, wire.ConversationsAnswer, (400, 503)),
    _Chat("POST", "/api/conversations", create_conversation, wire.ConversationCreated, (*BODY, 503), 201),
    _Chat("GET", "/api/conversations/export", export_conversations, None, (503,), successes=_EXPORT),
    _Chat("POST", "/api/conversations/import", import_conversations, wire.ImportedAnswer, (*BODY, 503), 201),
    _Chat("GET", _CONVERSATION + "/export", export_conversation, None, (400, 404, 503), successes=_EXPORT),
    _Chat("GET", _CONVERSATION, get_conversation, wire.ConversationAnswer, (400, 404, 503)),
    _Chat("PUT", _CONVERSATION, update_conversation, wire.ConversationUpdated, (*BODY, 404, 503)),
    _Chat("DELETE", _CONVERSATION, delete_conversation, wire.Done, (400, 404, 503)),
    _Chat("GET", _CONVERSATION + "/stream", resume_stream, None, (400, 404, 503), successes=_RESUME),
    _Chat("POST", _CONVERSATION + "/stop", stop_answer, wire.Stopped, (400, 404, 503)),
    _Chat("POST", _MESSAGE + "/edit", edit_message, wire.ChatAnswer, _ANSWER, successes=_STREAM),
    _Chat("POST", _MESSAGE + "/regenerate", regenerate_answer, wire.ChatAnswer, _ANSWER, successes=_STREAM),
    _Chat("POST", _MESSAGE + "/choose", choose_branch, wire.ConversationAnswer, (400, 404, 409, 503)),
    _Chat("GET", "/api/attachments/{attachment_id}", get_attachment, None, (400, 404, 503), successes=_PICTURE),
    _Chat("POST", "/api/chat", chat, wire.ChatAnswer, _ANSWER, successes=_STREAM),
    _Chat("GET", "/api/stats", get_usage, usage_wire.UsageAnswer, (400, 503)),
    _Chat("GET", "/api/stats/{conversation_id}", get_conversation_stats, usage_wire.ConversationStats, (400, 404, 503)),
    _Chat("GET", "/api/search", search, search_wire.SearchAnswer, (400, 409, 503)),
)


def chat_routes() -> APIRouter:
    """For the application of /api, whose state has `context`."""
    router = APIRouter(route_class=_ChatRoute, tags=["chats"])
    for route in _ROUTES:
        failures: dict[int | str, dict[str, Any]] = {
            status: {"model": wire.ChatErrorAnswer} for status in (*route.errors, 500)
        }
        router.add_api_route(
            route.path,
            route.endpoint,
            methods=[route.method],
            status_code=route.status,
            response_model=route.answer,
            response_class=JSONResponse if route.answer else Response,
            responses={**route.successes, **failures},
            operation_id=route.endpoint.__name__,
        )
    return router
