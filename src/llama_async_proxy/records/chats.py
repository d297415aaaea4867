"""Stored conversations, and what is said in them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct, field

from llama_async_proxy.records.requests import RequestRecord


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class MessageStatus(StrEnum):
    COMPLETE = "complete"
    GENERATING = "generating"
    STOPPED = "stopped"
    """A person ended it."""
    INTERRUPTED = "interrupted"
    """The service or the engine ended in its middle."""


class Sampling(Struct, frozen=True, kw_only=True):
    """How answers are drawn, and how much of a conversation the model sees. None: whatever rules otherwise."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    num_predict: int | None = None
    """Most tokens of an answer."""
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    context_history_limit: int | None = None
    """Newest messages that go to the model; 0: all."""


class Conversation(Struct, frozen=True):
    id: int
    title: str
    has_automatic_title: bool
    """It may be replaced by a better one; a title that a person gave never is."""
    model: str
    """A name of a model; not necessarily of one that still exists."""
    system_prompt: str | None
    """None: the setting's."""
    sampling: Sampling
    is_pinned: bool
    is_archived: bool
    created_at_ms: int
    updated_at_ms: int


class Image(Struct, frozen=True):
    media_type: str
    data: bytes
    name: str = ""

    def __repr__(self) -> str:
        return f"Image({self.media_type!r}, {len(self.data)} bytes, {self.name!r})"


class Attachment(Struct, frozen=True):
    """An image that is stored with a message, without its bytes."""

    id: int
    media_type: str
    name: str
    size_bytes: int


class Message(Struct, frozen=True):
    """One node of a conversation's tree. The active ones make up the conversation as it is read, oldest first."""

    id: int
    conversation_id: int
    parent_id: int | None
    role: Role
    content: str
    reasoning: str | None
    model: str | None
    status: MessageStatus
    is_active: bool
    created_at_ms: int
    response_ms: float | None = None
    """From sending to the last token, of an answer."""
    prompt_tokens: int | None = None
    tokens: int | None = None
    """As the engine counted them."""
    tokens_per_second: float | None = None
    attachments: tuple[Attachment, ...] = ()

    @property
    def estimated_tokens(self) -> int:
        """The engine's count, else a quarter of the characters."""
        return (len(self.content) + 3) // 4 if self.tokens is None else self.tokens


class NewMessage(Struct, frozen=True):
    """`parent` is the index of an earlier message of the same new conversation."""

    parent: int | None
    role: Role
    content: str
    reasoning: str | None = None
    model: str | None = None
    status: MessageStatus = MessageStatus.COMPLETE
    created_at_ms: int | None = None
    """None: now."""
    response_ms: float | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    images: tuple[Image, ...] = ()


class NewConversation(Struct, frozen=True):
    title: str
    model: str
    has_automatic_title: bool = False
    system_prompt: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    is_pinned: bool = False
    is_archived: bool = False
    created_at_ms: int | None = None
    updated_at_ms: int | None = None
    """None: now."""
    messages: tuple[NewMessage, ...] = ()
    active: int | None = None
    """Index of the last message of the active branch."""


class Send(Struct, frozen=True):
    """Go on where the conversation stands."""

    content: str
    images: tuple[Image, ...] = ()


class Edit(Struct, frozen=True):
    """Send something else in place of an earlier message, in a branch of its own. Its images stay."""

    message_id: int
    content: str


class Regenerate(Struct, frozen=True):
    """Answer again, beside the earlier answer; or answer a message that has none."""

    message_id: int


TurnRequest: TypeAlias = Send | Edit | Regenerate
"""Request that begins a turn of a conversation."""


class Turn(Struct, frozen=True):
    conversation: Conversation
    thread: tuple[Message, ...]
    """Active messages up to the one that is to be answered."""
    images: Mapping[int, tuple[Image, ...]]
    """By message id, those of the thread."""
    answer: Message
    """Still empty."""
    previous_id: int | None
    """Last message of the branch that was active before."""


class AnswerEnd(Struct, frozen=True):
    status: MessageStatus
    response_ms: float
    prompt_tokens: int | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None


class CompletionRequest(Struct, frozen=True):
    """A chat completion that the service itself asks for."""

    model: str
    """Any name of it."""
    body: Mapping[str, object]
    """As of /v1/chat/completions, without model and stream."""
    client: str
    """Who asks, for the record."""
    route: str
    """On whose behalf, for the record."""


class Completion(Struct, frozen=True):
    record: RequestRecord
    was_stopped: bool
    """It was asked to stop before the model came to its end."""
