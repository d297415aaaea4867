from __future__ import annotations

import json

import pytest

from llama_async_proxy.inference.upstream.client import UpstreamRequest
from llama_async_proxy.inference.upstream.model_field import body_for, target_for
from llama_async_proxy.records.runtime import Endpoint


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/props", b"/props?model=a%2Fb&autoload=false"),
        (b"/slots?fail_on_no_slot=1&model=x", b"/slots?fail_on_no_slot=1&model=a%2Fb&autoload=false"),
        (b"/slots?autoload=true&x=", b"/slots?x=&model=a%2Fb&autoload=false"),
    ],
)
def test_the_query_names_the_model_and_forbids_loading(target: bytes, expected: bytes) -> None:
    assert target_for("a/b", target) == expected


def test_the_other_values_of_a_body_keep_their_bytes() -> None:
    body = '{"model": "x", "seed": 1.50, "text": "\\u00e9é", "deep": {"a" : [1 ,2]}}'.encode()
    named = body_for("chat", body)
    assert json.loads(named) == {**json.loads(body), "model": "chat"}
    for chunk in ("1.50", '"\\u00e9é"', '{"a" : [1 ,2]}'):
        assert chunk.encode() in named


def test_a_body_without_a_name_gets_one() -> None:
    assert json.loads(body_for("chat", b'{"input":"x"}')) == {"input": "x", "model": "chat"}


@pytest.mark.parametrize("body", [b'{ "model" : "chat"}', b"", b"[1]", b"--form\r\n", b"\xff", b'{"model":'])
def test_a_body_that_names_it_or_is_no_object_stays_as_it_is(body: bytes) -> None:
    assert body_for("chat", body) == body


def test_only_a_router_is_told() -> None:
    request = UpstreamRequest("POST", b"/completion", (), b'{"model":"x"}')
    assert request.to(Endpoint("127.0.0.1", 1)) is request
    named = request.to(Endpoint("127.0.0.1", 1, "chat"))
    assert (named.target, named.body) == (b"/completion?model=chat&autoload=false", b'{"model":"chat"}')
