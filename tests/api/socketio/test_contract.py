"""The dialects' tables against a running service: every answer and every event is what the table says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.harness import Client, ServiceHarness, answers, client, house
from api.socketio.socket_requests import ACK_REQUESTS, V1_REQUESTS, in_order
from llama_async_proxy.api.socketio.ack.dialect import ACK
from llama_async_proxy.api.socketio.contract import Call, Dialect
from llama_async_proxy.api.socketio.v1.dialect import V1
from llama_async_proxy.operations.table import OPERATIONS


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(
        tmp_path, model_files, metrics_broadcast_s=0.2, models_feed_s=0.2, logs_feed_s=0.2, engine_broadcast_s=0.2
    ) as at:
        yield at


async def ask_everything(page: Client, dialect: Dialect, requests: Mapping[str, Any]) -> None:
    for event in in_order(dialect, requests):
        answer = await page.ask(event, requests.get(event, {}))
        assert answer["success"], (event, answer)
        msgspec.convert(answer["data"], strict_copy(dialect.by_event[event].answer))


def strict_copy(schema: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The same schema, refusing unknown fields."""
    return msgspec.defstruct(
        schema.__name__,
        [
            (field.name, field.type, field.default) if field.required is False else (field.name, field.type)
            for field in sorted(msgspec.structs.fields(schema), key=lambda field: not field.required)
        ],
        forbid_unknown_fields=True,
    )


async def test_every_v1_request_is_answered_as_its_schema_says(at: ServiceHarness, tmp_path: Path) -> None:
    path = tmp_path / "new.gguf"
    path.write_bytes((at.models_dir / "chat.gguf").read_bytes())
    async with client(at) as page:
        created = await page.ask("models:create", {"model": {"name": "New", "model_path": str(path)}})
        requests = {
            **V1_REQUESTS,
            "models:create": {"model": {"name": "Newer", "model_path": str(at.models_dir / "more.gguf")}},
            "models:delete": {"modelId": created["data"]["model"]["id"]},
        }
        (at.models_dir / "more.gguf").write_bytes(path.read_bytes())
        await ask_everything(page, V1, requests)


async def test_every_acknowledged_request_is_answered_as_its_schema_says(at: ServiceHarness) -> None:
    async with client(at, "/llamaproxws", path="socket.io") as page:
        await ask_everything(page, ACK, ACK_REQUESTS)


async def test_every_event_sent_is_in_the_table_and_fits_its_schema(at: ServiceHarness, tmp_path: Path) -> None:
    path = tmp_path / "new.gguf"
    path.write_bytes((at.models_dir / "chat.gguf").read_bytes())
    async with client(at) as v1, client(at, "/llamaproxws") as ack:
        for feed in ("metrics", "models", "logs"):
            await v1.emit("subscribe", {"type": feed})
        await v1.emit("subscribe", {"type": "weather"})
        await v1.emit("connection:ack", {})
        model_id = (await v1.ask("models:create", {"model": {"name": "New", "model_path": str(path)}}))["data"]["model"]
        await v1.ask("models:toggle-favorite", {"modelId": model_id["id"], "favorite": True})
        await v1.ask("models:load", {"modelName": "New"})
        await v1.until("llama-server:status")
        await v1.ask("models:unload", {"modelName": "New"})
        await v1.ask("models:delete", {"modelId": model_id["id"]})
        await v1.ask("models:scan")
        at.log("a line that people see")
        async with client(at, "/llamaproxws"):
            await ack.until("client:connected")
        await v1.ask("llama:stop")
        quiet = {"models:scan-progress"}
        for page, dialect in ((v1, V1), (ack, ACK)):
            schemas = {event.event: event.data for event in dialect.events}
            for name in schemas.keys() - quiet:
                await page.until(name)
            for name, message in page.received:
                data = message["data"] if message.get("type") == "broadcast" else message
                msgspec.convert(data, strict_copy(schemas[name]))


@pytest.mark.parametrize("dialect", [V1, ACK], ids=lambda dialect: dialect.title)
def test_tables_name_only_known_events_operations_and_codes(dialect: Dialect) -> None:
    events = {event.event for event in dialect.events}
    names = [call.event for call in dialect.calls]
    assert len(names) == len(set(names))
    for call in dialect.calls:
        assert set(call.broadcasts) <= events, call.event
        if isinstance(call, Call):
            assert OPERATIONS[call.operation.name] is call.operation
            assert {call.failure, call.not_found, call.invalid} - {None} <= dialect.codes.keys(), call.event


async def test_a_client_has_a_limit_of_running_requests(at: ServiceHarness, tmp_path: Path) -> None:
    """Requests over the limit are refused at once; other clients are served."""
    gate = tmp_path / "gate"
    request = {"modelName": "chat", "options": {"fake-gate": str(gate)}}
    async with client(at) as flooding, client(at) as other:
        for i in range(80):
            await flooding.emit("models:load", {**request, "requestId": str(i)})
        refused = await flooding.until("models:load:result")
        assert refused["error"]["code"] == "TIMEOUT"
        assert "are running" in refused["error"]["message"]
        assert (await other.ask("models:list"))["success"]
        gate.touch()
        loaded = await flooding.until("models:load:result", lambda answer: answer["success"])
        assert loaded["data"]["status"] == "loaded"
        for i in range(80):
            await flooding.until("models:load:result", answers(str(i)))
        assert (await flooding.ask("models:list"))["success"]


async def test_a_flood_of_log_lines_is_cut_and_counted(at: ServiceHarness) -> None:
    async with client(at) as page, client(at, "/llamaproxws") as ack:
        at.log(*(f"line {i}" for i in range(500)))
        event = await page.until("logs:entry", lambda b: "not shown" in b["data"]["entry"]["message"])
        assert event["data"]["entry"]["level"] == "warn"
        await page.until("logs:entry", lambda b: b["data"]["entry"]["message"] == "line 499")
        await ack.until("logs:entry", lambda b: b["entry"]["message"] == "line 499")
        assert len(page.all("logs:entry")) <= 101


async def test_queued_and_loading_are_announced_as_one_status(at: ServiceHarness) -> None:
    async with client(at) as page, client(at, "/llamaproxws") as ack:
        await page.ask("config:update", {"config": {"maxModels": 1}})
        await page.ask("models:load", {"modelName": "chat"})
        await page.ask("models:load", {"modelName": "slow"})
        await page.until("models:status", lambda b: b["data"] == {"modelName": "slow", "status": "loaded"})
        await ack.until("models:status", lambda b: (b["modelId"], b["status"]) == ("slow", "loaded"))
        statuses = [b["data"]["status"] for b in page.all("models:status") if b["data"]["modelName"] == "slow"]
        assert statuses == ["loading", "loaded"]
        assert [b["status"] for b in ack.all("models:status") if b["modelId"] == "slow"] == ["loading", "loaded"]


async def test_only_listed_log_files_can_be_read(at: ServiceHarness) -> None:
    at.context.log_files.append([at.line("first"), at.line("second")])
    async with client(at) as page:
        listed = (await page.ask("logs:list-files"))["data"]
        assert listed["files"] == ["service.log"]
        assert listed["size"] > 0
        for payload in ({}, {"fileName": "service.log"}):
            read = (await page.ask("logs:read-file", payload))["data"]
            assert [line["message"] for line in read["logs"]] == ["first", "second"]
            assert read["content"].count("\n") == 2
        for name in ("../service.log", "/etc/passwd", "..", "a/b", "a\\b", "C:x", "service.log\0"):
            refused = await page.ask("logs:read-file", {"fileName": name})
            assert refused["error"]["code"] == "PERMISSION_DENIED", name
        assert (await page.ask("logs:read-file", {"fileName": "other.log"}))["error"]["code"] == "NOT_FOUND"
        assert (await page.ask("logs:clear-files"))["data"] == {"cleared": 1}
        assert (await page.ask("logs:read-file"))["data"]["content"] == ""


async def test_preferences_are_stored_and_settings_among_them_take_effect_at_once(at: ServiceHarness) -> None:
    async with client(at) as page:
        changes = {"theme": "dark", "logLevel": "debug", "maxModelsLoaded": 2}
        assert changes.items() <= (await page.ask("settings:update", {"settings": changes}))["data"]["settings"].items()
        assert at.context.configuration.settings.max_models == 2
        refused = await page.ask("settings:update", {"settings": {"theme": "light", "logLevel": "loud"}})
        assert refused["error"]["code"] == "CONFIG_UPDATE_FAILED"
        found = (await page.ask("settings:get"))["data"]["settings"]
        assert (found["theme"], found["logLevel"], found["autoLoadModels"]) == ("dark", "debug", True)


async def test_feeds_reach_subscribers_only_and_repeat_their_fields_under_data(at: ServiceHarness) -> None:
    async with client(at) as page, client(at) as other:
        await page.emit("subscribe", {"type": "subscribe", "data": {"type": "models"}})
        event = await page.until("models_update")
        assert event["type"] == "models_update"
        assert event["data"]["models"] == event["models"]
        assert {model["id"] for model in event["models"]} == {"chat", "slow", "embed", "rerank"}
        await page.ask("models:load", {"modelName": "chat"})
        await page.until("models_update", lambda t: any(m["status"] == "running" for m in t["models"]))
        await page.emit("message", {"type": "subscribe", "data": {"type": "metrics"}, "timestamp": 1})
        metrics = await page.until("metrics_update")
        assert metrics["cpu"] == metrics["data"]["cpu"]
        assert 0 <= metrics["memory"]["usagePercent"] <= 100
        assert other.all("models_update") == other.all("metrics_update") == []
        assert page.all("subscribe:result") == []


async def test_feeds_carry_the_records_of_the_rest_api(at: ServiceHarness) -> None:
    variant = {"name": "brief", "parameters": {"max_tokens": 5}, "system_prompt": "Be brief."}
    updates = {"variants": [variant], "description": "A model", "params": {"threads": 2}, "is_pinned": True}
    async with client(at) as page:
        models = (await page.ask("models:list"))["data"]["models"]
        model_id = next(model["id"] for model in models if model["name"] == "chat")
        assert (await page.ask("models:update", {"modelId": model_id, "updates": updates}))["success"]
        await page.ask("models:load", {"modelName": "chat"})
        for feed in ("models", "metrics"):
            await page.emit("subscribe", {"type": feed})
        _, listed = await at.call("GET", "/api/models")
        feed_models = await page.until("models_update", lambda update: update["models"] == listed["data"]["models"])
        assert feed_models["data"]["models"] == listed["data"]["models"]
        update = await page.until("metrics_update")
        _, monitoring = await at.call("GET", "/api/monitoring")
    assert shape(update["data"]) == shape(monitoring["data"])
    assert update["data"]["models"]["total"] == monitoring["data"]["models"]["total"] == 4
    assert update["data"]["memory"]["total"] == monitoring["data"]["memory"]["total"]
    assert update["data"]["disk"]["total"] == monitoring["data"]["disk"]["total"]


def shape(value: Any) -> Any:
    """The same JSON with types in the place of values."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return float if isinstance(value, float | int) else type(value)


async def test_subscribers_learn_of_a_shutdown_before_the_connection_closes(at: ServiceHarness) -> None:
    async with client(at) as page:
        await page.ask("subscribe", {"type": "metrics"})
        await at.sockets.close()
        event = await page.until("error")
        assert (event["code"], event["reconnect"], event["retryIn"]) == ("SERVICE_UNAVAILABLE", True, 1000)


async def test_an_acknowledged_client_that_unsubscribes_receives_no_metrics(at: ServiceHarness) -> None:
    async with client(at, "/llamaproxws") as page:
        assert (await page.until("metrics:update"))["system"]["memory"]["total"] > 0
        assert (await page.ask("metrics:unsubscribe", {}))["data"] == {"subscribed": False}
        async with client(at, "/llamaproxws") as witness:
            count = len(page.all("metrics:update"))
            await witness.until("metrics:update")
            await witness.until("metrics:update", lambda _: len(witness.all("metrics:update")) > 2)
            assert len(page.all("metrics:update")) <= count + 1
        assert (await page.ask("metrics:subscribe", {}))["data"] == {"subscribed": True}
        await page.until("metrics:update", lambda _: len(page.all("metrics:update")) > count + 1)


async def test_refused_requests_of_the_acknowledged_dialect_carry_their_codes(at: ServiceHarness) -> None:
    async with client(at, "/llamaproxws") as page:
        for event, payload, code in (
            ("models:load", {"id": "nobody"}, "MODEL_NOT_FOUND"),
            ("models:info", {"id": "nobody"}, "MODEL_NOT_FOUND"),
            ("models:load", {}, "INVALID_REQUEST"),
            ("models:load", {"id": 7}, "INVALID_REQUEST"),
            ("models:load", "chat", "INVALID_REQUEST"),
            ("models:unload", {"id": "chat"}, "MODEL_UNLOAD_FAILED"),
            ("models:explode", {}, "INVALID_REQUEST"),
            ("presets:read", {"filename": "nobody"}, "PRESET_NOT_FOUND"),
            ("presets:read", {"filename": "../../etc/passwd"}, "CONFIG_INVALID"),
            ("presets:save", {"filename": "x", "config": {"*": {"no-such-key": "1"}}}, "CONFIG_INVALID"),
            ("config:update", {"server": {"port": "many"}}, "CONFIG_INVALID"),
            ("config:update", {"nonsense": 1}, "CONFIG_INVALID"),
            ("logs:get", {"level": "loud"}, "INVALID_REQUEST"),
            ("logs:get", {"since": "yesterday"}, "INVALID_REQUEST"),
            ("logs:get", {"x": "y" * 1_100_000}, "INVALID_REQUEST"),
        ):
            answer = await page.ask(event, payload)
            assert answer.keys() == {"success", "error", "timestamp"}, event
            assert (answer["success"], answer["error"]["code"]) == (False, code), (event, answer)
        config = (await page.ask("config:get", {}))["data"]
        answer = await page.ask("config:update", config)
        assert answer["data"]["restartRequired"] is False
        answer = await page.ask("config:update", {**config, "server": {"port": 3009}})
        assert answer["data"]["restartRequired"] is True


async def test_a_model_is_announced_by_its_slug(at: ServiceHarness) -> None:
    async with client(at, "/llamaproxws") as page, client(at, "/llamaproxws") as other:
        assert (await page.ask("models:load", {"id": "chat"}))["data"]["status"] == "loaded"
        assert await other.until("models:loaded") == {"modelId": "chat"}
        info = (await page.ask("models:info", {"id": "chat"}))["data"]
        assert info["name"] == "chat.gguf"
        assert set(info["parameters"]) == {"General", "Model", "Tokenizer"}
        assert info["parameters"]["General"]["architecture"] == "llama"
        assert (await page.ask("models:unload", {"id": "chat"}))["data"]["status"] == "unloaded"
        assert await other.until("models:unloaded") == {"modelId": "chat"}


async def test_other_clients_learn_who_connects_and_leaves(at: ServiceHarness) -> None:
    async with client(at, "/llamaproxws") as page:
        async with client(at, "/llamaproxws") as other:
            own_id = other.socket.get_sid("/llamaproxws")
            await page.until("client:connected", lambda b: b["clientId"] == own_id)
        await page.until("client:disconnected", lambda b: b["clientId"] == own_id)
        async with asyncio.timeout(30):
            assert not [b for b in page.all("client:connected") if b["clientId"] == page.socket.get_sid("/llamaproxws")]
