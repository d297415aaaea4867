"""What travels on the chat routes of /api: pydantic models, and the functions that make them of what operations answer.

Times are ISO 8601 in UTC. Nothing is left out: what is not known is null.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llama_async_proxy.errors import (
    DeadlineExceeded,
    InvalidInput,
    LoadFailed,
    NotEnoughMemory,
    NotFound,
    ServiceError,
    StoreUnavailable,
    Unavailable,
    UpstreamFailed,
)
from llama_async_proxy.monitor.logtext import timestamp
from llama_async_proxy.operations.archive import Imported
from llama_async_proxy.operations.chats import ConversationList, ConversationView, StoppedAnswer
from llama_async_proxy.records.chats import Attachment, Conversation, Image, Message, Role, Sampling, Turn
from llama_async_proxy.store.chats import RoleTotals

LLAMACPP_ERROR = "LLAMACPP_ERROR"
Text = Annotated[str, Field(max_length=2_000_000)]
Name = Annotated[str, Field(max_length=4096)]
RoleName = Literal["system", "user", "assistant"]
StatusName = Literal["complete", "generating", "stopped", "interrupted"]


class ChatWire(BaseModel):
    """Types are checked, never converted."""

    model_config = ConfigDict(strict=True, protected_namespaces=())


class ChatErrorAnswer(ChatWire):
    """Every answer that is not a success."""

    success: Literal[False] = False
    error: str = Field(description="One sentence for people: what failed, why, what to do.")
    code: str
    field: str | None = Field(default=None, description="The field at fault; absent where none is.")
    resource: str | None = Field(default=None, description="What kind of thing was not found; absent otherwise.")
    id: int | str | None = Field(default=None, description="Which one was not found; absent otherwise.")
    details: str | None = Field(default=None, description="Absent where there is no more to say.")


def is_engine_failure(error: ServiceError) -> bool:
    if isinstance(error, StoreUnavailable):
        return False
    return isinstance(error, UpstreamFailed | LoadFailed | NotEnoughMemory | Unavailable | DeadlineExceeded)


def error_status(error: ServiceError) -> int:
    return 500 if is_engine_failure(error) else error.status


def error_answer(error: ServiceError) -> ChatErrorAnswer:
    answer = ChatErrorAnswer(
        error=error.message,
        code=LLAMACPP_ERROR if is_engine_failure(error) else error.rest_code,
        details=error.details,
    )
    if isinstance(error, InvalidInput) and error.field:
        answer.field = error.field
    if isinstance(error, NotFound):
        answer.resource = error.resource
        answer.id = error.identifier if isinstance(error.identifier, int) else str(error.identifier)
    return answer


# --- conversations ----------------------------------------------------------------------------------------------------


class SamplingWire(ChatWire):
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


class ConversationWire(ChatWire):
    id: int
    title: str
    model: str
    created_at: str
    updated_at: str
    pinned: bool
    archived: bool
    answering: bool = Field(description="An answer is being generated.")


class ConversationDetails(ConversationWire):
    system_prompt: str | None = Field(description="null: the setting chat.systemPrompt.")
    options: SamplingWire


class ConversationsAnswer(ChatWire):
    conversations: list[ConversationWire]


class NewConversationBody(ChatWire):
    title: Name | None = Field(description="null: named after what is said first.")
    model: Name
    system_prompt: Text | None = None
    options: SamplingWire = SamplingWire()


class ConversationCreated(ChatWire):
    conversation_id: int


class ConversationChangesBody(ChatWire):
    """What is absent keeps its value. A system_prompt of null is the setting's; `options` replaces all of them."""

    # Factories, so that the document shows neither null, which is refused, nor a default, which there is none.
    title: Name = Field(default_factory=str)
    model: Name = Field(default_factory=str)
    system_prompt: Text | None = None
    options: SamplingWire = SamplingWire()
    pinned: bool = Field(default_factory=bool)
    archived: bool = Field(default_factory=bool)


class ConversationUpdated(ChatWire):
    success: Literal[True] = True
    title: str


class Done(ChatWire):
    success: Literal[True] = True


class AttachmentWire(ChatWire):
    id: int
    media_type: str
    name: str
    size: int = Field(description="Bytes.")
    url: str


class MessageWire(ChatWire):
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
    attachments: list[AttachmentWire]


class StatsWire(ChatWire):
    total_messages: int
    assistant_messages: int
    avg_response_time: float | None = Field(description="Milliseconds.")
    total_tokens: int


class ConversationAnswer(ChatWire):
    conversation: ConversationDetails
    messages: list[MessageWire]
    stats: StatsWire


ImportBody = dict[str, Any] | list[Any]
"""A parsed export."""


class ImportedAnswer(ChatWire):
    conversations: list[ConversationWire]
    count: int


def imported_answer(imported: Imported) -> ImportedAnswer:
    shown = [ConversationWire(**_conversation(conversation, False)) for conversation in imported.conversations]
    return ImportedAnswer(conversations=shown, count=len(shown))


def conversations_answer(listed: ConversationList) -> ConversationsAnswer:
    answering = set(listed.answering)
    return ConversationsAnswer(
        conversations=[ConversationWire(**_conversation(c, c.id in answering)) for c in listed.conversations]
    )


def _conversation(conversation: Conversation, answering: bool) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "title": conversation.title,
        "model": conversation.model,
        "created_at": timestamp(conversation.created_at_ms),
        "updated_at": timestamp(conversation.updated_at_ms),
        "pinned": conversation.is_pinned,
        "archived": conversation.is_archived,
        "answering": answering,
    }


def conversation_details(conversation: Conversation, answering: bool) -> ConversationDetails:
    sampling = conversation.sampling
    stop = None if sampling.stop is None else list(sampling.stop)
    options = {name: getattr(sampling, name) for name in SamplingWire.model_fields}
    return ConversationDetails(
        **_conversation(conversation, answering),
        system_prompt=conversation.system_prompt,
        options=SamplingWire(**{**options, "stop": stop}),
    )


def summary(totals: Sequence[RoleTotals]) -> StatsWire:
    answers = next((total for total in totals if total.role is Role.ASSISTANT), None)
    return StatsWire(
        total_messages=sum(total.count for total in totals),
        assistant_messages=answers.count if answers else 0,
        avg_response_time=rounded(answers.average_response_ms) if answers else None,
        total_tokens=sum(total.tokens for total in totals),
    )


def conversation_answer(view: ConversationView) -> ConversationAnswer:
    return ConversationAnswer(
        conversation=conversation_details(view.conversation, view.is_answering),
        messages=[message_wire(message) for message in view.messages],
        stats=summary(view.totals),
    )


def message_wire(message: Message) -> MessageWire:
    return MessageWire(
        id=message.id,
        conversation_id=message.conversation_id,
        role=message.role.value,
        content=message.content,
        model=message.model,
        timestamp=timestamp(message.created_at_ms),
        response_time_ms=whole_ms(message.response_ms),
        estimated_tokens=message.estimated_tokens,
        parent_id=message.parent_id,
        status=message.status.value,
        reasoning=message.reasoning,
        tokens_per_second=rounded(message.tokens_per_second),
        active=message.is_active,
        attachments=[_attachment(attachment) for attachment in message.attachments],
    )


def _attachment(attachment: Attachment) -> AttachmentWire:
    return AttachmentWire(
        id=attachment.id,
        media_type=attachment.media_type,
        name=attachment.name,
        size=attachment.size_bytes,
        url=f"/api/attachments/{attachment.id}",
    )


# --- chat -------------------------------------------------------------------------------------------------------------


class ImageBody(ChatWire):
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
    data: str = Field(description="Base64.")
    name: Name = ""


class ChatBody(ChatWire):
    conversation_id: int
    message: Text
    model: Name
    stream: bool = Field(False, description="Server-sent events instead of one JSON answer.")
    images: list[ImageBody] = Field(default=[], max_length=16)

    @property
    def image_records(self) -> tuple[Image, ...]:
        """Raises InvalidInput for what is not base64."""
        return tuple(_image(index, image) for index, image in enumerate(self.images))


def _image(index: int, image: ImageBody) -> Image:
    try:
        data = base64.b64decode(image.data, validate=True)
    except ValueError:
        raise InvalidInput(f"images[{index}].data", "must be base64") from None
    return Image(image.media_type, data, image.name)


class RegenerateBody(ChatWire):
    model: Name | None = Field(default=None, description="null: the conversation's.")
    stream: bool = False


class EditBody(RegenerateBody):
    message: Text


class ChatMetrics(ChatWire):
    completion_tokens: int
    prompt_tokens: int | None = Field(description="null: the engine did not say.")
    total_tokens: int
    tokens_per_second: float | None
    omitted_messages: int | None = Field(
        description="Oldest messages that the model's context does not hold, so that it did not get them; "
        "null: not known any more."
    )


class ChatAnswer(ChatWire):
    response: str
    model: str
    response_time_ms: int
    estimated_tokens: int
    metrics: ChatMetrics
    reasoning: str | None
    status: StatusName
    conversation_id: int
    message_id: int = Field(description="Of the answer.")


class Started(ChatWire):
    """The first event of a stream."""

    type: Literal["start"] = "start"
    conversation_id: int
    user_message_id: int
    message_id: int = Field(description="Of the answer.")
    model: str | None


class Token(ChatWire):
    """More of the answer, one or several tokens."""

    type: Literal["token"] = "token"
    content: str
    reasoning: str


class Finished(ChatAnswer):
    """The last event: the whole answer and its metrics."""

    type: Literal["done"] = "done"


class Broken(ChatErrorAnswer):
    """The last event of an answer that failed."""

    type: Literal["error"] = "error"


class Stopped(ChatWire):
    success: Literal[True] = True
    stopped: bool = Field(description="An answer was being generated.")
    message: MessageWire | None


def started(turn: Turn) -> Started:
    return Started(
        conversation_id=turn.conversation.id,
        user_message_id=turn.thread[-1].id,
        message_id=turn.answer.id,
        model=turn.answer.model,
    )


def chat_answer(message: Message, left_out: int) -> ChatAnswer:
    return ChatAnswer(**_answer(message, left_out))


def finished(message: Message, left_out: int | None = None) -> Finished:
    return Finished(**_answer(message, left_out))


def broken(error: ServiceError) -> Broken:
    return Broken(**error_answer(error).model_dump())


def stopped_answer(stopped: StoppedAnswer) -> Stopped:
    shown = None if stopped.message is None else message_wire(stopped.message)
    return Stopped(stopped=shown is not None, message=shown)


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


# --- numbers ---------------------------------------------------------------------------------------------------------


def whole_ms(value: float | None) -> int | None:
    return None if value is None else round(value)


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
