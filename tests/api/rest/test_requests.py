from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from api.harness import ServiceHarness, house
from llama_async_proxy.errors import ServiceError
from llama_async_proxy.events import RequestsProgressed
from llama_async_proxy.inference.request_log import RequestLogEntry
from llama_async_proxy.records.requests import RequestPhase


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files) as at:
        yield at


def running(at: ServiceHarness, own_id: str) -> list[ServiceError]:
    """A request in flight; the errors it was broken off with."""
    errors: list[ServiceError] = []
    at.context.in_flight.add(RequestLogEntry("127.0.0.1", "/v1/chat/completions", own_id), errors.append)
    return errors


async def test_running_requests_are_listed_and_cancelled(at: ServiceHarness) -> None:
    errors = running(at, "mine/1")
    status, answer = await at.call("GET", "/api/requests")
    assert status == 200
    assert [(one["id"], one["status"]) for one in answer["data"]["live"]] == [("mine/1", "queued")]
    status, answer = await at.call("DELETE", "/api/requests/mine/1")
    assert (status, answer["data"]["cancelled"][0]["id"]) == (200, "mine/1")
    assert [error.status for error in errors] == [499]


async def test_ended_requests_are_listed_at_once_and_up_to_the_limit(at: ServiceHarness) -> None:
    for number in range(3):
        at.context.in_flight.end(RequestLogEntry("", "/completion", f"r{number}"))
    status, answer = await at.call("GET", "/api/requests?limit=2")
    assert status == 200
    assert [one["id"] for one in answer["data"]["recent"]] == ["r2", "r1"]
    assert (await at.call("GET", "/api/requests?limit=0"))[1]["data"]["recent"] == []


async def test_requests_are_listed_while_nothing_can_be_stored(at: ServiceHarness) -> None:
    at.context.in_flight.end(RequestLogEntry("", "/completion", "before"))
    assert len((await at.call("GET", "/api/requests"))[1]["data"]["recent"]) == 1
    with closing(
        sqlite3.connect(at.context.configuration.settings.data_dir / "service.db", isolation_level=None)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        at.context.in_flight.end(RequestLogEntry("", "/completion", "meanwhile"))
        answer = (await at.call("GET", "/api/requests"))[1]
        assert [one["id"] for one in answer["data"]["recent"]] == ["before"]
    while len((await at.call("GET", "/api/requests"))[1]["data"]["recent"]) < 2:
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("limit", ["-1", "1001", "many"])
async def test_a_limit_out_of_range_is_refused_by_name(at: ServiceHarness, limit: str) -> None:
    status, answer = await at.call("GET", f"/api/requests?limit={limit}")
    assert (status, answer["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert "limit" in answer["error"]["message"]


async def test_a_request_that_is_not_there_cannot_be_cancelled(at: ServiceHarness) -> None:
    status, answer = await at.call("DELETE", "/api/requests/none")
    assert (status, answer["error"]["code"]) == (404, "NOT_FOUND")


async def test_what_runs_is_told_to_who_listens(at: ServiceHarness) -> None:
    with at.context.in_flight.watch(), at.context.bus.subscribe(RequestsProgressed) as events:
        running(at, "r1")
        async for event in events:
            assert isinstance(event, RequestsProgressed)
            assert [(one.id, one.phase) for one in event.requests] == [("r1", RequestPhase.QUEUED)]
            break
