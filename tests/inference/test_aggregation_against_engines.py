"""Seeded shapes of requests, straight to both engines and through the service: a whole answer is the same both ways,
though the service has the engine stream it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference.test_against_llama_server import LlamaServer, comparable, site_of
from llama_async_proxy.engines.parent_guard import PARENT_VARIABLE
from llama_async_proxy.records.runtime import Endpoint
from support.service import clean_environment, free_port

pytestmark = pytest.mark.engine

SHAPES = 60
USER = {"role": "user", "content": "hello there"}
PREFILL = {"role": "assistant", "content": '{"a":'}
TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- else %}{{- '<think>\\n' }}{%- endif %}{%- endif %}"
)
"""A model that thinks first, as Qwen3."""
GRAMMARS = (
    'root ::= "ab" "🦙" "cd"',
    'root ::= "🦙"',
    'root ::= "hm ok" "</think>" "\\n\\nyes é"',
    'root ::= "</think>"',
    'root ::= "   "',
    'root ::= "<think>" "hm ok" "</think>" "yes"',
)
PATHS = ("/v1/chat/completions", "/v1/completions", "/completion", "/v1/messages", "/v1/responses")
LIMIT = {"/v1/responses": "max_output_tokens", "/completion": "n_predict"}
RARE: dict[str, tuple[Any, ...]] = {
    "continue_final_message": (True, False),
    "add_generation_prompt": (True, False),
    "chat_template_kwargs": ({"enable_thinking": False}, {"add_generation_prompt": False}),
    "reasoning_format": ("none", "deepseek", "deepseek-legacy"),
    "stop": (["e"], ["ok"], ["</think>"]),
    "thinking_budget_tokens": (0, 2),
    "n": (1, 2),
    "verbose": (True,),
    "ignore_eos": (True,),
    "timings_per_token": (True,),
    "response_format": ({"type": "json_object"},),
}


@pytest.fixture(scope="module", params=["llama-server", "embedded"])
def engine(
    request: pytest.FixtureRequest, llama_server: Path, model_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaServer]:
    template = tmp_path_factory.mktemp("template") / "thinking.jinja"
    template.write_text(TEMPLATE)
    embedded = [sys.executable, "-m", "llama_async_proxy.engines.embedded"]
    program = embedded if request.param == "embedded" else [str(llama_server)]
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "-np", "1", "-c", "512", "--alias", "chat"]
    process = subprocess.Popen(
        [*program, "-m", str(model_files / "chat.gguf"), *options, "--chat-template-file", str(template)],
        env=clean_environment({PARENT_VARIABLE: str(os.getpid())}),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = LlamaServer(process, Endpoint("127.0.0.1", port))
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=20), base_url=server.url) as client:
            while client.get("/health").status_code != 200:
                assert process.poll() is None
        yield server
    finally:
        process.kill()
        process.communicate()


def shape(choose: random.Random) -> tuple[str, dict[str, Any]]:
    path = choose.choice(PATHS)
    body: dict[str, Any] = {"model": "chat", "seed": 1, "temperature": 0, "cache_prompt": False}
    body[LIMIT.get(path, "max_tokens")] = choose.choice((0, 1, 2, 3, 4, 5, 8, 20))
    messages = [USER, PREFILL] if choose.random() < 0.2 else [USER]
    if path in ("/v1/chat/completions", "/v1/messages"):
        body["messages"] = messages
    elif path == "/v1/responses":
        body["input"] = "hello"
    else:
        body["prompt"] = choose.choice(("the quick", "é🦙"))
    if choose.random() < 0.5:
        body["grammar"] = choose.choice(GRAMMARS)
    for name, values in RARE.items():
        if choose.random() < 0.08:
            body[name] = choose.choice(values)
    return path, body


@pytest.mark.parametrize("fast_path", [False, True], ids=["slow path", "fast path"])
async def test_whole_answers_are_the_engines_own(engine: LlamaServer, fast_path: bool) -> None:
    choose = random.Random(11)
    async with site_of(fast_path=fast_path, chat=engine) as site:
        await site.scheduler.load(site.models[0])
        unkept = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=engine.url, timeout=30, limits=unkept) as straight:
            for _ in range(SHAPES):
                path, body = shape(choose)
                await straight.post(path, json=body)  # so that both find the same in the engine's cache
                direct = comparable(await straight.post(path, json=body))
                assert comparable(await site.http.post(path, json=body)) == direct, json.dumps(body, ensure_ascii=False)
