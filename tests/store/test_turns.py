"""Turns of a conversation, and the recovery after a killed service."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from llama_async_proxy.errors import InvalidInput, NotFound
from llama_async_proxy.records.chats import (
    AnswerEnd,
    Edit,
    Image,
    Message,
    MessageStatus,
    NewConversation,
    Regenerate,
    Send,
    Turn,
    TurnRequest,
)
from llama_async_proxy.store.database import Database
from llama_async_proxy.store.search import Query
from llama_async_proxy.store.store import Store

END = AnswerEnd(MessageStatus.COMPLETE, 12.5, 7, 3, 80.0)


@pytest.fixture
async def chat(store: Store) -> int:
    return (await store.chats.create(NewConversation("t", "m"))).id


async def exchange(store: Store, chat: int, said: str, answered: str) -> tuple[Turn, Message]:
    turn = await store.turns.begin(chat, Send(said), "m")
    return turn, await store.turns.finish(turn.answer.id, answered, "", END)


async def contents(store: Store, chat: int) -> list[str]:
    return [message.content for message in (await store.chats.thread(chat))[1]]


async def test_an_answer_is_appended_to_and_finished(store: Store, chat: int) -> None:
    turn = await store.turns.begin(chat, Send("Hello"), "other.gguf")
    assert [message.content for message in turn.thread] == ["Hello"]
    assert (turn.answer.status, turn.answer.content) == (MessageStatus.GENERATING, "")
    await store.turns.append(turn.answer.id, "Good ", "")
    await store.turns.append(turn.answer.id, "mor", "Think")
    message = await store.turns.finish(turn.answer.id, "ning", "ing", END)
    assert (message.content, message.reasoning, message.status) == ("Good morning", "Thinking", MessageStatus.COMPLETE)
    assert (message.response_ms, message.prompt_tokens, message.tokens) == (12.5, 7, 3)
    assert (await store.chats.thread(chat))[1][1] == message
    assert (await store.chats.get(chat)).model == "other.gguf"


async def test_a_turn_contains_the_earlier_messages(store: Store, chat: int) -> None:
    await exchange(store, chat, "one", "two")
    turn = await store.turns.begin(chat, Send("three"), "m")
    assert [message.content for message in turn.thread] == ["one", "two", "three"]


async def test_a_regenerated_answer_is_a_sibling_of_the_first(store: Store, chat: int) -> None:
    _, first = await exchange(store, chat, "one", "two")
    await exchange(store, chat, "three", "four")
    turn = await store.turns.begin(chat, Regenerate(first.id), "m")
    assert [message.content for message in turn.thread] == ["one"]
    await store.turns.finish(turn.answer.id, "zwei", "", END)
    assert await contents(store, chat) == ["one", "zwei"]
    await store.turns.choose_branch(chat, first.id)
    assert await contents(store, chat) == ["one", "two", "three", "four"]


async def test_an_edited_message_begins_a_branch_and_keeps_its_images(store: Store, chat: int) -> None:
    image = Image("image/png", b"\x89PNG")
    said = (await store.turns.begin(chat, Send("one", (image,)), "m")).thread[0]
    turn = await store.turns.begin(chat, Edit(said.id, "uno"), "m")
    assert [message.content for message in turn.thread] == ["uno"]
    assert turn.images[turn.thread[0].id] == (image,)


async def test_a_discarded_answer_restores_the_earlier_branch(store: Store, chat: int) -> None:
    _, answer = await exchange(store, chat, "one", "two")
    await store.turns.discard(await store.turns.begin(chat, Regenerate(answer.id), "m"))
    assert await contents(store, chat) == ["one", "two"]
    await store.turns.discard(await store.turns.begin(chat, Send("three"), "m"))
    assert await contents(store, chat) == ["one", "two", "three"]
    turn = await store.turns.begin(chat, Regenerate((await store.chats.thread(chat))[1][-1].id), "m")
    await store.turns.finish(turn.answer.id, "four", "", END)
    assert await contents(store, chat) == ["one", "two", "three", "four"]


async def test_messages_of_other_conversations_and_roles_are_refused(store: Store, chat: int) -> None:
    turn, answer = await exchange(store, chat, "one", "two")
    other = await store.chats.create(NewConversation("other", "m"))
    with pytest.raises(NotFound, match="Message not found"):
        await store.turns.begin(other.id, Regenerate(answer.id), "m")
    with pytest.raises(NotFound):
        await store.turns.choose_branch(other.id, turn.thread[0].id)
    with pytest.raises(NotFound):
        await store.turns.begin(chat, Regenerate(1 << 70), "m")
    with pytest.raises(InvalidInput, match="message_id"):
        await store.turns.begin(chat, Edit(answer.id, "x"), "m")
    with pytest.raises(NotFound, match="Conversation not found"):
        await store.turns.begin(999, Send("x"), "m")
    assert await contents(store, chat) == ["one", "two"]


async def test_an_answer_in_a_deleted_conversation_is_not_found_at_its_end(store: Store, chat: int) -> None:
    turn = await store.turns.begin(chat, Send("one"), "m")
    await store.chats.delete(chat)
    await store.turns.append(turn.answer.id, "two", "")
    with pytest.raises(NotFound):
        await store.turns.finish(turn.answer.id, "two", "", END)


# --- consistency ------------------------------------------------------------------------------------------------------


def assert_sound(path: Path) -> None:
    """Check the file, its foreign keys and indexes, and that active messages form one path in each conversation."""
    database = Database(path)
    try:
        with database.writing.connect() as connection:
            assert connection.scalars(text("PRAGMA integrity_check")).all() == ["ok"]
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
            for index in ("messages_words", "messages_trigrams", "titles_words"):
                connection.execute(text(f"INSERT INTO {index}({index}) VALUES ('integrity-check')"))
            connection.rollback()
            orphans = """SELECT count(*) FROM messages m WHERE is_active AND parent_id IS NOT NULL
                AND NOT (SELECT is_active FROM messages p WHERE p.id = m.parent_id)"""
            assert connection.scalar(text(orphans)) == 0
            forks = "SELECT 1 FROM messages WHERE is_active GROUP BY conversation_id, parent_id HAVING count(*) > 1"
            assert connection.execute(text(forks)).all() == []
    finally:
        database.close()


@pytest.mark.parametrize("seed", range(6))
async def test_random_turns_leave_a_sound_database(path: Path, seed: int) -> None:
    choices = random.Random(seed)
    async with Store.open(path, log_max_rows=lambda: 1000) as store:
        chats = [(await store.chats.create(NewConversation(f"chat {n} 標題", "m"))).id for n in range(3)]
        for step in range(60):
            chat = choices.choice(chats)
            _, tree = await store.chats.tree(chat)
            some = choices.choice(tree).id if tree else 0
            openings: list[TurnRequest] = [Send(f"word{step} 你好"), Regenerate(some), Edit(some, f"other{step}")]
            opening = choices.choice(openings)
            try:
                turn = await store.turns.begin(chat, opening, "m")
            except (NotFound, InvalidInput):
                continue
            match choices.randrange(5):
                case 0:
                    await store.turns.discard(turn)
                case 1:
                    await store.turns.append(turn.answer.id, "unfinished", "")
                case 2:
                    await store.turns.choose_branch(chat, turn.thread[0].id)
                case 3 if choices.random() < 0.3:
                    await store.chats.delete(chat)
                    chats[chats.index(chat)] = (await store.chats.create(NewConversation("again", "m"))).id
                case _:
                    await store.turns.finish(turn.answer.id, f"answer{step} 漢字", "", END)
    assert_sound(path)


CRASHING_WRITER = """
import asyncio, sys
from pathlib import Path
from llama_async_proxy.records.chats import AnswerEnd, MessageStatus, NewConversation, Send
from llama_async_proxy.store.store import Store

async def main():
    async with Store.open(Path(sys.argv[1]), log_max_rows=lambda: 1000) as store:
        chat = (await store.chats.create(NewConversation("t", "m"))).id
        step = 0
        while True:
            turn = await store.turns.begin(chat, Send(f"said {step}"), "m")
            for piece in range(5):
                await store.turns.append(turn.answer.id, f"piece{piece} ", "")
                print(turn.answer.id, piece, flush=True)
            end = AnswerEnd(MessageStatus.COMPLETE, 1.0)
            await store.turns.finish(turn.answer.id, "end", "", end)
            step += 1

asyncio.run(main())
"""


async def test_a_killed_process_loses_no_stored_text_and_its_answer_is_marked(path: Path) -> None:
    path.parent.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", CRASHING_WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        stored = ""
        while not stored.endswith(" 2") or len(stored.split()) < 2 or int(stored.split()[0]) < 10:
            stored = child.stdout.readline().strip()
        child.send_signal(signal.SIGKILL)
        child.wait()
    answer_id = int(stored.split()[0])
    async with Store.open(path, log_max_rows=lambda: 1000) as store:
        [chat] = await store.chats.all(limit=None)
        _, messages = await store.chats.thread(chat.id)
        answer = next(message for message in messages if message.id == answer_id)
        assert answer.content.startswith("piece0 piece1 piece2 ")
        assert {message.status for message in messages} <= {MessageStatus.COMPLETE, MessageStatus.INTERRUPTED}
        assert len(await store.search.find(Query("piece0", limit=1000))) == sum(bool(m.model) for m in messages)
    assert_sound(path)
