from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.inference.streaming.usage import TokenUsage, UsageCapture
from support.upstream import LAST_EVENTS, event, token


def captured(*chunks: bytes) -> TokenUsage:
    capture = UsageCapture()
    for chunk in chunks:
        capture.feed(chunk)
    return capture.usage()


STREAM = b"".join((*(token(f" {n}") for n in range(500)), *LAST_EVENTS))


@pytest.mark.parametrize("size", [64, 250, 4096, 1 << 20])
def test_a_chat_stream_is_counted_however_it_is_divided(size: int) -> None:
    assert captured(*(STREAM[i : i + size] for i in range(0, len(STREAM), size))) == TokenUsage(21, 3, 20, 50.5)


def test_timings_alone_are_enough() -> None:
    last = event({"content": "", "stop": True, "timings": {"cache_n": 5, "prompt_n": 2, "predicted_n": 8}})
    assert captured(token("a"), last) == TokenUsage(7, 8, 5, None)


def test_an_embedding_answer_is_counted_from_its_beginning() -> None:
    body = b'{"object":"list","usage":{"prompt_tokens":9,"total_tokens":9},"data":[%b0.5]}' % (b"0.123456," * 20_000)
    assert captured(body) == TokenUsage(prompt_tokens=9)
    assert captured(body[:70_000], body[70_000:]) == TokenUsage(prompt_tokens=9)


def test_an_anthropic_stream_tells_input_first_and_output_last() -> None:
    start = {"type": "message_start", "message": {"usage": {"cache_read_input_tokens": 20, "input_tokens": 1}}}
    delta = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 2}}
    middle = [event({"delta": {"text": "x"}})] * 100
    assert captured(event(start), *middle, event(delta)) == TokenUsage(21, 2, 20, None)
    first = event(start)
    in_pieces = (first[i : i + 10] for i in range(0, len(first), 10))
    assert captured(*in_pieces, *middle, event(delta)) == TokenUsage(21, 2, 20, None)


def test_responses_count_cached_tokens_as_input() -> None:
    usage = {"input_tokens": 21, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 20}}
    assert captured(json.dumps({"usage": usage}, separators=(",", ":")).encode()) == TokenUsage(21, 2, 20, None)


def test_text_of_the_response_is_never_taken_for_counts() -> None:
    text = '"usage":{"prompt_tokens":999},"timings":{"predicted_n":999}'
    assert captured(event({"choices": [{"text": text}]})) == TokenUsage()


def test_a_rate_of_zero_is_unknown() -> None:
    assert captured(b'{"timings":{"predicted_n":1,"predicted_per_second":0.0}}').tokens_per_second is None


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([b'"usage":{', b'"timings":{"a"', b'{"usage":{"x":1e999']), max_size=8
    )
)
def test_no_response_crashes_the_counting(chunks: list[bytes]) -> None:
    captured(*chunks)
