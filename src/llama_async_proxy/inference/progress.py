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
_EVENT = re.compile(rb"(?:([0-9A-Fa-f]{1,8})\r\n)?((?:data: [^\n]*|:[^\n]*)\n\n)(?(1)\r\n)")
"""One event or comment, with the framing of a chunk of its own or without any."""
_LONGEST = 16 * 1024
"""Bytes; a progress event has some hundreds."""


class _Message(msgspec.Struct):
    role: str | None = None


class _Chat(msgspec.Struct):
    messages: list[_Message] = []


_CHAT = msgspec.json.Decoder(_Chat)


def continues_an_answer(body: bytes) -> bool:
    """Whether a chat's last message is the model's own, which llama-server tells again in an event of progress. True
    also when that cannot be read."""
    try:
        messages = _CHAT.decode(body).messages
    except msgspec.DecodeError:
        return True
    return bool(messages) and messages[-1].role == "assistant"


def asking(body: bytes) -> bytes:
    """The same request, a JSON object, for a stream with progress. Of two equal keys the engine takes the last."""
    content = body.rstrip()[:-1].rstrip()
    comma = b"" if content.endswith(b"{") else b","
    return b"%b%b%b}" % (content, comma, _ASK)


class HiddenProgress:
    """Takes the progress events out of a stream's beginning, chunk framing or not."""

    def __init__(self) -> None:
        self.is_over = False
        """Nothing is taken out any more."""
        self._held = b""
        """An event that has not come whole."""

    def feed(self, data: bytes) -> bytes:
        """What of `data`, and of what was held back before, is for the client."""
        if self.is_over:
            return data
        data, self._held = self._held + data, b""
        passed = b""
        while event := _EVENT.match(data):
            if event[1] is not None and int(event[1], 16) != len(event[2]):
                break  # a chunk that holds more than one event: not llama-server's
            if _PROGRESS not in event[2]:
                if event[2].startswith(b"data"):
                    break
                passed += event[0]
            data = data[event.end() :]
        if event is None and b"\n\n" not in data.rstrip() and len(data) < _LONGEST:
            self._held = data
            return passed
        self.is_over = True
        return passed + data

    def rest(self) -> bytes:
        """What is held back, once the stream has ended; nothing is any more."""
        self.is_over = True
        rest, self._held = self._held, b""
        return rest
