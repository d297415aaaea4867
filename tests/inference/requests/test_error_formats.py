from __future__ import annotations

import json
from typing import Any

import pytest

from llama_async_proxy.errors import (
    InvalidInput,
    LoadFailed,
    NotFound,
    Overloaded,
    ServiceError,
    TooLarge,
    UpstreamFailed,
)
from llama_async_proxy.inference.requests.error_formats import ApiFormat, error_body, error_event, relayed_error_event

UNKNOWN = NotFound("model", "qwem", "Model 'qwem' not found.", similar=("qwen",))


def parsed(event: bytes) -> tuple[bytes | None, Any]:
    """(event name, data) of one server-sent event."""
    assert event.endswith(b"\n\n")
    fields = dict(line.split(b": ", 1) for line in event.strip().split(b"\n"))
    return fields.get(b"event"), json.loads(fields[b"data"])


def test_an_unknown_model_has_openais_code_and_names_close_ones() -> None:
    assert json.loads(error_body(ApiFormat.OPENAI, UNKNOWN)) == {
        "error": {
            "code": "model_not_found",
            "message": "Model 'qwem' not found. Did you mean qwen?",
            "type": "not_found_error",
            "param": "model",
        }
    }


def test_other_errors_have_llama_servers_format() -> None:
    body = json.loads(error_body(ApiFormat.OPENAI, InvalidInput("messages", "is missing")))
    assert body == {"error": {"code": 400, "message": "messages: is missing", "type": "invalid_request_error"}}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UNKNOWN, "not_found_error"),
        (InvalidInput("model", "is missing"), "invalid_request_error"),
        (TooLarge("body", "is too large"), "request_too_large"),
        (Overloaded("full"), "rate_limit_error"),
        (UpstreamFailed("gone"), "api_error"),
        (LoadFailed("no memory"), "api_error"),
        (ServiceError("bug"), "api_error"),
    ],
)
def test_anthropic_errors_have_anthropics_types(error: ServiceError, kind: str) -> None:
    body = json.loads(error_body(ApiFormat.ANTHROPIC, error))
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["error"]["message"]


def test_an_error_event_makes_each_client_raise() -> None:
    gone = UpstreamFailed("The model's process broke off its answer.")
    name, data = parsed(error_event(ApiFormat.OPENAI, gone))
    assert name is None
    assert data["error"]["message"] == gone.message
    name, data = parsed(error_event(ApiFormat.ANTHROPIC, gone))
    assert (name, data["type"]) == (b"error", "error")
    name, data = parsed(error_event(ApiFormat.RESPONSES, gone))
    assert (name, data["type"], data["message"]) == (b"error", "error", gone.message)
    assert data["error"]["message"] == gone.message


def test_openai_clients_get_the_engines_error_unchanged() -> None:
    body = b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_ctx":512}}'
    event, message = relayed_error_event(ApiFormat.OPENAI, body)
    assert event == b"data: " + body + b"\n\n"
    assert message == "too long"


def test_an_engines_error_is_translated_for_anthropic_clients() -> None:
    event, _ = relayed_error_event(ApiFormat.ANTHROPIC, b'{"error":{"message":"too long"}}')
    assert parsed(event) == (b"error", {"type": "error", "error": {"type": "api_error", "message": "too long"}})


@pytest.mark.parametrize("body", [b"", b"Internal Server Error", b'{"error":"text"}', b"\xff"])
def test_another_error_body_of_an_engine_becomes_an_error_of_the_service(body: bytes) -> None:
    _, data = parsed(relayed_error_event(ApiFormat.OPENAI, body)[0])
    assert data["error"]["type"] == "upstream_error"


def test_a_relayed_body_of_several_lines_stays_one_event() -> None:
    _, data = parsed(relayed_error_event(ApiFormat.OPENAI, b'{\n "error": {\n  "message": "m"\n }\n}')[0])
    assert data["error"]["message"] == "m"
