"""Unexpected exceptions become the error answer of the API that was called, with a trace id that the log has, too."""

from __future__ import annotations

import logging

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from llama_async_proxy.api.boundary import AsgiBoundary, explanation, report
from llama_async_proxy.errors import ServiceError


def answer_in_plain_text(scope: Scope, error: ServiceError) -> ASGIApp:
    return PlainTextResponse(f"{scope['path']}: {error.message} ({error.details})", error.status)


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("secret of the inside")


async def broken_amid_its_answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    raise RuntimeError("secret of the inside")


def test_the_callers_trace_id_finds_the_exception_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        try:
            raise RuntimeError("secret of the inside")
        except RuntimeError:
            trace_id = report("models:list")
    [record] = caplog.records
    assert record.getMessage() == f"models:list failed unexpectedly, trace {trace_id}"
    assert "secret of the inside" in str(record.exc_info)
    assert trace_id in explanation(trace_id)


def test_an_unexpected_exception_is_answered_in_the_form_of_the_api(caplog: pytest.LogCaptureFixture) -> None:
    answer = TestClient(AsgiBoundary(broken, answer_in_plain_text)).get("/here")
    assert answer.status_code == 500
    [record] = caplog.records
    trace_id = record.getMessage().rpartition(" ")[2]
    assert answer.text == f"/here: {explanation(trace_id)} (trace {trace_id})"
    assert record.getMessage().startswith("GET /here failed")
    assert "secret" not in answer.text


async def test_an_answer_that_has_begun_gets_no_second_one() -> None:
    sent: list[str] = []

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message["type"])

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/here"}
    await AsgiBoundary(broken_amid_its_answer, answer_in_plain_text)(scope, receive, send)
    assert sent == ["http.response.start", "http.response.body"]


async def test_other_scopes_pass_through() -> None:
    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None: ...

    with pytest.raises(RuntimeError, match="secret of the inside"):
        await AsgiBoundary(broken, answer_in_plain_text)({"type": "websocket"}, receive, send)
