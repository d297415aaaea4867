from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from llama_async_proxy.errors import Conflict
from llama_async_proxy.records.chats import AnswerEnd, MessageStatus, NewConversation, NewMessage, Role, Send
from llama_async_proxy.store.database import Database
from llama_async_proxy.store.search import Hit, Query, SearchIndex, Term, parse
from llama_async_proxy.store.store import Store


async def say(store: Store, *texts: str, title: str = "Talk") -> int:
    messages = tuple(NewMessage(None, Role.USER, content) for content in texts)
    return (await store.chats.create(NewConversation(title, "m", messages=messages))).id


async def found(store: Store, typed: str, **options: bool) -> list[str]:
    return [hit.content or hit.title for hit in await store.search.find(Query(typed, **options))]


def marked(hit: Hit) -> str:
    return "".join(f"[{piece.text}]" if piece.is_match else piece.text for piece in hit.snippet)


async def test_all_words_must_occur_in_any_order_and_whatever_their_accents(store: Store) -> None:
    await say(store, "The café is in the old town", "A town without coffee")
    assert await found(store, "TOWN cafe") == ["The café is in the old town"]
    assert len(await found(store, "town")) == 2
    assert await found(store, "town village") == []


async def test_quoted_words_must_be_adjacent(store: Store) -> None:
    await say(store, "machine learning is fun", "learning of the machine")
    assert await found(store, '"machine learning"') == ["machine learning is fun"]
    assert await found(store, '"machine lear', is_typing=True) == ["machine learning is fun"]


async def test_a_prefix_matches_with_an_asterisk_and_while_typing(store: Store) -> None:
    await say(store, "concurrency")
    assert await found(store, "concu") == []
    assert await found(store, "concu*") == ["concurrency"]
    assert await found(store, "concu", is_typing=True) == ["concurrency"]
    assert await found(store, "concu ", is_typing=True) == []


async def test_the_best_or_the_newest_come_first(store: Store) -> None:
    long = "and then many other words follow " * 20
    await say(store, "tokenizer tokenizer tokenizer", f"tokenizer {long}")
    assert (await found(store, "tokenizer"))[0] == "tokenizer tokenizer tokenizer"
    assert (await found(store, "tokenizer", newest_first=True))[0].startswith("tokenizer and")


async def test_matches_are_marked_in_the_snippet(store: Store) -> None:
    await say(store, "word " * 100 + "needle in <b>hay</b> " + "word " * 100)
    [hit] = await store.search.find(Query("needle"))
    assert "[needle] in <b>hay</b>" in marked(hit)
    assert len(marked(hit)) < 200


async def test_conversations_without_messages_are_found_by_title(store: Store) -> None:
    chat = await say(store, title="Recipes for bread")
    [hit] = await store.search.find(Query("bread"))
    assert (hit.conversation_id, hit.message_id, hit.role, marked(hit)) == (chat, None, None, "Recipes for [bread]")
    await store.chats.update(chat, title="Cakes")
    assert await store.search.find(Query("bread")) == ()
    await store.chats.delete(chat)
    assert await store.search.find(Query("cakes")) == ()


async def test_titles_leave_room_for_messages(store: Store) -> None:
    for _ in range(6):
        await say(store, "a needle", title="Needle")
    hits = await store.search.find(Query("needle", limit=4))
    assert [hit.message_id is None for hit in hits] == [True, True, False, False]


@pytest.mark.parametrize("typed", ["環境", "虚拟", "拟环境", "虚拟环境", "python 环境", "かな", "ภาษา"])
async def test_text_without_spaces_is_found_from_its_middle(store: Store, typed: str) -> None:
    await say(store, "如何用 Python 创建虚拟环境。我的環境。かなもじ。ภาษาไทย", "nothing of the kind", title="虚拟环境")
    hits = await store.search.find(Query(typed))
    assert "如何用" in hits[-1].content
    assert "[" in marked(hits[-1])
    assert (typed in "虚拟环境") == (hits[0].message_id is None)


async def test_percent_and_underscore_mean_themselves(store: Store) -> None:
    await say(store, "第一_行 100%", "第一行")
    assert await found(store, "一_") == ["第一_行 100%"]


async def test_an_answer_is_found_once_it_is_complete(store: Store) -> None:
    chat = await say(store)
    turn = await store.turns.begin(chat, Send("Hello"), "m")
    await store.turns.append(turn.answer.id, "wonderful ", "")
    assert await found(store, "wonderful") == []
    await store.turns.finish(turn.answer.id, "weather", "", AnswerEnd(MessageStatus.COMPLETE, 1.0))
    assert await found(store, "wonderful weather") == ["wonderful weather"]


def test_punctuation_is_no_term() -> None:
    assert parse('a "b c" -- d* "') == (Term("a"), Term("b c"), Term("d"))
    assert parse('say "hello wor', is_typing=True) == (Term("say"), Term("hello wor", is_prefix=True))
    assert parse("* ** ' ( NEAR/2 ^x \"") == (Term("NEAR/2"), Term("^x"))


async def test_any_text_is_a_valid_query(store: Store) -> None:
    await say(store, "some text", "ein Text", "文字")
    loop = asyncio.get_running_loop()

    @given(st.text(max_size=40) | st.text(alphabet='"*() -:^{}+ANDORNT文\0', max_size=40), st.booleans(), st.booleans())
    def check(typed: str, newest_first: bool, is_typing: bool) -> None:
        query = Query(typed, newest_first=newest_first, is_typing=is_typing)
        asyncio.run_coroutine_threadsafe(store.search.find(query), loop).result()

    await asyncio.to_thread(check)


# --- breaking off -----------------------------------------------------------------------------------------------------

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


async def test_a_cancelled_search_stops_in_the_database(database: Database) -> None:
    started, stopped = threading.Event(), threading.Event()

    def count(connection: Connection) -> object:
        started.set()
        try:
            return connection.scalar(text(ENDLESS))
        finally:
            stopped.set()

    search = asyncio.create_task(database.search(count))
    await asyncio.to_thread(started.wait)
    search.cancel()
    assert await asyncio.to_thread(stopped.wait, 30)
    with pytest.raises(asyncio.CancelledError):
        await search
    assert await database.search(lambda connection: connection.scalar(text("SELECT 1"))) == 1


async def test_a_newer_search_of_the_same_client_cancels_the_older(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(store, "needle")
    entered = asyncio.Event()

    async def never(*_: object) -> tuple[Hit, ...]:
        entered.set()
        await asyncio.Event().wait()
        return ()

    index: SearchIndex = store.search
    with monkeypatch.context() as patch:
        patch.setattr(Database, "search", never)
        older = asyncio.create_task(index.find(Query("needle"), client="page"))
        await entered.wait()
    [hit] = await index.find(Query("needle"), client="page")
    assert hit.content == "needle"
    with pytest.raises(Conflict):
        await older
    assert [h.content for h in await index.find(Query("needle"), client="another")] == ["needle"]
