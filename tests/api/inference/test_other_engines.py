"""Answers of engines of other builds and kinds, and of engines that send what no engine should."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from llama_async_proxy.inference.streaming import aggregator
from support.asgi import RawClient
from support.site import CHAT, STREAM, UpstreamSite
from support.upstream import STREAM_HEAD, Behaviour, Exchange, answers, event, streams, token

MESSAGES = [{"role": "user", "content": "Hi"}]
PLAIN = {"asked": "plainly"}
DONE = event(b"[DONE]")


@pytest.fixture(params=[False, True], ids=["asgi", "splice"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[UpstreamSite]:
    """Runs with the ASGI route alone and with the fast path in front of it. Model "tiny" is ready."""
    async with UpstreamSite(fast_path=request.param).running() as running:
        await running.scheduler.load(running.models[0])
        yield running


def engine(*events: bytes) -> Behaviour:
    """Streams these events, and answers plainly a request that asks for no stream."""

    async def behave(exchange: Exchange) -> None:
        await (streams(*events) if exchange.json.get("stream") else answers(PLAIN))(exchange)

    return behave


def chunk(choice: dict[str, Any] | None = None, **fields: Any) -> bytes:
    choices = [] if choice is None else [{"index": 0, "finish_reason": None, **choice}]
    return event({"choices": choices, "created": 1, "id": "c", "model": "m", "object": "x", **fields})


async def ask(site: UpstreamSite, path: str = CHAT, **body: Any) -> Any:
    response = await site.http.post(path, json={"model": "tiny", "messages": MESSAGES, **body})
    assert response.status_code == 200
    return response.json()


def streamed(site: UpstreamSite) -> list[bool]:
    """For each request that the engine got, whether it was for a stream."""
    return [bool(exchange.json.get("stream")) for exchange in site.upstream.requests]


# --- older builds -------------------------------------------------------------------------------------------------


async def test_what_an_older_build_does_not_send_is_left_out(site: UpstreamSite) -> None:
    usage = {"completion_tokens": 2, "prompt_tokens": 5, "total_tokens": 7}
    finish = chunk({"delta": {}, "finish_reason": "stop"}, usage=usage)
    site.upstream.behaviour = engine(
        chunk({"delta": {"content": "Hel"}}), chunk({"delta": {"content": "lo"}}), finish, DONE
    )
    assert await ask(site) == {
        "choices": [{"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "Hello"}}],
        "created": 1,
        "model": "m",
        "object": "chat.completion",
        "usage": usage,
        "id": "c",
    }
    assert streamed(site) == [True]
    record = await site.record()
    assert (record.status, record.prompt_tokens, record.completion_tokens) == (200, 5, 2)


async def test_a_chat_without_usage_is_an_answer(site: UpstreamSite) -> None:
    site.upstream.behaviour = engine(
        chunk({"delta": {"content": "a"}}), chunk({"delta": {}, "finish_reason": "stop"}), DONE
    )
    assert "usage" not in await ask(site)
    assert streamed(site) == [True]


async def test_native_answers_of_older_builds_are_put_together(site: UpstreamSite) -> None:
    site.upstream.behaviour = engine(
        event({"content": "a", "stop": False, "id_slot": 0, "multimodal": False}),
        event({"content": "", "stop": True, "stopped_eos": True, "model": "m"}),
    )
    assert await ask(site, "/completion", prompt="x") == {
        "content": "a",
        "stop": True,
        "stopped_eos": True,
        "model": "m",
    }


UNKNOWN = {
    "chat, no finish": (CHAT, (token("a"), DONE)),
    "chat, reasoning of another name": (CHAT, (chunk({"delta": {"reasoning": "hm", "reasoning_content": "hm"}}),)),
    "chat, verbose": (CHAT, (chunk({"delta": {"content": "a"}}, __verbose={"prompt": "x"}),)),
    "chat, two choices": (CHAT, (event({"choices": [{"delta": {}, "index": 1}]}),)),
    "chat, two calls of one index": (
        CHAT,
        tuple(chunk({"delta": {"tool_calls": [{"index": 0, "id": call, "function": {}}]}}) for call in "ab"),
    ),
    "chat, something else": (CHAT, (event({"type": "delta"}),)),
    "text, the native form": ("/v1/completions", (event({"content": "a", "stop": True}),)),
    "text, no finish": ("/v1/completions", (event({"choices": [{"text": "a", "finish_reason": None}]}), DONE)),
    "native, probabilities": ("/completion", (event({"content": "a", "completion_probabilities": [{}]}),)),
    "native, no end": ("/completion", (event({"content": "a"}), DONE)),
    "messages, a block of another kind": (
        "/v1/messages",
        (
            event({"type": "message_start", "message": {"id": "m"}}),
            event({"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use"}}),
        ),
    ),
    "messages, no end": (
        "/v1/messages",
        (event({"type": "message_start", "message": {"id": "m"}}), event({"type": "message_stop"})),
    ),
    "responses, another form": (
        "/v1/responses",
        (event({"type": "response.completed", "response": {"output": [], "tools": []}}),),
    ),
    "responses, no end": ("/v1/responses", (event({"type": "response.created", "response": {}}), DONE)),
}


@pytest.mark.parametrize("case", UNKNOWN)
async def test_a_stream_that_does_not_tell_the_answer_is_left_alone_from_then_on(site: UpstreamSite, case: str) -> None:
    path, events = UNKNOWN[case]
    site.upstream.behaviour = engine(*events)
    for _ in range(2):
        assert await ask(site, path, prompt="x", input="x") == PLAIN
    assert streamed(site) == [True, False, False]


async def test_another_process_is_asked_for_streams_again(site: UpstreamSite) -> None:
    site.upstream.behaviour = engine(token("a"), DONE)
    assert await ask(site) == PLAIN
    site.other.behaviour = engine(chunk({"delta": {"content": "b"}, "finish_reason": "stop"}), DONE)
    await site.scheduler.load(site.models[1])
    assert (await ask(site, model="other"))["choices"][0]["message"]["content"] == "b"


# --- what only a whole answer tells -------------------------------------------------------------------------------

PREFILL = [*MESSAGES, {"role": "assistant", "content": '{"a":'}]
DIFFERENT: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": PREFILL}),
    ("/v1/messages", {"messages": PREFILL}),
    ("/v1/responses", {"input": PREFILL}),
    (CHAT, {"continue_final_message": True}),
    (CHAT, {"add_generation_prompt": False}),
    (CHAT, {"chat_template_kwargs": {"add_generation_prompt": False}}),
]


@pytest.mark.parametrize(("path", "body"), DIFFERENT)
async def test_an_answer_that_may_begin_with_a_message_is_asked_for_plainly(
    site: UpstreamSite, path: str, body: dict[str, Any]
) -> None:
    site.upstream.behaviour = engine()
    assert await ask(site, path, **body) == PLAIN
    assert streamed(site) == [False]


async def test_an_escaped_role_is_a_role(site: UpstreamSite) -> None:
    site.upstream.behaviour = engine()
    body = json.dumps({"model": "tiny", "messages": PREFILL}).replace('"assistant"', '"\\u0061ssistant"')
    assert (await site.http.post(CHAT, content=body)).json() == PLAIN
    assert streamed(site) == [False]


async def test_an_empty_answer_is_asked_for_plainly_and_only_that(site: UpstreamSite) -> None:
    site.upstream.behaviour = engine(chunk({"delta": {"content": ""}, "finish_reason": "length"}), DONE)
    assert await ask(site, max_tokens=1) == PLAIN
    site.upstream.behaviour = engine(chunk({"delta": {"content": "b"}, "finish_reason": "stop"}), DONE)
    assert await ask(site) != PLAIN
    assert streamed(site) == [True, False, True]


# --- hostile streams ----------------------------------------------------------------------------------------------


async def test_lines_and_characters_of_any_kind_are_read(site: UpstreamSite) -> None:
    site.upstream.behaviour = engine(
        b'data: {"choices":[{"index":0,\r\ndata: "delta":{"content":"a\xff"}}]}\r\n\r\n',
        b'event: x\r\ndata:{"choices":[{"index":0,"delta":{"content":"\xc3\xa9"},"finish_reason":"stop"}]}\r\n\r',
        b"\ndata: [DONE]",
    )
    answer = await ask(site)
    assert answer["choices"][0]["message"]["content"] == "a\N{REPLACEMENT CHARACTER}é"


async def test_an_error_where_an_answer_is_expected_is_an_error(site: UpstreamSite) -> None:
    site.upstream.behaviour = engine(event({"error": "out of paper"}), DONE)
    response = await site.http.post(CHAT, json={"model": "tiny", "messages": MESSAGES})
    assert (response.status_code, response.json()["error"]["message"]) == (500, "out of paper")
    assert (await site.record()).status == 500


def endless_event(size: int) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD)
        await exchange.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"')
        for _ in range(size // 65536):
            await exchange.chunk(b"x" * 65536)
        await exchange.chunk(b'"},"finish_reason":"stop"}]}\n\n')
        await exchange.chunk(DONE)
        await exchange.send(b"0\r\n\r\n")

    return behave


@asynccontextmanager
async def loop_stalls() -> AsyncIterator[list[float]]:
    """Seconds by which the loop was late, each time."""
    late: list[float] = []
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        while True:
            began_s = loop.time()
            await asyncio.sleep(0.005)
            late.append(loop.time() - began_s - 0.005)

    watching = asyncio.create_task(watch())
    try:
        yield late
    finally:
        watching.cancel()


@pytest.mark.parametrize("mib", [48, 200])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_a_huge_event_ends_its_request_and_delays_no_other(site: UpstreamSite, path: str, mib: int) -> None:
    site.upstream.behaviour = endless_event(mib << 20)
    async with loop_stalls() as late:
        response = await site.http.post(path, json={"model": "tiny", "messages": MESSAGES})
    assert response.status_code == 502
    error = response.json()["error"]
    assert "more than 16 MiB" in error["message"]
    assert error["type"] == ("api_error" if path == "/v1/messages" else "upstream_error")
    await site.upstream.until(lambda upstream: upstream.cancelled == 1)
    assert max(late) < 0.5  # parsed again for each piece it took seconds


async def test_a_large_event_is_an_answer_and_delays_no_other(site: UpstreamSite) -> None:
    site.upstream.behaviour = endless_event(15 << 20)
    async with loop_stalls() as late:
        answer = await ask(site)
    assert len(answer["choices"][0]["message"]["content"]) == 15 << 20
    assert max(late) < 0.5


@pytest.mark.parametrize(("path", "shape"), [(CHAT, "upstream_error"), ("/v1/messages", "api_error")])
async def test_an_answer_without_end_is_ended(
    site: UpstreamSite, path: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregator, "MAX_ANSWER_BYTES", 1 << 20)
    words = chunk({"delta": {"content": "word " * 50}})
    if path == "/v1/messages":
        words = event(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 50}}
        )

    async def behave(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD)
        await exchange.chunk(event({"type": "message_start", "message": {}}) if path == "/v1/messages" else words)
        if path == "/v1/messages":
            start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
            await exchange.chunk(event(start))
        for _ in range(1000):  # 30 MB and more
            await exchange.chunk(words * 100)

    site.upstream.behaviour = behave
    response = await site.http.post(path, json={"model": "tiny", "messages": MESSAGES})
    assert (response.status_code, response.json()["error"]["type"]) == (502, shape)
    assert "answer of more than 1 MiB" in response.json()["error"]["message"]


# --- streams that end with an error -------------------------------------------------------------------------------


async def test_a_stream_that_ends_with_an_error_is_recorded_as_one(site: UpstreamSite) -> None:
    wrong = event({"error": {"code": 500, "message": "slot broke", "type": "server_error"}})
    site.upstream.behaviour = streams(token("a"), wrong)
    response = await site.stream()
    assert (response.status_code, response.content) == (200, token("a") + wrong)
    record = await site.record()
    assert (record.status, record.error, record.streamed) == (500, "slot broke", True)


async def test_a_stream_that_the_engine_breaks_off_is_recorded_as_an_error(site: UpstreamSite) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD)
        await exchange.chunk(token("a"))
        await exchange.die()

    site.upstream.behaviour = behave
    async with RawClient.connected(site.port) as client:
        await client.post(CHAT, json.dumps(STREAM).encode())
        await client.until(b"upstream_error")
    assert (await site.record()).status == 502


async def test_a_stream_that_ends_without_finish_gets_no_other_end(site: UpstreamSite) -> None:
    site.upstream.behaviour = streams(token("a"))
    assert (await site.stream()).content == token("a")


async def test_an_option_that_makes_streams_different_is_known(site: UpstreamSite) -> None:
    runtime = site.engine.runtime(1)
    changed = msgspec.structs.replace(runtime, options={"reasoning-format": "deepseek-legacy"})
    site.engine._runtimes[1] = changed
    site.upstream.behaviour = engine()
    assert await ask(site) == PLAIN
    assert streamed(site) == [False]
