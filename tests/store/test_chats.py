from __future__ import annotations

import pytest
from msgspec.structs import replace

from llama_async_proxy.errors import NotFound
from llama_async_proxy.records.chats import Image, MessageStatus, NewConversation, NewMessage, Role, Sampling
from llama_async_proxy.store.store import Store

TREE = (
    NewMessage(None, Role.USER, "What is a tree?", images=(Image("image/png", b"\x89PNG", "tree.png"),)),
    NewMessage(0, Role.ASSISTANT, "A plant.", model="m", response_ms=100.0, tokens=3),
    NewMessage(0, Role.ASSISTANT, "A graph.", reasoning="Hm.", model="m", response_ms=300.0),
    NewMessage(2, Role.USER, "Go on"),
)


async def test_a_conversation_is_stored_as_created(store: Store) -> None:
    sampling = Sampling(temperature=0.5, stop=("a", "b"))
    made = await store.chats.create(NewConversation("Title", "m.gguf", system_prompt="Be brief.", sampling=sampling))
    assert await store.chats.get(made.id) == made
    assert (made.title, made.model, made.system_prompt, made.sampling) == ("Title", "m.gguf", "Be brief.", sampling)
    assert made.created_at_ms == made.updated_at_ms


async def test_conversations_are_listed_last_updated_first_and_by_page(store: Store) -> None:
    made = [
        await store.chats.create(NewConversation(str(number), "m", updated_at_ms=1000 * number)) for number in range(5)
    ]
    await store.chats.update(made[0].id, title="now the newest")
    ids = [c.id for c in await store.chats.all(limit=None)]
    assert ids == [made[index].id for index in (0, 4, 3, 2, 1)]
    assert [c.id for c in await store.chats.all(limit=2, offset=1)] == ids[1:3]
    assert await store.chats.all(limit=2, offset=10) == ()


async def test_pinning_and_archiving_leave_the_order_alone_and_archived_ones_have_a_list_of_their_own(
    store: Store,
) -> None:
    old = await store.chats.create(NewConversation("old", "m", updated_at_ms=1000))
    new = await store.chats.create(NewConversation("new", "m"))
    pinned = await store.chats.update(old.id, is_pinned=True)
    assert (pinned.is_pinned, pinned.updated_at_ms) == (True, 1000)
    await store.chats.update(new.id, is_archived=True)
    assert [c.id for c in await store.chats.all(limit=None)] == [old.id]
    assert [c.id for c in await store.chats.all(limit=None, archived=True)] == [new.id]
    assert len(await store.chats.all(limit=None, archived=None)) == 2


async def test_the_thread_is_the_active_branch_and_the_tree_is_everything(store: Store) -> None:
    made = await store.chats.create(NewConversation("t", "m", messages=TREE, active=3))
    conversation, thread = await store.chats.thread(made.id)
    assert conversation == made
    assert [message.content for message in thread] == ["What is a tree?", "A graph.", "Go on"]
    assert thread[1].reasoning == "Hm."
    [attachment] = thread[0].attachments
    assert (attachment.name, attachment.size_bytes) == ("tree.png", 4)
    assert await store.chats.image(attachment.id) == TREE[0].images[0]
    _, tree = await store.chats.tree(made.id)
    assert [message.is_active for message in tree] == [True, False, True, True]
    assert [message.parent_id for message in tree] == [None, tree[0].id, tree[0].id, tree[2].id]
    assert await store.chats.images(made.id) == {tree[0].id: TREE[0].images}


async def test_totals_count_the_active_branch(store: Store) -> None:
    made = await store.chats.create(NewConversation("t", "m", messages=TREE, active=1))
    said, answered = await store.chats.totals(made.id)
    assert (said.role, said.count, said.average_length, said.tokens, said.average_response_ms) == (
        Role.USER, 1, 15.0, 4, None,
    )  # fmt: skip
    assert (answered.role, answered.count, answered.tokens, answered.average_response_ms) == (
        Role.ASSISTANT, 1, 3, 100.0,
    )  # fmt: skip


async def test_deleting_removes_all_messages_even_of_a_very_long_chain(store: Store) -> None:
    chain = tuple(
        NewMessage(number - 1 if number else None, (Role.USER, Role.ASSISTANT)[number % 2], f"message {number}")
        for number in range(2500)
    )
    made = await store.chats.create(NewConversation("long", "m", messages=chain, active=len(chain) - 1))
    kept = await store.chats.create(NewConversation("t", "m", messages=TREE, active=3))
    assert len((await store.chats.thread(made.id))[1]) == 2500
    await store.chats.delete(made.id)
    for call in (store.chats.get, store.chats.thread, store.chats.totals, store.chats.delete):
        with pytest.raises(NotFound):
            await call(made.id)
    assert len((await store.chats.tree(kept.id))[1]) == 4


@pytest.mark.parametrize("conversation_id", [0, -1, 99, 1 << 63, 10**40])
async def test_an_unknown_id_is_not_found_however_large(store: Store, conversation_id: int) -> None:
    with pytest.raises(NotFound):
        await store.chats.get(conversation_id)
    with pytest.raises(NotFound):
        await store.chats.image(conversation_id)


async def test_a_suggested_title_never_replaces_a_given_one(store: Store) -> None:
    automatic = await store.chats.create(NewConversation("New chat", "m", has_automatic_title=True))
    named = await store.chats.suggest_title(automatic.id, "Trees")
    assert named == replace(automatic, title="Trees")
    await store.chats.update(automatic.id, title="Mine", has_automatic_title=False)
    assert await store.chats.suggest_title(automatic.id, "Better trees") is None
    assert (await store.chats.get(automatic.id)).title == "Mine"
    assert await store.chats.suggest_title(999, "Gone") is None


async def test_a_status_survives(store: Store) -> None:
    messages = (NewMessage(None, Role.USER, "x"), NewMessage(0, Role.ASSISTANT, "y", status=MessageStatus.STOPPED))
    made = await store.chats.create(NewConversation("t", "m", messages=messages, active=1))
    assert (await store.chats.thread(made.id))[1][1].status is MessageStatus.STOPPED
