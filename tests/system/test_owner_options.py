"""Attacks on the real service with the real engine: no program runs, no file is emptied or shown."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.service import RunningService, ServiceFactory

pytestmark = pytest.mark.engine


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("the secret")
    return path


def attacks(directory: Path, secret: Path) -> Iterator[tuple[str, Any]]:
    command = {"command": "/bin/sh", "args": ["-c", f"touch {directory}/ran"]}
    yield "mcp-servers-json", json.dumps({"mcpServers": {"x": command}})
    yield "log-file", str(secret)
    yield "chat-template-file", str(secret)
    yield "mmproj", str(secret)
    yield "slot-save-path", str(directory)
    yield "tools", "all"


def ways(at: RunningService, key: str, value: Any) -> Iterator[tuple[int, Any]]:
    yield at.call("PATCH", "/api/models/chat", {"options": {key: value}})
    yield at.call("POST", "/api/models/chat/load", {"options": {key: value}})
    yield at.call("PATCH", "/api/llama-server/options", {"options": {key: value}})
    yield at.call("POST", "/api/config", {"llama": {"options": [f"{key}={value}"]}})
    yield at.call("POST", "/api/preset-import", {"name": "evil", "content": f"[*]\n{key} = {value}\n"})
    yield at.call("PUT", "/api/presets/evil", {"config": {"*": {key: value}}})


def test_no_way_in_runs_a_program_or_touches_a_file(
    start_service: ServiceFactory, models_dir: Path, tmp_path: Path, secret: Path
) -> None:
    at = start_service(models_dir=models_dir)
    at.wait_for_models(4)
    for key, value in attacks(tmp_path, secret):
        for status, answer in ways(at, key, value):
            assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED"), answer
            assert key in answer["error"]["message"]
            assert "by hand" in answer["error"]["message"]
        content = f"[*]\n{key} = {value}\n"
        verdict = at.call("POST", "/api/preset-validation", {"content": content})[1]["data"]
        assert verdict["valid"] is False
        assert [fault["kind"] for fault in verdict["errors"]] == ["owner"]
    assert at.call("POST", "/api/models/chat/load")[0] == 200
    shown = json.dumps(at.call("GET", "/props?model=chat")[1])
    assert "the secret" not in shown
    assert secret.read_text() == "the secret"
    assert not (tmp_path / "ran").exists()


def test_a_row_of_an_earlier_version_does_not_load(
    start_service: ServiceFactory, models_dir: Path, tmp_path: Path, secret: Path
) -> None:
    at = start_service(models_dir=models_dir)
    at.wait_for_models(4)
    at.stop()
    for key, value in attacks(tmp_path, secret):
        with contextlib.closing(sqlite3.connect(at.data_dir / "service.db")) as database, database:
            database.execute("UPDATE models SET options = ? WHERE slug = 'chat'", (json.dumps({key: value}),))
        at.start()
        status, answer = at.call("POST", "/api/models/chat/load")
        assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED"), answer
        assert key in answer["error"]["message"]
        question = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}
        status, answer = at.call("POST", "/v1/chat/completions", question)
        assert (status, answer["error"]["type"]) == (403, "permission_error"), answer
        at.stop()
    assert secret.read_text() == "the secret"
    assert not (tmp_path / "ran").exists()


def test_what_the_owner_says_by_hand_holds(
    start_service: ServiceFactory, models_dir: Path, tmp_path: Path, secret: Path
) -> None:
    at = start_service("--option", f"chat-template-file={secret}", models_dir=models_dir)
    at.wait_for_models(4)
    assert at.call("POST", "/api/models/chat/load")[0] == 200
    assert "the secret" in json.dumps(at.call("GET", "/props?model=chat")[1])
    presets = at.data_dir / "presets"
    (presets / "owner.ini").write_text(f"[chat]\nlog-file = {tmp_path}/engine.log\n")
    assert at.call("POST", "/api/llama-server/preset", {"preset": "owner"})[0] == 200
    at.wait_until(lambda: (tmp_path / "engine.log").exists(), bool, 60)


def test_a_program_that_others_can_write_to_is_reported_and_not_run(tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\necho 'version: 1'\n")
    program.chmod(0o777)
    with RunningService(tmp_path, "--llama-server", str(program)) as at:
        status, answer = at.call("GET", "/api/health")
        assert status == 503
        assert "can write to" in json.dumps(answer)
    assert not (tmp_path / "ran").exists()
