"""Owns the answers that are being generated: one task each, in one line per conversation.

A reader's leaving ends nothing; only `stop`, the deletion of the conversation and the end of the service do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Protocol

from llama_async_proxy.chats import titles
from llama_async_proxy.chats.answer import Answer, Position
from llama_async_proxy.chats.autosave import Autosave
from llama_async_proxy.chats.prompt import defaults, merged, newest, request_body, without_oldest
from llama_async_proxy.errors import ContextExceeded, ServiceError, Unavailable
from llama_async_proxy.events import (
    AnswerFailed,
    ConversationChanged,
    EventBus,
    MessageChanged,
    MessageDeleted,
    MessageDelta,
)
from llama_async_proxy.records.chats import (
    AnswerEnd,
    Completion,
    CompletionRequest,
    Conversation,
    Message,
    MessageStatus,
    Opening,
    Sampling,
    Turn,
)
from llama_async_proxy.records.requests import RequestRecord
from llama_async_proxy.settings import Settings

ROUTE = "/api/chat"
_FOR_MESSAGES = 0.75
"""Share of the context that messages may take where they were too long: the answer needs room too."""
logger = logging.getLogger(__name__)


class Turns(Protocol):
    """Where turns are stored."""

    async def begin(self, conversation_id: int, opening: Opening, model: str) -> Turn: ...
    async def grow(self, message_id: int, content: str, reasoning: str) -> None: ...
    async def finish(self, message_id: int, content: str, reasoning: str, end: AnswerEnd) -> Message: ...
    async def discard(self, turn: Turn) -> None: ...


class Models(Protocol):
    """What answers."""

    def is_idle(self, name: str) -> bool: ...
    async def complete(
        self,
        request: CompletionRequest,
        grow: Callable[[str, str], None],
        stopped: Callable[[], Awaitable[object]],
    ) -> Completion: ...


SuggestTitle = Callable[[int, str], Awaitable[Conversation | None]]
"""Names a conversation, by its id; None when it has got a better title or is gone."""


class Answers:
    """To be used in an `async with` block, whose end breaks off what still runs."""

    def __init__(
        self,
        turns: Turns,
        models: Models,
        *,
        suggest_title: SuggestTitle,
        settings: Callable[[], Settings],
        bus: EventBus,
    ) -> None:
        self._turns = turns
        self._models = models
        self._suggest_title = suggest_title
        self._settings = settings
        self._bus = bus
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: dict[int, asyncio.Task[None]] = {}
        """The end of each conversation's line."""
        self._running: dict[int, Answer] = {}
        self._is_closing = False

    async def __aenter__(self) -> Answers:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, conversation_id: int, opening: Opening, *, model: str, client: str) -> Answer:
        """Generate an answer when those before it in the conversation have ended. It goes on by itself."""
        answer = Answer(conversation_id)
        if self._is_closing:
            answer.fail(Unavailable("The service is stopping."))
            return answer
        before = self._last.get(conversation_id)
        task = self._own(self._in_turn(answer, before, opening, CompletionRequest(model, {}, client, ROUTE)))
        self._last[conversation_id] = task
        task.add_done_callback(lambda _: self._leave_line(conversation_id, task))
        return answer

    def running(self, conversation_id: int) -> Answer | None:
        """The answer that is being generated, if any."""
        return self._running.get(conversation_id)

    @property
    def conversations(self) -> tuple[int, ...]:
        """Those in which something is being generated."""
        return tuple(self._running)

    def stop(self, conversation_id: int) -> Answer | None:
        """End the running answer soon, keeping what there is of it."""
        answer = self._running.get(conversation_id)
        if answer is not None:
            answer.stopping.set()
        return answer

    def _own(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _leave_line(self, conversation_id: int, task: asyncio.Task[None]) -> None:
        if self._last.get(conversation_id) is task:
            del self._last[conversation_id]

    # --- one answer -------------------------------------------------------------------------------

    async def _in_turn(
        self, answer: Answer, before: asyncio.Task[None] | None, opening: Opening, request: CompletionRequest
    ) -> None:
        try:
            if before is not None:
                await asyncio.wait({before})
            turn = await self._turns.begin(answer.conversation_id, opening, request.model)
            await self._generate(answer, turn, request)
        except ServiceError as error:
            self._fail(answer, error)
        except asyncio.CancelledError:
            answer.fail(Unavailable("The service is stopping."))
            raise
        except Exception:  # the task's boundary: whoever reads is told, and the log has the trace
            logger.exception("An answer in conversation %d failed", answer.conversation_id)
            self._fail(answer, ServiceError("Something failed that should not have. See the service's log."))

    def _fail(self, answer: Answer, error: ServiceError) -> None:
        answer.fail(error)
        self._bus.publish(AnswerFailed(answer.conversation_id, error))

    async def _generate(self, answer: Answer, turn: Turn, request: CompletionRequest) -> None:
        self._running[answer.conversation_id] = answer
        answer.begin(turn)
        for event in (turn.thread[-1], turn.answer):
            self._bus.publish(MessageChanged(event))
        self._bus.publish(ConversationChanged(turn.conversation))
        try:
            await self._name(turn, titles.from_words(turn.thread[0].content))
            message = await self._draw(answer, turn, request)
        finally:
            del self._running[answer.conversation_id]
        answer.end(message)
        self._bus.publish(MessageChanged(message))
        if self._settings().chat_titles == "model" and _may_be_named(turn):
            self._own(self._ask_for_title(turn, message, request))

    def _sampling(self, turn: Turn) -> Sampling:
        return merged(turn.conversation.sampling, defaults(self._settings()))

    def _prompt(self, turn: Turn, messages: Sequence[Message], request: CompletionRequest) -> CompletionRequest:
        own = turn.conversation.system_prompt
        system_prompt = self._settings().chat_system_prompt if own is None else own
        body = request_body(system_prompt, messages, turn.images, self._sampling(turn))
        return CompletionRequest(request.model, body, request.client, request.route)

    async def _complete(
        self, answer: Answer, turn: Turn, request: CompletionRequest, grow: Callable[[str, str], None]
    ) -> Completion:
        """With as many of the newest messages as the model's context holds."""
        messages = everything = newest(turn.thread, self._sampling(turn).context_history_limit or 0)
        while True:
            try:
                prompt = self._prompt(turn, messages, request)
                return await self._models.complete(prompt, grow, answer.stopping.wait)
            except ContextExceeded as error:
                share = _FOR_MESSAGES * error.context_tokens / error.prompt_tokens
                fewer = without_oldest(messages, share)
                if len(fewer) == len(messages):
                    raise
                messages = fewer
                answer.left_out = len(everything) - len(messages)

    async def _draw(self, answer: Answer, turn: Turn, request: CompletionRequest) -> Message:
        began_s = time.perf_counter()

        def grow(content: str, reasoning: str) -> None:
            at = answer.position
            answer.grow(content, reasoning)
            self._bus.publish(
                MessageDelta(turn.conversation.id, turn.answer.id, content, reasoning, at.content, at.reasoning)
            )

        keeper = Autosave(self._turns.grow, answer, turn.answer.id)
        completion: Completion | None = None
        try:
            async with keeper:
                completion = await self._complete(answer, turn, request, grow)
        finally:
            if completion is None:
                await self._give_up(answer, turn, keeper, began_s)
        status = MessageStatus.STOPPED if completion.was_stopped else MessageStatus.COMPLETE
        rest = keeper.rest()
        end = _end(status, began_s, completion.record)
        return await self._turns.finish(turn.answer.id, rest.content, rest.reasoning, end)

    async def _give_up(self, answer: Answer, turn: Turn, keeper: Autosave, began_s: float) -> None:
        """What has been generated is kept, as interrupted; an answer that never began leaves nothing."""
        rest = keeper.rest()
        with contextlib.suppress(ServiceError):  # the reader hears of what was first
            if answer.position == Position():
                await self._turns.discard(turn)
                self._bus.publish(MessageDeleted(turn.conversation.id, turn.answer.id))
            else:
                end = AnswerEnd(MessageStatus.INTERRUPTED, 1000 * (time.perf_counter() - began_s))
                message = await self._turns.finish(turn.answer.id, rest.content, rest.reasoning, end)
                self._bus.publish(MessageChanged(message))

    # --- titles -----------------------------------------------------------------------------------

    async def _name(self, turn: Turn, title: str) -> None:
        if _may_be_named(turn):
            conversation = await self._suggest_title(turn.conversation.id, title)
            if conversation is not None:
                self._bus.publish(ConversationChanged(conversation))

    async def _ask_for_title(self, turn: Turn, message: Message, request: CompletionRequest) -> None:
        asked = titles.asking(turn.thread[0].content, message.content)
        sampling = Sampling(temperature=0.0, num_predict=titles.MAX_TITLE_TOKENS)
        body = {**request_body("", (), {}, sampling), "messages": [{"role": "user", "content": asked}]}
        said: list[str] = []
        try:
            if self._models.is_idle(request.model):
                await self._models.complete(
                    CompletionRequest(request.model, body, request.client, request.route),
                    lambda content, _: said.append(content),
                    asyncio.Event().wait,
                )
            title = titles.from_model("".join(said))
            if title is not None:
                await self._name(turn, title)
        except ServiceError as error:
            logger.info("Conversation %d keeps its title: %s", turn.conversation.id, error.message)


def _may_be_named(turn: Turn) -> bool:
    return turn.conversation.has_automatic_title and len(turn.thread) == 1


def _end(status: MessageStatus, began_s: float, record: RequestRecord) -> AnswerEnd:
    return AnswerEnd(
        status,
        1000 * (time.perf_counter() - began_s),
        record.prompt_tokens,
        record.completion_tokens,
        record.tokens_per_second,
    )
