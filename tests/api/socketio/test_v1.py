from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from api.harness import Client, ServiceHarness, answers, client, house
from llama_async_proxy.api.socketio.v1 import metrics as v1_metrics
from llama_async_proxy.api.socketio.v1 import models as v1_models
from llama_async_proxy.api.socketio.v1.dialect import V1
from llama_async_proxy.events import EngineChanged, ScanProgressed
from llama_async_proxy.records.engine import EngineEventType
from llama_async_proxy.records.machine import GpuSample


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files, metrics_broadcast_s=0.05) as at:
        yield at


@pytest.fixture
async def page(at: ServiceHarness) -> AsyncIterator[Client]:
    async with client(at) as connected:
        yield connected


def assert_refused(answer: Any, code: str, *parts: str) -> None:
    assert (answer["success"], answer["data"]) == (False, None)
    assert answer["error"]["code"] == code, answer["error"]
    for part in parts:
        assert part in answer["error"]["message"]


async def model_of(page: Client, name: str) -> Any:
    models = (await page.ask("models:list"))["data"]["models"]
    return next(model for model in models if model["name"] == name)


# --- envelopes --------------------------------------------------------------------------------------------------------


async def test_a_flat_request_is_answered_on_its_result_event(page: Client, at: ServiceHarness) -> None:
    before_ms = at.context.now_ms()
    await page.emit("models:list", {"requestId": "req_1", "timestamp": 1})
    answer = await page.until("models:list:result")
    assert before_ms <= answer.pop("timestamp") <= at.context.now_ms()
    assert len(answer.pop("data")["models"]) == 4
    assert answer == {
        "type": "response",
        "event": "models:list:result",
        "success": True,
        "error": None,
        "requestId": "req_1",
        "version": "1.0",
    }


async def test_an_enveloped_request_is_answered_like_a_flat_one(page: Client) -> None:
    model = await model_of(page, "chat")
    request = {
        "type": "request",
        "event": "models:get",
        "data": {"modelId": model["id"]},
        "requestId": "req_2",
        "timestamp": 1,
        "version": "1.0",
    }
    await page.emit("models:get", request)
    answer = await page.until("models:get:result")
    assert (answer["requestId"], answer["data"]) == ("req_2", {"model": model})


async def test_an_acknowledgement_takes_the_place_of_the_result(page: Client) -> None:
    answer = await page.ask("models:list", {"requestId": "req_3"})
    assert (answer["event"], answer["requestId"]) == ("models:list:result", "req_3")
    await page.emit("config:get")
    await page.until("config:get:result")
    assert page.all("models:list:result") == []


async def test_an_acknowledgement_with_id_zero_is_answered(page: Client) -> None:
    from socketio import packet

    acknowledged = asyncio.get_running_loop().create_future()
    page.socket._handle_ack = lambda _, id_, data: _resolved(acknowledged, (id_, data))
    await page.socket._send_packet(packet.Packet(packet.EVENT, data=["models:list", {}], namespace="/", id=0))
    id_, [answer] = await asyncio.wait_for(acknowledged, 30)
    assert (id_, answer["success"]) == (0, True)


async def _resolved(future: asyncio.Future[Any], value: Any) -> None:
    future.set_result(value)


async def test_a_missing_request_id_is_generated(page: Client) -> None:
    first, second = await page.ask("llama:status"), await page.ask("llama:status", {})
    assert first["requestId"].startswith("req_")
    assert first["requestId"] != second["requestId"]


async def test_every_event_is_answered_with_and_without_an_acknowledgement(page: Client) -> None:
    """The payload fits none of the events, so that no operation runs."""
    for name in V1.by_event:
        answer = await page.ask(name, [1])
        assert_refused(answer, "INVALID_REQUEST", "must be an object")
        if name not in ("subscribe", "message"):
            await page.emit(name, {"requestId": name, "type": "request", "data": 7})
            result = "llama:start:result" if name == "llama:restart" else f"{name}:result"
            assert_refused(await page.until(result, answers(name)), "INVALID_REQUEST", "data: ")


async def test_an_unknown_event_is_refused_not_ignored(page: Client) -> None:
    assert_refused(await page.ask("models:explode", {"requestId": "r"}), "INVALID_REQUEST", "models:explode")
    await page.emit("models:explode")
    assert_refused(await page.until("models:explode:result"), "INVALID_REQUEST")
    for reserved in ("message", "disconnecting", "", "x" * 5000):
        assert_refused(await page.ask(reserved), "INVALID_REQUEST")


async def test_a_payload_other_than_an_object_is_refused(page: Client) -> None:
    payloads: tuple[Any, ...] = (7, "text", [], True, b"bytes", {"type": "request", "data": []})
    for payload in payloads:
        assert_refused(await page.ask("models:get", payload), "INVALID_REQUEST", "must be an object")


async def test_a_payload_over_one_megabyte_is_refused_and_the_connection_lives_on(page: Client) -> None:
    answer = await page.ask("models:get", {"modelId": 1, "ballast": "x" * 1_100_000})
    assert_refused(answer, "INVALID_REQUEST", "1 MB")
    assert (await page.ask("models:list"))["success"]


async def test_a_long_load_does_not_hold_up_other_events_of_the_client(page: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    payload = {"modelName": "chat", "options": {"fake-gate": str(gate)}, "requestId": "load"}
    await page.emit("models:load", payload)
    await page.until("models:status", lambda b: b["data"]["status"] == "loading")
    assert (await page.ask("models:list"))["success"]
    assert page.all("models:load:result") == []
    gate.touch()
    answer = await page.until("models:load:result")
    assert (answer["requestId"], answer["data"]) == ("load", {"modelName": "chat", "status": "loaded"})


async def test_an_unexpected_error_gets_the_events_own_code_and_a_trace_id(
    page: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(v1_models, "model", fail)
    with caplog.at_level(logging.ERROR, "llama_async_proxy"):
        answer = await page.ask("models:list")
    assert_refused(answer, "LIST_MODELS_FAILED", "trace")
    assert "secret" not in str(answer)
    assert "secret of the inside" in caplog.text


# --- models -----------------------------------------------------------------------------------------------------------


async def test_models_have_the_documented_fields(page: Client, at: ServiceHarness) -> None:
    model = await model_of(page, "chat")
    path = at.models_dir / "chat.gguf"
    assert isinstance(model["id"], int)
    assert (model["model_path"], model["file_size"]) == (str(path), path.stat().st_size)
    assert (model["type"], model["status"], model["params"], model["is_favorite"]) == ("llama", "unloaded", {}, False)
    assert model["ctx_size"] > 0
    assert model["created_at"] == model["updated_at"] > 1_600_000_000_000


async def test_every_client_learns_of_a_created_changed_and_deleted_model(
    at: ServiceHarness, page: Client, tmp_path: Path
) -> None:
    path = tmp_path / "new.gguf"
    path.write_bytes((at.models_dir / "chat.gguf").read_bytes())
    async with client(at) as other:
        new = {"name": "New", "model_path": str(path), "type": "mistral", "ctx_size": 512, "quantization": "Q4"}
        created = (await page.ask("models:create", {"model": new}))["data"]["model"]
        assert {key: created[key] for key in new} == new
        for witness in (page, other):
            message = await witness.until("models:created")
            assert (message["type"], message["event"], message["data"]) == (
                "broadcast",
                "models:created",
                {"model": created},
            )
            assert isinstance(message["timestamp"], int)
        updates = {"name": "Newer", "ctx_size": 1024, "params": {"threads": 2}}
        changed = (await page.ask("models:update", {"modelId": created["id"], "updates": updates}))["data"]["model"]
        assert {key: changed[key] for key in updates} == updates
        assert (await other.until("models:updated"))["data"] == {"model": changed}
        variant = {"name": "bold", "parameters": {"temperature": 2}, "system_prompt": "Be bold."}
        updates = {"aliases": ["other-name"], "variants": [variant]}
        changed = (await page.ask("models:update", {"modelId": created["id"], "updates": updates}))["data"]["model"]
        assert {key: changed[key] for key in updates} == updates
        favorite = await page.ask("models:toggle-favorite", {"modelId": created["id"], "favorite": True})
        assert favorite["data"]["model"]["is_favorite"] is True
        await other.until("models:updated", lambda b: b["data"]["model"]["is_favorite"])
        assert (await page.ask("models:delete", {"modelId": created["id"]}))["data"] == {"deletedId": created["id"]}
        assert (await other.until("models:deleted"))["data"] == {"deletedId": created["id"], "modelName": "Newer"}
    assert path.exists()


async def test_wrong_payloads_name_the_field_as_the_client_spelled_it(page: Client, at: ServiceHarness) -> None:
    model_id = (await model_of(page, "chat"))["id"]
    path = str(at.models_dir / "chat.gguf")
    for event, payload, field in (
        ("models:get", {}, "modelId"),
        ("models:get", {"modelId": "1"}, "modelId"),
        ("models:get", {"modelId": None}, "modelId"),
        ("models:get", {"modelId": True}, "modelId"),
        ("models:create", {}, "model"),
        ("models:create", {"model": {"model_path": path}}, "model.name"),
        ("models:create", {"model": {"name": "x"}}, "model.model_path"),
        ("models:create", {"model": {"name": "x", "model_path": path, "ctx_size": "big"}}, "model.ctx_size"),
        ("models:update", {"modelId": model_id}, "updates"),
        ("models:update", {"modelId": model_id, "updates": {}}, "updates"),
        ("models:update", {"modelId": model_id, "updates": {"name": 7}}, "updates.name"),
        ("models:update", {"modelId": model_id, "updates": {"variants": [{}]}}, "updates.variants[0].name"),
        ("models:update", {"modelId": model_id, "updates": {"ctx_size": 10**30}}, "updates.ctx_size"),
        ("models:toggle-favorite", {"modelId": model_id}, "favorite"),
        ("models:toggle-favorite", {"modelId": model_id, "favorite": "yes"}, "favorite"),
        ("models:load", {}, "modelName"),
        ("models:load", {"modelName": 7}, "modelName"),
        ("models:load", {"modelName": "chat", "options": 7}, "options"),
        ("metrics:history", {"limit": 0}, "limit"),
        ("metrics:history", {"limit": 2001}, "limit"),
        ("metrics:history", {"start": "now"}, "start"),
        ("metrics:history", {"end": 10**30}, "end"),
        ("config:update", {}, "config"),
        ("config:update", {"config": []}, "config"),
        ("models:get", {"modelId": 1, "requestId": {}}, "requestId"),
    ):
        answer = await page.ask(event, payload)
        assert_refused(answer, "INVALID_REQUEST")
        assert answer["error"]["message"].startswith(f"{field}: "), answer["error"]


async def test_refused_requests_carry_the_events_own_code(page: Client, at: ServiceHarness) -> None:
    chat = await model_of(page, "chat")
    unknown = 10**6
    new = {"name": "x", "model_path": chat["model_path"]}
    for event, payload, code, part in (
        ("models:get", {"modelId": unknown}, "GET_MODEL_FAILED", "Model not found"),
        ("models:get", {"modelId": 2**63}, "GET_MODEL_FAILED", "Model not found"),
        ("models:create", {"model": new}, "CREATE_MODEL_FAILED", "registered already"),
        ("models:create", {"model": {**new, "model_path": "rel.gguf"}}, "CREATE_MODEL_FAILED", "model.model_path: "),
        ("models:update", {"modelId": unknown, "updates": {"name": "x"}}, "NOT_FOUND", "Model not found"),
        ("models:update", {"modelId": chat["id"], "updates": {"name": "slow"}}, "UPDATE_MODEL_FAILED", "slow"),
        ("models:update", {"modelId": chat["id"], "updates": {"name": " "}}, "UPDATE_MODEL_FAILED", "updates.name: "),
        ("models:delete", {"modelId": unknown}, "DELETE_MODEL_FAILED", "Model not found"),
        ("models:toggle-favorite", {"modelId": unknown, "favorite": True}, "NOT_FOUND", "Model not found"),
        ("models:load", {"modelName": "nobody"}, "LOAD_MODEL_FAILED", "Model not found"),
        ("models:load", {"modelId": unknown}, "LOAD_MODEL_FAILED", "Model not found"),
        ("models:unload", {"modelName": "chat"}, "UNLOAD_MODEL_FAILED", "not loaded"),
        ("config:update", {"config": {"threads": "many"}}, "CONFIG_UPDATE_FAILED", "threads: "),
        ("config:update", {"config": {"nonsense": 1}}, "CONFIG_UPDATE_FAILED", "nonsense"),
    ):
        assert_refused(await page.ask(event, payload), code, part)
    await page.ask("config:update", {"config": {"baseModelsPath": "/nonexistent"}})
    assert_refused(await page.ask("models:scan"), "SCAN_MODELS_FAILED", "/nonexistent")


async def test_every_client_learns_of_each_status_of_a_load(at: ServiceHarness, page: Client) -> None:
    model_id = (await model_of(page, "chat"))["id"]
    async with client(at) as other:
        answer = await page.ask("models:load", {"modelId": model_id, "options": {"fake-progress": 50}})
        assert answer["data"] == {"modelName": "chat", "status": "loaded"}
        assert_refused(await page.ask("models:delete", {"modelId": model_id}), "DELETE_MODEL_FAILED", "in use")
        answer = await page.ask("models:unload", {"modelName": "chat.gguf"})
        assert answer["data"] == {"modelName": "chat", "status": "unloaded"}
        await other.until("models:status", lambda b: b["data"]["status"] == "unloaded")
        statuses = [message["data"]["status"] for message in other.all("models:status")]
    assert statuses == ["loading", "loaded", "unloaded"]


async def test_a_failed_load_is_announced_with_its_reason(page: Client) -> None:
    answer = await page.ask("models:load", {"modelName": "chat", "options": {"fake-fail": True}})
    assert_refused(answer, "LOAD_MODEL_FAILED", "exit code 1")
    assert "made to fail" in answer["error"]["details"]
    message = await page.until("models:status", lambda b: b["data"]["status"] == "error")
    assert message["data"]["modelName"] == "chat"
    assert message["data"]["error"]
    assert (await model_of(page, "chat"))["status"] == "error"


async def test_a_scan_and_a_cleanup_report_counts(at: ServiceHarness, page: Client) -> None:
    (at.models_dir / "more.gguf").write_bytes((at.models_dir / "chat.gguf").read_bytes())
    (at.models_dir / "cut.gguf").write_bytes((at.models_dir / "chat.gguf").read_bytes()[:3000])
    counts = {"scanned": 1, "updated": 0, "total": 5, "failed": 1}
    assert (await page.ask("models:scan"))["data"] == counts
    assert (await page.until("models:scanned"))["data"] == counts
    (at.models_dir / "more.gguf").unlink()
    assert (await page.ask("models:cleanup", {}))["data"] == {"deletedCount": 1}
    assert (await page.until("models:deleted"))["data"]["modelName"] == "more"


async def test_a_long_scan_reports_progress_but_not_every_file(at: ServiceHarness, page: Client) -> None:
    for done in range(1000):
        at.context.bus.publish(ScanProgressed(done, 1000))
    assert (await page.until("models:scan-progress"))["data"] == {"done": 0, "total": 1000}
    await page.ask("models:list")
    assert len(page.all("models:scan-progress")) == 1


# --- metrics ----------------------------------------------------------------------------------------------------------


async def test_metrics_are_percentages_and_an_absent_gpu_is_null(page: Client) -> None:
    metrics = (await page.ask("metrics:get"))["data"]["metrics"]
    for part, field in (("cpu", "usage"), ("memory", "used"), ("swap", "used"), ("disk", "used")):
        assert 0 <= metrics[part][field] <= 100
        assert round(metrics[part][field], 1) == metrics[part][field]
    assert metrics["gpu"] == {"usage": None, "memoryUsed": None, "memoryTotal": None, "list": []}
    assert metrics["uptime"] >= 0


async def test_connected_clients_receive_metrics_without_a_request(page: Client) -> None:
    message = await page.until("metrics:update")
    assert set(message["data"]["metrics"]) == {"cpu", "memory", "swap", "disk", "gpu", "uptime", "timestamp"}
    count = len(page.all("metrics:update"))
    await page.until("metrics:update", lambda _: len(page.all("metrics:update")) > count)


async def test_history_is_newest_first_and_bounded(at: ServiceHarness, page: Client) -> None:
    start = at.context.now_ms() - 60_000
    for moment in (start, start + 1000, start + 2000):
        sample = await at.context.sampler.now()
        at.context.store.metrics.append(replace(sample, timestamp_ms=moment))
    await at.context.store.flush()
    history = (await page.ask("metrics:history", {"end": start + 2000, "limit": 2}))["data"]["history"]
    assert [entry["timestamp"] - start for entry in history] == [2000, 1000]
    history = (await page.ask("metrics:history", {"start": start + 500, "end": start + 1500}))["data"]["history"]
    assert [entry["timestamp"] - start for entry in history] == [1000]


def test_values_of_several_gpus_are_summed_where_they_are_known() -> None:
    gpus = (
        GpuSample(0, "A", "nvidia", 40.0, 100, 1000),
        GpuSample(1, "B", "nvidia", 60.0, 200, 1000),
        GpuSample(2, "C", "intel"),
    )
    summed = v1_metrics._gpus(gpus)
    assert (summed.usage, summed.memoryUsed, summed.memoryTotal) == (50, 300, 2000)
    assert summed.list[2] == v1_metrics.V1Gpu("C", None, None, None, "intel")


# --- configuration and engine -----------------------------------------------------------------------------------------


async def test_the_configuration_can_be_sent_back_as_it_came(page: Client, at: ServiceHarness) -> None:
    config = (await page.ask("config:get"))["data"]["config"]
    assert config["baseModelsPath"] == str(at.models_dir)
    assert {"ctx_size", "threads", "serverPath", "logLevel", "server", "llama"} <= set(config)
    assert "basePath" not in config, "one spelling for one setting"
    config["threads"] = 3
    answer = (await page.ask("config:update", {"config": config}))["data"]
    assert (answer["config"], answer["restartRequired"]) == (config, False)
    assert (await page.ask("config:get"))["data"]["config"]["threads"] == 3


async def test_every_client_learns_once_that_the_engine_stopped_and_started(at: ServiceHarness, page: Client) -> None:
    status = (await page.ask("llama:status"))["data"]
    assert status == {"status": "running", "port": 3000, "url": "http://127.0.0.1:3000", "mode": "router"}
    async with client(at) as other:
        assert (await page.ask("llama:start"))["data"] == {
            "success": True, "port": 3000, "url": "http://127.0.0.1:3000", "mode": "router",
        }  # fmt: skip
        assert (await page.ask("llama:stop"))["data"] == {"status": "idle"}
        assert (await other.until("models:router-stopped"))["data"] == {"reason": "stopped"}
        assert_refused(await page.ask("llama:stop"), "STOP_LLAMA_FAILED", "not running")
        assert_refused(await page.ask("models:load", {"modelName": "chat"}), "LOAD_MODEL_FAILED", "router not running")
        await page.ask("llama:start")
        await other.until("llama:status", lambda b: b["data"]["status"] == "running")
        events = [message["data"] for message in other.all("llama:server-event")]
        statuses = [message["data"] for message in other.all("llama:status")]
    assert [event["type"] for event in events] == ["stopped", "started"]
    assert [event["data"]["status"] for event in events] == ["idle", "running"]
    assert statuses == [{"status": "idle"}, status]


async def test_a_restart_answers_as_a_start(page: Client) -> None:
    await page.emit("llama:restart", {"requestId": "again"})
    answer = await page.until("llama:start:result")
    assert (answer["event"], answer["requestId"], answer["data"]["success"]) == ("llama:start:result", "again", True)


async def test_a_dying_model_is_a_server_event_but_not_a_status_of_the_engine(at: ServiceHarness, page: Client) -> None:
    state = at.context.engine.state
    at.context.bus.publish(EngineChanged(EngineEventType.CLOSED, state, "exit code 9", 1))
    message = await page.until("llama:server-event")
    assert (message["data"]["type"], message["data"]["data"]["error"]) == ("closed", "exit code 9")
    await page.ask("llama:status")
    assert page.all("llama:status") == []


async def test_connection_established_goes_to_the_asking_client_only(at: ServiceHarness, page: Client) -> None:
    async with client(at) as other:
        await page.emit("connection:ack", {})
        message = await page.until("connection:established")
        assert (message["type"], message["event"]) == ("broadcast", "connection:established")
        assert message["data"]["clientId"] == page.socket.get_sid("/")
        assert isinstance(message["data"]["timestamp"], int)
        await other.ask("models:list")
        assert other.all("connection:established") == []
    assert page.all("connection:ack:result") == []
