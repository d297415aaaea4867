"""Making the engine notice early that a stream's client has left while it still reads a long prompt. Pure.

llama-server notices it when it writes. Before the first token it writes only who asked for it: a progress event after
each batch of the prompt. So it is asked, and a client that has not asked does not see these events: what it gets is the
engine's stream byte for byte.
"""

from __future__ import annotations

import re

import msgspec

LONG_PROMPT_BYTES = 2048
"""Of a request's body. A token has a byte at least, so that less than this is a batch or two, after which the engine
writes anyway."""
_ASK = b'"return_progress":true'
_PROGRESS = b'"prompt_progress":{'
"""Inside a JSON string the quotes would be escaped."""
_TOLD = re.compile(rb',"prompt_progress":\{[^{}]*\}')
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_BEFORE = (b":", b"event: response.created\n")
"""How events begin that may stand before the first of progress."""
_LONGEST = 16 * 1024
"""Bytes; a progress event has some hundreds."""


class _RoleOfMessage(msgspec.Struct):
    role: str | None = None


class _Messages(msgspec.Struct):
    messages: list[_RoleOfMessage] = []
    input: list[_RoleOfMessage] | str = ""
    """The same of Responses."""


_CHAT = msgspec.json.Decoder(_Messages)


def ends_with_assistant_message(body: bytes) -> bool:
    """Whether a chat's last message is the model's own, which llama-server tells again in an event of progress. True
    also when that cannot be read."""
    try:
        chat = _CHAT.decode(body)
    except msgspec.DecodeError:
        return True
    messages = chat.messages or chat.input
    return bool(messages) and isinstance(messages, list) and messages[-1].role == "assistant"


def with_progress(body: bytes) -> bytes:
    """The same request, a JSON object, for a stream with progress. Of two equal keys the engine takes the last."""
    content = body.rstrip()[:-1].rstrip()
    comma = b"" if content.endswith(b"{") else b","
    return b"%b%b%b}" % (content, comma, _ASK)


class PromptProgressFilter:
    """Takes the progress events out of a stream's beginning, chunk framing or not."""

    def __init__(self) -> None:
        self.is_over = False
        """Nothing is taken out any more."""
        self._held = b""
        """A chunk, or an event, that has not come whole."""
        self._has_begun = False
        """An event that only tells that the answer is in progress has been passed on: of Responses, which have one."""

    def feed(self, data: bytes) -> bytes:
        """What of `data`, and of what was held back before, is for the client."""
        if self.is_over:
            return data
        data, self._held = self._held + data, b""
        passed, is_over = b"", False
        while not is_over and (unit := _first(data)):
            content, size, is_chunk = unit
            shown, is_over = self._shown(content)
            if shown == content:
                passed += data[:size]
            elif shown:
                passed += b"%x\r\n%b\r\n" % (len(shown), shown) if is_chunk else shown
            data = data[size:]
        self.is_over = is_over or len(data) > _LONGEST
        if self.is_over:
            return passed + data
        self._held = data
        return passed

    def rest(self) -> bytes:
        """What is held back, once the stream has ended; nothing is any more."""
        self.is_over = True
        rest, self._held = self._held, b""
        return rest

    def _shown(self, content: bytes) -> tuple[bytes, bool]:
        """What of some whole events is for the client, and whether all that follows is."""
        *events, end = content.split(b"\n\n")
        shown = b""
        for number, event in enumerate(events):
            if _PROGRESS in event:
                shown += self._first_of_responses(event)
            elif event.startswith(_BEFORE):
                shown += event + b"\n\n"
            else:
                return shown + b"\n\n".join((*events[number:], end)), True
        return shown + end, bool(end) or not events

    def _first_of_responses(self, event: bytes) -> bytes:
        if self._has_begun or not event.startswith(b"event: response.in_progress\n"):
            return b""
        self._has_begun = True
        return _TOLD.sub(b"", event) + b"\n\n"


def _first(data: bytes) -> tuple[bytes, int, bool] | None:
    """The content of the first chunk, or without framing the first event, its size with all, and whether it is a chunk.
    None when it has not come whole."""
    chunk = _CHUNK.match(data)
    if chunk is not None:
        end = chunk.end() + int(chunk[1], 16)
        return (data[chunk.end() : end], end + 2, True) if len(data) >= end + 2 else None
    end = data.find(b"\n\n") + 2
    return (data[:end], end, False) if end > 1 else None
