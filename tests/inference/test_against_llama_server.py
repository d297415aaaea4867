"""The same request straight to llama-server and through the service: responses differ in ids and times only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from llama_async_proxy.inference.request_log import CLIENT_GONE
from llama_async_proxy.inference.streaming import prompt_progress
from llama_async_proxy.records.runtime import Endpoint
from support.asgi import RawClient
from support.service import clean_environment, free_port
from support.site import Site
from support.upstream import make_model

pytestmark = pytest.mark.engine

MESSAGES = [{"role": "user", "content": "hello there"}]
UNKEPT = httpx.Limits(max_keepalive_connections=0)
"""llama-server closes after a stream without saying so: a kept connection would fail now and then."""
FIXED = {"model": "chat", "seed": 1, "temperature": 0, "cache_prompt": False, "max_tokens": 12}


@dataclass
class LlamaServer:
    process: subprocess.Popen[bytes]
    endpoint: Endpoint

    @property
    def url(self) -> str:
        return f"http://{self.endpoint.host}:{self.endpoint.port}"


@contextlib.contextmanager
def running(binary: Path, model: Path, *arguments: str) -> Iterator[LlamaServer]:
    port = free_port()
    command = [str(binary), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-np", "1", "-c", "512"]
    process = subprocess.Popen(
        [*command, *arguments], env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    server = LlamaServer(process, Endpoint("127.0.0.1", port))
    try:
        transport = httpx.HTTPTransport(retries=20)  # while nobody listens yet
        with httpx.Client(transport=transport, base_url=server.url) as client:
            while client.get("/health").status_code != 200:
                assert process.poll() is None
        yield server
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def chat_server(llama_server: Path, model_files: Path) -> Iterator[LlamaServer]:
    with running(llama_server, model_files / "chat.gguf", "--metrics", "--slots", "--alias", "chat") as server:
        yield server


@pytest.fixture(scope="module")
def slow_server(llama_server: Path, model_files: Path) -> Iterator[LlamaServer]:
    with running(llama_server, model_files / "slow.gguf", "--slots", "-np", "2", "-c", "8192") as server:
        yield server


@pytest.fixture(scope="module")
def embedding_server(llama_server: Path, model_files: Path) -> Iterator[LlamaServer]:
    with running(llama_server, model_files / "embed.gguf", "--embeddings", "--alias", "embed") as server:
        yield server


@pytest.fixture(scope="module")
def rerank_server(llama_server: Path, model_files: Path) -> Iterator[LlamaServer]:
    with running(llama_server, model_files / "rerank.gguf", "--reranking", "--alias", "rerank") as server:
        yield server


@contextlib.asynccontextmanager
async def site_of(*, fast_path: bool = False, **servers: LlamaServer) -> AsyncIterator[Site]:
    models = tuple(make_model(number, slug) for number, slug in enumerate(servers, 1))
    site = Site(models, fast_path=fast_path)
    async with site.served({m.id: servers[m.slug].endpoint for m in models}):
        yield site


def masked(body: bytes) -> bytes:
    """Without what differs between two runs of one request."""
    body = re.sub(rb'"(id|item_id)":"[^"]*"', rb'"\1":"ID"', body)
    body = re.sub(rb'"(created|created_at|completed_at|id_task)":-?\d+', rb'"\1":0', body)
    body = re.sub(rb'"(\w+_(?:ms|second))":[\d.e+-]+', rb'"\1":0', body)
    return re.sub(rb"(?m)^(llamacpp:\w*seconds\w*) .*$", rb"\1 0", body)


def comparable(response: httpx.Response) -> dict[str, Any]:
    ours = {"server", "access-control-allow-origin", "keep-alive", "connection", "transfer-encoding"}
    ours |= {"content-length", "x-request-id", "x-content-type-options", "cache-control"}
    return {
        "status": response.status_code,
        "headers": [(k, v) for k, v in response.headers.items() if k not in ours],
        "body": masked(response.content),
    }


async def both(server: LlamaServer, site: Site, method: str, path: str, **request: Any) -> httpx.Response:
    """The answer, after checking that it is the same both ways."""
    async with httpx.AsyncClient(base_url=server.url, timeout=30, limits=UNKEPT) as straight:
        if path == "/v1/messages":  # which counts what the engine has from before, whatever it is asked
            await straight.request(method, path, **request)
        direct = await straight.request(method, path, **request)
        proxied = await site.http.request(method, path, **request)
    assert comparable(proxied) == comparable(direct)
    assert ("content-length" in proxied.headers) == ("content-length" in direct.headers)
    return proxied


POSTS: list[tuple[str, dict[str, Any], int]] = [
    ("/v1/chat/completions", {"messages": MESSAGES}, 200),
    ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}, 200),
    ("/chat/completions", {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}, 200),
    ("/v1/chat/completions", {"messages": MESSAGES, "n_probs": 3, "stream": True, "timings_per_token": True}, 200),
    ("/v1/chat/completions", {"messages": MESSAGES, "stream": True, "return_progress": True}, 200),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Ünïcödé 模型 🦙"}], "stream": True}, 200),
    ("/v1/chat/completions", {"messages": "no"}, 400),
    ("/v1/chat/completions", {"messages": MESSAGES, "stream": "yes"}, 400),
    ("/v1/chat/completions/input_tokens", {"messages": MESSAGES}, 200),
    ("/v1/completions", {"prompt": "the quick"}, 200),
    ("/completions", {"prompt": "the quick", "stream": True}, 200),
    ("/completion", {"prompt": "the quick", "n_predict": 8}, 200),
    ("/completion", {"prompt": "the quick", "n_predict": 8, "stream": True}, 200),
    ("/completion", {"prompt": "hi " * 2000, "stream": True}, 400),
    ("/infill", {"input_prefix": "the ", "input_suffix": " dog", "n_predict": 8, "stream": True}, 200),
    ("/v1/messages", {"messages": MESSAGES}, 200),
    ("/v1/messages", {"messages": MESSAGES, "stream": True}, 200),
    ("/v1/messages", {}, 500),
    ("/v1/messages/count_tokens", {"messages": MESSAGES}, 200),
    ("/v1/responses", {"input": "hello", "max_output_tokens": 8}, 200),
    ("/v1/responses", {"input": "hello", "max_output_tokens": 8, "stream": True}, 200),
    ("/tokenize", {"content": "the quick brown fox", "with_pieces": True}, 200),
    ("/detokenize", {"tokens": [300, 301, 302]}, 200),
    ("/apply-template", {"messages": MESSAGES}, 200),
    ("/v1/embeddings", {"input": "hello"}, 501),
    ("/v1/rerank", {"query": "a", "documents": ["b"]}, 501),
]


@pytest.mark.parametrize(("path", "body", "status"), POSTS, ids=[f"{p}-{n}" for n, (p, _, _) in enumerate(POSTS)])
async def test_a_chat_response_equals_the_engines(
    chat_server: LlamaServer, path: str, body: dict[str, Any], status: int
) -> None:
    async with site_of(chat=chat_server) as site:
        response = await both(chat_server, site, "POST", path, json={**FIXED, **body})
        assert response.status_code == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/props"),
        ("HEAD", "/props"),
        ("GET", "/slots"),
        ("GET", "/slots?fail_on_no_slot=1"),
        ("GET", "/lora-adapters"),
        ("GET", "/metrics"),
    ],
)
async def test_inspecting_a_chat_model_gives_the_engines_response(
    chat_server: LlamaServer, method: str, path: str
) -> None:
    async with site_of(chat=chat_server) as site:
        assert (await both(chat_server, site, method, path, params={"model": "chat"})).status_code == 200


async def test_adapters_are_set_as_by_the_engine(chat_server: LlamaServer) -> None:
    async with site_of(chat=chat_server) as site:
        assert (await both(chat_server, site, "POST", "/lora-adapters?model=chat", json=[])).status_code == 200


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/embedding"])
async def test_embeddings_equal_the_engines(embedding_server: LlamaServer, path: str) -> None:
    async with site_of(embed=embedding_server) as site:
        body = {"model": "embed", "input": ["the quick brown fox", "a dog"], "content": "a dog"}
        assert (await both(embedding_server, site, "POST", path, json=body)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v1/reranking", "/reranking"])
async def test_ranks_equal_the_engines(rerank_server: LlamaServer, path: str) -> None:
    async with site_of(rerank=rerank_server) as site:
        body = {"model": "rerank", "query": "a fox", "documents": ["the quick brown fox", "a boat"]}
        assert (await both(rerank_server, site, "POST", path, json=body)).status_code == 200


async def test_many_requests_over_reused_connections_all_succeed(chat_server: LlamaServer) -> None:
    """llama-server closes a connection after 100 requests without saying so in the hundredth."""
    async with site_of(chat=chat_server) as site:
        for _ in range(30):
            answers = (site.http.post("/tokenize", json={"model": "chat", "content": f"the {n}"}) for n in range(10))
            assert {response.status_code for response in await asyncio.gather(*answers)} == {200}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}),
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/completion", {"prompt": "the quick", "stream": True}),
        ("/v1/messages", {"messages": MESSAGES, "stream": True}),
        ("/v1/responses", {"input": "the quick", "stream": True, "max_output_tokens": 60}),
    ],
)
async def test_every_generation_is_counted(chat_server: LlamaServer, path: str, body: dict[str, Any]) -> None:
    async with site_of(chat=chat_server) as site:
        # Enough that they cannot come in one piece, from which no rate can be told.
        await site.http.post(path, json={**FIXED, "n_predict": 60, "max_tokens": 60, "ignore_eos": True, **body})
        record = await site.record()
        assert record.completion_tokens == 60
        assert record.prompt_tokens is not None
        assert record.cached_tokens is not None
        assert record.prompt_tokens > 0
        assert record.tokens_per_second or not record.streamed


# --- answers reassembled from streams -----------------------------------------------------------------------------

LLAMA = {"grammar": 'root ::= "ab" "🦙" "cd"'}
"""A character of several tokens, which a stream shows only when it is whole."""
THOUGHT = {"grammar": 'root ::= "<think>" "hm ok" "</think>" "yes"'}
ONLY_THOUGHT = {"grammar": 'root ::= "<think>" "hm ok" "</think>"'}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "n": {"type": "integer"}},
    "required": ["city", "n"],
}
FUNCTION = {"name": "get_weather", "description": "Weather", "parameters": SCHEMA}
TOOLS = {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required"}
SAID: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        {},
        {"stop": ["the"], "max_tokens": 50},
        *({"max_tokens": count} for count in (0, 1)),
        *({**LLAMA, "max_tokens": count} for count in (3, 4, 5, 6)),
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}, "max_tokens": 60},
        THOUGHT,
        ONLY_THOUGHT,
        {"grammar": 'root ::= "   "'},
        {**TOOLS, "max_tokens": 80},
        {**TOOLS, "max_tokens": 20},
        {**TOOLS, "parallel_tool_calls": True, "max_tokens": 200},
        {"n": 1, "logprobs": False, "stream": None, "timings_per_token": True},
        {"messages": [*MESSAGES, {"role": "assistant", "content": "Once"}]},
        {"logprobs": True, "top_logprobs": 2},
        {"return_progress": True},
        {"messages": "no"},
        {"messages": [{"role": "user", "content": "hi " * 600}]},
        {"grammar": "root ::= ("},
        {"temperature": "warm"},
    ],
    "/v1/completions": [
        {},
        {"stop": ["e"], "max_tokens": 60},
        *({**LLAMA, "max_tokens": count} for count in (3, 6)),
        {"max_tokens": 0},
        {"prompt": ["a", "b"]},
        {"logprobs": 2},
        {"echo": True},
        {"prompt": None},
    ],
    "/completion": [
        *({**LLAMA, "n_predict": count} for count in (3, 4, 5, 6)),
        {"stop": ["o"], "n_predict": 60},
        {"n_predict": 0},
        {"n_probs": 2},
        {"return_tokens": True},
        {"response_fields": ["content", "generation_settings/n_predict"]},
        {"prompt": [300, 301]},
        {"json_schema": {"type": "integer"}},
        {"samplers": ["top_k"], "logit_bias": [[300, -5]], "timings_per_token": True},
        {"prompt": "hi " * 2000},
    ],
    "/completions": [{"stop": ["e"]}],
    "/infill": [{"input_prefix": "the ", "input_suffix": " dog"}, {"input_prefix": "a"}],
    "/v1/messages": [
        {},
        {"system": "be brief", "stop_sequences": ["a"], "max_tokens": 40},
        {"max_tokens": 0},
        {"tools": [{"name": "get_weather", "input_schema": SCHEMA}], "tool_choice": {"type": "any"}, "max_tokens": 80},
        {"tools": [{"name": "get_weather", "input_schema": SCHEMA}], "tool_choice": {"type": "any"}, "max_tokens": 15},
        {"thinking": {"type": "enabled", "budget_tokens": 100}},
        {"messages": []},
    ],
    "/v1/responses": [
        {},
        THOUGHT,
        {"instructions": "be brief"},
        {"tools": [{"type": "function", **FUNCTION}], "tool_choice": "required", "max_output_tokens": 80},
        {"input": "hi " * 3000},
        {"input": None},
    ],
}
PROMPTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/messages": {"messages": MESSAGES},
    "/v1/responses": {"input": "hello", "max_output_tokens": 12},
    "/infill": {"prompt": "a"},
}


@pytest.mark.parametrize("fast_path", [False, True], ids=["slow path", "fast path"])
@pytest.mark.parametrize("path", SAID)
async def test_an_aggregated_response_equals_the_engines_own(
    chat_server: LlamaServer, path: str, fast_path: bool
) -> None:
    async with site_of(fast_path=fast_path, chat=chat_server) as site:
        await site.scheduler.load(site.models[0])
        async with httpx.AsyncClient(base_url=chat_server.url, timeout=30) as straight:
            for changes in SAID[path]:
                body = {**FIXED, **PROMPTS.get(path, {"prompt": "the quick"}), **changes}
                await straight.post(path, json=body)  # so that both find the same in the engine's cache
                direct = comparable(await straight.post(path, json=body))
                assert comparable(await site.http.post(path, json=body)) == direct, changes


@pytest.mark.parametrize("fast_path", [False, True], ids=["slow path", "fast path"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/completion", "/infill", "/v1/responses"])
async def test_a_stream_with_filtered_progress_equals_the_engines_own(
    chat_server: LlamaServer, path: str, fast_path: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_progress, "LONG_PROMPT_BYTES", 0)
    async with site_of(fast_path=fast_path, chat=chat_server) as site:
        await site.scheduler.load(site.models[0])
        async with httpx.AsyncClient(base_url=chat_server.url, timeout=30, limits=UNKEPT) as straight:
            for changes in SAID[path]:
                body = {**FIXED, **PROMPTS.get(path, {"prompt": "the quick"}), **changes, "stream": True}
                await straight.post(path, json=body)  # so that both find the same in the engine's cache
                direct = comparable(await straight.post(path, json=body))
                assert comparable(await site.http.post(path, json=body)) == direct, changes


async def test_a_response_whose_first_character_takes_several_tokens_is_not_aggregated(
    chat_server: LlamaServer,
) -> None:
    """llama-server's stream of messages has no beginning then."""
    async with site_of(chat=chat_server) as site:
        body = {**FIXED, "messages": MESSAGES, "grammar": 'root ::= "🦙"'}
        assert (await both(chat_server, site, "POST", "/v1/messages", json=body)).status_code == 200


async def until_busy(server: LlamaServer, slots: int, limit_s: float = 15.0) -> None:
    """Wait until so many slots are in use; a generation that nobody broke off would take much longer."""
    async with httpx.AsyncClient(base_url=server.url) as client, asyncio.timeout(limit_s):
        while sum(slot["is_processing"] for slot in (await client.get("/slots")).json()) != slots:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("fast_path", [False, True], ids=["slow path", "fast path"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}),
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/completion", {"prompt": "the quick"}),
        ("/v1/messages", {"messages": MESSAGES}),
        ("/v1/responses", {"input": "the quick"}),
    ],
)
async def test_a_client_that_leaves_frees_the_slot(
    slow_server: LlamaServer, path: str, body: dict[str, Any], fast_path: bool
) -> None:
    """While another stream runs and somebody polls the slots, which keeps llama-server from looking by itself."""
    endless = {"model": "slow", "max_tokens": 2000, "max_output_tokens": 2000, "n_predict": 2000, "ignore_eos": True}
    async with site_of(fast_path=fast_path, slow=slow_server) as site:
        await site.scheduler.load(site.models[0])
        async with RawClient.connected(site.port) as other, RawClient.connected(site.port) as client:
            await other.post("/completion", json.dumps({**endless, "prompt": "a", "stream": True}).encode())
            await other.until(b'"content":"')
            await client.post(path, json.dumps({**endless, **body}).encode())
            await until_busy(slow_server, 2)
            client.writer.close()
            await until_busy(slow_server, 1)
            assert (await site.record()).status == CLIENT_GONE
        await until_busy(slow_server, 0)


@pytest.mark.parametrize("fast_path", [False, True], ids=["slow path", "fast path"])
async def test_a_client_that_leaves_during_a_long_prompt_frees_the_slot(
    llama_server: Path, model_files: Path, fast_path: bool
) -> None:
    """Which would take more than ten seconds, and llama-server writes nothing of a stream before."""
    small_steps = ("--slots", "-np", "2", "-c", "8192", "-b", "32", "-ub", "32", "--threads", "1")
    asked = {"model": "slow", "prompt": "the quick brown fox " * 220, "stream": True}
    with running(llama_server, model_files / "slow.gguf", *small_steps) as server:
        async with site_of(fast_path=fast_path, slow=server) as site:
            await site.scheduler.load(site.models[0])
            async with RawClient.connected(site.port) as other, RawClient.connected(site.port) as client:
                await other.post("/completion", json.dumps({**asked, "prompt": "a", "n_predict": 2000}).encode())
                await other.until(b'"content":"')
                await client.post("/completion", json.dumps(asked).encode())
                await until_busy(server, 2)
                client.writer.close()
                await until_busy(server, 1, limit_s=8.0)
            assert {record.first_token_ms for record in site.records if record.status == CLIENT_GONE} == {None}


async def test_a_killed_engine_ends_its_stream_with_an_error_event(llama_server: Path, model_files: Path) -> None:
    endless = json.dumps({"model": "slow", "messages": MESSAGES, "stream": True, "max_tokens": 400}).encode()
    with running(llama_server, model_files / "slow.gguf") as server:
        async with site_of(slow=server) as site, RawClient.connected(site.port) as client:
            await client.post("/v1/chat/completions", endless)
            await client.until(b'"content":"')
            server.process.kill()
            rest = await client.until(b"\r\n0\r\n\r\n")
            assert b'"upstream_error"' in rest
            assert b"[DONE]" not in rest
