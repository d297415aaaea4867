"""Export files of other programs, as these write them."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.chats.archive import archived, to_json, to_markdown
from llama_async_proxy.chats.import_formats import conversations_of
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.records.chats import MessageStatus, NewConversation, NewMessage, Role
from llama_async_proxy.store.store import Store

PICTURE = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()

LLAMA_CPP: dict[str, Any] = {
    "conv": {"id": "c", "name": "Rivers", "lastModified": 1_750_000_000_000, "currNode": "a2"},
    "messages": [
        {"id": "root", "convId": "c", "type": "root", "role": "system", "content": "", "parent": None, "timestamp": 1},
        {"id": "u1", "convId": "c", "type": "text", "role": "user", "content": "Name a river", "parent": "root",
         "timestamp": 1_749_999_000_000, "children": ["a1", "a2"],
         "extra": [{"type": "TEXT", "name": "list.txt", "content": "Rhine"},
                   {"type": "IMAGE", "name": "map.png", "base64Url": PICTURE}]},
        {"id": "a1", "type": "text", "role": "assistant", "content": "Rhine", "parent": "u1", "model": "old.gguf"},
        {"id": "a2", "type": "text", "role": "assistant", "content": "Elbe", "parent": "u1", "thinking": "Hm",
         "model": "new.gguf", "timings": {"predicted_n": 2}},
        {"id": "u2", "type": "text", "role": "user", "content": "Another", "parent": "a1"},
    ],
}  # fmt: skip
OPEN_WEBUI: dict[str, Any] = {
    "id": "x", "user_id": "u", "title": "Lakes", "archived": False, "pinned": True,
    "created_at": 1_750_000_000, "updated_at": 1_750_000_100,
    "chat": {
        "title": "Lakes", "models": ["llama3:8b"], "params": {"system": "Be brief."},
        "history": {
            "currentId": "2",
            "messages": {
                "2": {"id": "2", "parentId": "1", "childrenIds": [], "role": "assistant", "model": "llama3:8b",
                      "content": '<details type="reasoning" done="true"><summary>Thought</summary>\n&gt; a &lt; b\n'
                                 "</details>\nConstance", "timestamp": 1_750_000_050},
                "1": {"id": "1", "parentId": None, "childrenIds": ["2"], "role": "user", "content": "Name a lake",
                      "timestamp": 1_750_000_000, "files": [{"type": "image", "url": PICTURE}]},
            },
        },
        "messages": [],
    },
}  # fmt: skip


def test_llama_cpps_tree_is_kept_with_its_branches() -> None:
    [found] = conversations_of(LLAMA_CPP)
    assert (found.title, found.model, found.updated_at_ms) == ("Rivers", "new.gguf", 1_750_000_000_000)
    assert [(m.parent, m.role, m.content) for m in found.messages] == [
        (None, Role.USER, "list.txt:\nRhine\n\nName a river"),
        (0, Role.ASSISTANT, "Rhine"),
        (1, Role.USER, "Another"),
        (0, Role.ASSISTANT, "Elbe"),
    ]
    assert found.active == 3
    assert found.messages[3].reasoning == "Hm"
    assert (found.messages[0].images[0].name, found.messages[0].images[0].data) == ("map.png", b"\x89PNG")


def test_open_webuis_history_is_ordered_and_its_reasoning_kept_apart() -> None:
    [found] = conversations_of([OPEN_WEBUI])
    assert (found.title, found.model, found.system_prompt) == ("Lakes", "llama3:8b", "Be brief.")
    assert (found.is_pinned, found.created_at_ms) == (True, 1_750_000_000_000)
    said, answered = found.messages
    assert (said.content, said.images[0].media_type, answered.parent) == ("Name a lake", "image/png", 0)
    assert (answered.content, answered.reasoning) == ("Constance", "a < b")


def test_a_list_without_a_tree_is_a_tree_of_one_branch() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "model": "m"}]
    [found] = conversations_of({"chat": {"title": "", "messages": messages}})
    assert (found.title, found.model) == ("New chat", "m")
    assert [(m.parent, m.content) for m in found.messages] == [(None, "a"), (0, "b")]


async def test_an_own_export_is_imported_unchanged(store: Store) -> None:
    made = [await store.chats.create(conversations_of(export)[0]) for export in (LLAMA_CPP, OPEN_WEBUI)]
    kept = [archived(*await store.chats.tree(c.id), await store.chats.images(c.id)) for c in made]
    again = conversations_of(json.loads(to_json(kept)))
    assert again == kept
    copy = await store.chats.create(again[0])
    original, copied = [(await store.chats.tree(c.id))[1] for c in (made[0], copy)]
    assert [(m.content, m.is_active, m.created_at_ms) for m in original] == [
        (m.content, m.is_active, m.created_at_ms) for m in copied
    ]


def test_markdown_shows_the_active_branch() -> None:
    [found] = conversations_of(LLAMA_CPP)
    page = to_markdown(found)
    assert page.startswith("# Rivers\n\nModel: new.gguf\n\n## You\n\n*[image map.png]*\n\nlist.txt:")
    assert page.endswith("## Assistant\n\n> Hm\n\nElbe\n")
    stopped = NewMessage(None, Role.ASSISTANT, "Half", status=MessageStatus.STOPPED)
    assert "*[stopped]*" in to_markdown(NewConversation("t", "m", messages=(stopped,), active=0))


WRONG: list[Any] = [
    {}, [], "text", 7, [1], {"format": "other"}, {"messages": "x"}, {"messages": [{}]}, [{"chat": {}}, {"conv": {}}],
    {"chat": {"history": {"messages": {"1": {"role": 7}}}}},
    {"format": "llama-async-proxy/conversations", "version": 99, "conversations": []},
    {"format": "llama-async-proxy/conversations",
     "conversations": [{"title": "t", "model": "m", "messages": [{"parent": 0, "role": "user", "content": "loop"}]}]},
    {"format": "llama-async-proxy/conversations", "conversations": [{"title": "t", "model": "m", "active": 3}]},
    {"messages": [{"id": "1", "extra": [{"type": "IMAGE", "base64Url": "data:image/png;base64,%%%"}]}]},
    {"messages": [{"id": "1", "extra": [{"type": "IMAGE", "base64Url": "data:image/png;base64,PHN2Zz4="}]}]},
    {"format": "llama-async-proxy/conversations",
     "conversations": [{"title": "t", "model": "m", "messages": [
         {"parent": None, "role": "user", "content": "", "images": [
             {"media_type": "image/svg+xml", "data": "PHN2Zz4="}]}]}]},
]  # fmt: skip


@pytest.mark.parametrize("document", WRONG, ids=range(len(WRONG)))
def test_another_document_is_refused(document: Any) -> None:
    with pytest.raises(InvalidInput, match="file: "):
        conversations_of(document)


def test_a_ring_of_messages_is_left_out() -> None:
    ring = [{"id": "a", "parent": "b", "content": "x"}, {"id": "b", "parent": "a", "content": "y"}]
    [found] = conversations_of({"messages": [*ring, {"id": "c", "content": "z"}]})
    assert [m.content for m in found.messages] == ["z"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["chat", "messages", "conv", "history", "id", "parent", "role"]), inner)
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_document_is_read_or_refused(document: object) -> None:
    with contextlib.suppress(InvalidInput):
        conversations_of(document)
