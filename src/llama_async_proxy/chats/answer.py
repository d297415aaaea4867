"""An answer while it is generated. Readers may join late, leave, and come back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from io import StringIO

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput, ServiceError
from llama_async_proxy.records.chats import Message, Turn

_POSITION = re.compile(r"(\d{1,18}):(\d{1,18}):(\d{1,18})")


class Position(Struct, frozen=True):
    """How much of an answer a reader has, in characters."""

    content: int = 0
    reasoning: int = 0


class AnswerDelta(Struct, frozen=True):
    """Text that was added to an answer."""

    content: str
    reasoning: str
    position: Position
    """Position after the delta."""


def event_id(message_id: int, position: Position) -> str:
    """A position as text, for the ids of server-sent events. `parse_event_id` is the inverse."""
    return f"{message_id}:{position.content}:{position.reasoning}"


def parse_event_id(text: str) -> tuple[int, Position]:
    """Message id and position. Raises InvalidInput."""
    match = _POSITION.fullmatch(text.strip())
    if match is None:
        raise InvalidInput("Last-Event-ID", f"must be the id of an event of this stream, not {text[:100]!r}")
    message_id, content, reasoning = map(int, match.groups())
    return message_id, Position(content, reasoning)


def missing_part(message: Message, has: Position) -> AnswerDelta:
    """Part of a stored answer that a reader at `has` lacks."""
    reasoning = message.reasoning or ""
    position = Position(max(len(message.content), has.content), max(len(reasoning), has.reasoning))
    return AnswerDelta(message.content[has.content :], reasoning[has.reasoning :], position)


class RunningAnswer:
    """Written by the one task that generates the answer; read by any number of others."""

    def __init__(self, conversation_id: int) -> None:
        self.conversation_id = conversation_id
        self.stopping = asyncio.Event()
        """Set by a caller that wants the answer to end."""
        self.turn: Turn | None = None
        """None until earlier answers in the conversation have ended."""
        self.left_out = 0
        """Number of oldest messages that the model did not get, because its context does not hold them."""
        self._message: Message | None = None
        self._error: ServiceError | None = None
        self._content = StringIO(newline="")
        self._reasoning = StringIO(newline="")
        self._position = Position()
        self._changed = asyncio.Event()

    @property
    def position(self) -> Position:
        """Length of the answer so far."""
        return self._position

    @property
    def has_ended(self) -> bool:
        return self._message is not None or self._error is not None

    @property
    def error(self) -> ServiceError | None:
        """Reason why the answer is not complete. Part of it may have been generated."""
        return self._error

    # --- reading ----------------------------------------------------------------------------------

    def delta_since(self, has: Position) -> AnswerDelta:
        """Everything that was generated after `has`."""
        return AnswerDelta(_tail(self._content, has.content), _tail(self._reasoning, has.reasoning), self._position)

    async def wait_until_begun(self) -> Turn:
        """Wait until the turn is stored and generation begins. Raises the ServiceError that prevented it."""
        while self.turn is None:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        return self.turn

    async def wait_until_ended(self) -> Message:
        """Wait for the end and return the stored message. Raises the ServiceError that broke the answer off."""
        while not self.has_ended:
            await self._changed.wait()
        if self._message is None:
            raise self._error or AssertionError
        return self._message

    async def wait_until_first_text(self) -> None:
        """Wait for the first text or the end. Raises the ServiceError of an answer without any text."""
        while self._position == Position() and not self.has_ended:
            await self._changed.wait()
        if self._position == Position() and self._error is not None:
            raise self._error

    async def follow(self, has: Position, keepalive_s: float) -> AsyncGenerator[AnswerDelta, None]:
        """Deltas after `has` as they are generated, until the end. A slow reader gets larger deltas.

        A delta is empty at first, when the turn begins, and after `keepalive_s` seconds without text. Raises the
        ServiceError that broke the answer off.
        """
        yield AnswerDelta("", "", has)
        while True:
            changed, was_waiting = self._changed, self.turn is None
            delta = self.delta_since(has)
            if delta.content or delta.reasoning:
                has = delta.position
                yield delta
            elif self.has_ended:
                break
            elif not await _is_set_within(changed, keepalive_s) or (was_waiting and self.turn is not None):
                yield delta
        await self.wait_until_ended()

    # --- writing ----------------------------------------------------------------------------------

    def begin(self, turn: Turn) -> None:
        self.turn = turn
        self._wake()

    def append(self, content: str, reasoning: str) -> None:
        self._content.write(content)
        self._reasoning.write(reasoning)
        self._position = Position(self._position.content + len(content), self._position.reasoning + len(reasoning))
        self._wake()

    def end(self, message: Message) -> None:
        self._message = message
        self._wake()

    def fail(self, error: ServiceError) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        """Wake all tasks that wait now. Later waits get a new event."""
        self._changed.set()
        self._changed = asyncio.Event()


async def _is_set_within(event: asyncio.Event, limit_s: float) -> bool:
    try:
        async with asyncio.timeout(limit_s):
            return await event.wait()
    except TimeoutError:
        return False


def _tail(text: StringIO, start: int) -> str:
    """Text after `start`. Reading moves the position to the end, where the next write belongs."""
    text.seek(start)
    return text.read()
