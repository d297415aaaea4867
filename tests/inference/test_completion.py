from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from llama_async_proxy.errors import ContextExceeded, LoadFailed, NotFound, Unavailable, UpstreamFailed
from llama_async_proxy.events import EventBus
from llama_async_proxy.inference.completion import Completer
from llama_async_proxy.inference.in_flight import InFlightRequests
from llama_async_proxy.inference.requests.names import Names
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.scheduling.snapshot import SchedulerContext
from llama_async_proxy.inference.streaming import aggregator
from llama_async_proxy.inference.upstream.client import UpstreamClient
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.records.chats import Completion, CompletionRequest
from llama_async_proxy.records.models import Variant
from llama_async_proxy.records.requests import RequestRecord
from support.upstream import (
    STREAM_HEAD,
    Exchange,
    RunningEngine,
    Upstream,
    answers,
    make_model,
    make_settings,
    make_spec,
)

MODEL = make_model(1, "tiny", variants=(Variant("bold", {"temperature": 1.5, "top_k": 1}, "Be bold."),))
ASKED = CompletionRequest(
    "tiny", {"messages": [{"role": "user", "content": "Hi"}], "top_k": 5}, "10.0.0.7", "/api/chat"
)


class Desk:
    """A completer with a model behind it."""

    def __init__(
        self,
        upstream: Upstream,
        engine: RunningEngine,
        completer: Completer,
        scheduler: ModelScheduler,
        in_flight: InFlightRequests,
        recorded: list[RequestRecord],
    ) -> None:
        self.upstream, self.engine, self.completer, self.scheduler = upstream, engine, completer, scheduler
        self.in_flight = in_flight
        self._recorded = recorded
        self.chunks: list[tuple[str, str]] = []
        self.stop = asyncio.Event()

    @property
    def records(self) -> list[RequestRecord]:
        self.in_flight.record()
        return self._recorded

    async def ask(self, request: CompletionRequest = ASKED) -> Completion:
        return await self.completer.complete(request, lambda *chunk: self.chunks.append(chunk), self.stop.wait)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    upstream, bus, pool = Upstream(), EventBus(), ConnectionPool(make_settings)
    async with upstream.serving():
        engine = RunningEngine(bus, {1: upstream.endpoint})
        scheduler = ModelScheduler(
            engine,
            SchedulerContext(
                settings=make_settings, models=lambda: (MODEL,), spec_for=make_spec, on_use=lambda *_: None
            ),
            bus,
        )
        recorded: list[RequestRecord] = []
        in_flight = InFlightRequests(
            scheduler.runtime, bus, positions=scheduler.queue_positions, finished=recorded.extend
        )
        running = asyncio.create_task(scheduler.run())
        completer = Completer(
            names=Names(lambda: (MODEL,)),
            scheduler=scheduler,
            client=UpstreamClient(pool),
            in_flight=in_flight,
        )
        desk = Desk(upstream, engine, completer, scheduler, in_flight, recorded)
        yield desk
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        pool.close()


def streams(*chunks: bytes, ends: bool = True, then: Callable[[Exchange], Awaitable[None]] | None = None) -> Any:
    async def behave(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD)
        for chunk in chunks:
            await exchange.chunk(chunk)
        if then is not None:
            await then(exchange)
        if ends:
            await exchange.send(b"0\r\n\r\n")

    return behave


def delta(content: bytes, kind: bytes = b"content") -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"%b":"%b"}}]}\n\n' % (kind, content)


END = b'data: {"choices":[],"usage":{"completion_tokens":2,"prompt_tokens":9}}\n\ndata: [DONE]\n\n'


async def test_a_variant_brings_its_defaults(desk: Desk) -> None:
    desk.upstream.behaviour = streams(delta(b"Hi"), END)
    await desk.ask(replace(ASKED, model="Bold"))
    [sent] = desk.upstream.requests
    assert sent.json == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be bold."}, {"role": "user", "content": "Hi"}],
        "top_k": 5,
        "temperature": 1.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert desk.records[0].model == "tiny"


async def test_text_comes_as_it_is_sent_and_the_request_is_recorded(desk: Desk) -> None:
    role = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
    desk.upstream.behaviour = streams(role, delta(b"Hm", b"reasoning_content"), delta(b"Hi") + delta(b" you"), END)
    completion = await desk.ask()
    assert desk.chunks == [("", "Hm"), ("Hi", ""), (" you", "")]
    assert desk.records == [completion.record]
    record = completion.record
    assert (record.model, record.route, record.client, record.status) == ("tiny", "/api/chat", "10.0.0.7", 200)
    assert (record.prompt_tokens, record.completion_tokens, completion.was_stopped) == (9, 2, False)
    [sent] = desk.upstream.requests
    assert sent.target == "/v1/chat/completions"
    assert sent.json == {
        **ASKED.body,
        "model": "tiny",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert desk.scheduler.in_flight(1) == 0


async def test_stopping_closes_the_connection_to_the_engine(desk: Desk) -> None:
    async def linger(_: Exchange) -> None:
        await asyncio.Event().wait()

    desk.upstream.behaviour = streams(delta(b"Hi"), then=linger)
    asking = asyncio.create_task(desk.ask())
    async with asyncio.timeout(30):
        while not desk.chunks:
            await asyncio.sleep(0.001)
    assert not desk.completer.is_idle("tiny")
    desk.stop.set()
    assert (await asking).was_stopped
    await desk.upstream.until(lambda upstream: upstream.cancelled == 1)
    assert desk.completer.is_idle("tiny")


async def test_a_completion_is_listed_in_flight_and_can_be_cancelled_there(desk: Desk) -> None:
    desk.engine.gate.clear()
    asking = asyncio.create_task(desk.ask())
    await asyncio.sleep(0)
    [seen] = desk.in_flight.all()
    assert (seen.route, seen.model, seen.client) == ("/api/chat", "tiny", "10.0.0.7")
    desk.in_flight.cancel(seen.id)
    assert (await asking).was_stopped
    assert desk.in_flight.all() == ()
    desk.engine.gate.set()


async def test_stopping_ends_the_wait_for_a_model(desk: Desk) -> None:
    desk.engine.gate.clear()
    asking = asyncio.create_task(desk.ask())
    await asyncio.sleep(0)
    desk.stop.set()
    assert (await asking).was_stopped
    desk.engine.gate.set()


FAULTS: list[tuple[Any, str]] = [
    (answers({"error": {"message": "context too long"}}, status=b"400 Bad Request"), "400: context too long"),
    (answers({"detail": "odd"}, status=b"500 Oops"), "odd"),
    (streams(delta(b"Hi"), b'data: {"error":{"message":"slot broke"}}\n\n'), "slot broke"),
    (streams(b"data: {nonsense\n\n"), "an invalid event"),
    (streams(delta(b"Hi"), then=lambda exchange: exchange.die()), "broke off"),
    (streams(delta(b"Hi")), "before it was complete"),
    (streams(delta(b"Hi"), b'data: {"error":"out of paper"}\n\n', END), "out of paper"),
    (streams(b"data: " + b"x" * (17 << 20)), "more than 16 MiB"),
]


@pytest.mark.parametrize(("behaviour", "message"), FAULTS, ids=[message for _, message in FAULTS])
async def test_a_failing_engine_is_an_error_with_a_record(desk: Desk, behaviour: Any, message: str) -> None:
    desk.upstream.behaviour = behaviour
    with pytest.raises(UpstreamFailed, match=message):
        await desk.ask()
    assert (desk.records[0].status, message in (desk.records[0].error or "")) == (502, True)


async def test_the_error_of_a_long_prompt_has_its_length_and_the_limit(desk: Desk) -> None:
    error = {"code": 400, "message": "too long", "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 4}
    desk.upstream.behaviour = answers({"error": error}, status=b"400 Bad Request")
    with pytest.raises(ContextExceeded, match="400: too long") as caught:
        await desk.ask()
    assert (caught.value.prompt_tokens, caught.value.context_tokens) == (9, 4)


async def test_an_unknown_model_and_a_failed_load_are_errors(desk: Desk) -> None:
    with pytest.raises(NotFound):
        await desk.ask(CompletionRequest("tinny", {}, "", "/api/chat"))
    desk.engine.failure = LoadFailed("no memory")
    with pytest.raises(LoadFailed):
        await desk.ask()
    assert [record.status for record in desk.records] == [404, 503]


async def test_the_end_of_the_service_ends_the_completion(desk: Desk) -> None:
    async def linger(_: Exchange) -> None:
        await asyncio.Event().wait()

    desk.upstream.behaviour = streams(delta(b"Hi"), then=linger)
    asking = asyncio.create_task(desk.ask())
    async with asyncio.timeout(30):
        while not desk.chunks:
            await asyncio.sleep(0.001)
    desk.scheduler.revoke_all()
    with pytest.raises(Unavailable):
        await asking


async def test_lines_and_characters_of_any_kind_are_read(desk: Desk) -> None:
    desk.upstream.behaviour = streams(
        b'data: {"choices":[{"delta":{"reasoning":"Hm","reasoning_content":"Hm"}}]}\r\n\r\n',
        b'data: {"choices":[{"delta":{"reasoning":"so"}}]}\n\n',
        b'data: {"choices":\ndata: [{"delta":{"content":"a\xff"}}]}\n\n',
        b'data: {"choices":[{"delta":null,"finish_reason":"stop"}]}',
    )
    await desk.ask()
    assert desk.chunks == [("", "Hm"), ("", "so"), ("a\N{REPLACEMENT CHARACTER}", "")]


async def test_an_answer_without_end_is_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregator, "MAX_ANSWER_BYTES", 1 << 20)
    desk.upstream.behaviour = streams(*[delta(b"x" * 65536)] * 40)
    with pytest.raises(UpstreamFailed, match="answer of more than 1 MiB"):
        await desk.ask()
