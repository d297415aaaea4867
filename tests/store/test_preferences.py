from __future__ import annotations

import pytest

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.store.store import Store


async def test_merge_sets_changes_and_deletes(store: Store) -> None:
    assert await store.preferences.get_all() == {}
    await store.preferences.merge({"theme": "dark", "columns": ["name", "größe"], "density": 1.5})
    merged = await store.preferences.merge({"theme": "light", "density": None, "never set": None})
    assert merged == {"columns": ["name", "größe"], "theme": "light"}
    assert await store.preferences.get_all() == merged


async def test_every_json_value_comes_back_as_it_was(store: Store) -> None:
    values = {"a": False, "b": 0, "c": "", "d": [], "e": {"deep": [None, {"x": 1}]}, "f": 1 << 70, "g": "\x00\ud800"}
    await store.preferences.merge(values)
    assert await store.preferences.get_all() == values


async def test_a_key_no_database_can_hold_changes_nothing(store: Store) -> None:
    with pytest.raises(InvalidInput, match="not valid Unicode"):
        await store.preferences.merge({"good": 1, "\ud800": 2})
    assert await store.preferences.get_all() == {}
