from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.harness import ServiceHarness, house
from llama_async_proxy.client import (
    AsyncClient,
    Client,
    Conflict,
    ConnectionFailed,
    Event,
    InvalidRequest,
    NotFound,
    Unavailable,
    api,
)


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files) as at:
        yield at


async def test_both_clients_give_the_same(at: ServiceHarness) -> None:
    threaded = await asyncio.to_thread(Client(at.url).send, api.get_model("chat"))
    assert threaded == await AsyncClient(at.url).send(api.get_model("chat"))
    assert (threaded["id"], threaded["status"]) == ("chat", "discovered")


async def test_arguments_travel_in_path_query_and_body(at: ServiceHarness) -> None:
    client = AsyncClient(at.url)
    loaded = await client.send(api.load_model("chat", {"options": {"fake-note": "x"}}))
    assert loaded["status"] == "running"
    memory = await client.send(api.get_model_memory("chat", ctx_size=512))
    assert memory["contextSize"] == 512
    assert (await client.send(api.unload_model("chat")))["status"] != "running"
    changed = await client.send(api.update_config({"ctx_size": 2048}))
    assert (changed["data"]["ctx_size"], changed["restartRequired"]) == (2048, False)


async def test_a_name_cannot_leave_its_place_in_the_path(at: ServiceHarness) -> None:
    with pytest.raises(NotFound):
        await AsyncClient(at.url).send(api.get_model("../config?x=#"))


async def test_failures_are_told_apart(at: ServiceHarness) -> None:
    client = AsyncClient(at.url)
    with pytest.raises(NotFound, match="Model not found") as unknown:
        await client.send(api.get_model("chaat"))
    assert (unknown.value.status, unknown.value.code) == (404, "NOT_FOUND")
    assert "chat" in (unknown.value.details or "")
    with pytest.raises(Conflict):
        await client.send(api.unload_model("chat"))
    with pytest.raises(InvalidRequest, match="hours"):
        await client.send(api.get_history(hours=1000))
    with pytest.raises(NotFound):
        await client.send(api.get_conversation(77))
    await client.send(api.stop_engine())
    with pytest.raises(Unavailable):
        await client.send(api.load_model("chat"))


async def test_an_answer_is_streamed_as_events_to_both_clients(at: ServiceHarness) -> None:
    client = AsyncClient(at.url)
    conversation = await client.send(api.create_conversation({"title": "Talk", "model": "chat"}))
    said = _said(conversation["conversation_id"])
    events = [event async for event in client.stream(api.chat(said))]
    assert [events[0].type, events[-1].type] == ["start", "done"]
    assert _text(events)

    threaded = await asyncio.to_thread(lambda: list(Client(at.url).stream(api.chat(said))))
    assert threaded[-1].type == "done"
    kept = await client.send(api.get_conversation(conversation["conversation_id"]))
    assert [m["content"] for m in kept["messages"] if m["role"] == "assistant"] == [_text(events), _text(threaded)]


def _said(conversation_id: int) -> api.ChatBody:
    return {"conversation_id": conversation_id, "message": "Hello", "model": "chat", "stream": True}


def _text(events: list[Event]) -> str:
    return "".join(event.data["content"] for event in events if event.type == "token")


async def test_a_stream_that_cannot_begin_fails_as_a_call_does(at: ServiceHarness) -> None:
    client = AsyncClient(at.url)
    with pytest.raises(NotFound):
        await anext(client.stream(api.chat(_said(99))))


async def test_where_nobody_answers_the_address_is_named() -> None:
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1"):
        await asyncio.to_thread(Client("http://127.0.0.1:1").send, api.get_status())
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1"):
        await AsyncClient("http://127.0.0.1:1").send(api.get_status())
    with pytest.raises(ValueError, match="URL"):
        Client("localhost:3000")


BROKEN = {
    b"": "closed the connection",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf": "before its answer was complete",
    b"SSH-2.0-OpenSSH\r\n": "no HTTP server",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{": "not the JSON",
}


async def test_an_answer_that_is_none_is_a_failed_connection() -> None:
    for sent, reason in BROKEN.items():

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes = sent) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(sent)
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            request = api.get_status()
            with pytest.raises(ConnectionFailed, match=reason):
                await AsyncClient(url).send(request)
            with pytest.raises(ConnectionFailed, match=reason):
                await asyncio.to_thread(Client(url).send, request)
