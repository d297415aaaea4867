"""Import formats of conversations: exports of llama.cpp's web UI and of Open WebUI. Pure.

Both hold a tree of messages with ids of their own. Values that the store has no field for are left out.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from html import unescape
from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.chats.archive import checked, from_json
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.records.chats import Image, NewConversation, NewMessage, Role

T = TypeVar("T")

_ROLES = {role.value: role for role in Role}
_DATA_URL = re.compile(r"data:(?P<type>image/(?:png|jpeg|gif|webp));base64,(?P<data>.*)", re.DOTALL)
_REASONING = re.compile(
    r'<details type="reasoning"[^>]*>\s*(?:<summary>.*?</summary>)?(?P<text>.*?)</details>\s*', re.DOTALL
)
UNKNOWN_MODEL = "unknown"
"""Model of a conversation whose file names none."""
_SECONDS_UNTIL = 1e11
"""Timestamps above this are milliseconds: as seconds it is the year 5138, as milliseconds 1973."""
_LATEST_MS = 1e15


def conversations_of(document: object) -> list[NewConversation]:
    """Conversations in a parsed export of this service, llama.cpp's web UI or Open WebUI. Raises InvalidInput."""
    entries = document if isinstance(document, list) else [document]
    if isinstance(document, dict) and "format" in document:
        found = from_json(document)
    elif entries and all(isinstance(entry, dict) and "chat" in entry for entry in entries):
        found = [_open_webui(_converted(entry, _WebUiEntry)) for entry in entries]
    elif entries and all(isinstance(entry, dict) and "messages" in entry for entry in entries):
        found = [_llama_cpp(_converted(entry, _LlamaExport)) for entry in entries]
    else:
        raise InvalidInput("file", "must be an export of this service, of llama.cpp's web UI or of Open WebUI, as JSON")
    return [checked(conversation) for conversation in found]


def _converted(entry: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(entry, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput("file", f"is not as expected: {error}") from None


class _Node(Struct, frozen=True):
    id: str
    parent: str | None
    message: NewMessage | None
    """None for a root without content."""


def _ordered(nodes: Sequence[_Node], current: str | None) -> tuple[tuple[NewMessage, ...], int | None]:
    """Messages, parents before children, and index of the current one. Nodes of an unknown parent become roots."""
    known = {node.id for node in nodes}
    children: dict[str | None, list[_Node]] = {}
    for node in nodes:
        children.setdefault(node.parent if node.parent in known else None, []).append(node)
    index: dict[str, int | None] = {}
    ordered: list[NewMessage] = []
    pending = children.get(None, [])[::-1]
    while pending:
        node = pending.pop()
        index[node.id] = parent = index.get(node.parent or "")
        if node.message is not None:
            index[node.id] = len(ordered)
            ordered.append(replace(node.message, parent=parent))
        pending += reversed(children.get(node.id, []))
    last = len(ordered) - 1 if ordered else None
    return tuple(ordered), index.get(current or "", last)


# --- llama.cpp's web UI ---------------------------------------------------------------------------


class _LlamaExtra(msgspec.Struct):
    type: str = ""
    name: str = ""
    content: str | None = None
    base64Url: str | None = None  # noqa: N815 - the file spells it so


class _LlamaMessage(msgspec.Struct):
    id: str
    role: str = "user"
    type: str = "text"
    content: str | None = ""
    parent: str | None = None
    timestamp: float | None = None
    thinking: str | None = None
    reasoningContent: str | None = None  # noqa: N815
    model: str | None = None
    extra: list[_LlamaExtra] | None = None


class _LlamaConversation(msgspec.Struct):
    name: str = ""
    lastModified: float | None = None  # noqa: N815
    currNode: str | None = None  # noqa: N815


class _LlamaExport(msgspec.Struct):
    messages: list[_LlamaMessage]
    conv: _LlamaConversation = msgspec.field(default_factory=_LlamaConversation)


def _llama_cpp(export: _LlamaExport) -> NewConversation:
    nodes = [_Node(message.id, message.parent, _llama_message(message)) for message in export.messages]
    messages, active = _ordered(nodes, export.conv.currNode)
    return NewConversation(
        title=export.conv.name,
        model=_last_model(messages),
        messages=messages,
        active=active,
        created_at_ms=min((m.created_at_ms for m in messages if m.created_at_ms is not None), default=None),
        updated_at_ms=_milliseconds(export.conv.lastModified),
    )


def _llama_message(message: _LlamaMessage) -> NewMessage | None:
    if message.type == "root" or message.role not in _ROLES:
        return None
    extras = message.extra or []
    texts = [f"{extra.name}:\n{extra.content}" for extra in extras if extra.content and not extra.base64Url]
    return NewMessage(
        parent=None,
        role=_ROLES[message.role],
        content="\n\n".join([*texts, message.content or ""]),
        reasoning=message.reasoningContent or message.thinking or None,
        model=message.model if message.role == Role.ASSISTANT else None,
        created_at_ms=_milliseconds(message.timestamp),
        images=tuple(_images((extra.base64Url, extra.name) for extra in extras)),
    )


# --- Open WebUI -----------------------------------------------------------------------------------


class _WebUiFile(msgspec.Struct):
    type: str = ""
    url: str | None = None
    name: str | None = None


class _WebUiMessage(msgspec.Struct):
    id: str = ""
    parentId: str | None = None  # noqa: N815
    role: str = "user"
    content: str | None = ""
    model: str | None = None
    timestamp: float | None = None
    files: list[_WebUiFile] | None = None


class _WebUiHistory(msgspec.Struct):
    messages: dict[str, _WebUiMessage] = {}
    currentId: str | None = None  # noqa: N815


class _WebUiParameters(msgspec.Struct):
    system: str | None = None


class _WebUiChat(msgspec.Struct):
    title: str = ""
    models: list[str] = []
    system: str | None = None
    params: _WebUiParameters = msgspec.field(default_factory=_WebUiParameters)
    history: _WebUiHistory = msgspec.field(default_factory=_WebUiHistory)
    messages: list[_WebUiMessage] = []


class _WebUiEntry(msgspec.Struct):
    chat: _WebUiChat
    title: str | None = None
    created_at: float | None = None
    updated_at: float | None = None
    archived: bool | None = None
    pinned: bool | None = None


def _open_webui(entry: _WebUiEntry) -> NewConversation:
    chat = entry.chat
    messages, active = _ordered(*_webui_nodes(chat))
    return NewConversation(
        title=entry.title or chat.title,
        model=chat.models[0] if chat.models and chat.models[0] else _last_model(messages),
        system_prompt=chat.system or chat.params.system or None,
        is_pinned=bool(entry.pinned),
        is_archived=bool(entry.archived),
        created_at_ms=_milliseconds(entry.created_at),
        updated_at_ms=_milliseconds(entry.updated_at),
        messages=messages,
        active=active,
    )


def _webui_nodes(chat: _WebUiChat) -> tuple[list[_Node], str | None]:
    """Nodes of the message tree, or of the plain list in files without a tree, and the id of the current one."""
    if chat.history.messages:
        tree = chat.history.messages.items()
        return [_Node(key, m.parentId, _webui_message(m)) for key, m in tree], chat.history.currentId
    ids = [str(number) for number in range(len(chat.messages))]
    return [_Node(i, p, _webui_message(m)) for i, p, m in zip(ids, [None, *ids], chat.messages, strict=False)], None


def _webui_message(message: _WebUiMessage) -> NewMessage | None:
    if message.role not in _ROLES:
        return None
    content = message.content or ""
    thoughts = [_thought(match["text"]) for match in _REASONING.finditer(content)]
    files = message.files or []
    return NewMessage(
        parent=None,
        role=_ROLES[message.role],
        content=_REASONING.sub("", content).strip(),
        reasoning="\n\n".join(thoughts) or None,
        model=message.model if message.role == Role.ASSISTANT else None,
        created_at_ms=_milliseconds(message.timestamp),
        images=tuple(_images((file.url, file.name or "") for file in files if file.type == "image")),
    )


def _thought(quoted: str) -> str:
    """Reasoning without the HTML quotation in which Open WebUI stores it."""
    lines = unescape(quoted).strip().splitlines()
    return "\n".join(line.removeprefix(">").removeprefix(" ") for line in lines)


# --- both -----------------------------------------------------------------------------------------


def _last_model(messages: Iterable[NewMessage]) -> str:
    return next((m.model for m in reversed(tuple(messages)) if m.model), UNKNOWN_MODEL)


def _milliseconds(time: float | None) -> int | None:
    """Timestamp in milliseconds. Both programs write seconds in some places and milliseconds in others."""
    if time is None or not 0 <= time < _LATEST_MS:
        return None
    return int(time if time > _SECONDS_UNTIL else 1000 * time)


def _images(urls: Iterable[tuple[str | None, str]]) -> Iterable[Image]:
    """Images that the file itself contains. Links to other images are left out."""
    for url, name in urls:
        match = _DATA_URL.fullmatch(url or "")
        if match is not None:
            try:
                yield Image(match["type"], base64.b64decode(match["data"], validate=True), name)
            except binascii.Error:
                raise InvalidInput("file", f"image {name[:100]!r} is not proper base64") from None
