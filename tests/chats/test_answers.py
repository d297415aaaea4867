"""Answers that belong to the service, on a real database; the model is a small class that says what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from llama_async_proxy.chats import autosave
from llama_async_proxy.chats.answer import Answer, Position
from llama_async_proxy.chats.answers import Answers
from llama_async_proxy.errors import ContextExceeded, LoadFailed, NotFound, ServiceError, Unavailable, UpstreamFailed
from llama_async_proxy.events import (
    AnswerFailed,
    ConversationChanged,
    Event,
    EventBus,
    MessageChanged,
    MessageDeleted,
    MessageDelta,
)
from llama_async_proxy.records.chats import (
    Completion,
    CompletionRequest,
    Message,
    MessageStatus,
    NewConversation,
    Regenerate,
    Send,
)
from llama_async_proxy.records.requests import RequestRecord
from llama_async_proxy.store.store import Store
from support.upstream import make_settings


class Parrot:
    """Says "one two three ", waiting for `gate` before each word but the first; then fails if it is to."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: ServiceError | None = None
        self.context: int | None = None
        """Most characters that messages may have."""
        self.words: tuple[str, ...] = ("one ", "two ", "three ")
        self.requests: list[CompletionRequest] = []
        self.asked = asyncio.Event()
        self.is_busy = False

    def is_idle(self, name: str) -> bool:
        return not self.is_busy

    async def complete(
        self,
        request: CompletionRequest,
        grow: Callable[[str, str], None],
        stopped: Callable[[], Awaitable[object]],
    ) -> Completion:
        self.requests.append(request)
        self.asked.set()
        length = sum(len(message["content"]) for message in request.body["messages"])  # type: ignore[attr-defined, misc]
        if self.context is not None and length > self.context:
            raise ContextExceeded("too long", length, self.context)
        stop = asyncio.ensure_future(stopped())
        try:
            for number, word in enumerate(self.words):
                gate = asyncio.ensure_future(self.gate.wait() if number else asyncio.sleep(0))
                await asyncio.wait({gate, stop}, return_when=asyncio.FIRST_COMPLETED)
                gate.cancel()
                if stop.done():
                    break
                grow(word, "")
        finally:
            stop.cancel()
        if self.failure is not None:
            raise self.failure
        record = RequestRecord("r", 0, "", "/api/chat", "m", 200, True, prompt_tokens=4, completion_tokens=3)
        return Completion(record, stop.done() and not stop.cancelled())


class Talk:
    def __init__(self, store: Store, parrot: Parrot, answers: Answers, bus: EventBus, settings: dict[str, Any]) -> None:
        self.store, self.parrot, self.answers, self.bus, self.settings = store, parrot, answers, bus, settings
        self.chat = 0

    def say(self, text: str) -> Answer:
        return self.answers.start(self.chat, Send(text), model="m", client="test")

    async def thread(self) -> list[Message]:
        return list((await self.store.chats.thread(self.chat))[1])


@pytest.fixture
async def talk(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Talk]:
    monkeypatch.setattr(autosave, "KEEP_S", 0.01)
    parrot, bus, settings = Parrot(), EventBus(), {"chat_system_prompt": "Be kind."}
    answers = Answers(
        store.turns,
        parrot,
        suggest_title=store.chats.suggest_title,
        settings=lambda: make_settings(**settings),
        bus=bus,
    )
    async with answers:
        talk = Talk(store, parrot, answers, bus, settings)
        talk.chat = (await store.chats.create(NewConversation("New chat", "m", has_automatic_title=True))).id
        yield talk


async def test_an_answer_is_generated_and_stored_though_nobody_reads_it(talk: Talk) -> None:
    message = await talk.say("Hello").ended()
    said, answered = await talk.thread()
    assert answered == message
    assert (said.content, answered.content, answered.status) == ("Hello", "one two three ", MessageStatus.COMPLETE)
    assert (answered.prompt_tokens, answered.tokens) == (4, 3)
    assert answered.response_ms is not None
    sent = talk.parrot.requests[0]
    assert (sent.model, sent.client, sent.route) == ("m", "test", "/api/chat")
    assert sent.body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
    ]
    assert talk.answers.running(talk.chat) is None


async def test_what_is_generated_is_stored_while_it_comes(talk: Talk) -> None:
    talk.parrot.gate.clear()
    answer = talk.say("Hello")
    await answer.begun()
    async with asyncio.timeout(30):
        while (await talk.thread())[1].content != "one ":
            await asyncio.sleep(0.01)
    talk.parrot.gate.set()
    await answer.ended()
    assert (await talk.thread())[1].content == "one two three "


async def test_two_sends_are_answered_one_after_the_other(talk: Talk) -> None:
    first, second, third = (talk.say(text) for text in ("a", "b", "c"))
    await asyncio.gather(third.ended(), second.ended(), first.ended())
    assert [m.content for m in await talk.thread()] == [
        "a",
        "one two three ",
        "b",
        "one two three ",
        "c",
        "one two three ",
    ]
    assert len(talk.parrot.requests[2].body["messages"]) == 6  # type: ignore[arg-type]


async def test_what_the_context_does_not_hold_is_left_out_from_the_oldest_on(talk: Talk) -> None:
    for text in ("a" * 50, "b" * 50, "c" * 50):
        await talk.say(text).ended()
    talk.parrot.context = 180
    answer = talk.say("d" * 50)
    await answer.ended()
    assert answer.left_out == 4
    sent = talk.parrot.requests[-1].body["messages"]
    assert [message["content"][0] for message in sent] == ["B", "c", "o", "d"]  # type: ignore[attr-defined]
    talk.parrot.context = 30
    with pytest.raises(ContextExceeded):
        await talk.say("e" * 50).ended()


async def test_stop_keeps_what_there_is(talk: Talk) -> None:
    talk.parrot.gate.clear()
    answer = talk.say("Hello")
    await answer.first()
    assert talk.answers.conversations == (talk.chat,)
    assert talk.answers.running(talk.chat) is answer
    talk.answers.stop(talk.chat)
    message = await answer.ended()
    assert (message.content, message.status) == ("one ", MessageStatus.STOPPED)
    assert talk.answers.stop(talk.chat) is None


async def test_a_failure_before_the_first_token_leaves_no_answer(talk: Talk) -> None:
    talk.parrot.words, talk.parrot.failure = (), LoadFailed("no memory")
    with talk.bus.subscribe(AnswerFailed) as events:
        with pytest.raises(LoadFailed):
            await talk.say("Hello").ended()
        failed = await anext(aiter(events))
    assert isinstance(failed, AnswerFailed)
    assert (failed.conversation_id, failed.error.message) == (talk.chat, "no memory")
    assert [m.content for m in await talk.thread()] == ["Hello"]
    talk.parrot.words, talk.parrot.failure = ("fine",), None
    [said] = await talk.thread()
    await talk.answers.start(talk.chat, Regenerate(said.id), model="m", client="").ended()
    assert [m.content for m in await talk.thread()] == ["Hello", "fine"]


async def test_a_failure_in_the_middle_keeps_the_beginning_as_interrupted(talk: Talk) -> None:
    talk.parrot.failure = UpstreamFailed("gone")
    answer = talk.say("Hello")
    with pytest.raises(UpstreamFailed):
        await answer.ended()
    assert (await talk.thread())[1].status is MessageStatus.INTERRUPTED
    assert (await talk.thread())[1].content == "one two three "


async def test_deletion_ends_what_runs_and_refuses_what_waits(talk: Talk) -> None:
    talk.parrot.gate.clear()
    running, waiting = talk.say("a"), talk.say("b")
    await running.first()
    await talk.store.chats.delete(talk.chat)
    talk.answers.stop(talk.chat)
    for answer in (running, waiting, talk.say("c")):
        with pytest.raises(NotFound):
            await answer.ended()
    assert len(talk.parrot.requests) == 1


async def test_the_end_of_the_service_keeps_what_there_is(store: Store) -> None:
    parrot, bus = Parrot(), EventBus()
    parrot.gate.clear()
    chat = (await store.chats.create(NewConversation("t", "m"))).id
    answers = Answers(
        store.turns, parrot, suggest_title=store.chats.suggest_title, settings=lambda: make_settings(), bus=bus
    )
    async with answers:
        answer = answers.start(chat, Send("Hello"), model="m", client="")
        await answer.first()
    with pytest.raises(Unavailable):
        await answer.ended()
    _, (_, left) = await store.chats.thread(chat)
    assert (left.content, left.status) == ("one ", MessageStatus.INTERRUPTED)
    with pytest.raises(Unavailable):
        await answers.start(chat, Send("Hello"), model="m", client="").ended()


async def test_the_tokens_are_announced_with_their_places(talk: Talk) -> None:
    with talk.bus.subscribe(MessageChanged, MessageDelta, MessageDeleted, ConversationChanged) as events:
        await talk.say("Hello").ended()
        heard: list[Event] = []
        async for event in events:
            heard.append(event)
            if (
                isinstance(event, MessageChanged)
                and event.message.status is MessageStatus.COMPLETE
                and event.message.model
            ):
                break
    grown = [event for event in heard if isinstance(event, MessageDelta)]
    assert [(event.content, event.content_at) for event in grown] == [("one ", 0), ("two ", 4), ("three ", 8)]
    changed = [event.message.status for event in heard if isinstance(event, MessageChanged)]
    assert changed == [MessageStatus.COMPLETE, MessageStatus.GENERATING, MessageStatus.COMPLETE]


async def test_a_conversation_is_named_by_its_first_words_once(talk: Talk) -> None:
    await talk.say("Tell me of llamas").ended()
    assert (await talk.store.chats.get(talk.chat)).title == "Tell me of llamas"
    await talk.say("And of goats").ended()
    assert (await talk.store.chats.get(talk.chat)).title == "Tell me of llamas"


async def test_an_idle_model_finds_a_better_title(talk: Talk) -> None:
    talk.settings["chat_titles"] = "model"
    with talk.bus.subscribe(ConversationChanged) as events:
        await talk.say("Tell me of llamas").ended()
        async for event in events:
            if isinstance(event, ConversationChanged) and event.conversation.title == "one two three":
                break
    assert (await talk.store.chats.get(talk.chat)).title == "one two three"
    assert "Tell me of llamas" in str(talk.parrot.requests[1].body)


async def test_a_reader_sees_the_answer_from_where_it_was(talk: Talk) -> None:
    answer = talk.say("Hello")
    await answer.ended()
    grown = [growth.content async for growth in answer.follow(Position(4), 60.0)]
    assert "".join(grown) == "two three "


async def test_a_full_disk_fails_the_answer_and_not_the_next(
    talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise Unavailable("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(talk.store.turns, "finish", full)
        with pytest.raises(Unavailable, match="disk"):
            await talk.say("Hello").ended()
    assert (await talk.say("Again").ended()).status is MessageStatus.COMPLETE
