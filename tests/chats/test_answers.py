"""Generating answers with a real database. The model is a small class that returns fixed words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from llama_async_proxy.chats import autosave
from llama_async_proxy.chats.answer import Position, RunningAnswer
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


class ScriptedModel:
    """Answers "one two three ", waiting for `gate` before each word but the first, and then fails if set to."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: ServiceError | None = None
        self.context: int | None = None
        """Largest number of characters in the messages."""
        self.words: tuple[str, ...] = ("one ", "two ", "three ")
        self.requests: list[CompletionRequest] = []
        self.asked = asyncio.Event()
        self.is_busy = False

    def is_idle(self, name: str) -> bool:
        return not self.is_busy

    async def complete(
        self,
        request: CompletionRequest,
        on_text: Callable[[str, str], None],
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
                on_text(word, "")
        finally:
            stop.cancel()
        if self.failure is not None:
            raise self.failure
        record = RequestRecord("r", 0, "", "/api/chat", "m", 200, True, prompt_tokens=4, completion_tokens=3)
        return Completion(record, stop.done() and not stop.cancelled())


class ConversationHarness:
    def __init__(
        self, store: Store, model: ScriptedModel, answers: Answers, bus: EventBus, settings: dict[str, Any]
    ) -> None:
        self.store, self.model, self.answers, self.bus, self.settings = store, model, answers, bus, settings
        self.chat = 0

    def send(self, text: str) -> RunningAnswer:
        return self.answers.start(self.chat, Send(text), model="m", client="test")

    async def thread(self) -> list[Message]:
        return list((await self.store.chats.thread(self.chat))[1])


@pytest.fixture
async def harness(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ConversationHarness]:
    monkeypatch.setattr(autosave, "SAVE_INTERVAL_S", 0.01)
    model, bus, settings = ScriptedModel(), EventBus(), {"chat_system_prompt": "Be kind."}
    answers = Answers(
        store.turns,
        model,
        suggest_title=store.chats.suggest_title,
        settings=lambda: make_settings(**settings),
        bus=bus,
    )
    async with answers:
        harness = ConversationHarness(store, model, answers, bus, settings)
        harness.chat = (await store.chats.create(NewConversation("New chat", "m", has_automatic_title=True))).id
        yield harness


async def test_an_answer_is_generated_and_stored_without_readers(harness: ConversationHarness) -> None:
    message = await harness.send("Hello").wait_until_ended()
    asked, answered = await harness.thread()
    assert answered == message
    assert (asked.content, answered.content, answered.status) == ("Hello", "one two three ", MessageStatus.COMPLETE)
    assert (answered.prompt_tokens, answered.tokens) == (4, 3)
    assert answered.response_ms is not None
    sent = harness.model.requests[0]
    assert (sent.model, sent.client, sent.route) == ("m", "test", "/api/chat")
    assert sent.body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
    ]
    assert harness.answers.running(harness.chat) is None


async def test_text_is_stored_while_it_is_generated(harness: ConversationHarness) -> None:
    harness.model.gate.clear()
    answer = harness.send("Hello")
    await answer.wait_until_begun()
    async with asyncio.timeout(30):
        while (await harness.thread())[1].content != "one ":
            await asyncio.sleep(0.01)
    harness.model.gate.set()
    await answer.wait_until_ended()
    assert (await harness.thread())[1].content == "one two three "


async def test_two_sends_are_answered_one_after_the_other(harness: ConversationHarness) -> None:
    first, second, third = (harness.send(text) for text in ("a", "b", "c"))
    await asyncio.gather(third.wait_until_ended(), second.wait_until_ended(), first.wait_until_ended())
    assert [m.content for m in await harness.thread()] == [
        "a",
        "one two three ",
        "b",
        "one two three ",
        "c",
        "one two three ",
    ]
    assert len(harness.model.requests[2].body["messages"]) == 6  # type: ignore[arg-type]


async def test_the_oldest_messages_are_left_out_when_the_context_is_too_small(harness: ConversationHarness) -> None:
    for text in ("a" * 50, "b" * 50, "c" * 50):
        await harness.send(text).wait_until_ended()
    harness.model.context = 180
    answer = harness.send("d" * 50)
    await answer.wait_until_ended()
    assert answer.left_out == 4
    sent = harness.model.requests[-1].body["messages"]
    assert [message["content"][0] for message in sent] == ["B", "c", "o", "d"]  # type: ignore[attr-defined]
    harness.model.context = 30
    with pytest.raises(ContextExceeded):
        await harness.send("e" * 50).wait_until_ended()


async def test_stop_keeps_the_text_so_far(harness: ConversationHarness) -> None:
    harness.model.gate.clear()
    answer = harness.send("Hello")
    await answer.wait_until_first_text()
    assert harness.answers.conversations == (harness.chat,)
    assert harness.answers.running(harness.chat) is answer
    harness.answers.stop(harness.chat)
    message = await answer.wait_until_ended()
    assert (message.content, message.status) == ("one ", MessageStatus.STOPPED)
    assert harness.answers.stop(harness.chat) is None


async def test_a_failure_before_the_first_token_leaves_no_answer(harness: ConversationHarness) -> None:
    harness.model.words, harness.model.failure = (), LoadFailed("no memory")
    with harness.bus.subscribe(AnswerFailed) as events:
        with pytest.raises(LoadFailed):
            await harness.send("Hello").wait_until_ended()
        failed = await anext(aiter(events))
    assert isinstance(failed, AnswerFailed)
    assert (failed.conversation_id, failed.error.message) == (harness.chat, "no memory")
    assert [m.content for m in await harness.thread()] == ["Hello"]
    harness.model.words, harness.model.failure = ("fine",), None
    [asked] = await harness.thread()
    await harness.answers.start(harness.chat, Regenerate(asked.id), model="m", client="").wait_until_ended()
    assert [m.content for m in await harness.thread()] == ["Hello", "fine"]


async def test_a_failure_in_the_middle_keeps_the_beginning_as_interrupted(harness: ConversationHarness) -> None:
    harness.model.failure = UpstreamFailed("gone")
    answer = harness.send("Hello")
    with pytest.raises(UpstreamFailed):
        await answer.wait_until_ended()
    assert (await harness.thread())[1].status is MessageStatus.INTERRUPTED
    assert (await harness.thread())[1].content == "one two three "


async def test_deletion_ends_the_running_answer_and_refuses_waiting_ones(harness: ConversationHarness) -> None:
    harness.model.gate.clear()
    running, waiting = harness.send("a"), harness.send("b")
    await running.wait_until_first_text()
    await harness.store.chats.delete(harness.chat)
    harness.answers.stop(harness.chat)
    for answer in (running, waiting, harness.send("c")):
        with pytest.raises(NotFound):
            await answer.wait_until_ended()
    assert len(harness.model.requests) == 1


async def test_the_end_of_the_service_keeps_the_text_so_far(store: Store) -> None:
    model, bus = ScriptedModel(), EventBus()
    model.gate.clear()
    chat = (await store.chats.create(NewConversation("t", "m"))).id
    answers = Answers(
        store.turns, model, suggest_title=store.chats.suggest_title, settings=lambda: make_settings(), bus=bus
    )
    async with answers:
        answer = answers.start(chat, Send("Hello"), model="m", client="")
        await answer.wait_until_first_text()
    with pytest.raises(Unavailable):
        await answer.wait_until_ended()
    _, (_, left) = await store.chats.thread(chat)
    assert (left.content, left.status) == ("one ", MessageStatus.INTERRUPTED)
    with pytest.raises(Unavailable):
        await answers.start(chat, Send("Hello"), model="m", client="").wait_until_ended()


async def test_deltas_are_published_with_their_positions(harness: ConversationHarness) -> None:
    with harness.bus.subscribe(MessageChanged, MessageDelta, MessageDeleted, ConversationChanged) as events:
        await harness.send("Hello").wait_until_ended()
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


async def test_a_conversation_gets_its_first_words_as_title_once(harness: ConversationHarness) -> None:
    await harness.send("Tell me of llamas").wait_until_ended()
    assert (await harness.store.chats.get(harness.chat)).title == "Tell me of llamas"
    await harness.send("And of goats").wait_until_ended()
    assert (await harness.store.chats.get(harness.chat)).title == "Tell me of llamas"


async def test_an_idle_model_finds_a_better_title(harness: ConversationHarness) -> None:
    harness.settings["chat_titles"] = "model"
    with harness.bus.subscribe(ConversationChanged) as events:
        await harness.send("Tell me of llamas").wait_until_ended()
        async for event in events:
            if isinstance(event, ConversationChanged) and event.conversation.title == "one two three":
                break
    assert (await harness.store.chats.get(harness.chat)).title == "one two three"
    assert "Tell me of llamas" in str(harness.model.requests[1].body)


async def test_a_reader_resumes_an_answer_at_its_position(harness: ConversationHarness) -> None:
    answer = harness.send("Hello")
    await answer.wait_until_ended()
    grown = [growth.content async for growth in answer.follow(Position(4), 60.0)]
    assert "".join(grown) == "two three "


async def test_a_full_disk_fails_the_answer_and_not_the_next(
    harness: ConversationHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise Unavailable("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(harness.store.turns, "finish", full)
        with pytest.raises(Unavailable, match="disk"):
            await harness.send("Hello").wait_until_ended()
    assert (await harness.send("Again").wait_until_ended()).status is MessageStatus.COMPLETE
