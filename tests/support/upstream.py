"""A model's process as a small server in the test's own loop, an engine made of such servers, and models for them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec.structs

from llama_async_proxy.errors import LoadFailed
from llama_async_proxy.events import EventBus, ModelRuntimeChanged
from llama_async_proxy.records.models import Model, ModelFacts, ModelKind, ModelOrigin
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec, ModelRuntime, ModelStatus
from llama_async_proxy.settings import Settings, resolve


@dataclass
class Exchange:
    """One request the upstream received, and the connection to answer it on."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    writer: asyncio.StreamWriter
    connection: int
    """Number of the connection, counted from 0."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    async def send(self, data: bytes) -> None:
        if self.writer.is_closing():  # uvloop raises RuntimeError for it, asyncio nothing
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def die(self) -> None:
        """Reset the connection, as a killed process does."""
        self.writer.transport.abort()
        await asyncio.sleep(0)


Behaviour = Callable[[Exchange], Awaitable[None]]
JSON_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: *\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: *\r\nX-Accel-Buffering: no\r\n"
    b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
)


def event(data: object) -> bytes:
    return b"data: %b\n\n" % (data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode())


def token(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


LAST_EVENTS = (
    event(
        {
            "choices": [],
            "usage": {
                "completion_tokens": 3,
                "prompt_tokens": 21,
                "total_tokens": 24,
                "prompt_tokens_details": {"cached_tokens": 20},
            },
            "timings": {"cache_n": 20, "prompt_n": 1, "predicted_n": 3, "predicted_per_second": 50.5},
        }
    ),
    event(b"[DONE]"),
)


def answers(body: object, status: bytes = b"200 OK") -> Behaviour:
    """A JSON body with a length; the connection stays open."""
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def behave(exchange: Exchange) -> None:
        head = (JSON_HEAD % len(encoded)).replace(b"200 OK", status)
        await exchange.send(head + (b"" if exchange.method == "HEAD" else encoded))

    return behave


def streams(*events: bytes, before_each: Callable[[int], Awaitable[object]] | None = None) -> Behaviour:
    """Server-sent events, one chunk each, then the end and, as llama-server does, a closed connection."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD)
        for number, data in enumerate(events):
            if before_each is not None:
                await before_each(number)
            await exchange.chunk(data)
        await exchange.send(b"0\r\n\r\n")
        exchange.writer.close()

    return behave


def breaks_off_after(*events: bytes) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD)
        for data in events:
            await exchange.chunk(data)
        await asyncio.sleep(0.02)  # so that what was sent is not lost in the reset
        await exchange.die()

    return behave


def says(raw: bytes, *, then_close: bool = False) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.send(raw)
        if then_close:
            exchange.writer.close()

    return behave


async def never_answers(exchange: Exchange) -> None:
    await asyncio.Event().wait()


@dataclass
class Upstream:
    """Serves `behaviour` on a free port and remembers what happened to it."""

    behaviour: Behaviour = field(default_factory=lambda: answers({"ok": True}))
    requests: list[Exchange] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    cancelled: int = 0
    """Answers broken off because the client closed its connection."""
    endpoint: Endpoint = field(init=False)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Upstream]:
        self._changed = asyncio.Event()
        self._handlers: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1000)
        self.endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
        try:
            yield self
        finally:
            server.close()
            for handler in self._handlers:
                handler.cancel()
            await asyncio.gather(*self._handlers, return_exceptions=True)

    async def until(self, condition: Callable[[Upstream], bool], limit_s: float = 30.0) -> None:
        """Wait until `condition` holds; it is asked after every change."""
        async with asyncio.timeout(limit_s):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        number, self.connections, self.open = self.connections, self.connections + 1, self.open + 1
        self._changed.set()
        try:
            while await self._one(number, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._handlers.discard(task)
            self._changed.set()
            writer.close()

    async def _one(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        headers = [(k.lower(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]
        length = int(dict(headers).get("content-length", 0))
        exchange = Exchange(method, target, headers, await reader.readexactly(length), writer, number)
        self.requests.append(exchange)
        self._changed.set()
        return await self._behave(exchange, reader)

    async def _behave(self, exchange: Exchange, reader: asyncio.StreamReader) -> bool:
        """Answer, watching for the client's leaving. True: another request may follow."""
        answer = asyncio.ensure_future(self.behaviour(exchange))
        left = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((answer, left), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() or isinstance(answer.exception(), ConnectionError):
                self.cancelled += 1
                return False
            answer.result()
            if left.done() or exchange.writer.is_closing():
                return False
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            return True
        finally:
            for task in (answer, left):
                task.cancel()
            await asyncio.gather(answer, left, return_exceptions=True)


# --- models, settings, engine -------------------------------------------------------------------------------------


def make_model(model_id: int = 1, slug: str = "tiny", **changes: Any) -> Model:
    facts = ModelFacts("llama", ModelKind.CHAT, parameter_count=1000, context_length=2048, embedding_length=64)
    model = Model(model_id, slug, slug, f"/models/{slug}.gguf", ModelOrigin.SCANNED, facts, size_bytes=1000, mtime_ns=0)
    return msgspec.structs.replace(model, **changes)


def make_settings(**changes: Any) -> Settings:
    defaults = resolve(command_line={}, environment={}, file={}, default_data_dir=Path("/nonexistent"))
    return dataclasses.replace(defaults, **changes)


def make_spec(model: Model, options: Mapping[str, OptionValue]) -> LaunchSpec:
    return LaunchSpec(model.id, model.slug, model.path, model.facts.kind, options)


class RunningEngine:
    """An engine whose processes run already, one per model id. `gate` holds loads back, `failure` fails them."""

    def __init__(self, bus: EventBus, endpoints: Mapping[int, Endpoint]) -> None:
        self.endpoints = endpoints
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: LoadFailed | None = None
        self.calls: list[tuple[str, int]] = []
        self._bus = bus
        self._runtimes: dict[int, ModelRuntime] = {}
        self._loads: dict[int, asyncio.Task[ModelRuntime]] = {}

    def runtime(self, model_id: int) -> ModelRuntime:
        return self._runtimes.get(model_id, ModelRuntime(model_id))

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        return tuple(self._runtimes.values())

    async def load(self, spec: LaunchSpec) -> ModelRuntime:
        runtime = self.runtime(spec.model_id)
        if runtime.status is ModelStatus.READY:
            return runtime
        if spec.model_id not in self._loads:
            self.calls.append(("load", spec.model_id))
            self._set(spec.model_id, ModelStatus.LOADING)
            task = self._loads[spec.model_id] = asyncio.create_task(self._load(spec))
            task.add_done_callback(lambda _: self._loads.pop(spec.model_id))
        return await asyncio.shield(self._loads[spec.model_id])

    async def _load(self, spec: LaunchSpec) -> ModelRuntime:
        await self.gate.wait()
        if self.failure is not None:
            self._set(spec.model_id, ModelStatus.FAILED, error=self.failure.reason)
            raise self.failure
        return self._set(spec.model_id, ModelStatus.READY, endpoint=self.endpoints[spec.model_id])

    async def unload(self, model_id: int, *, drain_s: float = 10.0) -> ModelRuntime:
        self.calls.append(("unload", model_id))
        self._set(model_id, ModelStatus.STOPPING, endpoint=self.runtime(model_id).endpoint)
        await asyncio.sleep(0)
        runtime = self._set(model_id, ModelStatus.UNLOADED)
        self._runtimes.pop(model_id, None)
        return runtime

    def crash(self, model_id: int) -> None:
        self._set(model_id, ModelStatus.FAILED, error="killed by signal 9", exit_code=-9)

    def _set(self, model_id: int, status: ModelStatus, **changes: Any) -> ModelRuntime:
        previous = self.runtime(model_id)
        runtime = self._runtimes[model_id] = ModelRuntime(model_id, status, **changes)
        self._bus.publish(ModelRuntimeChanged(runtime, previous))
        return runtime
