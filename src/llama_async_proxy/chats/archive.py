"""Export formats of conversations: JSON, which keeps everything, and Markdown for reading. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec.structs import fields, replace

from llama_async_proxy.chats.images import check_image
from llama_async_proxy.chats.titles import MAX_TITLE_LENGTH, UNTITLED
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.records.chats import (
    Conversation,
    Image,
    Message,
    MessageStatus,
    NewConversation,
    NewMessage,
    Role,
)

VERSION = 1
_SPEAKERS = {Role.USER: "You", Role.ASSISTANT: "Assistant", Role.SYSTEM: "System"}
_NOT_COPIED = {"parent", "images", "status", "messages", "active"}


class _ArchiveFile(msgspec.Struct):
    conversations: list[NewConversation]
    format: Literal["llama-async-proxy/conversations"] = "llama-async-proxy/conversations"
    version: int = VERSION


def archived(
    conversation: Conversation, messages: Sequence[Message], images: Mapping[int, tuple[Image, ...]]
) -> NewConversation:
    """Copy of a conversation from which it can be created again.

    `messages` are all of its messages, parents before children; `images` are by message id.
    """
    index = {message.id: number for number, message in enumerate(messages)}
    kept = tuple(
        NewMessage(
            parent=None if message.parent_id is None else index[message.parent_id],
            images=images.get(message.id, ()),
            status=MessageStatus.INTERRUPTED if message.status is MessageStatus.GENERATING else message.status,
            **{f.name: getattr(message, f.name) for f in fields(NewMessage) if f.name not in _NOT_COPIED},
        )
        for message in messages
    )
    active = max((number for number, message in enumerate(messages) if message.is_active), default=None)
    same = {f.name: getattr(conversation, f.name) for f in fields(NewConversation) if f.name not in _NOT_COPIED}
    return NewConversation(messages=kept, active=active, **same)


def to_json(conversations: Sequence[NewConversation]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(_ArchiveFile(list(conversations))), indent=1)


def to_markdown(conversation: NewConversation) -> str:
    """The active branch as Markdown."""
    parts = [f"# {conversation.title}", f"Model: {conversation.model}"]
    if conversation.system_prompt:
        parts += ["## System", conversation.system_prompt]
    for message in _branch(conversation):
        parts.append(f"## {_SPEAKERS[message.role]}")
        if message.reasoning:
            parts.append("\n".join(f"> {line}".rstrip() for line in message.reasoning.strip().splitlines()))
        parts += [f"*[image {image.name or image.media_type}]*" for image in message.images]
        parts.append(message.content)
        if message.status in (MessageStatus.STOPPED, MessageStatus.INTERRUPTED):
            parts.append(f"*[{message.status}]*")
    return "\n\n".join(part for part in parts if part) + "\n"


def _branch(conversation: NewConversation) -> list[NewMessage]:
    branch: list[NewMessage] = []
    step = conversation.active
    while step is not None:
        branch.append(conversation.messages[step])
        step = branch[-1].parent
    return branch[::-1]


def from_json(document: object) -> list[NewConversation]:
    """Conversations in a parsed document that `to_json` wrote. Raises InvalidInput naming the place."""
    try:
        file = msgspec.convert(document, _ArchiveFile)
    except msgspec.ValidationError as error:
        raise InvalidInput("file", f"is not a proper export of this service: {error}") from None
    if file.version > VERSION:
        raise InvalidInput("file", f"was written by a newer version (format {file.version}, this one knows {VERSION})")
    return file.conversations


def checked(conversation: NewConversation) -> NewConversation:
    """The conversation with its title shortened to the limit. Raises InvalidInput unless its messages form a tree."""
    where = conversation.title[:50]
    for number, message in enumerate(conversation.messages):
        if message.parent is not None and not 0 <= message.parent < number:
            raise InvalidInput("file", f"message {number} of {where!r} has no proper parent")
        if message.status is MessageStatus.GENERATING:
            raise InvalidInput("file", f"message {number} of {where!r} is unfinished")
        for image in message.images:
            check_image(image, "file")
    if conversation.active is not None and not 0 <= conversation.active < len(conversation.messages):
        raise InvalidInput("file", f"{where!r} has no proper active message")
    title = " ".join(conversation.title.split())[:MAX_TITLE_LENGTH].strip() or UNTITLED
    return replace(conversation, title=title)
