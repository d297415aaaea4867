"""Prompt progress, by which the engine notices early that a stream's client has left. Pure.

llama-server notices a closed connection when it writes (llama.cpp b11434, tools/server/server-context.cpp). While it
reads a prompt it writes only if the request has `return_progress`: one event after each batch. So the service asks for
these events and takes them out of the stream again; the client gets the rest byte for byte.
"""

from __future__ import annotations

import re

import msgspec

LONG_PROMPT_BYTES = 2048
"""Bytes of a request's body above which progress is asked for. A token has at least one byte, so a smaller body is at
most one batch (2,048 tokens), after which the engine writes anyway."""
_ASK = b'"return_progress":true'
_PROGRESS = b'"prompt_progress":{'
"""Start of the field in an event. Text of the model cannot contain it: inside a JSON string quotes are escaped."""
_PROGRESS_FIELD = re.compile(rb',"prompt_progress":\{[^{}]*\}')
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_BEFORE = (b":", b"event: response.created\n")
"""Beginnings of events that may come before the first progress event."""
_LONGEST = 16 * 1024
"""Bytes that are held back at most for one event; a progress event has a few hundred."""


class _PromptMessage(msgspec.Struct):
    role: str | None = None


class _PromptMessages(msgspec.Struct):
    messages: list[_PromptMessage] = []
    input: list[_PromptMessage] | str = ""
    """The messages of OpenAI's Responses API; a string is one message of the user."""


_PROMPT = msgspec.json.Decoder(_PromptMessages)


def ends_with_assistant_message(body: bytes) -> bool:
    """True if a chat's last message is the assistant's, which the model is to continue: llama-server repeats it in its
    progress events, and in a response that is not streamed. True as well for a body that cannot be read."""
    try:
        prompt = _PROMPT.decode(body)
    except msgspec.DecodeError:
        return True
    lists = (messages for messages in (prompt.messages, prompt.input) if messages and isinstance(messages, list))
    return any(messages[-1].role == "assistant" for messages in lists)


def with_progress(body: bytes) -> bytes:
    """The JSON object `body` with `return_progress` set. Of two equal keys the engine takes the last."""
    content = body.rstrip()[:-1].rstrip()
    comma = b"" if content.endswith(b"{") else b","
    return b"%b%b%b}" % (content, comma, _ASK)


class PromptProgressFilter:
    """Removes the progress events from the beginning of a stream, with chunk framing or without."""

    def __init__(self) -> None:
        self.is_over = False
        """Progress events have ended: everything else passes."""
        self._held = b""
        """Beginning of a chunk or an event that has not come whole."""
        self._has_begun = False
        """The one `response.in_progress` event that a stream of the Responses API has was passed on."""

    def feed(self, data: bytes) -> bytes:
        """The bytes for the client out of those held back before and `data`."""
        if self.is_over:
            return data
        data, self._held = self._held + data, b""
        passed, is_over = b"", False
        while not is_over and (unit := _first(data)):
            content, size, is_chunk = unit
            visible, is_over = self._visible(content)
            if visible == content:
                passed += data[:size]
            elif visible:
                passed += b"%x\r\n%b\r\n" % (len(visible), visible) if is_chunk else visible
            data = data[size:]
        self.is_over = is_over or len(data) > _LONGEST
        if self.is_over:
            return passed + data
        self._held = data
        return passed

    def rest(self) -> bytes:
        """The bytes that are still held back, for the end of the stream."""
        self.is_over = True
        rest, self._held = self._held, b""
        return rest

    def _visible(self, content: bytes) -> tuple[bytes, bool]:
        """The bytes of `content`, some whole events, that are for the client; and True if all that follows is."""
        *events, end = content.split(b"\n\n")
        visible = b""
        for number, event in enumerate(events):
            if _PROGRESS in event:
                visible += self._first_of_responses(event)
            elif event.startswith(_BEFORE):
                visible += event + b"\n\n"
            else:
                return visible + b"\n\n".join((*events[number:], end)), True
        return visible + end, bool(end) or not events

    def _first_of_responses(self, event: bytes) -> bytes:
        if self._has_begun or not event.startswith(b"event: response.in_progress\n"):
            return b""
        self._has_begun = True
        return _PROGRESS_FIELD.sub(b"", event) + b"\n\n"


def _first(data: bytes) -> tuple[bytes, int, bool] | None:
    """The first chunk of `data`, or without framing its first event: content, size with framing, and True for a chunk.
    None when it has not come whole."""
    chunk = _CHUNK.match(data)
    if chunk is not None:
        end = chunk.end() + int(chunk[1], 16)
        return (data[chunk.end() : end], end + 2, True) if len(data) >= end + 2 else None
    end = data.find(b"\n\n") + 2
    return (data[:end], end, False) if end > 1 else None
