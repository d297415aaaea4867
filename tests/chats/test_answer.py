from __future__ import annotations

import asyncio

import pytest

from llama_async_proxy.chats.answer import AnswerDelta, Position, RunningAnswer, event_id, missing_part, parse_event_id
from llama_async_proxy.errors import InvalidInput, NotFound, UpstreamFailed
from llama_async_proxy.records.chats import Conversation, Message, MessageStatus, Role, Sampling, Turn

LONG_S = 60.0
CHAT = Conversation(1, "t", False, "m", None, Sampling(), False, False, 0, 0)
SAID = Message(1, 1, None, Role.USER, "Hello", None, None, MessageStatus.COMPLETE, True, 0)
ANSWER = Message(2, 1, 1, Role.ASSISTANT, "Hi there", "Hm", "m", MessageStatus.COMPLETE, True, 0)
TURN = Turn(CHAT, (SAID,), {}, ANSWER, None)


START = Position()


async def read(answer: RunningAnswer, has: Position = START) -> tuple[str, str]:
    content = reasoning = ""
    async for growth in answer.follow(has, LONG_S):
        content += growth.content
        reasoning += growth.reasoning
    return content, reasoning


async def test_early_late_and_returning_readers_read_the_same() -> None:
    answer = RunningAnswer(1)
    early = asyncio.create_task(read(answer))
    answer.begin(TURN)
    answer.append("", "Hm")
    answer.append("Hi ", "")
    await asyncio.sleep(0)
    late = asyncio.create_task(read(answer))
    again = asyncio.create_task(read(answer, Position(2, 1)))
    answer.append("there", "")
    answer.end(ANSWER)
    assert await early == await late == ("Hi there", "Hm")
    assert await again == (" there", "m")
    assert await read(answer) == ("Hi there", "Hm")
    assert await answer.wait_until_ended() == ANSWER


async def test_positions_count_characters_not_bytes() -> None:
    answer = RunningAnswer(1)
    answer.begin(TURN)
    for piece in ("é\r\n", "漢字", "🦙"):
        answer.append(piece, "")
    assert answer.position == Position(6, 0)
    assert answer.delta_since(Position(3)).content == "漢字🦙"


async def test_a_reader_gets_empty_deltas_at_the_beginning_and_during_silence() -> None:
    answer = RunningAnswer(1)
    growths = answer.follow(Position(), LONG_S)
    nothing = AnswerDelta("", "", Position())
    assert await anext(growths) == nothing
    waiting = asyncio.ensure_future(anext(growths))
    await asyncio.sleep(0)
    answer.begin(TURN)
    assert await waiting == nothing
    await growths.aclose()
    silent = answer.follow(Position(), 0.001)
    assert [await anext(silent) for _ in range(3)] == [nothing] * 3
    await silent.aclose()


async def test_readers_get_the_text_so_far_and_then_the_failure() -> None:
    answer = RunningAnswer(1)
    answer.begin(TURN)
    answer.append("Hi", "")
    answer.fail(UpstreamFailed("gone"))
    growths = answer.follow(Position(), LONG_S)
    assert [(await anext(growths)).content, (await anext(growths)).content] == ["", "Hi"]
    with pytest.raises(UpstreamFailed):
        await anext(growths)
    with pytest.raises(UpstreamFailed):
        await answer.wait_until_ended()
    await answer.wait_until_first_text()  # it had begun
    assert await answer.wait_until_begun() == TURN


async def test_waits_fail_when_the_answer_fails_before_it_begins() -> None:
    answer = RunningAnswer(1)
    waiting = [
        asyncio.create_task(wait)
        for wait in (answer.wait_until_begun(), answer.wait_until_first_text(), answer.wait_until_ended())
    ]
    await asyncio.sleep(0)
    answer.fail(NotFound("conversation", 1))
    assert [type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)] == [NotFound] * 3


def test_event_ids_are_parsed_back_into_positions() -> None:
    assert parse_event_id(event_id(7, Position(12, 3))) == (7, Position(12, 3))
    for wrong in ("", "7", "a:b:c", "1:2:-3", "1:2:3:4", "9" * 30 + ":0:0"):
        with pytest.raises(InvalidInput, match="Last-Event-ID"):
            parse_event_id(wrong)


def test_the_missing_part_of_a_stored_answer() -> None:
    assert missing_part(ANSWER, Position(3, 0)) == AnswerDelta("there", "Hm", Position(8, 2))
    assert missing_part(ANSWER, Position(99, 99)) == AnswerDelta("", "", Position(99, 99))
