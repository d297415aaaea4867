from __future__ import annotations

import pytest

from llama_async_proxy.store import requests as requests_module
from llama_async_proxy.store.requests import RequestTotals
from llama_async_proxy.store.store import Store
from store.builders import record


async def test_records_come_back_whole_newest_first(store: Store) -> None:
    records = [
        record("a", 1000),
        record("b", 3000, error="broke off", cached_tokens=4),
        record("c", 2000, streamed=False),
    ]
    for entry in records:
        store.requests.append([entry])
    await store.flush()
    assert await store.requests.recent() == (records[1], records[2], records[0])
    assert await store.requests.recent(limit=1) == (records[1],)


async def test_only_unknown_values_are_read_as_none(store: Store) -> None:
    optional = ("queued_ms", "load_ms", "first_token_ms", "tokens_per_second")
    counts = ("prompt_tokens", "completion_tokens", "cached_tokens")
    nothing = dict.fromkeys((*optional, *counts, "error", "key"))
    zero = dict.fromkeys(optional, 0.0) | dict.fromkeys(counts, 0) | {"error": "", "key": "-1"}
    records = [record("b", 2000, streamed=False, **nothing), record("a", 1000, streamed=True, **zero)]
    store.requests.append(records)
    await store.flush()
    found = await store.requests.recent()
    assert found == tuple(records)
    assert [type(entry.streamed) for entry in found] == [bool, bool]


async def test_a_client_may_use_one_id_twice(store: Store) -> None:
    store.requests.append([record("same", 1000)])
    store.requests.append([record("same", 1000, status=503)])
    await store.flush()
    assert [entry.status for entry in await store.requests.recent()] == [503, 200]


async def test_a_name_that_is_not_unicode_is_kept_readable(store: Store) -> None:
    store.requests.append([record(model="\ud800x")])
    await store.flush()
    assert [entry.model for entry in await store.requests.recent()] == ["?x"]


async def test_recent_of_one_model(store: Store) -> None:
    for i in range(4):
        store.requests.append([record(str(i), i, model="odd" if i % 2 else "even")])
    await store.flush()
    assert [entry.id for entry in await store.requests.recent(model="odd")] == ["3", "1"]


async def test_totals_add_up_by_model_since_a_time(store: Store) -> None:
    for entry in [
        record("too early", 999),
        record("a", 1000),
        record("b", 1001, prompt_tokens=None, completion_tokens=5, cached_tokens=7),
        record("c", 1002, model="other", status=404, prompt_tokens=None, completion_tokens=None),
        record("d", 1003, error="upstream broke off"),
    ]:
        store.requests.append([entry])
    await store.flush()
    assert await store.requests.totals(since_ms=1000) == (
        RequestTotals("tiny", requests=3, errors=1, prompt_tokens=20, completion_tokens=45, cached_tokens=7),
        RequestTotals("other", requests=1, errors=1, prompt_tokens=0, completion_tokens=0, cached_tokens=0),
    )


async def test_the_oldest_records_beyond_the_limit_are_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_module, "MAX_ROWS", 3)
    for i in range(10):
        store.requests.append([record(str(i), i)])
    await store.flush()
    assert [entry.id for entry in await store.requests.recent()] == ["9", "8", "7"]
