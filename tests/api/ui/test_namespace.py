from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec.structs
import pytest
from msgspec.structs import replace

from api.harness import Client, ServiceHarness, client, house
from llama_async_proxy.api.ui import schema
from llama_async_proxy.events import RequestsFinished
from llama_async_proxy.inference.request_log import RequestLogEntry
from llama_async_proxy.operations.operation import Effect
from llama_async_proxy.operations.table import OPERATIONS
from llama_async_proxy.records.requests import RequestRecord


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files, sample_watched_s=0.05) as at:
        yield at


@pytest.fixture
async def page(at: ServiceHarness) -> AsyncIterator[Client]:
    async with client(at, "/ui") as connected:
        yield connected


def record(id_: str) -> RequestRecord:
    return RequestRecord(id_, 1, "127.0.0.1", "/v1/chat/completions", "chat", 200, True, total_ms=12.5)


# --- topics -----------------------------------------------------------------------------------------------------------


async def test_models_come_as_a_snapshot_and_then_as_changes(at: ServiceHarness, page: Client) -> None:
    assert await page.ask("join", {"topic": "models"}) == {"ok": True, "data": None}
    snapshot = await page.until("snapshot")
    assert snapshot["topic"] == "models"
    [chat] = [model for model in snapshot["data"]["models"] if model["slug"] == "chat"]
    assert (chat["status"], chat["kind"], chat["progress"], chat["log_tail"]) == ("unloaded", "chat", None, [])
    result = await page.ask("call", {"operation": "models.load", "input": {"id": chat["id"]}})
    assert result["ok"]
    delta = await page.until("delta", lambda d: d["items"][-1]["model"]["status"] == "ready")
    assert delta["dropped"] == 0
    ready = delta["items"][-1]["model"]
    assert (ready["id"], ready["slots"]) == (chat["id"], 2)
    assert ready["pid"]
    await page.ask("call", {"operation": "models.unload", "input": {"id": chat["id"]}})
    await page.until("delta", lambda d: d["items"][-1].get("model", {}).get("status") == "unloaded")
    await page.ask("call", {"operation": "models.delete", "input": {"id": chat["id"]}})
    delta = await page.until("delta", lambda d: d["items"][-1]["kind"] == "remove")
    assert delta["items"][-1] == {"kind": "remove", "id": chat["id"]}
    numbers = [message["seq"] for message in page.all("delta")]
    assert numbers == list(range(snapshot["seq"] + 1, snapshot["seq"] + 1 + len(numbers)))


async def test_a_thousand_steps_of_progress_are_a_few_deltas(page: Client, tmp_path: Path) -> None:
    await page.ask("join", {"topic": "models"})
    options = {"fake-progress": 1000}
    await page.ask("call", {"operation": "models.load", "input": {"id": "chat", "options": options}})
    await page.until("delta", lambda d: any(item["model"]["status"] == "ready" for item in d["items"]))
    assert len(page.all("delta")) < 100


async def test_the_sampler_runs_at_the_watched_pace_while_a_client_has_joined(at: ServiceHarness, page: Client) -> None:
    settings = at.context.configuration.settings
    assert at.context.sampler.interval_s == settings.sample_idle_s
    await page.ask("join", {"topic": "metrics"})
    assert at.context.sampler.interval_s == settings.sample_watched_s
    snapshot = await page.until("snapshot")
    assert isinstance(snapshot["data"]["samples"], list)
    delta = await page.until("delta")
    sample = delta["items"][-1]
    assert sample["memory_total_bytes"] > 1 << 20
    assert sample["gpus"] == []
    async with client(at, "/ui") as second:
        await second.ask("join", {"topic": "metrics"})
        joined = await second.until("snapshot")
        moments = [sample["timestamp_ms"] for sample in joined["data"]["samples"]]
        assert moments == sorted(moments)
        assert moments
        await page.ask("leave", {"topic": "metrics"})
        assert at.context.sampler.interval_s == settings.sample_watched_s, "the second one still watches"
    async with asyncio.timeout(30):
        while at.context.sampler.interval_s != settings.sample_idle_s:  # the second one's leaving is on its way
            await asyncio.sleep(0.01)


async def test_a_returning_client_gets_the_samples_it_missed(at: ServiceHarness, page: Client) -> None:
    await page.ask("join", {"topic": "metrics"})
    first = await page.until("delta")
    await page.until("delta", lambda d: d["seq"] > first["seq"])
    async with client(at, "/ui") as back:
        await back.ask("join", {"topic": "metrics", "since": first["seq"]})
        gap = await back.until("delta")
        assert gap["items"][0]["timestamp_ms"] > first["items"][-1]["timestamp_ms"]
        assert back.all("snapshot") == []


async def test_finished_requests_are_sent_and_kept_for_later_clients(at: ServiceHarness, page: Client) -> None:
    await page.ask("join", {"topic": "requests"})
    assert (await page.until("snapshot"))["data"] == {"records": []}
    for i in range(60):
        at.context.bus.publish(RequestsFinished((record(f"r{i}"),)))
    await page.until("delta", lambda d: d["items"][-1]["id"] == "r59")
    async with client(at, "/ui") as late:
        await late.ask("join", {"topic": "requests"})
        records = (await late.until("snapshot"))["data"]["records"]
    assert [r["id"] for r in records] == [f"r{i}" for i in range(10, 60)]
    assert records[0]["total_ms"] == 12.5


async def test_requests_in_flight_are_sent_until_they_end(at: ServiceHarness, page: Client) -> None:
    assert await snapshot_of(page, "live") == {"live": []}
    account = RequestLogEntry("127.0.0.1", "/completion", "r1")
    at.context.in_flight.add(account, lambda _: None)
    message = await page.until("delta", lambda d: d["items"][-1])
    assert [(one["id"], one["phase"]) for one in message["items"][-1]] == [("r1", "queued")]
    assert [one["id"] for one in (await snapshot_of(page, "live"))["live"]] == ["r1"]
    at.context.in_flight.end(account)
    await page.until("delta", lambda d: d["seq"] > message["seq"] and d["items"][-1] == [])


async def test_snapshots_hold_samples_and_requests_from_before_a_restart(tmp_path: Path, model_files: Path) -> None:
    async with house(tmp_path / "first", model_files) as at:
        at.context.store.requests.append([record("old")])
        sample = replace(await at.context.sampler.now(), timestamp_ms=at.context.now_ms() - 60_000)
        at.context.store.metrics.append(sample)
    (tmp_path / "second").mkdir()
    data_dir = str(tmp_path / "first" / "data")
    async with house(tmp_path / "second", model_files, data_dir=data_dir) as at, client(at, "/ui") as page:
        async with asyncio.timeout(30):
            while not (records := (await snapshot_of(page, "requests"))["records"]):
                await asyncio.sleep(0.01)  # it is being read
        assert [r["id"] for r in records] == ["old"]
        samples = (await snapshot_of(page, "metrics"))["samples"]
        assert samples[0]["timestamp_ms"] == sample.timestamp_ms


async def snapshot_of(page: Client, topic: str) -> Any:
    count = len(page.all("snapshot"))
    await page.ask("join", {"topic": topic})
    await page.until("snapshot", lambda _: len(page.all("snapshot")) > count)
    return page.all("snapshot")[-1]["data"]


async def test_the_engine_comes_with_its_settings(at: ServiceHarness, page: Client, tmp_path: Path) -> None:
    await page.ask("join", {"topic": "engine"})
    engine = (await page.until("snapshot"))["data"]["engine"]
    assert (engine["status"], engine["models_dir"]) == ("running", str(at.models_dir))
    await page.ask("call", {"operation": "engine.stop", "input": {}})
    await page.until("delta", lambda d: d["items"][-1]["status"] == "idle")
    changes = {"basePath": str(tmp_path)}
    await page.ask("call", {"operation": "config.update", "input": {"changes": changes}})
    await page.until("delta", lambda d: d["items"][-1]["models_dir"] == str(tmp_path))


async def test_a_client_that_left_receives_no_more(at: ServiceHarness, page: Client) -> None:
    async with client(at, "/ui") as other:
        for each in (page, other):
            await each.ask("join", {"topic": "requests"})
        await page.ask("leave", {"topic": "requests"})
        at.context.bus.publish(RequestsFinished((record("r"),)))
        await other.until("delta")
    await page.ask("leave", {"topic": "requests"})
    assert page.all("delta") == []


# --- calls ------------------------------------------------------------------------------------------------------------


async def test_every_reading_operation_can_be_called(page: Client) -> None:
    made = await page.ask("call", {"operation": "chats.create", "input": {"model": "chat", "title": "Talk"}})
    inputs: dict[str, Any] = {
        **{name: {"id": "chat"} for name in ("models.get", "models.estimate")},
        "chats.get": {"id": made["data"]["conversation"]["id"]},
        "chats.search": {"text": "talk"},
        "presets.validate": {"content": "[*]\n"},
    }
    for name, operation in OPERATIONS.items():
        if name in inputs or (operation.effect is Effect.READ and not _required(operation.input)):
            result = await page.ask("call", {"operation": name, "input": inputs.get(name, {})})
            assert result["ok"], (name, result)
            assert isinstance(result["data"], dict)


def _required(input_type: type) -> list[str]:
    return [field.name for field in msgspec.structs.fields(input_type) if field.required]


async def test_a_record_has_the_same_fields_in_a_topic_and_in_an_answer(at: ServiceHarness, page: Client) -> None:
    at.context.store.requests.append([record("r")])
    listed = await page.ask("call", {"operation": "requests.list", "input": {}})
    await page.ask("join", {"topic": "requests"})
    at.context.bus.publish(RequestsFinished((record("r"),)))
    delta = await page.until("delta")
    assert listed["data"]["recent"] == delta["items"] == [record("r")._asdict()]


async def test_a_refused_call_says_why(page: Client) -> None:
    for payload, code, field in (
        ({"operation": "models.get", "input": {"id": "nobody"}}, "NOT_FOUND", None),
        ({"operation": "models.get", "input": {}}, "VALIDATION_ERROR", "id"),
        ({"operation": "models.get", "input": {"id": []}}, "VALIDATION_ERROR", "id"),
        ({"operation": "models.get", "input": 7}, "VALIDATION_ERROR", "input"),
        ({"operation": "metrics.history", "input": {"hours": 0}}, "VALIDATION_ERROR", "hours"),
        ({"operation": "no.such", "input": {}}, "NOT_FOUND", None),
        ({"input": {}}, "VALIDATION_ERROR", "operation"),
        (7, "VALIDATION_ERROR", "payload"),
    ):
        result = await page.ask("call", payload)
        assert result["ok"] is False
        assert result["error"]["code"] == code, result
        assert result["error"].get("field") == field
        assert result["error"]["message"]


async def test_a_failed_load_carries_the_log(page: Client) -> None:
    call = {"operation": "models.load", "input": {"id": "chat", "options": {"fake-fail": True}}}
    result = await page.ask("call", call)
    assert "exit code 1" in result["error"]["message"]
    assert "made to fail" in result["error"]["details"]


async def test_a_wrong_topic_or_event_is_refused(page: Client) -> None:
    assert (await page.ask("join", {"topic": "weather"}))["error"]["field"] == "topic"
    assert (await page.ask("join", {}))["error"]["field"] == "topic"
    assert (await page.ask("join", {"topic": "models", "since": "x"}))["error"]["field"] == "since"
    assert (await page.ask("dance"))["error"]["field"] == "event"
    assert (await page.ask("call", {"operation": "x" * 1_100_000}))["error"]["message"].startswith("payload: ")


async def test_an_unexpected_error_is_answered_with_a_trace_id(
    page: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(schema, "model_summary", fail)
    with caplog.at_level(logging.ERROR, "llama_async_proxy"):
        result = await page.ask("join", {"topic": "models"})
    assert result["error"]["code"] == "INTERNAL_ERROR"
    assert "trace" in result["error"]["message"]
    assert "secret of the inside" in caplog.text
