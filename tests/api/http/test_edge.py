"""What holds for every address: one spelling of paths, headers of answers, refused websockets."""

from __future__ import annotations

import pytest
from starlette.types import Message, Receive, Scope, Send

from llama_async_proxy.api.http.edge import EdgeMiddleware, with_plain_path
from llama_async_proxy.api.http.websocket import refuse_websocket
from llama_async_proxy.api.memory import MEMORY, RequestMemory, hold_of


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/v1/models", "/v1/models"),
        ("//v1/models", "/v1/models"),
        ("/v1//models///", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/v1/models/a%2F%2Fb/", "/v1/models/a//b"),
        ("/v1/models/a%2F%2Fb", "/v1/models/a//b"),
    ],
)
def test_paths_have_one_spelling(path: str, plain: str) -> None:
    decoded = path.replace("%2F", "/")
    assert with_plain_path({"raw_path": path.encode(), "path": decoded})["path"] == plain


async def answer_of(path: str, *headers: tuple[bytes, bytes], status: int = 200) -> dict[bytes, bytes]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    scope = {"type": "http", "path": path, "raw_path": path.encode(), "headers": []}
    await EdgeMiddleware(app, RequestMemory(lambda: 1))(scope, receive, send)
    return dict(sent[0]["headers"])


@pytest.mark.parametrize("path", ["/api/models", "//v1/models/", "/completion"])
async def test_data_is_not_stored_by_caches(path: str) -> None:
    assert (await answer_of(path))[b"cache-control"] == b"no-store"


async def test_a_cache_control_of_its_own_stays() -> None:
    assert (await answer_of("/api/models", (b"Cache-Control", b"private")))[b"Cache-Control"] == b"private"
    assert b"cache-control" not in await answer_of("/assets/x.js")


async def test_a_415_says_what_is_taken() -> None:
    assert (await answer_of("/api/models", status=415))[b"accept-encoding"] == b"gzip, deflate"


async def test_the_memory_of_a_request_is_free_when_it_ends() -> None:
    budget = RequestMemory(lambda: 100)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        hold_of(scope).take(60)
        assert scope[MEMORY].budget.used == 60
        raise ValueError

    scope = {"type": "http", "path": "/", "raw_path": b"/", "headers": []}
    with pytest.raises(ValueError):
        await EdgeMiddleware(app, budget)(scope, _nothing, _nowhere)
    assert budget.used == 0


async def _nothing() -> Message:
    raise AssertionError


async def _nowhere(message: Message) -> None:
    raise AssertionError(message)


@pytest.mark.parametrize(
    ("path", "shape"), [("/v1/messages", b'"type":"error"'), ("/v1/models", b'"code":426'), ("/api/x", b'"success":')]
)
async def test_a_websocket_where_there_is_none_is_a_426_in_the_paths_own_format(path: str, shape: bytes) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": path, "extensions": {"websocket.http.response": {}}}
    await refuse_websocket(scope, send)
    assert sent[0]["status"] == 426
    assert dict(sent[0]["headers"])[b"upgrade"] == b"HTTP/1.1"
    assert shape in sent[1]["body"]
    assert b"no websocket at" in sent[1]["body"]
