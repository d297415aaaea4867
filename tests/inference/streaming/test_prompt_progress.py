from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from llama_async_proxy.inference.requests.routes import RoutingParameters, find, routing_parameters
from llama_async_proxy.inference.streaming.prompt_progress import (
    PromptProgressFilter,
    ends_with_assistant_message,
    with_progress,
)
from support.upstream import token

PROGRESS = b'data: {"choices":[],"prompt_progress":{"total":9,"processed":0}}\n\n'
COMMENT = b":\n\n"
TOKEN = token("a")


def chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


def bare(event: bytes) -> bytes:
    return event


def shown(*chunks: bytes) -> bytes:
    hidden = PromptProgressFilter()
    return b"".join(map(hidden.feed, chunks)) + hidden.rest()


@pytest.mark.parametrize("size", [1, 2, 7, 50, 10_000])
@pytest.mark.parametrize("framed", [chunk, bare])
def test_progress_is_removed_however_the_stream_is_divided(framed: Callable[[bytes], bytes], size: int) -> None:
    stream = b"".join(map(framed, (PROGRESS, COMMENT, PROGRESS, TOKEN, TOKEN)))
    chunks = (stream[i : i + size] for i in range(0, len(stream), size))
    assert shown(*chunks) == b"".join(map(framed, (COMMENT, TOKEN, TOKEN)))


def test_other_events_of_a_chunk_with_progress_stay() -> None:
    assert shown(chunk(PROGRESS + TOKEN)) == chunk(TOKEN)
    assert shown(chunk(COMMENT + PROGRESS), chunk(TOKEN)) == chunk(COMMENT) + chunk(TOKEN)


@pytest.mark.parametrize("framed", [chunk, bare])
def test_responses_begin_once(framed: Callable[[bytes], bytes]) -> None:
    created = b'event: response.created\ndata: {"type":"response.created"}\n\n'
    begun = b'event: response.in_progress\ndata: {"type":"response.in_progress","response":{"id":"1"}}\n\n'
    told = begun.replace(b"}}", b'},"prompt_progress":{"total":9,"processed":0}}')
    delta = b'event: response.output_text.delta\ndata: {"delta":"a"}\n\n'
    assert shown(framed(created + told), framed(told), framed(told), framed(delta)) == b"".join(
        map(framed, (created + begun, delta))
    )


def test_nothing_is_removed_after_the_first_token() -> None:
    hidden = PromptProgressFilter()
    chunks = (chunk(PROGRESS), chunk(TOKEN) + chunk(PROGRESS), chunk(PROGRESS))
    assert [(hidden.feed(chunk), hidden.is_over) for chunk in chunks] == [
        (b"", False),
        (chunk(TOKEN) + chunk(PROGRESS), True),
        (chunk(PROGRESS), True),
    ]


@pytest.mark.parametrize(
    "stream",
    [
        chunk(TOKEN[:-2]),
        chunk(TOKEN.replace(b"a", b'\\"prompt_progress\\":{')),
        b"0\r\n\r\n",
        b'data: {"no end":' + b"1" * 20_000,
        b"event: error\ndata: {}\n\n",
        b"5\r\nother\r\n",
    ],
    ids=["half an event in a chunk", "in a string", "no event", "endless", "named", "no events at all"],
)
def test_any_other_stream_passes_unchanged(stream: bytes) -> None:
    assert shown(stream) == stream


def test_the_request_gains_only_the_progress_parameter() -> None:
    for body in (b"{}", b'{"a":1}', b'{"a":1 } \n', b'{"return_progress":false,"b":"}"}'):
        assert json.loads(with_progress(body)) == {**json.loads(body), "return_progress": True}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "a"}], False),
        ([{"role": "assistant", "content": "a"}, {"role": "user", "content": [{"type": "text"}]}], False),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}], True),
        ([], False),
        ("no", True),
    ],
)
def test_a_chat_that_ends_with_an_assistant_message_is_recognised(messages: object, expected: bool) -> None:
    assert ends_with_assistant_message(json.dumps({"messages": messages}).encode()) is expected


def asked(path: str, **body: object) -> RoutingParameters:
    route = find("POST", path)
    assert route is not None
    return routing_parameters(route, b"", (), json.dumps({"stream": True, "prompt": "x" * 3000, **body}).encode())


def test_progress_is_asked_for_only_with_long_prompts_of_one_stream() -> None:
    assert asked("/completion").filters_progress
    assert asked("/v1/chat/completions", return_progress=False).filters_progress
    assert not asked("/completion", prompt="short").filters_progress
    assert not asked("/completion", stream=False).filters_progress
    assert not asked("/completion", return_progress=True).filters_progress, "the client wants it itself"
    assert not asked("/v1/completions", n=2).filters_progress
    assert not asked("/v1/completions", prompt=["a" * 3000, "b"]).filters_progress
    assert not asked("/v1/messages").filters_progress, "llama-server does not tell it there"
