"""Generates answers: one task for each, one after the other in each conversation.

An answer goes on when its readers leave. Only `stop`, the deletion of its conversation and the end of the service end
it.
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
from llama_async_proxy.chats.answer import Position, RunningAnswer
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
    Sampling,
    Turn,
    TurnRequest,
)
from llama_async_proxy.records.requests import RequestRecord
from llama_async_proxy.settings import Settings

ROUTE = "/api/chat"
_MESSAGES_SHARE = 0.75
"""Share of the context that messages may take after they were too long, so that the answer has room."""
logger = logging.getLogger(__name__)


class TurnStore(Protocol):
    """Stores turns; see `store.turns`."""

    async def begin(self, conversation_id: int, turn_request: TurnRequest, model: str) -> Turn: ...
    async def append(self, message_id: int, content: str, reasoning: str) -> None: ...
    async def finish(self, message_id: int, content: str, reasoning: str, end: AnswerEnd) -> Message: ...
    async def discard(self, turn: Turn) -> None: ...


class ChatModels(Protocol):
    """Runs chat completions; see `inference.completion`."""

    def is_idle(self, name: str) -> bool: ...
    async def complete(
        self,
        request: CompletionRequest,
        on_text: Callable[[str, str], None],
        stopped: Callable[[], Awaitable[object]],
    ) -> Completion: ...


SuggestTitle = Callable[[int, str], Awaitable[Conversation | None]]
"""Sets the automatic title of a conversation. Returns None when it has a user's title or was deleted."""


class Answers:
    """All running answers. An `async with` block, whose end breaks them off."""

    def __init__(
        self,
        turns: TurnStore,
        models: ChatModels,
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
        self._last_tasks: dict[int, asyncio.Task[None]] = {}
        """Task of the last answer in the queue of each conversation, by conversation id."""
        self._running: dict[int, RunningAnswer] = {}
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

    def start(self, conversation_id: int, turn_request: TurnRequest, *, model: str, client: str) -> RunningAnswer:
        """Generate an answer once the earlier ones in the conversation have ended. Returns at once."""
        answer = RunningAnswer(conversation_id)
        if self._is_closing:
            answer.fail(Unavailable("The service is stopping."))
            return answer
        previous = self._last_tasks.get(conversation_id)
        request = CompletionRequest(model, {}, client, ROUTE)
        task = self._create_task(self._in_turn(answer, previous, turn_request, request))
        self._last_tasks[conversation_id] = task
        task.add_done_callback(lambda _: self._forget_task(conversation_id, task))
        return answer

    def running(self, conversation_id: int) -> RunningAnswer | None:
        """Answer that is being generated in the conversation, if any."""
        return self._running.get(conversation_id)

    @property
    def conversations(self) -> tuple[int, ...]:
        """Ids of the conversations in which an answer is being generated."""
        return tuple(self._running)

    def stop(self, conversation_id: int) -> RunningAnswer | None:
        """Ask the running answer to end, and keep the text so far. Returns it, if there is one."""
        answer = self._running.get(conversation_id)
        if answer is not None:
            answer.stopping.set()
        return answer

    def _create_task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _forget_task(self, conversation_id: int, task: asyncio.Task[None]) -> None:
        if self._last_tasks.get(conversation_id) is task:
            del self._last_tasks[conversation_id]

    # --- one answer -------------------------------------------------------------------------------

    async def _in_turn(
        self,
        answer: RunningAnswer,
        previous: asyncio.Task[None] | None,
        turn_request: TurnRequest,
        request: CompletionRequest,
    ) -> None:
        """Generate the answer after the `previous` one has ended."""
        try:
            if previous is not None:
                await asyncio.wait({previous})
            turn = await self._turns.begin(answer.conversation_id, turn_request, request.model)
            await self._generate(answer, turn, request)
        except ServiceError as error:
            self._fail(answer, error)
        except asyncio.CancelledError:
            answer.fail(Unavailable("The service is stopping."))
            raise
        except Exception:  # The task ends here: readers get an error, and the log has the trace.
            logger.exception("An answer in conversation %d failed", answer.conversation_id)
            self._fail(answer, ServiceError("Something failed that should not have. See the service's log."))

    def _fail(self, answer: RunningAnswer, error: ServiceError) -> None:
        answer.fail(error)
        self._bus.publish(AnswerFailed(answer.conversation_id, error))

    async def _generate(self, answer: RunningAnswer, turn: Turn, request: CompletionRequest) -> None:
        self._running[answer.conversation_id] = answer
        answer.begin(turn)
        for event in (turn.thread[-1], turn.answer):
            self._bus.publish(MessageChanged(event))
        self._bus.publish(ConversationChanged(turn.conversation))
        try:
            await self._set_title(turn, titles.from_words(turn.thread[0].content))
            message = await self._run(answer, turn, request)
        finally:
            del self._running[answer.conversation_id]
        answer.end(message)
        self._bus.publish(MessageChanged(message))
        if self._settings().chat_titles == "model" and _needs_title(turn):
            self._create_task(self._ask_for_title(turn, message, request))

    def _sampling(self, turn: Turn) -> Sampling:
        return merged(turn.conversation.sampling, defaults(self._settings()))

    def _prompt(self, turn: Turn, messages: Sequence[Message], request: CompletionRequest) -> CompletionRequest:
        own = turn.conversation.system_prompt
        system_prompt = self._settings().chat_system_prompt if own is None else own
        body = request_body(system_prompt, messages, turn.images, self._sampling(turn))
        return CompletionRequest(request.model, body, request.client, request.route)

    async def _complete(
        self, answer: RunningAnswer, turn: Turn, request: CompletionRequest, on_text: Callable[[str, str], None]
    ) -> Completion:
        """Run the completion with as many of the newest messages as the model's context holds."""
        messages = everything = newest(turn.thread, self._sampling(turn).context_history_limit or 0)
        while True:
            try:
                prompt = self._prompt(turn, messages, request)
                return await self._models.complete(prompt, on_text, answer.stopping.wait)
            except ContextExceeded as error:
                share = _MESSAGES_SHARE * error.context_tokens / error.prompt_tokens
                fewer = without_oldest(messages, share)
                if len(fewer) == len(messages):
                    raise
                messages = fewer
                answer.left_out = len(everything) - len(messages)

    async def _run(self, answer: RunningAnswer, turn: Turn, request: CompletionRequest) -> Message:
        began_s = time.perf_counter()

        def on_text(content: str, reasoning: str) -> None:
            at = answer.position
            answer.append(content, reasoning)
            self._bus.publish(
                MessageDelta(turn.conversation.id, turn.answer.id, content, reasoning, at.content, at.reasoning)
            )

        autosave = Autosave(self._turns.append, answer, turn.answer.id)
        completion: Completion | None = None
        try:
            async with autosave:
                completion = await self._complete(answer, turn, request, on_text)
        finally:
            if completion is None:
                await self._give_up(answer, turn, autosave, began_s)
        status = MessageStatus.STOPPED if completion.was_stopped else MessageStatus.COMPLETE
        rest = autosave.rest()
        end = _end(status, began_s, completion.record)
        return await self._turns.finish(turn.answer.id, rest.content, rest.reasoning, end)

    async def _give_up(self, answer: RunningAnswer, turn: Turn, autosave: Autosave, began_s: float) -> None:
        """Store the text so far as interrupted; remove an answer that has no text."""
        rest = autosave.rest()
        with contextlib.suppress(ServiceError):  # Readers get the first error.
            if answer.position == Position():
                await self._turns.discard(turn)
                self._bus.publish(MessageDeleted(turn.conversation.id, turn.answer.id))
            else:
                end = AnswerEnd(MessageStatus.INTERRUPTED, 1000 * (time.perf_counter() - began_s))
                message = await self._turns.finish(turn.answer.id, rest.content, rest.reasoning, end)
                self._bus.publish(MessageChanged(message))

    # --- titles -----------------------------------------------------------------------------------

    async def _set_title(self, turn: Turn, title: str) -> None:
        if _needs_title(turn):
            conversation = await self._suggest_title(turn.conversation.id, title)
            if conversation is not None:
                self._bus.publish(ConversationChanged(conversation))

    async def _ask_for_title(self, turn: Turn, message: Message, request: CompletionRequest) -> None:
        prompt = titles.title_prompt(turn.thread[0].content, message.content)
        sampling = Sampling(temperature=0.0, num_predict=titles.MAX_TITLE_TOKENS)
        body = {**request_body("", (), {}, sampling), "messages": [{"role": "user", "content": prompt}]}
        texts: list[str] = []
        try:
            if self._models.is_idle(request.model):
                await self._models.complete(
                    CompletionRequest(request.model, body, request.client, request.route),
                    lambda content, _: texts.append(content),
                    asyncio.Event().wait,
                )
            title = titles.from_model("".join(texts))
            if title is not None:
                await self._set_title(turn, title)
        except ServiceError as error:
            logger.info("Conversation %d keeps its title: %s", turn.conversation.id, error.message)


def _needs_title(turn: Turn) -> bool:
    return turn.conversation.has_automatic_title and len(turn.thread) == 1


def _end(status: MessageStatus, began_s: float, record: RequestRecord) -> AnswerEnd:
    return AnswerEnd(
        status,
        1000 * (time.perf_counter() - began_s),
        record.prompt_tokens,
        record.completion_tokens,
        record.tokens_per_second,
    )
