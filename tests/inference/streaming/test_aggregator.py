from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.errors import UpstreamFailed
from llama_async_proxy.inference.requests.routes import ROUTES
from llama_async_proxy.inference.streaming import aggregated_answers
from llama_async_proxy.inference.streaming.aggregator import AggregatedAnswer, CannotAggregate

CHAT = "/v1/chat/completions"
PATHS = sorted(route.path for route in ROUTES if route.streams)


def event(data: Any, name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def chat(finish_reason: str | None = None, **delta: Any) -> bytes:
    return event({"choices": [{"finish_reason": finish_reason, "index": 0, "delta": delta}], "created": 1})


def chat_end(tokens: int = 3) -> bytes:
    usage = {"completion_tokens": tokens, "prompt_tokens": 2, "total_tokens": tokens + 2}
    head = {"choices": [], "created": 1, "id": "chatcmpl-1", "model": "m", "system_fingerprint": "b1"}
    return event({**head, "object": "chat.completion.chunk", "usage": usage, "timings": {"predicted_n": tokens}})


def answered(path: str, *chunks: bytes) -> AggregatedAnswer:
    parts = aggregated_answers.begin_aggregation(path)
    for chunk in chunks:
        parts.feed(chunk)
    return parts.answer()


def message(*chunks: bytes) -> Any:
    return json.loads(answered(CHAT, *chunks).body)["choices"][0]["message"]


STREAM = chat(role="assistant", content=None) + chat(content="Hé") + chat(content="llo 🦙") + chat("stop") + chat_end()
WHOLE = (
    '{"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"Héllo 🦙"}}],'
    '"created":1,"model":"m","system_fingerprint":"b1","object":"chat.completion",'
    '"usage":{"completion_tokens": 3, "prompt_tokens": 2, "total_tokens": 5},"id":"chatcmpl-1",'
    '"timings":{"predicted_n": 3}}'
).encode()


def test_every_route_that_generates_has_an_aggregator() -> None:
    assert [type(aggregated_answers.begin_aggregation(path)) for path in PATHS]  # else a KeyError


@given(st.lists(st.integers(1, len(STREAM)), max_size=8))
def test_a_stream_may_be_divided_anywhere(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in itertools.pairwise(edges) if end > start]
    assert answered(CHAT, *chunks, b"data: [DONE]\n\n") == AggregatedAnswer(200, WHOLE)


def test_a_long_stream_is_decoded_as_it_comes() -> None:
    words = [chat(content=f"word {n} ") for n in range(5000)]
    assert message(*words, chat("length"), chat_end(5000))["content"] == "".join(f"word {n} " for n in range(5000))


def test_comments_and_progress_are_not_part_of_the_response() -> None:
    parts = aggregated_answers.begin_aggregation(CHAT)
    parts.feed(b":\n\n")
    parts.feed(
        event({"choices": [{"delta": {"role": "assistant"}}], "prompt_progress": {"total": 5}}).replace(b'": {', b'":{')
    )
    assert not parts.is_generating
    parts.feed(STREAM)
    assert parts.answer() == AggregatedAnswer(200, WHOLE)


def test_reasoning_and_tool_calls_are_joined() -> None:
    said = message(
        chat(reasoning_content="Let me "),
        chat(reasoning_content="see."),
        chat(tool_calls=[{"index": 0, "id": "a", "type": "function", "function": {"name": "get"}}]),
        chat(tool_calls=[{"index": 0, "function": {"arguments": '{"x":'}}]),
        chat(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
        chat(tool_calls=[{"index": 1, "type": "function", "function": {"name": "put", "arguments": "{}"}}]),
        chat("tool_calls"),
        chat_end(),
    )
    assert list(said) == ["role", "content", "reasoning_content", "tool_calls"]
    assert said["content"] == ""
    assert said["reasoning_content"] == "Let me see."
    assert said["tool_calls"] == [
        {"type": "function", "function": {"name": "get", "arguments": '{"x":1}'}, "id": "a"},
        {"type": "function", "function": {"name": "put", "arguments": "{}"}},
    ]


def test_an_error_in_the_stream_is_a_response_with_its_status() -> None:
    error = {"code": 503, "message": "no room", "type": "unavailable_error"}
    answer = answered(CHAT, chat(content="a"), b'data: {"error":' + json.dumps(error).encode() + b"}\n\n")
    assert answer.status == 503
    assert json.loads(answer.body) == {"error": error}
    start = event({"type": "message_start", "message": {}}, "message_start")
    anthropic = answered("/v1/messages", start, event(error, "error"))
    assert anthropic == answer


def test_a_stream_that_stops_short_is_a_failure() -> None:
    for path, *chunks in (
        (CHAT, chat(content="a")),
        ("/completion", event({"content": "a", "tokens_predicted": 1, "stop": False})),
        ("/v1/completions", event({"choices": [{"text": "a", "finish_reason": None}]})),
        ("/v1/responses", event({"type": "response.created", "response": {"id": "r"}}, "response.created")),
        ("/v1/messages", event({"type": "message_start", "message": {}}, "message_start")),
    ):
        with pytest.raises(UpstreamFailed, match="before it was complete"):
            answered(str(path), *chunks)


@pytest.mark.parametrize(
    ("path", "chunks"),
    [
        (CHAT, (chat("stop"), chat_end(4))),  # all of it was taken for something not to be shown
        (CHAT, (b'data: {"error":{"code":500,"message":"Invalid diff: now finding less tool calls!"}}\n\n',)),
        (CHAT, (b"data: not JSON\n\n",)),
        ("/v1/messages", (event({"type": "content_block_delta", "index": 0}, "content_block_delta"),)),
    ],
)
def test_a_response_that_the_stream_does_not_determine_is_not_aggregated(path: str, chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(CannotAggregate):
        answered(path, *chunks)


def test_a_wrong_first_event_is_rejected_at_once() -> None:
    with pytest.raises(CannotAggregate):
        aggregated_answers.begin_aggregation("/v1/messages").feed(event({"type": "message_stop"}, "message_stop"))


def test_an_incomplete_character_is_replaced_as_by_the_engine() -> None:
    def said(said_tokens: int, tokens: int) -> Any:
        last = {
            "index": 0,
            "content": "",
            "tokens_predicted": tokens,
            "stop": True,
            "generation_settings": {"stream": True},
        }
        first = {"content": "ab", "tokens_predicted": said_tokens, "stop": False}
        return json.loads(answered("/completion", event(first), event(last)).body)

    assert said(2, 3)["content"] == "ab�"
    assert said(3, 3)["content"] == "ab"
    assert said(3, 3)["generation_settings"] == {"stream": False}


@pytest.mark.parametrize("body", [b"{}", b" { } \n", b'{"a":1}', b'{"stream":false,"a":"}"} '])
def test_a_request_becomes_one_for_a_stream(body: bytes) -> None:
    for path in PATHS:
        asked = json.loads(aggregated_answers.begin_aggregation(path).as_stream(body))
        assert asked.pop("stream") is True
        assert asked.pop("return_progress") is True
        assert asked.pop("stream_options") == {"include_usage": True}
        asked.pop("timings_per_token", None)
        assert asked == {key: value for key, value in json.loads(body).items() if key != "stream"}


@given(
    st.sampled_from(PATHS), st.lists(st.binary(max_size=60) | st.sampled_from([STREAM, b"data: {}\n\n"]), max_size=5)
)
def test_no_stream_crashes_the_aggregator(path: str, chunks: list[bytes]) -> None:
    try:
        answer = answered(path, *chunks)
    except (CannotAggregate, UpstreamFailed):
        return
    assert json.loads(answer.body)
