"""A llama-server that computes nothing: answers at once, or streams events at a fixed pace. Used as the engine's child.

    POST, any path   {"stream": true, "events": N, "interval_ms": M}   N events, the last with usage, then [DONE]
                     anything else                                     one JSON answer
    GET /health, /props, /slots                                        as llama-server answers them when idle

Every event carries "t", the time it was written on the clock that all processes of a machine share, in nanoseconds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from contextlib import suppress

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nKeep-Alive: timeout=5, max=100\r\nContent-Type: "
WHOLE = HEAD + b"application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b"
STREAM = HEAD + b"text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" token"}}],"created":1763660000,'
    b'"id":"chatcmpl-0000000000000000000000000000","model":"mock","object":"chat.completion.chunk","t":%d}\n\n'
)
LAST = (
    b'data: {"choices":[],"usage":{"completion_tokens":%d,"prompt_tokens":42,"total_tokens":42},'
    b'"timings":{"cache_n":0,"prompt_n":42,"predicted_n":%d,"predicted_per_second":200.0},"t":%d}\n\n'
)
ANSWER = json.dumps(
    {
        "choices": [{"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "word " * 60}}],
        "usage": {"completion_tokens": 60, "prompt_tokens": 42, "total_tokens": 102},
    }
).encode()
GET_ANSWERS = {
    "/health": b'{"status":"ok"}',
    "/props": b'{"default_generation_settings":{"n_ctx":4096},"total_slots":64}',
    "/slots": b"[]",
}


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(rest) < length:
            return
        self._received = rest[length:]
        self._answer(head, rest[:length])

    def _answer(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        if method == "GET":
            self._whole(GET_ANSWERS.get(path.partition("?")[0], b"{}"))
            if b"HTTP/1.0" in head:
                self._transport.close()
        elif b'"stream": true' in body or b'"stream":true' in body:
            wish = json.loads(body)
            self._transport.write(STREAM)
            self._next(0, wish["events"], wish["interval_ms"] / 1000, asyncio.get_running_loop().time())
        else:
            self._whole(ANSWER)

    def _whole(self, answer: bytes) -> None:
        self._transport.write(WHOLE % (len(answer), answer))

    def _next(self, number: int, total: int, interval_s: float, due: float) -> None:
        now = time.monotonic_ns()
        if number < total:
            event = EVENT % now
            self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            due += interval_s
            self._timer = asyncio.get_running_loop().call_at(due, self._next, number + 1, total, interval_s, due)
            return
        event = LAST % (total, total, now) + b"data: [DONE]\n\n"
        self._transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
        self._transport.close()  # as llama-server does after a stream


async def serve(host: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, host, port, backlog=2048)
    await server.serve_forever()


def main(arguments: list[str]) -> None:
    if "--version" in arguments:
        print("version: 0 (mock)")
        return
    options = dict(itertools.pairwise(arguments))
    with suppress(KeyboardInterrupt):
        uvloop.run(serve(options.get("--host", "127.0.0.1"), int(options["--port"])))


if __name__ == "__main__":
    main(sys.argv[1:])
