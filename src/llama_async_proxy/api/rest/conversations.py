"""Conversations and their messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import ConfigDict, Field

from llama_async_proxy.api.rest.chat_routing import (
    ChatModel,
    ChatRoute,
    Id,
    Name,
    RoleName,
    StatusName,
    Text,
    rounded,
    whole_ms,
)
from llama_async_proxy.api.rest.routing import BODY, RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.units import iso_time
from llama_async_proxy.operations import chats as chat_operations
from llama_async_proxy.operations.chats import (
    ChooseBranch,
    ConversationList,
    ConversationView,
    CreateConversation,
    DeleteConversation,
    GetConversation,
    GetImage,
    ListConversations,
    UpdateConversation,
)
from llama_async_proxy.records.chats import (
    Attachment,
    Conversation,
    Message,
    Role,
    Sampling,
)
from llama_async_proxy.store.chats import RoleTotals

# --- schema -----------------------------------------------------------------------------------------------------------


class SamplingOptions(ChatModel):
    """null: the setting's value, or the model's own default."""

    model_config = ConfigDict(extra="forbid")

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    num_predict: int | None = Field(default=None, description="Most tokens of an answer.")
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    context_history_limit: int | None = Field(default=None, description="Newest messages the model sees; 0: all.")

    @property
    def record(self) -> Sampling:
        stop = None if self.stop is None else tuple(self.stop)
        return Sampling(**{**self.model_dump(), "stop": stop})


class ConversationInfo(ChatModel):
    id: int
    title: str
    model: str
    created_at: str
    updated_at: str
    pinned: bool
    archived: bool
    answering: bool = Field(description="An answer is being generated.")


class ConversationDetails(ConversationInfo):
    system_prompt: str | None = Field(description="null: the setting chat.systemPrompt.")
    options: SamplingOptions


class ConversationsAnswer(ChatModel):
    conversations: list[ConversationInfo]


class NewConversationBody(ChatModel):
    title: Name | None = Field(description="null: named after what is said first.")
    model: Name
    system_prompt: Text | None = None
    options: SamplingOptions = SamplingOptions()


class ConversationCreated(ChatModel):
    conversation_id: int


class ConversationChangesBody(ChatModel):
    """What is absent keeps its value. A system_prompt of null is the setting's; `options` replaces all of them."""

    # Factories, so that the document shows neither null, which is refused, nor a default, which there is none.
    title: Name = Field(default_factory=str)
    model: Name = Field(default_factory=str)
    system_prompt: Text | None = None
    options: SamplingOptions = SamplingOptions()
    pinned: bool = Field(default_factory=bool)
    archived: bool = Field(default_factory=bool)


class ConversationUpdated(ChatModel):
    success: Literal[True] = True
    title: str


class SuccessAnswer(ChatModel):
    success: Literal[True] = True


class AttachmentInfo(ChatModel):
    id: int
    media_type: str
    name: str
    size: int = Field(description="Bytes.")
    url: str


class MessageInfo(ChatModel):
    id: int
    conversation_id: int
    role: RoleName
    content: str
    model: str | None
    timestamp: str
    response_time_ms: int | None
    estimated_tokens: int = Field(description="The engine's count where it gave one.")
    parent_id: int | None
    status: StatusName
    reasoning: str | None
    tokens_per_second: float | None
    active: bool = Field(description="Part of the branch that is read and continued.")
    attachments: list[AttachmentInfo]


class ConversationTotals(ChatModel):
    total_messages: int
    assistant_messages: int
    avg_response_time: float | None = Field(description="Milliseconds.")
    total_tokens: int


class ConversationAnswer(ChatModel):
    conversation: ConversationDetails
    messages: list[MessageInfo]
    stats: ConversationTotals


# --- mapping ----------------------------------------------------------------------------------------------------------


def conversations_answer(listed: ConversationList) -> ConversationsAnswer:
    answering = set(listed.answering)
    return ConversationsAnswer(
        conversations=[conversation_info(c, is_answering=c.id in answering) for c in listed.conversations]
    )


def _fields(conversation: Conversation, answering: bool) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "title": conversation.title,
        "model": conversation.model,
        "created_at": iso_time(conversation.created_at_ms),
        "updated_at": iso_time(conversation.updated_at_ms),
        "pinned": conversation.is_pinned,
        "archived": conversation.is_archived,
        "answering": answering,
    }


def conversation_info(conversation: Conversation, *, is_answering: bool = False) -> ConversationInfo:
    return ConversationInfo(**_fields(conversation, is_answering))


def conversation_details(conversation: Conversation, answering: bool) -> ConversationDetails:
    sampling = conversation.sampling
    stop = None if sampling.stop is None else list(sampling.stop)
    options = {name: getattr(sampling, name) for name in SamplingOptions.model_fields}
    return ConversationDetails(
        **_fields(conversation, answering),
        system_prompt=conversation.system_prompt,
        options=SamplingOptions(**{**options, "stop": stop}),
    )


def conversation_totals(totals: Sequence[RoleTotals]) -> ConversationTotals:
    answers = next((total for total in totals if total.role is Role.ASSISTANT), None)
    return ConversationTotals(
        total_messages=sum(total.count for total in totals),
        assistant_messages=answers.count if answers else 0,
        avg_response_time=rounded(answers.average_response_ms) if answers else None,
        total_tokens=sum(total.tokens for total in totals),
    )


def conversation_answer(view: ConversationView) -> ConversationAnswer:
    return ConversationAnswer(
        conversation=conversation_details(view.conversation, view.is_answering),
        messages=[message_info(message) for message in view.messages],
        stats=conversation_totals(view.totals),
    )


def message_info(message: Message) -> MessageInfo:
    return MessageInfo(
        id=message.id,
        conversation_id=message.conversation_id,
        role=message.role.value,
        content=message.content,
        model=message.model,
        timestamp=iso_time(message.created_at_ms),
        response_time_ms=whole_ms(message.response_ms),
        estimated_tokens=message.estimated_tokens,
        parent_id=message.parent_id,
        status=message.status.value,
        reasoning=message.reasoning,
        tokens_per_second=rounded(message.tokens_per_second),
        active=message.is_active,
        attachments=[_attachment(attachment) for attachment in message.attachments],
    )


def _attachment(attachment: Attachment) -> AttachmentInfo:
    return AttachmentInfo(
        id=attachment.id,
        media_type=attachment.media_type,
        name=attachment.name,
        size=attachment.size_bytes,
        url=f"/api/attachments/{attachment.id}",
    )


# --- routes -----------------------------------------------------------------------------------------------------------


async def list_conversations(
    context: ServiceContext,
    limit: Annotated[int | None, Query(description="Default: all.")] = None,
    offset: int = 0,
    archived: Annotated[bool, Query(description="Those put away instead of the others.")] = False,
) -> ConversationsAnswer:
    """Conversations, last updated first."""
    listed = await chat_operations.list_conversations(context, ListConversations(limit, offset, archived))
    return conversations_answer(listed)


async def create_conversation(context: ServiceContext, body: NewConversationBody) -> ConversationCreated:
    """Begin a conversation."""
    request = CreateConversation(body.model, body.title, body.system_prompt, body.options.record)
    created = await chat_operations.create_conversation(context, request)
    return ConversationCreated(conversation_id=created.conversation.id)


async def get_conversation(
    context: ServiceContext,
    conversation_id: Id,
    branches: Annotated[bool, Query(description="All messages, not only those of the active branch.")] = False,
) -> ConversationAnswer:
    """A conversation with its messages, oldest first."""
    return conversation_answer(
        await chat_operations.get_conversation(context, GetConversation(conversation_id, every_branch=branches))
    )


async def update_conversation(
    context: ServiceContext, conversation_id: Id, body: ConversationChangesBody
) -> ConversationUpdated:
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
    return ConversationUpdated(title=changed.conversation.title)


async def delete_conversation(context: ServiceContext, conversation_id: Id) -> SuccessAnswer:
    """Delete a conversation and all its messages; an answer that is being generated ends."""
    await chat_operations.delete_conversation(context, DeleteConversation(conversation_id))
    return SuccessAnswer()


async def choose_branch(context: ServiceContext, conversation_id: Id, message_id: Id) -> ConversationAnswer:
    """Make the branch through a message the one that is read and continued."""
    return conversation_answer(await chat_operations.choose_branch(context, ChooseBranch(conversation_id, message_id)))


async def get_attachment(context: ServiceContext, attachment_id: Id) -> Response:
    """An image of a message."""
    image = await chat_operations.get_image(context, GetImage(attachment_id))
    headers = {"cache-control": "private, max-age=31536000, immutable", "x-content-type-options": "nosniff"}
    return Response(image.data, media_type=image.media_type, headers=headers)


_CONVERSATION = "/api/conversations/{conversation_id}"
_IMAGE = {"description": "The image.", "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}

TABLES = (
    RouteTable(
        "chats",
        (
            RestRoute("GET", "/api/conversations", list_conversations, ConversationsAnswer, (400, 503)),
            RestRoute("POST", "/api/conversations", create_conversation, ConversationCreated, (*BODY, 503), status=201),
            RestRoute("GET", _CONVERSATION, get_conversation, ConversationAnswer, (400, 404, 503)),
            RestRoute("PUT", _CONVERSATION, update_conversation, ConversationUpdated, (*BODY, 404, 503)),
            RestRoute("DELETE", _CONVERSATION, delete_conversation, SuccessAnswer, (400, 404, 503)),
            RestRoute(
                "POST",
                _CONVERSATION + "/messages/{message_id}/choose",
                choose_branch,
                ConversationAnswer,
                (400, 404, 409, 503),
            ),
            RestRoute(
                "GET",
                "/api/attachments/{attachment_id}",
                get_attachment,
                None,
                (400, 404, 503),
                responses={200: _IMAGE},
            ),
        ),
        ChatRoute,
        shows_null=True,
    ),
)
