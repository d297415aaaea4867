"""Answers in conversations: whole, or as a stream of server-sent events that can be resumed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from llama_async_proxy.api.rest.chat_routing import (
    ChatErrorAnswer,
    ChatModel,
    ChatRoute,
    Id,
    Name,
    StatusName,
    Text,
    error_answer,
    rounded,
    whole_ms,
)
from llama_async_proxy.api.rest.conversations import MessageInfo, message_info
from llama_async_proxy.api.rest.routing import BODY, Responses, RestRoute, RouteTable, ServiceContext
from llama_async_proxy.chats.answer import AnswerDelta, Position, RunningAnswer, event_id, missing_part, parse_event_id
from llama_async_proxy.errors import (
    InvalidInput,
    ServiceError,
)
from llama_async_proxy.operations import chats as chat_operations
from llama_async_proxy.operations.chats import (
    EditMessage,
    GetConversation,
    RegenerateAnswer,
    SendMessage,
    StopAnswer,
    StoppedAnswer,
    running_answer,
    start_answer,
)
from llama_async_proxy.records.chats import (
    Image,
    Message,
    MessageStatus,
    Role,
    Turn,
)

HOLD_S = 5.0
"""A stream's head is held back so long, so that most failures have a status of their own."""
COMMENT_S = 3.0
_COMMENT = b": waiting\n\n"
_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}

# --- schema -----------------------------------------------------------------------------------------------------------


class ImageBody(ChatModel):
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
    data: str = Field(description="Base64.")
    name: Name = ""


class ChatBody(ChatModel):
    conversation_id: int
    message: Text
    model: Name
    stream: bool = Field(False, description="Server-sent events instead of one JSON answer.")
    images: list[ImageBody] = Field(default=[], max_length=16)

    @property
    def image_records(self) -> tuple[Image, ...]:
        """Raises InvalidInput for what is not base64."""
        return tuple(_image(index, image) for index, image in enumerate(self.images))


class RegenerateBody(ChatModel):
    model: Name | None = Field(default=None, description="null: the conversation's.")
    stream: bool = False


class EditBody(RegenerateBody):
    message: Text


class ChatMetrics(ChatModel):
    completion_tokens: int
    prompt_tokens: int | None = Field(description="null: the engine did not say.")
    total_tokens: int
    tokens_per_second: float | None
    omitted_messages: int | None = Field(
        description="Oldest messages that the model's context does not hold, so that it did not get them; "
        "null: not known any more."
    )


class ChatAnswer(ChatModel):
    response: str
    model: str
    response_time_ms: int
    estimated_tokens: int
    metrics: ChatMetrics
    reasoning: str | None
    status: StatusName
    conversation_id: int
    message_id: int = Field(description="Of the answer.")


class AnswerStarted(ChatModel):
    """The first event of a stream."""

    type: Literal["start"] = "start"
    conversation_id: int
    user_message_id: int
    message_id: int = Field(description="Of the answer.")
    model: str | None


class AnswerToken(ChatModel):
    """More of the answer, one or several tokens."""

    type: Literal["token"] = "token"
    content: str
    reasoning: str


class AnswerFinished(ChatAnswer):
    """The last event: the whole answer and its metrics."""

    type: Literal["done"] = "done"


class AnswerBroken(ChatErrorAnswer):
    """The last event of an answer that failed."""

    type: Literal["error"] = "error"


class AnswerStopped(ChatModel):
    success: Literal[True] = True
    stopped: bool = Field(description="An answer was being generated.")
    message: MessageInfo | None


# --- mapping ----------------------------------------------------------------------------------------------------------


def _image(index: int, image: ImageBody) -> Image:
    try:
        data = base64.b64decode(image.data, validate=True)
    except ValueError:
        raise InvalidInput(f"images[{index}].data", "must be base64") from None
    return Image(image.media_type, data, image.name)


def answer_started(turn: Turn) -> AnswerStarted:
    return AnswerStarted(
        conversation_id=turn.conversation.id,
        user_message_id=turn.thread[-1].id,
        message_id=turn.answer.id,
        model=turn.answer.model,
    )


def chat_answer(message: Message, left_out: int) -> ChatAnswer:
    return ChatAnswer(**_answer(message, left_out))


def answer_finished(message: Message, left_out: int | None = None) -> AnswerFinished:
    return AnswerFinished(**_answer(message, left_out))


def answer_broken(error: ServiceError) -> AnswerBroken:
    return AnswerBroken(**error_answer(error).model_dump())


def answer_stopped(stopped: StoppedAnswer) -> AnswerStopped:
    shown = None if stopped.message is None else message_info(stopped.message)
    return AnswerStopped(stopped=shown is not None, message=shown)


def _answer(message: Message, left_out: int | None) -> dict[str, Any]:
    tokens = message.estimated_tokens
    return {
        "response": message.content,
        "model": message.model or "",
        "response_time_ms": whole_ms(message.response_ms) or 0,
        "estimated_tokens": tokens,
        "metrics": ChatMetrics(
            completion_tokens=tokens,
            prompt_tokens=message.prompt_tokens,
            total_tokens=tokens + (message.prompt_tokens or 0),
            tokens_per_second=rounded(message.tokens_per_second),
            omitted_messages=left_out,
        ),
        "reasoning": message.reasoning,
        "status": message.status.value,
        "conversation_id": message.conversation_id,
        "message_id": message.id,
    }


# --- routes -----------------------------------------------------------------------------------------------------------


async def chat(request: Request, context: ServiceContext, body: ChatBody) -> ChatAnswer | Response:
    """Send something and get the answer. It is generated to its end and stored, whether or not its reader stays."""
    asked = SendMessage(body.conversation_id, body.message, body.model, body.image_records, _client(request))
    return await _answered(await start_answer(context, asked), streamed=body.stream)


async def edit_message(
    request: Request, context: ServiceContext, conversation_id: Id, message_id: Id, body: EditBody
) -> ChatAnswer | Response:
    """Send something else in place of an earlier message, in a branch of its own."""
    asked = EditMessage(conversation_id, message_id, body.message, body.model, _client(request))
    return await _answered(await start_answer(context, asked), streamed=body.stream)


async def regenerate_answer(
    request: Request,
    context: ServiceContext,
    conversation_id: Id,
    message_id: Id,
    body: RegenerateBody | None = None,
) -> ChatAnswer | Response:
    """Answer again, beside the earlier answer."""
    body = body or RegenerateBody()
    asked = RegenerateAnswer(conversation_id, message_id, body.model, _client(request))
    return await _answered(await start_answer(context, asked), streamed=body.stream)


async def stop_answer(context: ServiceContext, conversation_id: Id) -> AnswerStopped:
    """End the answer that is being generated; what there is of it is kept."""
    return answer_stopped(await chat_operations.stop_answer(context, StopAnswer(conversation_id)))


async def resume_stream(
    context: ServiceContext,
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


async def _answered(answer: RunningAnswer, *, streamed: bool) -> ChatAnswer | Response:
    if not streamed:
        return chat_answer(await answer.wait_until_ended(), answer.left_out)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HOLD_S):
            await answer.wait_until_first_text()
    return _stream(answer, Position())


# --- streams ----------------------------------------------------------------------------------------------------------


def _stream(answer: RunningAnswer, has: Position) -> StreamingResponse:
    return StreamingResponse(_events(answer, has), media_type="text/event-stream", headers=_STREAM_HEADERS)


async def _events(answer: RunningAnswer, has: Position) -> AsyncIterator[bytes]:
    """The whole stream. A reader that leaves ends it, not the answer."""
    is_announced = False
    try:
        async for delta in answer.follow(has, COMMENT_S):
            if answer.turn is not None and not is_announced:
                is_announced = True
                yield _event(answer_started(answer.turn), event_id(answer.turn.answer.id, has))
            elif answer.turn is None or not (delta.content or delta.reasoning):
                yield _COMMENT
            if answer.turn is not None and (delta.content or delta.reasoning):
                yield _token(answer.turn.answer.id, delta)
        message = await answer.wait_until_ended()
        yield _event(answer_finished(message, answer.left_out), event_id(message.id, answer.position))
    except ServiceError as error:
        yield _event(answer_broken(error))


async def _stored(message: Message, rest: AnswerDelta) -> AsyncIterator[bytes]:
    yield _token(message.id, rest)
    if message.status is not MessageStatus.GENERATING:
        yield _event(answer_finished(message), event_id(message.id, rest.position))


def _token(message_id: int, delta: AnswerDelta) -> bytes:
    token = AnswerToken(content=delta.content, reasoning=delta.reasoning)
    return _event(token, event_id(message_id, delta.position))


def _event(data: BaseModel, number: str = "") -> bytes:
    kind = getattr(data, "type", "message")
    marked = f"id: {number}\n" if number else ""
    exclude_none = isinstance(data, AnswerBroken)
    return f"{marked}event: {kind}\ndata: {data.model_dump_json(exclude_none=exclude_none)}\n\n".encode()


# --- table ------------------------------------------------------------------------------------------------------------

_CONVERSATION = "/api/conversations/{conversation_id}"
_MESSAGE = _CONVERSATION + "/messages/{message_id}"
_ERRORS = (*BODY, 404, 429, 503)
_STREAM = {
    "description": "The answer; with `stream` as server-sent events: start, token (several), then done or error.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
_RESUMED: Responses = {200: _STREAM, 204: {"description": "There is nothing to read."}}

TABLES = (
    RouteTable(
        "chats",
        (
            RestRoute("GET", _CONVERSATION + "/stream", resume_stream, None, (400, 404, 503), responses=_RESUMED),
            RestRoute("POST", _CONVERSATION + "/stop", stop_answer, AnswerStopped, (400, 404, 503)),
            RestRoute("POST", _MESSAGE + "/edit", edit_message, ChatAnswer, _ERRORS, responses={200: _STREAM}),
            RestRoute(
                "POST", _MESSAGE + "/regenerate", regenerate_answer, ChatAnswer, _ERRORS, responses={200: _STREAM}
            ),
            RestRoute("POST", "/api/chat", chat, ChatAnswer, _ERRORS, responses={200: _STREAM}),
        ),
        ChatRoute,
        shows_null=True,
    ),
)
