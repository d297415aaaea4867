"""The inference app on the real uvicorn, in front of an engine of small servers; on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import uvloop
from msgspec.structs import replace

from llama_async_proxy.api.inference.app import InferenceApp
from llama_async_proxy.errors import LoadFailed, NotFound
from llama_async_proxy.inference.request_log import CLIENT_GONE
from llama_async_proxy.inference.response_writer import KeepAliveComments
from llama_async_proxy.records.models import Variant
from llama_async_proxy.records.requests import RequestPhase
from llama_async_proxy.records.runtime import ModelStatus
from support.asgi import RawClient
from support.site import CHAT, STREAM, UpstreamSite
from support.upstream import (
    LAST_EVENTS,
    Exchange,
    answers,
    breaks_off_after,
    event,
    never_answers,
    says,
    streams,
    token,
)

LOOP_FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=[False, True], ids=["slow path", "fast path"], autouse=True)
def fast_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Every test runs on the slow path alone, and with the fast path in front of it."""
    chosen: bool = request.param
    monkeypatch.setattr(UpstreamSite, "default_fast_path", chosen)
    return chosen


@pytest.fixture
async def cold_site() -> AsyncIterator[UpstreamSite]:
    """No model is loaded yet."""
    async with UpstreamSite().running() as running:
        yield running


@pytest.fixture
async def site(cold_site: UpstreamSite) -> UpstreamSite:
    """ "tiny" is ready; otherwise every request would take the slow path."""
    await cold_site.scheduler.load(cold_site.models[0])
    return cold_site


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    return error


# --- bytes through ------------------------------------------------------------------------------------------------


async def test_a_json_answer_passes_verbatim(site: UpstreamSite) -> None:
    body = b'{"z": 1,  "a":[1.0, 2],"text":"\xc3\xa9\\u00e9"}\n'
    site.upstream.behaviour = answers(body, b"201 Created")
    response = await site.http.post(CHAT, json={"model": "tiny"})
    assert (response.status_code, response.content) == (201, body)
    assert dict(response.headers) == {
        "content-type": "application/json; charset=utf-8",
        "content-length": str(len(body)),
        "x-request-id": (await site.record()).id,
    }


async def test_a_variants_defaults_reach_the_engine_and_its_name_stays(site: UpstreamSite) -> None:
    bold = Variant("tiny-bold", {"temperature": 1.5, "top_k": 3}, "Be bold.")
    site.models = (replace(site.models[0], variants=(bold,)), *site.models[1:])
    user = {"role": "user", "content": "hi"}
    await site.stream(model="Tiny-Bold", messages=[user], top_k=1)
    await site.stream(messages=[user])
    bold_body, plain_body = (exchange.json for exchange in site.upstream.requests)
    assert bold_body == {
        "model": "Tiny-Bold",
        "stream": True,
        "messages": [{"role": "system", "content": "Be bold."}, user],
        "top_k": 1,
        "temperature": 1.5,
    }
    assert plain_body == {"model": "tiny", "stream": True, "messages": [user]}


async def test_a_stream_passes_verbatim(site: UpstreamSite) -> None:
    events = (token("a"), b": ping\n\n", event({"odd": "spacing"}), *LAST_EVENTS)
    site.upstream.behaviour = streams(*events)
    response = await site.stream()
    assert response.content == b"".join(events)
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-accel-buffering"] == "no"
    assert not {"server", "access-control-allow-origin", "keep-alive"} & set(response.headers)


async def test_an_engines_error_passes_verbatim(site: UpstreamSite) -> None:
    body = b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_ctx":512}}'
    site.upstream.behaviour = answers(body, b"400 Bad Request")
    response = await site.stream()
    assert (response.status_code, response.content) == (400, body)
    assert (await site.record()).status == 400


async def test_each_token_leaves_when_it_arrives(site: UpstreamSite) -> None:
    may_go_on = asyncio.Semaphore(0)
    site.upstream.behaviour = streams(token("a"), token("b"), before_each=lambda _: may_go_on.acquire())
    async with RawClient.connected(site.port) as client:
        await client.post(CHAT, json.dumps(STREAM).encode())
        await client.until(b"\r\n\r\n")
        for data in (token("a"), token("b")):
            may_go_on.release()
            assert await client.until(data) == b"%x\r\n%b" % (len(data), data)
            await client.until(b"\r\n")
        assert await client.until(b"0\r\n\r\n") == b"0\r\n\r\n"


async def test_the_request_reaches_the_engine_verbatim_without_headers_for_the_service(site: UpstreamSite) -> None:
    body = b'{ "model":"GPT-4o",  "stream": true, "messages":[] }'
    headers = {
        "authorization": "Bearer secret",
        "cookie": "session=1",
        "x-api-key": "secret",
        "origin": "http://evil.example",
        "connection": "keep-alive, x-hop",
        "x-hop": "1",
        "x-custom": "c1",
        "x-conversation-id": "it would go on without its client",
        "content-type": "application/json",
    }
    await site.http.post(f"{CHAT}?autoload=1", content=body, headers=headers)
    [received] = site.upstream.requests
    assert (received.target, received.body) == (f"{CHAT}?autoload=1", body)
    assert received.header("x-custom") == "c1"
    assert received.header("content-type") == "application/json"
    for name in (
        "authorization",
        "cookie",
        "x-api-key",
        "origin",
        "x-hop",
        "accept-encoding",
        "connection",
        "x-conversation-id",
    ):
        assert received.header(name) is None, name


@pytest.mark.parametrize("path", ["/props", "/slots", "/lora-adapters", "/metrics"])
async def test_native_gets_name_the_model_in_the_query(site: UpstreamSite, path: str) -> None:
    site.upstream.behaviour = answers([])
    assert (await site.http.get(path, params={"model": "tiny"})).status_code == 200
    assert site.upstream.requests[0].target == f"{path}?model=tiny"


async def test_head_is_answered_without_a_body(site: UpstreamSite) -> None:
    response = await site.http.head("/props?model=tiny")
    assert (response.status_code, response.content) == (200, b"")
    assert site.upstream.requests[0].method == "HEAD"


async def test_a_form_names_its_model(site: UpstreamSite) -> None:
    audio = {"file": ("a.wav", b"\0" * 100_000, "audio/wav")}
    response = await site.http.post("/v1/audio/transcriptions", data={"model": "tiny"}, files=audio)
    assert response.status_code == 200
    assert b"\0" * 100_000 in site.upstream.requests[0].body


async def test_two_models_are_told_apart_on_one_connection(site: UpstreamSite) -> None:
    for name, expected in (("tiny", {"ok": True}), ("other", {"from": "other"}), ("1", {"ok": True})):
        assert (await site.http.post("/completion", json={"model": name})).json() == expected


async def test_many_requests_at_once_each_get_their_own_answer(site: UpstreamSite) -> None:
    async def echo(exchange: Exchange) -> None:
        await answers({"you": exchange.json["n"]})(exchange)

    site.upstream.behaviour = echo
    requests = (site.http.post("/completion", json={"model": "tiny", "n": n}) for n in range(100))
    assert [r.json()["you"] for r in await asyncio.gather(*requests)] == list(range(100))


# --- requests in flight -------------------------------------------------------------------------------------------


async def test_a_client_may_choose_the_id_of_its_request(site: UpstreamSite) -> None:
    response = await site.http.post("/tokenize", json={"model": "tiny"}, headers={"x-request-id": "mine/1"})
    assert response.headers["x-request-id"] == "mine/1" == (await site.record()).id
    assert site.upstream.requests[0].header("x-request-id") == "mine/1"


async def test_clients_are_told_apart_by_their_keys(site: UpstreamSite) -> None:
    openai_key, anthropic_key = {"authorization": "Bearer sk-one"}, {"x-api-key": "sk-one"}
    other_key, no_key = {"authorization": "Bearer sk-two"}, dict[str, str]()
    for headers in (openai_key, anthropic_key, other_key, no_key):
        await site.http.post(CHAT, json={"model": "tiny"}, headers=headers)
    async with asyncio.timeout(30):
        while len(site.records) < 4:  # an answer is whole a moment before its request has ended
            await asyncio.sleep(0.01)
    one, same, other, none = (record.key for record in site.records)
    assert one == same != other
    assert none is None
    assert all(request.header("authorization") is None for request in site.upstream.requests)


async def test_an_id_unfit_for_a_log_is_replaced(site: UpstreamSite) -> None:
    response = await site.http.post("/tokenize", json={"model": "tiny"}, headers={"x-request-id": "x" * 129})
    assert response.headers["x-request-id"] == (await site.record()).id != "x" * 129


async def test_a_cancelled_stream_ends_with_an_error_event_and_frees_its_slot(site: UpstreamSite) -> None:
    site.upstream.behaviour = streams(*[token("a")] * 10_000, before_each=lambda _: asyncio.sleep(0.01))
    async with RawClient.connected(site.port) as client:
        await client.post(CHAT, json.dumps(STREAM).encode(), "x-request-id: r1")
        await client.until(token("a"))
        [in_flight] = site.in_flight.all()
        assert (in_flight.id, in_flight.model, in_flight.phase) == ("r1", "tiny", RequestPhase.GENERATING)
        assert in_flight.tokens >= 1
        assert site.in_flight.cancel("r1")[0].id == "r1"
        rest = await client.until(b"\r\n0\r\n\r\n")
        assert b'"cancelled_error"' in rest
        assert b"[DONE]" not in rest
    await site.upstream.until(lambda u: u.cancelled == 1)
    assert (await site.record()).error == "The request was cancelled."
    assert not site.in_flight.all()


async def test_a_cancelled_request_gets_an_error_that_clients_do_not_retry(site: UpstreamSite) -> None:
    site.upstream.behaviour = never_answers
    request = asyncio.create_task(site.http.post(CHAT, json={"model": "tiny"}, headers={"x-request-id": "r1"}))
    await site.upstream.until(lambda u: len(u.requests) == 1)
    assert [in_flight.phase for in_flight in site.in_flight.cancel("r1")] == [RequestPhase.PROMPT]
    response = await request
    assert (response.status_code, error_of(response)["type"]) == (499, "cancelled_error")
    await site.upstream.until(lambda u: u.cancelled == 1)


async def test_a_request_that_waits_for_a_load_can_be_cancelled(cold_site: UpstreamSite) -> None:
    cold_site.engine.gate.clear()
    request = asyncio.create_task(cold_site.http.post(CHAT, json={"model": "tiny"}, headers={"x-request-id": "r1"}))
    async with asyncio.timeout(30):
        while cold_site.engine.runtime(1).status is not ModelStatus.LOADING:
            await asyncio.sleep(0.001)
    assert [in_flight.phase for in_flight in cold_site.in_flight.cancel("r1")] == [RequestPhase.LOADING]
    assert (await request).status_code == 499
    with pytest.raises(NotFound):
        cold_site.in_flight.cancel("r1")


# --- clients that leave or are slow -------------------------------------------------------------------------------


async def test_a_client_that_leaves_a_stream_cancels_upstream_at_once(site: UpstreamSite) -> None:
    site.upstream.behaviour = streams(*[token("a")] * 10_000, before_each=lambda _: asyncio.sleep(0.01))
    async with RawClient.connected(site.port) as client:
        await client.post(CHAT, json.dumps(STREAM).encode())
        await client.until(token("a"))
    left = asyncio.get_running_loop().time()
    await site.upstream.until(lambda u: u.cancelled == 1)
    assert asyncio.get_running_loop().time() - left < 0.5
    record = await site.record()
    assert (record.status, record.streamed, record.error) == (CLIENT_GONE, True, "the client closed its connection")
    assert site.scheduler.in_flight(1) == 0


async def test_a_client_that_leaves_before_the_answer_cancels_upstream_too(site: UpstreamSite) -> None:
    site.upstream.behaviour = never_answers
    async with RawClient.connected(site.port) as client:
        await client.post(CHAT, b'{"model":"tiny"}')
        await site.upstream.until(lambda u: len(u.requests) == 1)
    await site.upstream.until(lambda u: u.cancelled == 1)
    assert (await site.record()).status == CLIENT_GONE


async def test_a_client_that_leaves_the_queue_starts_no_load() -> None:
    async with UpstreamSite(max_models=1).running() as site, site.scheduler.lease(site.models[0]):
        async with RawClient.connected(site.port) as client:
            await client.post(CHAT, b'{"model":"other"}')
            await client.writer.drain()
            while site.scheduler.runtime(2).queue is None:
                await asyncio.sleep(0.001)
        assert (await site.record()).status == CLIENT_GONE
        assert ("load", 2) not in site.engine.calls


async def test_a_client_that_leaves_while_sending_its_body_reaches_no_engine(site: UpstreamSite) -> None:
    async with RawClient.connected(site.port) as client:
        client.writer.write(b"POST /completion HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        await client.writer.drain()
    assert (await site.http.post("/completion", json={"model": "tiny"})).status_code == 200
    assert len(site.upstream.requests) == 1


async def test_a_slow_client_slows_only_its_own_stream(site: UpstreamSite) -> None:
    sent = 0
    data = token("x" * 60_000)

    async def floods(exchange: Exchange) -> None:
        nonlocal sent
        if exchange.json.get("fast"):
            return await streams(token("quick"), *LAST_EVENTS)(exchange)

        async def count(_: int) -> None:
            nonlocal sent
            sent += 1

        await streams(*[data] * 1000, before_each=count)(exchange)
        return None

    site.upstream.behaviour = floods
    async with RawClient.connected(site.port) as slow:
        await slow.post(CHAT, json.dumps(STREAM).encode())
        await slow.until(b"\r\n\r\n")
        before = -1
        while before < sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 700  # of 1000 events, 60 MB: the rest waits in the engine
        assert (await site.stream(fast=True)).content.startswith(token("quick"))


async def test_requests_leave_no_task_or_connection_however_they_end(site: UpstreamSite) -> None:
    tasks_before = len(asyncio.all_tasks())
    endless = streams(*[token("a")] * 10_000, before_each=lambda _: asyncio.sleep(0.01))
    for behaviour in (answers({}), streams(token("a")), endless, breaks_off_after(token("a")), Exchange.die):
        site.upstream.behaviour = behaviour
        for _ in range(5):
            async with RawClient.connected(site.port) as client:
                await client.post(CHAT, json.dumps(STREAM).encode())
                await client.until(b"\r\n\r\n")
    await site.upstream.until(lambda u: u.open <= 1)  # one connection is kept
    while len(asyncio.all_tasks()) > tasks_before + site.upstream.open * 2:
        await asyncio.sleep(0.01)
    assert len(site.records) == 25
    assert site.scheduler.in_flight(1) == 0


# --- engines that fail --------------------------------------------------------------------------------------------


async def test_an_engine_that_dies_mid_stream_ends_it_with_an_error_event(site: UpstreamSite) -> None:
    site.upstream.behaviour = breaks_off_after(token("a"), token("b"))
    response = await site.stream()
    assert response.status_code == 200
    told = response.content.removeprefix(token("a") + token("b"))
    assert json.loads(told.removeprefix(b"data: "))["error"]["type"] == "upstream_error"
    assert b"[DONE]" not in response.content
    record = await site.record()
    assert record.error == "The model's process broke off its answer."
    assert record.completion_tokens is None


async def test_the_beginning_of_an_event_never_reaches_the_client(site: UpstreamSite) -> None:
    site.upstream.behaviour = breaks_off_after(token("a"), b'data: {"cho')
    response = await site.stream()
    first, error, end = response.content.split(b"\n\n")
    assert first + b"\n\n" == token("a")
    assert error.startswith(b"data: {")
    assert b'"upstream_error"' in error
    assert end == b""


@pytest.mark.parametrize(("path", "name"), [("/v1/messages", "error"), ("/v1/responses", "error")])
async def test_the_error_event_is_in_the_format_of_its_route(site: UpstreamSite, path: str, name: str) -> None:
    site.upstream.behaviour = breaks_off_after(b"event: message_start\ndata: {}\n\n")
    lines = (await site.stream(path)).text.split("\n\n")[1].split("\n")
    assert lines[0] == f"event: {name}"
    assert json.loads(lines[1].removeprefix("data: "))["type"] == "error"


@pytest.fixture
def custom_site(site: UpstreamSite) -> UpstreamSite:
    """Another program than llama-server serves "tiny"; its chunks may end anywhere."""
    site.models = (replace(site.models[0], options={"command": "serve"}), *site.models[1:])
    return site


def parts_of(*events: bytes) -> tuple[bytes, ...]:
    joined = b"".join(events)
    return tuple(joined[i : i + 7] for i in range(0, len(joined), 7))


async def test_a_stream_of_other_chunks_than_events_passes_whole(custom_site: UpstreamSite) -> None:
    custom_site.upstream.behaviour = streams(*parts_of(token("a"), *LAST_EVENTS))
    assert (await custom_site.stream()).content == b"".join((token("a"), *LAST_EVENTS))
    assert (await custom_site.record()).completion_tokens == 3


async def test_a_stream_of_other_chunks_that_breaks_off_ends_between_events(custom_site: UpstreamSite) -> None:
    custom_site.upstream.behaviour = breaks_off_after(*parts_of(token("a"), token("b"))[:-1])
    first, error, end = (await custom_site.stream()).content.split(b"\n\n")
    assert first + b"\n\n" == token("a")
    assert b'"upstream_error"' in error
    assert end == b""


PROGRESS = b'data: {"choices":[],"prompt_progress":{"total":9}}\n\n'
CHAT_END = event(
    {
        "choices": [],
        "created": 1,
        "id": "c",
        "model": "tiny",
        "system_fingerprint": "b1",
        "usage": {"completion_tokens": 2},
        "timings": {},
    }
)


async def test_a_json_response_is_aggregated_from_the_engines_stream(site: UpstreamSite) -> None:
    site.upstream.behaviour = streams(PROGRESS, token("a"), token("b"), CHAT_END)
    response = await site.http.post(CHAT, json={"model": "tiny"})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.json()["choices"][0]["message"] == {"role": "assistant", "content": "ab"}
    assert site.upstream.requests[0].json["stream"] is True
    assert not (await site.record()).streamed


async def test_a_stream_that_cannot_be_aggregated_is_replaced_by_a_plain_request(site: UpstreamSite) -> None:
    async def streams_nonsense(exchange: Exchange) -> None:
        await (streams(event("no")) if exchange.json.get("stream") else answers({"plain": True}))(exchange)

    site.upstream.behaviour = streams_nonsense
    assert (await site.http.post(CHAT, json={"model": "tiny"})).json() == {"plain": True}
    assert [bool(request.json.get("stream")) for request in site.upstream.requests] == [True, False]


LONG = [{"role": "user", "content": "x" * 3000}]


async def test_progress_events_that_only_the_service_asked_for_are_filtered_out(site: UpstreamSite) -> None:
    site.upstream.behaviour = streams(PROGRESS, PROGRESS, token("a"), *LAST_EVENTS)
    response = await site.stream(messages=LONG)
    assert response.content == b"".join((token("a"), *LAST_EVENTS))
    [exchange] = site.upstream.requests
    assert exchange.json == {"model": "tiny", "stream": True, "messages": LONG, "return_progress": True}
    assert (await site.record()).streamed


async def test_an_error_before_the_first_token_of_a_long_prompt_has_its_status(site: UpstreamSite) -> None:
    site.upstream.behaviour = breaks_off_after(PROGRESS, PROGRESS)
    response = await site.stream(messages=LONG)
    assert (response.status_code, response.json()["error"]["type"]) == (502, "upstream_error")
    site.upstream.behaviour = answers(b'{"error":{"message":"too long"}}', b"400 Bad Request")
    assert (await site.stream(messages=LONG)).status_code == 400


async def test_an_engine_that_dies_before_its_answer_is_a_502(site: UpstreamSite) -> None:
    site.upstream.behaviour = Exchange.die
    response = await site.stream()
    assert response.status_code == 502
    assert error_of(response) == {
        "code": 502,
        "message": "The model's process closed the connection without an answer.",
        "type": "upstream_error",
    }


async def test_an_answer_with_a_length_that_breaks_off_closes_the_connection(site: UpstreamSite) -> None:
    site.upstream.behaviour = says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all", then_close=True)
    with pytest.raises(httpx.RemoteProtocolError):
        await site.http.post("/completion", json={"model": "tiny"})
    assert (await site.record()).error == "The model's process broke off its answer."


async def test_a_silent_engine_is_a_timeout() -> None:
    async with UpstreamSite(first_token_timeout_s=0.05, idle_timeout_s=0.05).running() as site:
        site.upstream.behaviour = never_answers
        response = await site.http.post("/completion", json={"model": "tiny"})
        assert (response.status_code, error_of(response)["type"]) == (504, "timeout_error")
        site.upstream.behaviour = streams(token("a"), token("b"), before_each=lambda n: asyncio.sleep(60 * n))
        assert b"timeout_error" in (await site.stream()).content


async def test_a_failed_load_is_an_error_with_its_reason(cold_site: UpstreamSite) -> None:
    cold_site.engine.failure = LoadFailed("The model needs 20 GiB; 8 GiB are free.", exit_code=1)
    response = await cold_site.stream()
    assert response.status_code == 503
    assert error_of(response)["message"] == "The model needs 20 GiB; 8 GiB are free."


async def test_an_unload_ends_running_streams_with_an_error_event() -> None:
    async with UpstreamSite(drain_s=0.05).running() as site:
        site.upstream.behaviour = streams(*[token("a")] * 10_000, before_each=lambda _: asyncio.sleep(0.01))
        request = asyncio.create_task(site.stream())
        await site.upstream.until(lambda u: len(u.requests) == 1)
        await site.scheduler.unload(site.models[0])
        response = await request
        assert b"Model 'tiny' was unloaded." in response.content
        assert b"[DONE]" not in response.content


async def test_a_stopping_service_ends_streams_with_an_error_event(site: UpstreamSite) -> None:
    site.upstream.behaviour = streams(*[token("a")] * 10_000, before_each=lambda _: asyncio.sleep(0.01))
    request = asyncio.create_task(site.stream())
    await site.upstream.until(lambda u: len(u.requests) == 1)
    site.scheduler.revoke_all()
    response = await request
    assert b"The service is stopping." in response.content
    await site.upstream.until(lambda u: u.cancelled == 1)


async def test_an_unexpected_exception_is_a_500_with_a_trace_id(
    site: UpstreamSite, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> tuple[Any, ...]:
        raise ZeroDivisionError("a bug")

    site.engine.runtimes = broken  # type: ignore[method-assign]
    response = await site.http.post("/completion", json={})
    assert response.status_code == 500
    trace_id = (await site.record()).id
    assert trace_id in error_of(response)["message"]
    assert trace_id in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert "ZeroDivisionError" not in response.text


# --- waiting for a load -------------------------------------------------------------------------------------------

IMPATIENT = KeepAliveComments(hold_s=0.05, comment_s=0.02)


async def test_a_stream_is_kept_alive_while_its_model_loads() -> None:
    async with UpstreamSite().running(IMPATIENT) as site:
        site.upstream.behaviour = streams(token("a"), *LAST_EVENTS)
        site.engine.gate.clear()
        async with RawClient.connected(site.port) as client:
            await client.post(CHAT, json.dumps(STREAM).encode(), "connection: close")
            head = await client.until(b": loading\n\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
            await client.until(b": loading\n\n")
            site.engine.gate.set()
            rest = await client.rest()
        for data in (token("a"), *LAST_EVENTS):
            assert data in rest
        record = await site.record()
        assert record.load_ms is not None
        assert record.load_ms >= 50


async def test_a_load_that_fails_late_is_an_error_event() -> None:
    async with UpstreamSite().running(IMPATIENT) as site:
        site.engine.gate.clear()
        site.engine.failure = LoadFailed("out of memory")
        async with RawClient.connected(site.port) as client:
            await client.post(CHAT, json.dumps(STREAM).encode())
            await client.until(b": loading\n\n")
            site.engine.gate.set()
            told = await client.until(b"\r\n0\r\n\r\n")
        assert b'"out of memory"' in told
        assert (await site.record()).error == "out of memory"


async def test_an_engines_error_after_an_early_start_is_an_error_event() -> None:
    async with UpstreamSite().running(IMPATIENT) as site:
        body = b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}}'
        site.upstream.behaviour = answers(body, b"400 Bad Request")
        site.engine.gate.clear()
        async with RawClient.connected(site.port) as client:
            await client.post(CHAT, json.dumps(STREAM).encode())
            await client.until(b": loading\n\n")
            site.engine.gate.set()
            assert b"data: " + body + b"\n\n" in await client.until(b"\r\n0\r\n\r\n")
        assert (await site.record()).error == "too long"


async def test_a_quick_load_writes_no_comment() -> None:
    async with UpstreamSite().running(KeepAliveComments(hold_s=5.0)) as site:
        site.upstream.behaviour = streams(token("a"), *LAST_EVENTS)
        assert (await site.stream()).content == token("a") + b"".join(LAST_EVENTS)


async def test_a_client_that_leaves_while_loading_cancels_its_wait() -> None:
    async with UpstreamSite().running(IMPATIENT) as site:
        site.engine.gate.clear()
        async with RawClient.connected(site.port) as client:
            await client.post(CHAT, json.dumps(STREAM).encode())
            await client.until(b": loading\n\n")
        assert (await site.record()).status == CLIENT_GONE
        assert site.engine.runtime(1).status is ModelStatus.LOADING
        assert not site.upstream.requests


# --- errors of the caller -----------------------------------------------------------------------------------------


async def test_an_unknown_model_is_a_404_that_names_close_ones(site: UpstreamSite) -> None:
    response = await site.http.post(CHAT, json={"model": "tinny"})
    assert response.status_code == 404
    assert error_of(response)["code"] == "model_not_found"
    assert "Did you mean tiny?" in error_of(response)["message"]
    assert (await site.record()).model == "tinny"


async def test_an_unknown_model_has_anthropics_error_format(site: UpstreamSite) -> None:
    response = await site.http.post("/v1/messages", json={"model": "nothing"})
    assert response.status_code == 404
    assert response.json()["type"] == "error"
    assert error_of(response)["type"] == "not_found_error"


async def test_without_a_model_the_only_loaded_one_answers(cold_site: UpstreamSite) -> None:
    refused = await cold_site.http.post("/completion", json={})
    assert (refused.status_code, error_of(refused)["type"]) == (400, "invalid_request_error")
    await cold_site.scheduler.load(cold_site.models[1])
    assert (await cold_site.http.post("/completion", json={})).json() == {"from": "other"}
    assert (await cold_site.http.get("/props")).status_code == 200
    await cold_site.scheduler.load(cold_site.models[0])
    assert "name one of other, tiny" in error_of(await cold_site.http.post("/completion", json={}))["message"]


async def test_the_error_for_invalid_json_names_the_body(site: UpstreamSite) -> None:
    response = await site.http.post(CHAT, content=b"{bad")
    assert response.status_code == 400
    assert error_of(response)["message"].startswith("body: is not valid JSON")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_a_413(chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    async with UpstreamSite(max_body_mib=1).running() as site:
        content = chunks() if chunked else b" " * (40 * 65536)
        response = await site.http.post(CHAT, content=content)
        assert response.status_code == 413
        assert "1 MiB" in error_of(response)["message"]
        assert (await site.record()).status == 413


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/images"), ("POST", "/v1/images"), ("DELETE", "/v1/files")])
async def test_unknown_routes_answer_with_json(site: UpstreamSite, method: str, path: str) -> None:
    response = await site.http.request(method, path)
    assert response.status_code == 404
    assert error_of(response)["type"] == "not_found_error"
    assert f"{method} {path}" in error_of(response)["message"]


# --- what is ours -------------------------------------------------------------------------------------------------


async def test_the_model_list_has_every_registered_model(site: UpstreamSite) -> None:
    await site.scheduler.load(site.models[0])
    listed = (await site.http.get("/v1/models")).json()
    assert [(m["id"], m["status"]["value"]) for m in listed["data"]] == [("tiny", "loaded"), ("other", "unloaded")]


async def test_one_model_is_found_by_any_of_its_names(site: UpstreamSite) -> None:
    assert (await site.http.get("/v1/models/gpt-4o")).json()["id"] == "tiny"
    missing = await site.http.get("/v1/models/none/such")
    assert (missing.status_code, error_of(missing)["code"]) == (404, "model_not_found")


async def test_health_says_the_service_answers(site: UpstreamSite) -> None:
    for path in ("/health", "/v1/health"):
        assert (await site.http.get(path)).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        (CHAT, b"", True),
        ("/v1/anything", b"", True),
        ("/props", b"", True),
        ("/metrics", b"model=tiny", True),
        ("/metrics", b"", False),
        ("/models", b"", False),
        ("/api/models", b"", False),
        ("/", b"", False),
    ],
)
def test_the_app_handles_its_routes_only(path: str, query: bytes, expected: bool) -> None:
    assert InferenceApp.handles({"type": "http", "path": path, "query_string": query}) is expected
    assert not InferenceApp.handles({"type": "websocket", "path": path, "query_string": query})


# --- records and clients ------------------------------------------------------------------------------------------


async def test_a_stream_leaves_a_complete_record(cold_site: UpstreamSite) -> None:
    cold_site.upstream.behaviour = streams(token("a"), *LAST_EVENTS)
    await cold_site.stream(model="gpt-4o")
    record = await cold_site.record()
    assert (record.route, record.model, record.client, record.status) == (CHAT, "tiny", "127.0.0.1", 200)
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (21, 3, 20)
    assert (record.streamed, record.tokens_per_second, record.error) == (True, 50.5, None)
    assert record.queued_ms is not None
    assert record.load_ms is not None
    assert record.first_token_ms is not None
    assert 0 < record.load_ms <= record.first_token_ms <= record.total_ms


async def test_the_openai_package_streams_and_raises(site: UpstreamSite) -> None:
    async with openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id async for model in client.models.list()] == ["tiny", "other"]
        messages: list[Any] = [{"role": "user", "content": "hi"}]

        site.upstream.behaviour = streams(token("Hel"), token("lo"), *LAST_EVENTS)
        stream = await client.chat.completions.create(model="tiny", messages=messages, stream=True)
        texts = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
        assert texts == ["Hel", "lo"]

        site.upstream.behaviour = breaks_off_after(token("Hel"))
        stream = await client.chat.completions.create(model="tiny", messages=messages, stream=True)
        with pytest.raises(openai.APIError, match="broke off"):
            async for _ in stream:
                pass

        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="tinny", messages=messages)
        assert caught.value.code == "model_not_found"
