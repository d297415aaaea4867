from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from websockets.frames import Frame, Opcode

from api.harness import ServiceHarness, client, house
from llama_async_proxy.api.socketio.frames import text_frame


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files) as at:
        yield at


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536, 70000])
def test_a_frame_is_what_the_library_would_send(length: int) -> None:
    text = "ü" * (length // 2) + "x" * (length % 2)
    assert text_frame(text) == Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


async def test_samples_reach_clients_of_every_transport(at: ServiceHarness) -> None:
    async with (
        client(at) as websocket,
        client(at, transport="polling") as polling,
        client(at, "/llamaproxws") as elsewhere,
    ):
        names = [page.socket.get_sid("/") for page in (websocket, polling)]
        at.sockets.server.emit_volatile("sample", {"text": "größe"}, [*names, "nobody"], "/")
        for page in (websocket, polling):
            assert await page.until("sample") == {"text": "größe"}
        await elsewhere.ask("models:list")
        assert elsewhere.all("sample") == []


async def joined(at: ServiceHarness) -> tuple[aiohttp.ClientWebSocketResponse, str]:
    """A client that reads only when told to, and its name."""
    socket = await at.http.ws_connect(f"{at.url}/llamaproxws/?EIO=4&transport=websocket", max_msg_size=0)
    await socket.receive_str()
    await socket.send_str("40")
    welcome = await socket.receive_str()
    return socket, welcome.partition('"sid":"')[2].partition('"')[0]


async def test_a_slow_client_gets_no_backlog_of_stale_samples(at: ServiceHarness) -> None:
    socket, name = await joined(at)
    for number in range(400):
        at.sockets.server.emit_volatile("sample", [number, "x" * 100_000], [name], "/")
    seen = []
    while "last" not in seen:
        message = await socket.receive_str()
        if message.startswith('42["sample"'):
            seen.append(message[13:].partition(",")[0])
        at.sockets.server.emit_volatile("sample", ["last", 0], [name], "/")
        seen = ["last" if '"last"' in entry else entry for entry in seen]
    assert len([entry for entry in seen if entry != "last"]) < 400
    await socket.close()


async def test_a_client_that_never_reads_is_disconnected(at: ServiceHarness) -> None:
    socket, name = await joined(at)
    server = at.sockets.server
    await server.emit("big", "x" * 30_000_000, to=name, namespace="/")
    for _ in range(10_010):
        await server.emit("small", 1, to=name, namespace="/")
    async with client(at) as other:
        assert (await other.ask("models:list"))["success"]
        assert server.backlog(name) == 0, "it is forgotten"
    await socket.close()
