from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.harness import ServiceHarness, house


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files, log_console=True, log_file=True) as at:
        yield at


async def test_the_logger_is_shown_changed_in_part_and_kept(at: ServiceHarness, tmp_path: Path) -> None:
    status, answer = await at.call("GET", "/api/logger")
    assert (status, answer["data"]) == (200, {"level": "info", "console": True, "file": True, "maxFiles": 7})
    status, answer = await at.call("POST", "/api/logger", {"level": "debug", "file": False, "maxFiles": 3})
    changed = {"level": "debug", "console": True, "file": False, "maxFiles": 3}
    assert (status, answer["data"], answer["message"]) == (200, changed, "Logger updated successfully")
    assert (await at.call("GET", "/api/logger"))[1]["data"] == changed
    written = json.loads((tmp_path / "data" / "llama-server-config.json").read_text())
    assert written["logging"] == {"level": "debug", "file": False, "maxFiles": 3}


async def test_a_wrong_value_is_named_and_nothing_changes(at: ServiceHarness) -> None:
    for body, field in (
        ({"level": "loud"}, "level"),
        ({"console": "yes"}, "console"),
        ({"maxFiles": -1, "level": "debug"}, "maxFiles"),
        ({"file": None}, "file"),
    ):
        status, answer = await at.call("POST", "/api/logger", body)
        assert status == 400
        assert answer["error"]["message"].startswith(f"{field}: ")
    assert (await at.call("GET", "/api/logger"))[1]["data"]["level"] == "info"
