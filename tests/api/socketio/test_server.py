from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import socketio

from api.harness import ServiceHarness, answers, client, house


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files, allowed_origins=("http://friend.example",)) as at:
        yield at


async def test_both_paths_serve_both_namespaces_over_both_transports(at: ServiceHarness) -> None:
    for path in ("llamaproxws", "socket.io"):
        for transport in ("websocket", "polling"):
            async with client(at, "/", path=path, transport=transport) as v1:
                assert (await v1.ask("models:list"))["success"], (path, transport)
            async with client(at, "/ui", path=path, transport=transport) as ui:
                await ui.ask("join", {"topic": "models"})
                assert len((await ui.until("snapshot"))["data"]["models"]) == 4


async def test_a_polling_client_is_upgraded(at: ServiceHarness) -> None:
    polling = socketio.AsyncClient(reconnection=False)
    await polling.connect(at.url, socketio_path="llamaproxws")
    assert polling.transport() == "websocket"
    answer = await polling.call("llama:status")
    assert answer["success"]
    await polling.disconnect()


async def test_clients_and_messages_are_counted_until_they_leave(at: ServiceHarness) -> None:
    meter = at.context.connections
    async with client(at) as first, client(at, "/ui"):
        await first.ask("models:list")
        assert meter.clients == 2
        assert meter.messages_per_second > 0
    async with asyncio.timeout(30):
        while meter.clients:
            await asyncio.sleep(0.01)


async def test_an_unknown_namespace_is_refused(at: ServiceHarness) -> None:
    with pytest.raises(socketio.exceptions.ConnectionError):
        async with client(at, "/nowhere"):
            pass


async def test_origins_are_checked_on_every_transport(at: ServiceHarness) -> None:
    url = f"{at.url}/socket.io/?EIO=4&transport="
    for origin, status in ((at.url, 200), ("http://friend.example", 200), ("http://evil.example", 403), ("null", 403)):
        async with at.http.get(f"{url}polling", headers={"Origin": origin}) as response:
            assert response.status == status, origin
            assert (response.headers.get("Access-Control-Allow-Origin") == origin) is (
                origin == "http://friend.example"
            )
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        await at.http.ws_connect(f"{url}websocket", headers={"Origin": "http://evil.example"})
    async with at.http.ws_connect(f"{url}websocket", headers={"Origin": "http://friend.example"}) as socket:
        assert (await socket.receive_str()).startswith("0{")


async def test_a_malformed_packet_closes_only_its_own_connection(at: ServiceHarness) -> None:
    async with client(at) as bystander:
        for bad in ("4x", "42[", "42{}", "42[]", "4" + "2" * 200, "42" + "[" * 100_000):
            url = f"{at.url}/llamaproxws/?EIO=4&transport=websocket"
            async with at.http.ws_connect(url) as socket:
                await socket.receive_str()
                await socket.send_str("40")
                assert (await socket.receive_str()).startswith("40{")
                await socket.send_str(bad)
                async with asyncio.timeout(30):
                    while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                        pass
                assert socket.closed, bad[:20]
        assert (await bystander.ask("models:list"))["success"]


async def test_a_burst_over_polling_is_not_cut_off(at: ServiceHarness) -> None:
    """One request carries more packets than the library takes by default."""
    async with client(at, transport="polling") as busy:
        for i in range(200):
            await busy.emit("llama:status", {"requestId": str(i)})
        for i in range(200):
            await busy.until("llama:status:result", answers(str(i)))


async def test_a_flood_of_one_client_leaves_the_others_served(at: ServiceHarness) -> None:
    async with client(at) as flooding, client(at) as other:
        for _ in range(500):
            await flooding.emit("models:list")
        async with asyncio.timeout(30):
            assert (await other.ask("llama:status"))["success"]


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_closing_ends_the_transport_without_a_disconnect_packet(at: ServiceHarness, transport: str) -> None:
    """After a DISCONNECT packet a client stays away; after its transport closed it connects again by itself."""
    url = f"{at.url}/llamaproxws/?EIO=4&transport="
    received = await (_over_websocket if transport == "websocket" else _over_polling)(at, url + transport)
    assert "1" in received, "the engine's own close"
    assert not [packet for packet in received if packet.startswith("41")]
    assert at.context.connections.clients == 0


async def _over_websocket(at: ServiceHarness, url: str) -> list[str]:
    async with at.http.ws_connect(url) as socket:
        await socket.send_str("40")
        while not (await socket.receive_str()).startswith("40"):
            pass
        await at.sockets.close()
        received = []
        async with asyncio.timeout(30):
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                received.append(message.data)
        return received


async def _over_polling(at: ServiceHarness, url: str) -> list[str]:
    async with at.http.get(url) as response:
        sid = (await response.text()).partition('"sid":"')[2].partition('"')[0]
    async with at.http.post(f"{url}&sid={sid}", data="40") as response:
        assert response.status == 200
    async with at.http.get(f"{url}&sid={sid}") as response:
        assert (await response.text()).startswith("40")
    received: list[str] = []
    waiting = asyncio.create_task(_poll(at, f"{url}&sid={sid}"))
    await asyncio.sleep(0.05)
    while waiting.done():  # by a broadcast
        received += waiting.result().split("\x1e")
        waiting = asyncio.create_task(_poll(at, f"{url}&sid={sid}"))
        await asyncio.sleep(0.05)
    await at.sockets.close()
    return [*received, *(await waiting).split("\x1e")]


async def _poll(at: ServiceHarness, url: str) -> str:
    async with at.http.get(url) as response:
        return await response.text()


async def test_closing_cancels_running_requests(at: ServiceHarness, tmp_path: Path) -> None:
    async with client(at) as waiting:
        gate = {"modelName": "chat", "options": {"fake-gate": str(tmp_path / "never")}}
        await waiting.emit("models:load", gate)
        await waiting.until("models:status")
        async with asyncio.timeout(30):
            await at.sockets.close()
