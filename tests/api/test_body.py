"""Bodies of requests: what is decoded, what is refused, and how much of them is in memory."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence

import pytest
from starlette.types import Message, Receive, Scope

from llama_async_proxy.api import body as reader
from llama_async_proxy.api.body import MAX_DEPTH, is_too_deep, read_body
from llama_async_proxy.api.memory import MEMORY, RequestMemory
from llama_async_proxy.errors import InvalidInput, Overloaded, ServiceError, TooLarge

TEXT = json.dumps({"text": "lorem ipsum " * 1000}).encode()
GZIPPED = gzip.compress(TEXT, mtime=0)
LIMIT = 1 << 20


def scope_of(*headers: tuple[bytes, bytes]) -> Scope:
    return {"type": "http", "headers": list(headers)}


def sending(*parts: bytes) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b""})

    async def receive() -> Message:
        return messages.pop(0)

    return receive


async def read(body: bytes, coding: bytes | None = None, limit: int = LIMIT) -> bytes | None:
    headers = [] if coding is None else [(b"content-encoding", coding)]
    return await read_body(scope_of(*headers), sending(body[:100], body[100:]), limit)


def bare_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize(
    ("coding", "encoded"),
    [
        (None, TEXT),
        (b"identity", TEXT),
        (b"gzip", gzip.compress(TEXT, mtime=0)),
        (b"GZip", gzip.compress(TEXT, mtime=0)),
        (b"x-gzip", gzip.compress(TEXT, mtime=0)),
        (b"gzip", gzip.compress(TEXT[:50], mtime=0) + gzip.compress(TEXT[50:], mtime=0)),
        (b"deflate", zlib.compress(TEXT)),
        (b"deflate", bare_deflate(TEXT)),
        (b"deflate, gzip", gzip.compress(zlib.compress(TEXT), mtime=0)),
    ],
    ids=["plain", "identity", "gzip", "case", "x-gzip", "members", "zlib", "bare", "two codings"],
)
async def test_bodies_are_decoded(coding: bytes | None, encoded: bytes) -> None:
    assert await read(encoded, coding) == TEXT


async def test_a_decompression_bomb_is_refused_before_it_is_there() -> None:
    budget = RequestMemory(lambda: 4 * LIMIT)
    bomb = gzip.compress(b" " * (64 * LIMIT))
    with budget.hold() as hold:
        scope = {**scope_of((b"content-encoding", b"gzip")), MEMORY: hold}
        with pytest.raises(TooLarge):
            await read_body(scope, sending(bomb), LIMIT)
        assert budget.used < 3 * LIMIT
    assert budget.used == 0


@pytest.mark.parametrize("coding", [b"zstd", b"br", b"gzip, br", b"gzip, gzip, gzip", "gz\xefp".encode("latin-1")])
async def test_other_codings_are_a_415_that_names_those_taken(coding: bytes) -> None:
    with pytest.raises(InvalidInput, match="Content-Encoding") as refused:
        await read(TEXT, coding)
    assert refused.value.status == 415
    assert "gzip" in refused.value.message or "2 codings" in refused.value.message


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
@pytest.mark.parametrize(
    "body", [TEXT, b"x", gzip.compress(TEXT, mtime=0)[:-20], gzip.compress(TEXT, mtime=0) + b"rest"]
)
async def test_what_is_not_in_the_coding_is_a_400(coding: bytes, body: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        await read(body, coding)
    assert refused.value.status == 400


async def test_the_sum_of_all_bodies_is_limited() -> None:
    budget = RequestMemory(lambda: 1500)
    with budget.hold() as first, budget.hold() as second:
        await read_body({**scope_of(), MEMORY: first}, sending(b" " * 1000), LIMIT)
        with pytest.raises(Overloaded, match=r"memory\.requests"):
            await read_body({**scope_of(), MEMORY: second}, sending(b" " * 1000), LIMIT)
        first.release()
        assert await read_body({**scope_of(), MEMORY: second}, sending(b" " * 1000), LIMIT)
    assert budget.used == 0


def nested(levels: int) -> bytes:
    return (
        b'{"a":' * (levels // 2) + b"[" * (levels - levels // 2) + b"]" * (levels - levels // 2) + b"}" * (levels // 2)
    )


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 1000, 100_000])
async def test_deep_json_is_a_400(levels: int) -> None:
    with pytest.raises(InvalidInput, match="levels") as refused:
        await read(nested(levels))
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        nested(MAX_DEPTH),
        b"[" + b"[]," * 10_000 + b"[]]",
        json.dumps({"code": "[{" * 1000 + '\\"' + "[" * 1000 + "\\\\"}).encode(),
    ],
    ids=["deepest", "wide", "in a string"],
)
def test_what_is_not_deep_is_not_taken_for_it(body: bytes) -> None:
    assert not is_too_deep(body)


def test_limits_are_said_in_units_that_people_read() -> None:
    limits: Sequence[tuple[int, str]] = [(1 << 20, "1 MiB"), (64 << 10, "64 KiB")]
    for size, text in limits:
        refused: ServiceError = reader._Limit(size, "").exceeded()
        assert text in refused.message
