"""One answer while it comes into being: whoever reads it may come late, leave, and come back."""

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
    """How much of an answer somebody has, in characters."""

    content: int = 0
    reasoning: int = 0


class Growth(Struct, frozen=True):
    content: str
    reasoning: str
    position: Position
    """After it."""


def event_id(message_id: int, position: Position) -> str:
    """A position as it travels; the other way round: `parse_event_id`."""
    return f"{message_id}:{position.content}:{position.reasoning}"


def parse_event_id(text: str) -> tuple[int, Position]:
    """(message id, position). Raises InvalidInput."""
    match = _POSITION.fullmatch(text.strip())
    if match is None:
        raise InvalidInput("Last-Event-ID", f"must be the id of an event of this stream, not {text[:100]!r}")
    message_id, content, reasoning = map(int, match.groups())
    return message_id, Position(content, reasoning)


def missing(message: Message, has: Position) -> Growth:
    """What a reader with `has` lacks of a stored answer."""
    reasoning = message.reasoning or ""
    position = Position(max(len(message.content), has.content), max(len(reasoning), has.reasoning))
    return Growth(message.content[has.content :], reasoning[has.reasoning :], position)


class Answer:
    """Written by the one task that generates it, read by any number of others."""

    def __init__(self, conversation_id: int) -> None:
        self.conversation_id = conversation_id
        self.stopping = asyncio.Event()
        """Set by whoever wants it to end."""
        self.turn: Turn | None = None
        """None until its turn has come."""
        self.left_out = 0
        """Oldest messages that the model did not get, because its context does not hold them."""
        self._message: Message | None = None
        self._error: ServiceError | None = None
        self._content = StringIO(newline="")
        self._reasoning = StringIO(newline="")
        self._position = Position()
        self._changed = asyncio.Event()

    @property
    def position(self) -> Position:
        """How much there is."""
        return self._position

    @property
    def has_ended(self) -> bool:
        return self._message is not None or self._error is not None

    @property
    def error(self) -> ServiceError | None:
        """Why there is no whole answer; it may have begun all the same."""
        return self._error

    # --- reading ----------------------------------------------------------------------------------

    def since(self, has: Position) -> Growth:
        return Growth(_tail(self._content, has.content), _tail(self._reasoning, has.reasoning), self._position)

    async def begun(self) -> Turn:
        """Wait for its turn. Raises the ServiceError that kept it from coming."""
        while self.turn is None:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        return self.turn

    async def ended(self) -> Message:
        """Wait for the end. Raises the ServiceError that broke it off."""
        while not self.has_ended:
            await self._changed.wait()
        if self._message is None:
            raise self._error or AssertionError
        return self._message

    async def first(self) -> None:
        """Wait for the first piece, or the end. Raises the ServiceError of an answer that never began."""
        while self._position == Position() and not self.has_ended:
            await self._changed.wait()
        if self._position == Position() and self._error is not None:
            raise self._error

    async def follow(self, has: Position, patience_s: float) -> AsyncGenerator[Growth, None]:
        """What comes after `has`, as it comes, to the end. A slow reader gets more at a time.

        Empty at first, when the turn begins, and whenever nothing came for `patience_s` seconds. Raises the
        ServiceError that broke it off.
        """
        yield Growth("", "", has)
        while True:
            changed, was_due = self._changed, self.turn is None
            growth = self.since(has)
            if growth.content or growth.reasoning:
                has = growth.position
                yield growth
            elif self.has_ended:
                break
            elif not await _within(changed, patience_s) or (was_due and self.turn is not None):
                yield growth
        await self.ended()

    # --- writing ----------------------------------------------------------------------------------

    def begin(self, turn: Turn) -> None:
        self.turn = turn
        self._wake()

    def grow(self, content: str, reasoning: str) -> None:
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
        """All who wait now; who waits later waits for what comes then."""
        self._changed.set()
        self._changed = asyncio.Event()


async def _within(event: asyncio.Event, limit_s: float) -> bool:
    try:
        async with asyncio.timeout(limit_s):
            return await event.wait()
    except TimeoutError:
        return False


def _tail(text: StringIO, start: int) -> str:
    """What follows `start`; the next write goes to the end again."""
    text.seek(start)
    return text.read()
