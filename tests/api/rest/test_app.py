from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI
from msgspec.structs import replace

from api.harness import ServiceHarness, house
from llama_async_proxy.api.rest import monitoring
from llama_async_proxy.api.rest import status as status_routes
from llama_async_proxy.operations.metrics import History, Metrics
from llama_async_proxy.records.machine import GpuSample, HistoryPoint, Sample
from llama_async_proxy.records.runtime import ModelStatus
from llama_async_proxy.store.writer import Writer
from support.asgi import RawClient

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files) as at:
        yield at


def assert_failure(answer: Any, code: str, *parts: str) -> None:
    assert answer["success"] is False
    assert answer["error"]["code"] == code
    assert ISO.fullmatch(answer["timestamp"])
    for part in parts:
        assert part in answer["error"]["message"]


# --- models -----------------------------------------------------------------------------------------------------------


async def test_the_list_of_models_serves_both_kinds_of_client(at: ServiceHarness) -> None:
    status, answer = await at.call("GET", "/api/models")
    assert (status, answer["success"], answer["data"]["count"], answer["count"]) == (200, True, 4, 4)
    assert ISO.fullmatch(answer["timestamp"])
    assert sorted(answer["models"]) == ["chat.gguf", "embed.gguf", "rerank.gguf", "slow.gguf"]
    assert answer["llamacpp_url"] == "http://127.0.0.1:3000"
    [chat] = [model for model in answer["data"]["models"] if model["id"] == "chat"]
    assert chat["path"] == str(at.models_dir / "chat.gguf")
    assert chat["size"] == (at.models_dir / "chat.gguf").stat().st_size
    assert (chat["family"], chat["format"], chat["status"]) == ("llama", "gguf", "discovered")
    assert chat["contextSize"] > 0
    assert "loadedAt" not in chat


async def test_a_model_is_found_by_any_of_its_names(at: ServiceHarness) -> None:
    for name in ("chat", "CHAT", "chat.gguf"):
        status, answer = await at.call("GET", f"/api/models/{name}")
        assert (status, answer["data"]["id"]) == (200, "chat")


async def test_an_unknown_model_is_not_found_and_close_names_are_suggested(at: ServiceHarness) -> None:
    status, answer = await at.call("GET", "/api/models/chaat")
    assert status == 404
    assert_failure(answer, "NOT_FOUND", "Model not found")
    assert "chat" in answer["error"]["details"]


async def test_models_are_registered_listed_and_removed(at: ServiceHarness, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.gguf"
    path.write_bytes((at.models_dir / "chat.gguf").read_bytes())
    body = {"models": [{"name": "My Chat", "path": str(path), "family": "mistral", "version": "1.0", "status": "x"}]}
    status, answer = await at.call("POST", "/api/models", body)
    assert status == 200
    assert answer["message"] == "Models registered successfully"
    assert answer["data"]["registered"] == 1
    [created] = answer["data"]["models"]
    assert (created["id"], created["status"], created["family"]) == ("My-Chat", "registered", "mistral")
    assert (await at.call("GET", "/api/models/my-chat"))[1]["data"]["status"] == "stopped"
    status, answer = await at.call("DELETE", "/api/models/my-chat")
    assert (status, answer["data"]) == (200, {"modelId": "My-Chat"})
    assert answer["message"] == "Model removed successfully"
    assert path.exists()
    assert (await at.call("GET", "/api/models/my-chat"))[0] == 404


async def test_a_registered_path_conflicts_and_the_whole_batch_is_refused(at: ServiceHarness, tmp_path: Path) -> None:
    path = tmp_path / "new.gguf"
    path.write_bytes((at.models_dir / "chat.gguf").read_bytes())
    body = {"models": [{"path": str(path)}, {"path": str(at.models_dir / "chat.gguf")}]}
    status, answer = await at.call("POST", "/api/models", body)
    assert status == 409
    assert_failure(answer, "CONFLICT", "chat.gguf is registered already")
    assert (await at.call("GET", "/api/models"))[1]["count"] == 4


WRONG_REGISTRATIONS: list[tuple[Any, str]] = [
    ({"models": []}, "models"),
    ({"models": "chat.gguf"}, "models"),
    ({}, "models"),
    ([], "body"),
    ({"models": [{"name": "x"}]}, "models[0].path"),
    ({"models": [{"path": 7}]}, "models[0].path"),
    ({"models": [{"path": "relative.gguf"}]}, "models[0].path"),
    ({"models": [{"path": "/nonexistent/x.gguf"}]}, "models[0].path"),
    ({"models": [{"path": "/dev/null"}]}, "models[0].path"),
    ({"models": [{"path": "/x", "contextSize": -1}]}, "models[0].contextSize"),
    ({"models": [{"path": "/x", "contextSize": 10**30}]}, "models[0].contextSize"),
    ({"models": [{"path": "/a\u0000b"}]}, "models[0].path"),
]


async def test_a_wrong_registration_names_the_field(at: ServiceHarness) -> None:
    for body, field in WRONG_REGISTRATIONS:
        status, answer = await at.call("POST", "/api/models", body)
        assert status == 400
        assert_failure(answer, "VALIDATION_ERROR")
        assert answer["error"]["message"].startswith(f"{field}: ")
        assert (await at.call("GET", "/api/models"))[1]["count"] == 4


async def test_all_faults_of_a_body_are_told_at_once(at: ServiceHarness) -> None:
    _, answer = await at.call("POST", "/api/models", {"models": [{"path": 7, "name": False}]})
    assert "models[0].name" in answer["error"]["message"] + answer["error"]["details"]
    assert "models[0].path" in answer["error"]["message"] + answer["error"]["details"]


async def test_a_model_is_changed_field_by_field(at: ServiceHarness) -> None:
    body = {"name": "Talker", "contextSize": 1024, "isFavorite": True, "aliases": ["t1"], "options": {"threads": 2}}
    status, answer = await at.call("PATCH", "/api/models/chat", body)
    assert status == 200
    assert answer["data"]["id"] == "chat"
    for field, value in body.items():
        assert answer["data"][field] == value
    status, answer = await at.call("PATCH", "/api/models/t1", {"description": "Says things"})
    assert (answer["data"]["name"], answer["data"]["description"]) == ("Talker", "Says things")


async def test_variants_are_set_shown_and_resolved(at: ServiceHarness) -> None:
    variants = [
        {"name": "chat-bold", "parameters": {"temperature": 1.5, "stop": ["x"]}, "systemPrompt": "Be bold."},
        {"name": "chat-plain", "parameters": {}},
    ]
    status, answer = await at.call("PATCH", "/api/models/chat", {"variants": variants})
    assert (status, answer["data"]["variants"]) == (200, variants)
    assert (await at.call("GET", "/api/models/CHAT-BOLD"))[1]["data"]["id"] == "chat"
    assert (await at.call("PATCH", "/api/models/slow", {"aliases": ["Chat-Bold"]}))[0] == 409
    assert (await at.call("PATCH", "/api/models/chat", {"variants": []}))[1]["data"]["variants"] == []


WRONG_CHANGES: list[tuple[Any, str]] = [
    ({"variants": [{"parameters": {}}]}, "variants[0].name"),
    ({"variants": [{"name": "v", "parameters": {"model": "x"}}]}, "variants[0].parameters.model"),
    ({"variants": [{"name": "chat"}]}, "variants"),
    ({"isFavorite": "yes"}, "isFavorite"),
    ({"contextSize": "1"}, "contextSize"),
    ({"options": {"a": []}}, "options.a"),
]


async def test_a_wrong_change_names_the_field(at: ServiceHarness) -> None:
    for body, field in WRONG_CHANGES:
        status, answer = await at.call("PATCH", "/api/models/chat", body)
        assert status == 400
        assert_failure(answer, "VALIDATION_ERROR", field)


async def test_loading_answers_when_the_model_is_ready(at: ServiceHarness, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    body = {"options": {"fake-gate": str(gate)}}
    loading = asyncio.create_task(at.call("POST", "/api/models/chat/load", body))
    await until_status(at, "loading")
    gate.touch()
    status, answer = await loading
    assert (status, answer["data"]["status"], answer["message"]) == (200, "running", "Model loaded successfully")
    assert ISO.fullmatch(answer["data"]["loadedAt"])
    status, answer = await at.call("DELETE", "/api/models/chat")
    assert status == 409
    assert_failure(answer, "CONFLICT", "in use")
    status, answer = await at.call("POST", "/api/models/chat/unload")
    assert (status, answer["data"]["id"]) == (200, "chat")
    assert (await at.call("POST", "/api/models/chat/stop"))[0] == 409
    assert (await at.call("POST", "/api/models/chat/start"))[1]["data"]["status"] == "running"
    assert (await at.call("POST", "/api/models/chat/stop"))[0] == 200


async def until_status(at: ServiceHarness, status: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            answer = (await at.call("GET", "/api/models/chat"))[1]
            if answer["data"]["status"] == status:
                return answer


async def test_a_failed_load_says_why_with_the_last_lines_of_the_log(at: ServiceHarness) -> None:
    status, answer = await at.call("POST", "/api/models/chat/load", {"options": {"fake-fail": True}})
    assert status == 503
    assert_failure(answer, "SERVICE_UNAVAILABLE", "exit code 1")
    assert "made to fail" in answer["error"]["details"]
    model = (await at.call("GET", "/api/models/chat"))[1]["data"]
    assert model["status"] == "error"
    assert model["error"]


async def test_a_scan_finds_new_files_and_reports_broken_ones(at: ServiceHarness) -> None:
    (at.models_dir / "more.gguf").write_bytes((at.models_dir / "chat.gguf").read_bytes())
    (at.models_dir / "cut.gguf").write_bytes((at.models_dir / "chat.gguf").read_bytes()[:3000])
    for path in ("/api/models/scan", "/api/llama-server/rescan"):
        status, answer = await at.call("POST", path)
        assert status == 200
        assert answer["data"]["total"] == 5
        [broken] = answer["data"]["failed"]
        assert broken["path"].endswith("cut.gguf")
        assert broken["reason"]


async def test_missing_files_are_cleaned_up(at: ServiceHarness) -> None:
    (at.models_dir / "chat.gguf").unlink()
    status, answer = await at.call("POST", "/api/models/cleanup")
    assert (status, answer["data"]) == (200, {"deletedCount": 1, "deleted": ["chat"]})


async def test_discovery_looks_without_registering(at: ServiceHarness, tmp_path: Path) -> None:
    other = tmp_path / "other" / "deep"
    other.mkdir(parents=True)
    (other / "found.gguf").write_bytes((at.models_dir / "chat.gguf").read_bytes())
    body = {"paths": [str(tmp_path / "other")], "recursive": True, "excludePatterns": ["*.tmp"]}
    status, answer = await at.call("POST", "/api/models/discover", body)
    assert status == 200
    assert answer["data"]["totalFound"] == 1
    assert answer["data"]["scannedPaths"] == body["paths"]
    [found] = answer["data"]["discovered"]
    assert (found["name"], found["path"], found["format"]) == ("found", str(other / "found.gguf"), "gguf")
    assert "id" not in found
    flat = await at.call("POST", "/api/models/discover", {**body, "recursive": False})
    assert flat[1]["data"]["totalFound"] == 0
    assert (await at.call("POST", "/api/models/discover"))[1]["data"]["totalFound"] == 4
    assert (await at.call("GET", "/api/models"))[1]["count"] == 4


async def test_a_directory_that_is_none_cannot_be_searched(at: ServiceHarness) -> None:
    status, answer = await at.call("POST", "/api/models/discover", {"paths": ["/nonexistent"]})
    assert status == 400
    assert_failure(answer, "VALIDATION_ERROR", "paths[0]", "/nonexistent")


# --- configuration ----------------------------------------------------------------------------------------------------


async def test_the_configuration_serves_both_kinds_of_client(at: ServiceHarness) -> None:
    status, answer = await at.call("GET", "/api/config")
    assert status == 200
    assert answer["data"] == {
        "host": "localhost",
        "port": 8134,
        "basePath": str(at.models_dir),
        "serverPath": "",
        "ctx_size": -1,
        "batch_size": -1,
        "threads": -1,
        "gpu_layers": -1,
    }
    assert answer["timeouts"] == {"llamacpp_timeout": 600, "llamacpp_connect_timeout": 5}
    assert answer["performance"]["num_thread"] == -1
    assert answer["performance"]["use_mmap"] is None
    assert answer["model_options"]["temperature"] is None
    assert answer["response_optimization"]["keep_alive"] == "-1"
    assert "message" not in answer


async def test_the_whole_configuration_can_be_sent_back_changed(at: ServiceHarness, tmp_path: Path) -> None:
    config = (await at.call("GET", "/api/config"))[1]["data"]
    changed = {**config, "ctx_size": 4096, "threads": 2, "serverPath": "/nonexistent/llama-server"}
    status, answer = await at.call("POST", "/api/config", changed)
    assert status == 200
    assert (answer["data"], answer["message"]) == (changed, "Configuration updated successfully")
    assert answer["restartRequired"] is False
    assert "/nonexistent/llama-server" in answer["warnings"][0]
    assert (await at.call("GET", "/api/config"))[1]["data"] == changed
    written = json.loads((tmp_path / "data" / "llama-server-config.json").read_text())
    assert written["ctx_size"] == 4096


async def test_our_own_settings_are_nested(at: ServiceHarness) -> None:
    body = {"server": {"port": 4000}, "llama": {"idleTtl": 600}, "inference": {"idleTimeout": 30}}
    status, answer = await at.call("POST", "/api/config", body)
    assert (status, answer["restartRequired"]) == (200, True)
    shown = (await at.call("GET", "/api/config"))[1]
    assert shown["response_optimization"]["keep_alive"] == "600s"
    assert (shown["settings"]["server"]["port"], shown["settings"]["inference"]["idleTimeout"]) == (4000, 30)
    assert shown["data"]["port"] == 8134


async def test_what_the_command_line_will_set_again_is_said(at: ServiceHarness) -> None:
    _, answer = await at.call("POST", "/api/config", {"basePath": "/"})
    assert answer["overridden"] == ["basePath"]


WRONG_SETTINGS: list[tuple[Any, str]] = [
    ({"port": "8134"}, "port"),
    ({"port": 70000}, "port"),
    ({"port": None}, "port"),
    ({"port": 80.5}, "port"),
    ({"port": True}, "port"),
    ({"basePath": "relative"}, "basePath"),
    ({"server": {"port": 0}}, "server.port"),
    ({"server": "x"}, "server"),
    ({"logLevel": "loud"}, "logLevel"),
    ({"no_such_key": 1}, "no_such_key"),
    ([], "body"),
    (7, "body"),
]


async def test_a_wrong_setting_is_named_and_nothing_changes(at: ServiceHarness) -> None:
    for body, field in WRONG_SETTINGS:
        before = (await at.call("GET", "/api/config"))[1]["data"]
        sent = {"threads": 7, **body} if isinstance(body, dict) else body
        status, answer = await at.call("POST", "/api/config", sent)
        assert status == 400
        assert_failure(answer, "VALIDATION_ERROR")
        assert answer["error"]["message"].startswith(f"{field}: ")
        assert (await at.call("GET", "/api/config"))[1]["data"] == before


NO_NUMBERS = [
    b'{"threads": NaN}',
    b'{"threads": Infinity}',
    b'{"threads": 1e999}',
    b'{"threads": 1%b}' % (b"0" * 400),
    b'{"server": {"port": 1e999}, "threads": 1}',
    b'{"server": {"port": NaN}, "threads": 1}',
    b'{"llama": {"idleTtl": 1%b}, "threads": 1}' % (b"0" * 400),
]


async def test_numbers_that_are_none_are_refused(at: ServiceHarness) -> None:
    for literal in NO_NUMBERS:
        headers = {"content-type": "application/json"}
        async with at.http.post(at.url + "/api/config", data=literal, headers=headers) as response:
            assert response.status == 400
            assert_failure(await response.json(), "VALIDATION_ERROR", ": ")


# --- health, status, monitoring ---------------------------------------------------------------------------------------


async def test_health_is_200_while_all_is_well_even_with_the_engine_stopped(at: ServiceHarness) -> None:
    status, answer = await at.call("GET", "/api/health")
    assert (status, answer["data"]["status"]) == (200, "healthy")
    assert answer["data"]["services"]["proxy"]["status"] == "healthy"
    assert answer["data"]["services"]["llama_server"]["models_loaded"] == 0
    assert 0 < answer["data"]["system"]["memory_usage"] <= 100
    await at.call("POST", "/api/llama-server/stop")
    assert (await at.call("GET", "/api/health"))[0] == 200


async def test_health_is_503_and_says_what_is_wrong(at: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_async_proxy.errors import StoreUnavailable

    monkeypatch.setattr(Writer, "problem", StoreUnavailable("The disk is full."))
    status, answer = await at.call("GET", "/api/health")
    assert status == 503
    assert_failure(answer, "SERVICE_UNAVAILABLE", "The disk is full.")
    assert answer["data"]["status"] == "unhealthy"
    assert answer["data"]["services"]["proxy"]["status"] == "unhealthy"
    assert answer["data"]["services"]["llama_server"]["status"] == "healthy"


async def test_status_counts_models_and_requests(at: ServiceHarness) -> None:
    await at.call("POST", "/api/models/chat/load")
    await at.call("POST", "/api/models/slow/load", {"options": {"fake-fail": True}})
    status, answer = await at.call("GET", "/api/status")
    assert status == 200
    assert answer["data"]["models"] == {"registered": 4, "loaded": 1, "loading": 0, "failed": 1}
    performance = answer["data"]["performance"]
    assert performance["requests_total"] == 3
    assert performance["requests_active"] == 1
    assert performance["average_response_time"] > 0
    assert performance["error_rate"] == pytest.approx(1 / 3, abs=0.001)
    assert answer["data"]["server"] == {"port": 3000, "host": "127.0.0.1", "ssl": False, "cors_enabled": False}


async def test_monitoring_is_the_machine_now(at: ServiceHarness) -> None:
    status, answer = await at.call("GET", "/api/monitoring")
    data = answer["data"]
    assert status == 200
    assert data["cpu"]["cores"] >= 1
    assert len(data["cpu"]["loadAverage"]) == 3
    assert 0 < data["memory"]["used"] < data["memory"]["total"] < 1 << 30, "MiB, not bytes"
    assert data["disk"]["total"] > 1 << 20, "bytes"
    assert data["models"] == {"active": 0, "total": 4, "memoryUsage": 0}
    assert "gpu" not in data


async def test_history_is_bounded_and_names_the_wrong_parameter(at: ServiceHarness) -> None:
    await at.context.store.flush()
    status, answer = await at.call("GET", "/api/monitoring/history?hours=2&resolution=1m")
    assert status == 200
    assert answer["data"]["period"]["resolution"] == "1m"
    assert set(answer["data"]["summary"]) == {
        "avgCpu", "maxCpu", "avgMemory", "maxMemory", "totalRequests", "avgResponseTime",
    }  # fmt: skip
    for query, field in (
        ("hours=0", "hours"),
        ("hours=169", "hours"),
        ("hours=nan", "hours"),
        ("hours=x", "hours"),
        ("resolution=2m", "resolution"),
    ):
        status, answer = await at.call("GET", f"/api/monitoring/history?{query}")
        assert status == 400
        assert_failure(answer, "VALIDATION_ERROR", f"{field}: ")


def sample(**changes: Any) -> Sample:
    base = Sample(
        timestamp_ms=0, cpu_percent=12.345, cpu_cores=2, load_average=None, memory_used_bytes=3 << 20,
        memory_total_bytes=4 << 20, memory_available_bytes=1 << 20, swap_used_bytes=0, swap_total_bytes=0,
        disk_used_bytes=1, disk_total_bytes=3, disk_free_bytes=2, uptime_s=1.25,
    )  # fmt: skip
    return replace(base, **changes)


def test_units_of_monitoring() -> None:
    gpus = (
        GpuSample(0, "Known", "nvidia", 50.0, 4 << 20, 8 << 20, 60.0, 100.0),
        GpuSample(1, "Silent", "intel"),
    )
    data = monitoring.monitoring_data(Metrics(sample(gpus=gpus), 7)).model_dump(by_alias=True, exclude_none=True)
    assert data["cpu"] == {"usage": 12.3, "cores": 2, "loadAverage": [0, 0, 0]}
    assert data["memory"] == {"used": 3, "total": 4, "free": 1, "usagePercent": 75}
    assert data["disk"] == {"used": 1, "total": 3, "free": 2, "usagePercent": 33.3}
    memory = {"used": 4, "total": 8, "free": 4, "usagePercent": 50}
    assert data["gpu"] == [
        {"id": 0, "name": "Known", "memory": memory, "utilization": 50, "temperature": 60},
        {"id": 1, "name": "Silent"},
    ]


def test_the_summary_weighs_response_times_by_requests() -> None:
    def point(cpu: float, requests: int, response_ms: float | None) -> HistoryPoint:
        return HistoryPoint(60_000, cpu, 50, 10, 0, None, None, None, requests, response_ms)

    data = monitoring.history_data(History(0, 1000, "1m", (point(10, 1, 100), point(20, 3, 200), point(60, 0, None))))
    assert data.summary.avg_cpu == 30
    assert data.summary.max_cpu == 60
    assert data.summary.total_requests == 4
    assert data.summary.avg_response_time == 175
    assert data.metrics[0].timestamp == "1970-01-01T00:01:00.000Z"
    assert monitoring.history_data(History(0, 1000, "1m", ())).summary.avg_response_time == 0


# --- the engine -------------------------------------------------------------------------------------------------------


async def test_the_engine_stops_starts_and_says_so(at: ServiceHarness) -> None:
    status, answer = await at.call("GET", "/api/llama-server")
    assert (status, answer["data"]["status"], answer["data"]["mode"]) == (200, "running", "router")
    assert (await at.call("POST", "/api/llama-server/stop"))[1]["data"]["status"] == "idle"
    status, answer = await at.call("POST", "/api/llama-server/stop")
    assert status == 409
    status, answer = await at.call("POST", "/api/models/chat/load")
    assert status == 503
    assert_failure(answer, "SERVICE_UNAVAILABLE", "not running")
    assert (await at.call("POST", "/api/llama-server/start"))[1]["data"]["status"] == "running"
    assert (await at.call("POST", "/api/models/chat/load"))[0] == 200
    status, answer = await at.call("POST", "/api/llama-server/restart")
    assert (status, answer["data"]["status"]) == (200, "running")
    assert at.context.engine.runtime(1).status is ModelStatus.UNLOADED


# --- the framework's own failures -------------------------------------------------------------------------------------


async def test_an_unknown_route_is_404_in_our_shape(at: ServiceHarness) -> None:
    for path in ("/api", "/api/nothing", "/api/models/a/b/c"):
        status, answer = await at.call("GET", path)
        assert status == 404, path
        assert_failure(answer, "NOT_FOUND", path)


async def test_doubled_and_trailing_slashes_find_their_route(at: ServiceHarness) -> None:
    for path in ("//api/models", "/api/models/", "/api//models//chat/"):
        status, answer = await at.call("GET", path)
        assert (status, answer["success"]) == (200, True), path


async def test_numbers_that_json_does_not_have_are_refused_by_the_field(at: ServiceHarness) -> None:
    for text in (b"NaN", b"-Infinity", b"1e999"):
        body = b'{"options": {"temp": [1, {"x": %b}]}}' % text
        async with at.http.patch(
            at.url + "/api/models/chat", data=body, headers={"content-type": "application/json"}
        ) as response:
            assert response.status == 400
            assert_failure(await response.json(), "VALIDATION_ERROR", "options.temp[1].x")


async def test_answers_are_neither_sniffed_nor_stored(at: ServiceHarness) -> None:
    for path in ("/api/models", "/api/nothing", "/api/docs"):
        async with at.http.get(at.url + path) as response:
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in response.headers["content-security-policy"]


async def test_a_wrong_method_is_405_and_says_which_are_right(at: ServiceHarness) -> None:
    async with at.http.put(at.url + "/api/models/chat", json={}) as response:
        assert response.status == 405
        assert response.headers["allow"] == "DELETE, GET, HEAD, PATCH"
        assert_failure(await response.json(), "METHOD_NOT_ALLOWED", "PUT", "PATCH")


async def test_head_is_get_without_the_body(at: ServiceHarness) -> None:
    async with at.http.head(at.url + "/api/status") as response:
        assert response.status == 200
        assert await response.read() == b""


MALFORMED = [b"{", b"", b"\xff\xfe", b'{"threads": 1} x', b"[" * 100_000]


async def test_malformed_json_is_400(at: ServiceHarness) -> None:
    for body in MALFORMED:
        headers = {"content-type": "application/json; charset=utf-8"}
        async with at.http.post(at.url + "/api/config", data=body, headers=headers) as response:
            assert response.status == 400
            assert_failure(await response.json(), "VALIDATION_ERROR")


async def test_a_body_that_is_no_json_is_415(at: ServiceHarness) -> None:
    async with at.http.post(at.url + "/api/config", data=b"a=1", headers={"content-type": "text/plain"}) as response:
        assert response.status == 415
        assert_failure(await response.json(), "VALIDATION_ERROR", "application/json", "text/plain")


async def test_a_body_over_the_limit_is_413_whether_declared_or_not(at: ServiceHarness) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * (1 << 16)

    for body in (io.BytesIO(b" " * ((1 << 20) + 1)), chunks()):
        async with at.http.post(
            at.url + "/api/config", data=body, headers={"content-type": "application/json"}
        ) as response:
            assert response.status == 413
            assert_failure(await response.json(), "VALIDATION_ERROR", "1 MiB")


async def test_what_nobody_expected_is_500_with_a_trace_that_is_logged(
    at: ServiceHarness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(status_routes, "status_data", fail)
    with caplog.at_level(logging.ERROR, "llama_async_proxy"):
        status, answer = await at.call("GET", "/api/status")
    assert status == 500
    assert_failure(answer, "INTERNAL_ERROR")
    assert "secret" not in json.dumps(answer)
    trace = answer["error"]["details"].removeprefix("trace ")
    [record] = [record for record in caplog.records if trace in record.getMessage()]
    assert "secret of the inside" in str(record.exc_info)


async def test_a_client_that_leaves_amid_its_body_disturbs_nobody(at: ServiceHarness) -> None:
    port = int(at.url.rpartition(":")[2])
    async with RawClient.connected(port) as client:
        client.writer.write(b"POST /api/config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        await client.writer.drain()
    assert (await at.call("GET", "/api/config"))[0] == 200


# --- the document -----------------------------------------------------------------------------------------------------


async def test_the_document_is_valid_and_knows_no_422(at: ServiceHarness) -> None:
    status, document = await at.call("GET", "/api/openapi.json")
    assert status == 200
    assert document["openapi"].startswith("3.1")
    OpenAPI.model_validate(document)
    text = json.dumps(document)
    assert '"422"' not in text
    assert "HTTPValidationError" not in text
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert references <= set(document["components"]["schemas"])


async def test_each_operation_of_the_document_has_its_own_id_and_its_failures(at: ServiceHarness) -> None:
    document = (await at.call("GET", "/api/openapi.json"))[1]
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    for operation in operations:
        assert "ErrorAnswer" in json.dumps(operation["responses"]["500"])
        assert operation["description"]


async def test_the_documentation_needs_nothing_from_elsewhere(at: ServiceHarness) -> None:
    async with at.http.get(at.url + "/api/docs") as response:
        page = await response.text()
    assert response.status == 200
    assert response.content_type == "text/html"
    for path in ("/api/models/{model_id}/load", "/api/monitoring/history"):
        assert path in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(https?:)?//', page)
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= set(re.findall(r'id="([^"]+)"', page))
