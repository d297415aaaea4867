"""Answers that are being generated: which conversations have one, and its text so far."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.chats.answer import Position
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.records.chats import Message


class ListRunningAnswers(Struct, frozen=True):
    pass


class RunningAnswers(Struct, frozen=True):
    conversation_ids: tuple[int, ...]
    """Conversations in which an answer is being generated or waits for its turn."""


class GetRunningAnswer(Struct, frozen=True):
    conversation_id: int


class AnswerSoFar(Struct, frozen=True):
    message: Message | None
    """The answer with its text so far, of which less is stored; None before it has begun and after it has ended."""


@operation("chats.answering", Effect.CHAT)
async def list_running_answers(context: Context, _: ListRunningAnswers) -> RunningAnswers:
    return RunningAnswers(tuple(context.answers.conversations))


@operation("chats.answer", Effect.CHAT)
async def get_running_answer(context: Context, request: GetRunningAnswer) -> AnswerSoFar:
    answer = context.answers.running(request.conversation_id)
    if answer is None or answer.turn is None:
        return AnswerSoFar(None)
    text = answer.delta_since(Position())
    return AnswerSoFar(replace(answer.turn.answer, content=text.content, reasoning=text.reasoning or None))
