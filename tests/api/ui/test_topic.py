from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest

from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.api.ui.topic import Delivery, Topic

FIRST = 1000


class StubServer:
    """A server whose clients have as many packets queued as the test says."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any]] = []
        self.queued: dict[str, int] = {}
        self._arrived = asyncio.Event()

    async def emit(self, event: str, data: object, *, to: str | None, namespace: str) -> None:
        assert to is not None
        self.sent.append((to, event, data))
        self._arrived.set()

    def emit_volatile(self, event: str, data: object, clients: Collection[str], namespace: str) -> None:
        raise AssertionError("a delta reaches each client, in order")

    def backlog(self, client: str) -> int:
        return self.queued.get(client, 0)

    def to(self, client: str) -> list[tuple[str, Any]]:
        return [(event, data) for receiver, event, data in self.sent if receiver == client]

    async def until(self, client: str, count: int) -> list[tuple[str, Any]]:
        async with asyncio.timeout(30):
            while len(self.to(client)) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.to(client)


class State:
    """A topic whose snapshot is a dictionary."""

    def __init__(self, server: StubServer, *, lossy: bool) -> None:
        self.values: dict[str, int] = {}
        emitter = Emitter(server, "/ui")
        delivery = Delivery(interval_s=0.01, lossy=lossy, first_seq=FIRST)
        self.topic = Topic("state", emitter, self._snapshot, delivery)

    async def _snapshot(self) -> object:
        return dict(self.values)

    def set(self, key: str, value: int) -> None:
        self.values[key] = value
        self.topic.publish({key: value}, key=key)


@pytest.fixture
def server() -> StubServer:
    return StubServer()


@pytest.fixture
async def state(server: StubServer) -> AsyncIterator[State]:
    state = State(server, lossy=False)
    async for _ in running(state.topic):
        yield state


@pytest.fixture
async def lossy(server: StubServer) -> AsyncIterator[State]:
    state = State(server, lossy=True)
    async for _ in running(state.topic):
        yield state


async def running(topic: Topic) -> AsyncIterator[None]:
    task = asyncio.create_task(topic.run())
    yield
    task.cancel()
    await asyncio.wait({task})


async def test_a_joining_client_gets_a_snapshot_then_numbered_deltas(state: State, server: StubServer) -> None:
    state.values["a"] = 1
    await state.topic.join("x")
    state.set("b", 2)
    assert await server.until("x", 2) == [
        ("snapshot", {"topic": "state", "seq": FIRST, "data": {"a": 1}}),
        ("delta", {"topic": "state", "seq": FIRST + 1, "items": [{"b": 2}], "dropped": 0}),
    ]


async def test_one_delta_holds_the_last_item_of_each_key(state: State, server: StubServer) -> None:
    await state.topic.join("x")
    for value in range(100):
        state.set("a", value)
    state.set("b", 7)
    _, (_, delta) = await server.until("x", 2)
    assert delta["items"] == [{"a": 99}, {"b": 7}]


async def test_a_client_that_left_gets_no_more(state: State, server: StubServer) -> None:
    await state.topic.join("x")
    await state.topic.join("y")
    state.topic.leave("x")
    state.set("a", 1)
    await server.until("y", 2)
    assert len(server.to("x")) == 1
    assert state.topic.is_watched
    state.topic.leave("y")
    assert not state.topic.is_watched


async def test_a_returning_client_gets_the_items_it_missed(state: State, server: StubServer) -> None:
    await state.topic.join("x")
    for value in range(3):
        state.set("a", value)
        await server.until("x", 2 + value)
    await state.topic.join("y", since=FIRST + 1)
    assert server.to("y") == [
        ("delta", {"topic": "state", "seq": FIRST + 3, "items": [{"a": 1}, {"a": 2}], "dropped": 0})
    ]
    await state.topic.join("z", since=FIRST + 3)
    assert server.to("z") == []


@pytest.mark.parametrize("since", [0, FIRST - 1, FIRST + 50])
async def test_a_client_with_an_unknown_number_gets_a_snapshot(state: State, server: StubServer, since: int) -> None:
    """The number is from before a restart, or was never sent."""
    await state.topic.join("x", since=since)
    assert [event for event, _ in server.to("x")] == ["snapshot"]


async def test_a_large_delta_is_not_kept_for_returning_clients(state: State, server: StubServer) -> None:
    """Items are counted, not deltas, because deltas of a busy service are large."""
    await state.topic.join("x")
    for number in range(2001):
        state.set(str(number), number)
    await server.until("x", 2)
    state.set("a", 1)
    await server.until("x", 3)
    await state.topic.join("before", since=FIRST)
    assert [event for event, _ in server.to("before")] == ["snapshot"]
    await state.topic.join("after", since=FIRST + 1)
    assert [data["items"] for _, data in server.to("after")] == [[{"a": 1}]]


async def test_a_slow_client_of_a_lossy_topic_loses_items_and_learns_how_many(lossy: State, server: StubServer) -> None:
    await lossy.topic.join("slow")
    await lossy.topic.join("quick")
    server.queued["slow"] = 1000
    for value in range(3):
        lossy.set("a", value)
        await server.until("quick", 2 + value)
    assert len(server.to("slow")) == 1
    server.queued["slow"] = 0
    lossy.set("a", 9)
    _, (event, delta) = await server.until("slow", 2)
    assert (event, delta["items"], delta["dropped"]) == ("delta", [{"a": 9}], 3)
    lossy.set("a", 10)
    assert (await server.until("slow", 3))[2][1]["dropped"] == 0


async def test_a_slow_client_of_a_lossless_topic_gets_a_snapshot_once_it_has_caught_up(
    state: State, server: StubServer
) -> None:
    await state.topic.join("slow")
    await state.topic.join("quick")
    server.queued["slow"] = 1000
    state.set("a", 1)
    await server.until("quick", 2)
    server.queued["slow"] = 0
    _, (event, snapshot) = await server.until("slow", 2)
    assert (event, snapshot["data"], snapshot["seq"]) == ("snapshot", {"a": 1}, FIRST + 1)
    state.set("a", 2)
    assert (await server.until("slow", 3))[2][0] == "delta"
