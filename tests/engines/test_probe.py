from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llama_async_proxy.engines import probe
from llama_async_proxy.engines.probe import Properties, is_busy, is_healthy, properties
from llama_async_proxy.engines.process import free_port
from llama_async_proxy.records.runtime import Endpoint


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[Endpoint]:
    """Server that answers every request with the same bytes, or stays silent for None."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])


def http(document: object, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n\r\n" % status + json.dumps(document).encode()


BROKEN = [b"", b"\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n\r\n{", b"\xff" * 9]


async def test_health_is_status_200() -> None:
    for status, healthy in ((200, True), (503, False), (404, False)):
        async with answering(http({}, status)) as endpoint:
            assert await is_healthy(endpoint) is healthy


async def test_properties_are_read_from_props() -> None:
    document = {"default_generation_settings": {"n_ctx": 2048}, "total_slots": 4, "model_path": "/m.gguf"}
    async with answering(http(document)) as endpoint:
        assert await properties(endpoint) == Properties(2048, 4, "/m.gguf")


@pytest.mark.parametrize(
    "document",
    [None, [], 3, {}, {"default_generation_settings": 1, "total_slots": "4", "model_path": 1}, {"total_slots": -1}],
)
async def test_properties_of_another_shape_are_unknown(document: object) -> None:
    async with answering(http(document)) as endpoint:
        assert await properties(endpoint) == Properties()


@pytest.mark.parametrize(
    ("document", "busy"),
    [
        ([{"is_processing": False}, {"is_processing": True}], True),
        ([{"is_processing": False}], False),
        ([], False),
        ({"error": {}}, False),
        ([1, None, {}], False),
    ],
)
async def test_busy_is_a_slot_that_processes(document: object, busy: bool) -> None:
    async with answering(http(document)) as endpoint:
        assert await is_busy(endpoint) is busy
    async with answering(http(document, 501)) as endpoint:
        assert await is_busy(endpoint) is False, "a server without slots"


@pytest.mark.parametrize("answer", BROKEN)
async def test_an_invalid_answer_raises_no_exception(answer: bytes) -> None:
    async with answering(answer) as endpoint:
        assert await properties(endpoint) == Properties()
        assert await is_busy(endpoint) is False


async def test_a_closed_port_is_unhealthy_and_not_busy() -> None:
    endpoint = Endpoint("127.0.0.1", free_port())
    assert not await is_healthy(endpoint)
    assert await properties(endpoint) == Properties()
    assert not await is_busy(endpoint)


async def test_a_silent_server_is_unhealthy_and_counts_as_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.1)
    async with answering(None) as endpoint:
        healthy, busy = await asyncio.gather(is_healthy(endpoint), is_busy(endpoint))
    assert (healthy, busy) == (False, True)
