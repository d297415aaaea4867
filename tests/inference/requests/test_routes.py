from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.inference.requests import routes
from llama_async_proxy.inference.requests.error_formats import ApiFormat
from llama_async_proxy.inference.requests.routes import (
    ROUTES,
    InferenceRoute,
    ModelIn,
    RoutingParameters,
    find,
    routing_parameters,
)

CHAT = InferenceRoute("POST", "/v1/chat/completions", streams=True)
PROPS = InferenceRoute("GET", "/props", ModelIn.QUERY)
AUDIO = InferenceRoute("POST", "/v1/audio/transcriptions", ModelIn.FORM)
FORM_TYPE = [(b"content-type", b'multipart/form-data; boundary="B-1"')]


def test_no_route_is_listed_twice() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/completion"),
        ("POST", "/v1/embeddings"),
        ("POST", "/rerank"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/infill"),
        ("GET", "/props"),
        ("HEAD", "/slots"),
        ("GET", "/lora-adapters"),
        ("POST", "/lora-adapters"),
    ],
)
def test_engine_routes_are_found(method: str, path: str) -> None:
    found = find(method, path)
    assert found is not None
    assert found.path == path


@pytest.mark.parametrize(("method", "path"), [("GET", "/completion"), ("POST", "/v1/models"), ("POST", "/nothing")])
def test_other_requests_have_no_route(method: str, path: str) -> None:
    assert find(method, path) is None


def test_messages_have_anthropics_format_and_other_routes_openais() -> None:
    anthropic = {route.path for route in ROUTES if route.api_format is ApiFormat.ANTHROPIC}
    assert anthropic == {"/v1/messages", "/v1/messages/count_tokens"}


def test_methods_of_a_path() -> None:
    assert set(routes.methods("/lora-adapters")) == {"GET", "POST"}
    assert routes.methods("/nothing") == ()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a"}', RoutingParameters("a", False)),
        (b'{"messages":[{"model":"inner","stream":true}],"model":"outer"}', RoutingParameters("outer", False)),
        (b'{"model":"a","stream":true}', RoutingParameters("a", True)),
        (b'{"model":"a", "stream" : true }', RoutingParameters("a", True)),
        (b'{"model":"a","stream":false}', RoutingParameters("a", False)),
        (b'{"model":"a","stream":"yes"}', RoutingParameters("a", False)),  # the engine refuses it, in its own words
        (b'{"model":7}', RoutingParameters("7", False)),
        (b'{"model":null}', RoutingParameters(None, False)),
        (b'{"model":"  "}', RoutingParameters(None, False)),
        (b"{}", RoutingParameters(None, False)),
        ('{"model":"模型"}'.encode(), RoutingParameters("模型", False)),
    ],
)
def test_model_and_stream_are_read_from_the_body(body: bytes, expected: RoutingParameters) -> None:
    found = routing_parameters(CHAT, b"", [], body)
    assert (found.model, found.stream) == (expected.model, expected.stream)


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream":false,"n":1,"logprobs":false,"n_probs":0,"echo":null,"stop":["a"],"tools":[{}]}',
        b'{"stream":null,"prompt":"text","return_tokens":false,"timings_per_token":true}',
    ],
)
def test_an_ordinary_generation_is_aggregated(body: bytes) -> None:
    assert routing_parameters(CHAT, b"", [], body).aggregates


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream":true}',
        b'{"stream":"no"}',
        b'{"n":2}',
        b'{"n_cmpl":3}',
        b'{"prompt":["a","b"]}',
        b'{"logprobs":true}',
        b'{"n_probs":1}',
        b'{"return_tokens":true}',
        b'{"response_fields":["content"]}',
        b'{"n_indent":2}',
        b'{"echo":true}',
        b'{"reasoning_format":"deepseek-legacy"}',
        b'{"stream_options":{}}',
    ],
)
def test_parameters_whose_results_a_stream_gives_differently_prevent_aggregation(body: bytes) -> None:
    assert not routing_parameters(CHAT, b"", [], body).aggregates
    assert not routing_parameters(InferenceRoute("POST", "/tokenize"), b"", [], b"{}").aggregates


def test_a_route_that_does_not_stream_ignores_the_parameter() -> None:
    assert not routing_parameters(InferenceRoute("POST", "/tokenize"), b"", [], b'{"stream":true}').stream


@pytest.mark.parametrize("body", [b"", b"{bad", b"[1]", b'{"model":["a"]}', b'{"model":"a"', b"\xff\xfe"])
def test_the_error_for_another_body_names_the_body(body: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        routing_parameters(CHAT, b"", [], body)
    assert caught.value.field == "body"


@given(st.binary(max_size=200))
def test_no_body_crashes_the_reader(body: bytes) -> None:
    for route in (CHAT, AUDIO):
        with contextlib.suppress(InvalidInput):
            routing_parameters(route, b"", FORM_TYPE, body)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", None),
        (b"model=a", "a"),
        (b"x=1&model=my%20model", "my model"),
        (b"model=", None),
        (b"model=a&model=b", "b"),
        (b"remodel=a", None),
        ("model=é".encode(), "é"),
    ],
)
def test_the_query_names_the_model(query: bytes, expected: str | None) -> None:
    assert routing_parameters(PROPS, query, [], b"").model == expected


def form(*parts: tuple[str, bytes]) -> bytes:
    body = b"".join(b"--B-1\r\n%b\r\n\r\n%b\r\n" % (head.encode(), value) for head, value in parts)
    return body + b"--B-1--\r\n"


FILE = ('Content-Disposition: form-data; name="file"; filename="model.wav"', b'\x00name="model"\r\n\r\n\xff' * 100)
MODEL = ('Content-Disposition: form-data; name="model"', b"whisper")


@pytest.mark.parametrize("parts", [(MODEL, FILE), (FILE, MODEL)], ids=["model first", "file first"])
def test_a_form_names_the_model_in_its_own_field(parts: tuple[tuple[str, bytes], ...]) -> None:
    assert routing_parameters(AUDIO, b"", FORM_TYPE, form(*parts)).model == "whisper"


def test_a_form_without_the_field_names_no_model() -> None:
    assert routing_parameters(AUDIO, b"", FORM_TYPE, form(FILE)).model is None


def test_a_form_without_a_boundary_is_refused() -> None:
    with pytest.raises(InvalidInput, match="content-type"):
        routing_parameters(AUDIO, b"", [(b"content-type", b"application/json")], b"{}")
