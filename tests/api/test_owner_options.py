"""What only the owner of the machine may set is refused on every way in that leads over the network."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from api.harness import ServiceHarness, client, house
from llama_async_proxy.errors import PermissionDenied
from llama_async_proxy.operations.models import LoadModel, load_model
from llama_async_proxy.presets.catalogue import as_text
from llama_async_proxy.records.runtime import ModelStatus

TOOLS = json.dumps({"mcpServers": {"x": {"command": "/bin/sh", "args": ["-c", "id"]}}})
ATTACKS: Mapping[str, Any] = {
    "mcp-servers-json": TOOLS,
    "LLAMA_ARG_MCP_SERVERS_JSON": TOOLS,
    "log-file": "/tmp/emptied",
    "agent": True,
    "ag": True,
    "mmproj": "/etc/passwd",
}
PRESET = "[*]\nlog-file = /tmp/emptied\n"
HAND = "by hand"


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files) as running:
        yield running


async def denied(at: ServiceHarness, method: str, path: str, body: Any) -> str:
    status, answer = await at.call(method, path, body)
    assert (status, answer["success"], answer["error"]["code"]) == (403, False, "PERMISSION_DENIED"), answer
    assert HAND in answer["error"]["message"]
    return str(answer["error"]["message"])


@pytest.mark.parametrize(("key", "value"), ATTACKS.items())
async def test_rest_refuses_such_an_option_and_changes_nothing(at: ServiceHarness, key: str, value: Any) -> None:
    options = {"temp": 0.5, key: value}
    new = {"models": [{"path": str(at.models_dir / "chat.gguf"), "name": "again", "options": options}]}
    for method, path, body in (
        ("PATCH", "/api/models/chat", {"options": options}),
        ("POST", "/api/models", new),
        ("POST", "/api/models/chat/load", {"options": options}),
        ("PATCH", "/api/llama-server/options", {"options": options}),
        ("POST", "/api/llama-server/preset", {"preset": "default", "options": options}),
        ("POST", "/api/config", {"llama": {"options": ["temp=0.5", f"{key}={as_text(value)}"]}}),
    ):
        if "preset" in path:
            await at.call("POST", "/api/presets", {"name": "default"})
        message = await denied(at, method, path, body)
        assert key in message or "agent" in message or "mcp-servers-json" in message, path
    model = at.context.names.index.resolve("chat")
    assert model is not None
    assert (model.options, at.context.scheduler.runtime(model.id).status) == ({}, ModelStatus.UNLOADED)
    assert at.context.configuration.settings.engine_options == ()


async def test_both_socket_dialects_refuse_such_options(at: ServiceHarness) -> None:
    await at.call("POST", "/api/presets", {"name": "own"})
    bad = {"log-file": "/tmp/emptied"}
    section = {"*": bad}
    async with client(at) as page, client(at, "/llamaproxws", path="socket.io") as ack:
        for event, payload in (
            ("models:update", {"modelId": 1, "updates": {"params": bad}}),
            ("models:load", {"modelId": 1, "options": bad}),
            ("llama:config", {"settings": bad}),
            ("presets:start-with-preset", {"filename": "own", "options": bad}),
            ("presets:save", {"filename": "own", "config": section}),
            ("presets:add-model", {"filename": "own", "modelName": "m", "config": bad}),
            ("presets:update-defaults", {"filename": "own", "config": bad}),
            ("config:update", {"config": {"serverPath": "/bin/sh"}}),
            ("config:update", {"config": {"llama": {"options": ["log-file=/tmp/emptied"]}}}),
        ):
            answer = await page.ask(event, {**payload, "requestId": "r"})
            assert answer["success"] is False, event
            assert answer["error"]["code"] == "PERMISSION_DENIED", answer
            assert HAND in answer["error"]["message"]
        for event, payload in (
            ("presets:save", {"filename": "own", "config": section}),
            ("config:update", {"llama": {"serverPath": "/bin/sh"}}),
        ):
            answer = await ack.ask(event, payload)
            assert (answer["success"], answer["error"]["code"]) == (False, "PERMISSION_DENIED"), answer
        for page_ in (page, ack):
            verdict = await page_.ask("presets:validate-config", {"config": section})
            assert verdict["data"]["valid"] is False
            assert "log-file" in verdict["data"]["errors"][0]


async def test_the_ui_refuses_such_options(at: ServiceHarness) -> None:
    async with client(at, "/ui") as page:
        for operation, given in (
            ("models.update", {"id": "chat", "options": {"log-file": "/x"}}),
            ("models.load", {"id": "chat", "options": {"log-file": "/x"}}),
            ("options.configure", {"options": {"log-file": "/x"}}),
            ("config.update", {"changes": {"serverPath": "/bin/sh"}}),
            ("presets.import", {"name": "x", "content": PRESET}),
        ):
            answer = await page.ask("call", {"operation": operation, "input": given})
            assert answer["error"]["code"] == "PERMISSION_DENIED", answer


async def test_no_way_into_a_preset_takes_such_a_line(at: ServiceHarness) -> None:
    await at.call("POST", "/api/presets", {"name": "own"})
    await at.call("POST", "/api/preset-import", {"name": "own", "content": "[m]\ntemp = 1\n", "replace": True})
    section = {"log-file": "/tmp/emptied"}
    for method, path, body in (
        ("PUT", "/api/presets/own", {"content": PRESET}),
        ("PUT", "/api/presets/own", {"config": {"*": section}}),
        ("PUT", "/api/presets/new", {"content": PRESET}),
        ("POST", "/api/preset-import", {"name": "new", "content": PRESET}),
        ("POST", "/api/preset-import", {"name": "own", "content": PRESET, "replace": True}),
        ("POST", "/api/presets/own/models", {"name": "n", "config": section}),
        ("PATCH", "/api/presets/own/models/m", {"config": section}),
        ("PATCH", "/api/presets/own/defaults", {"config": section}),
    ):
        message = await denied(at, method, path, body)
        assert "log-file" in message, path
        assert "line " in message, path
    status, answer = await at.call("POST", "/api/preset-validation", {"content": PRESET})
    assert (status, answer["data"]["valid"]) == (200, False)
    [fault] = answer["data"]["errors"]
    assert (fault["kind"], fault["section"], fault["key"], fault["line"]) == ("owner", "*", "log-file", 2)
    assert HAND in fault["message"]
    assert [preset["name"] for preset in (await at.call("GET", "/api/presets"))[1]["data"]["presets"]] == [
        "default",
        "own",
    ]


async def test_a_line_that_the_owner_wrote_stays_but_does_not_spread(at: ServiceHarness) -> None:
    directory = at.context.store.presets.directory
    (directory / "owner.ini").write_text(PRESET)
    for body in ({"content": PRESET + "c = 1\n"}, {"config": {"*": {"log-file": "/tmp/emptied", "c": 2}}}):
        assert (await at.call("PUT", "/api/presets/owner", body))[0] == 200
    assert (await at.call("POST", "/api/llama-server/preset", {"preset": "owner"}))[0] == 200
    await denied(at, "PUT", "/api/presets/owner", {"content": PRESET.replace("emptied", "other")})
    await denied(at, "POST", "/api/presets/owner/clone", {"name": "copy"})
    assert (await at.call("PUT", "/api/presets/owner", {"content": "[*]\nc = 1\n"}))[0] == 200
    versions = (await at.call("GET", "/api/presets/owner/versions"))[1]["data"]["versions"]
    await denied(at, "POST", f"/api/presets/owner/versions/{versions[0]['id']}/restore", {})


async def test_options_for_every_model_that_the_owner_set_stay(tmp_path: Path, model_files: Path) -> None:
    async with house(tmp_path, model_files, engine_options=("log-file=/tmp/mine",)) as at:
        assert (await at.call("PATCH", "/api/llama-server/options", {"options": {"temp": 0.5}}))[0] == 200
        assert at.context.configuration.settings.engine_options == ("log-file=/tmp/mine", "temp=0.5")
        body = {"llama": {"options": ["temp=0.7", "log-file=/tmp/mine"]}}
        assert (await at.call("POST", "/api/config", body))[0] == 200
        await denied(at, "PATCH", "/api/llama-server/options", {"options": {"log-file": "/tmp/other"}})
        assert (await at.call("PATCH", "/api/llama-server/options", {"options": {"log-file": None}}))[0] == 200


async def test_a_row_of_an_earlier_version_does_not_load(at: ServiceHarness) -> None:
    model = at.context.names.index.resolve("chat")
    assert model is not None
    await at.context.store.models.update(model.id, options={"mcp-servers-json": TOOLS})
    with pytest.raises(PermissionDenied, match="mcp-servers-json"):
        await load_model(at.context, LoadModel("chat"))
    await denied(at, "POST", "/api/models/chat/load", {})
    assert at.context.scheduler.runtime(model.id).pid is None


async def test_a_models_directory_that_a_caller_chose_makes_no_text_a_model(at: ServiceHarness) -> None:
    assert (await at.call("POST", "/api/config", {"basePath": "/etc"}))[0] == 200
    assert "GGUF" in await denied(at, "PATCH", "/api/models/chat", {"options": {"mmproj": "/etc/passwd"}})


async def test_a_preset_is_chosen_by_name_never_by_path(at: ServiceHarness, tmp_path: Path) -> None:
    (tmp_path / "evil.ini").write_text("[*]\nagent = true\n")
    for name in (str(tmp_path / "evil"), "../../evil", "../evil"):
        status, answer = await at.call("POST", "/api/config", {"llama": {"preset": name}})
        assert (status, answer["error"]["code"]) == (400, "VALIDATION_ERROR")
    await at.context.configuration.update({"llama.preset": str(tmp_path / "evil")})  # from a file of earlier versions
    await at.context.active_preset.restore()
    assert at.context.active_preset.name is None
    assert "llama.preset" in (at.context.active_preset.problem or "")


# --- settings that name programs and addresses ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"serverPath": "/bin/sh"}, "serverPath"),
        ({"llama": {"serverPath": "/bin/sh"}}, "llama.serverPath"),
        ({"host": "0.0.0.0"}, "host"),
        ({"server": {"host": "0.0.0.0"}}, "server.host"),
        ({"llama": {"engine": "router"}}, "llama.engine"),
        ({"server": {"dataDir": "/tmp"}}, "server.dataDir"),
        ({"llama": {"routerUrl": "http://evil.example"}}, "llama.routerUrl"),
        ({"llama": {"routerApiKeyFile": "/etc/passwd"}}, "llama.routerApiKeyFile"),
    ],
)
async def test_what_names_programs_and_addresses_takes_the_owners_hand(at: ServiceHarness, body: Any, key: str) -> None:
    before = at.context.configuration.settings
    assert (await denied(at, "POST", "/api/config", {"threads": 7, **body})).startswith(key)
    assert at.context.configuration.settings == before


async def test_a_program_that_discovery_finds_may_be_chosen(
    at: ServiceHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to(program)
    await denied(at, "POST", "/api/config", {"serverPath": str(program)})
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert (await at.call("POST", "/api/config", {"serverPath": str(program)}))[0] == 200
    assert at.context.configuration.settings.llama_server == str(program)
    await denied(at, "POST", "/api/config", {"serverPath": str(link)})
    assert (await at.call("POST", "/api/config", {"serverPath": ""}))[0] == 200
    assert at.context.configuration.settings.llama_server == ""


async def test_the_program_that_the_owner_named_may_be_chosen_again(tmp_path: Path, model_files: Path) -> None:
    async with house(tmp_path, model_files, llama_server="/opt/mine/llama-server") as at:
        for path in ("", "/opt/mine/llama-server"):
            assert (await at.call("POST", "/api/config", {"serverPath": path}))[0] == 200
            assert at.context.configuration.settings.llama_server == path


SAMPLE = {
    "host": "localhost",
    "port": 8134,
    "basePath": "/path/to/models",
    "serverPath": "/home/bamer/llama.cpp/build/bin/llama-server",
    "ctx_size": 8192,
    "batch_size": 512,
    "threads": -1,
    "gpu_layers": -1,
}
"""What a documented client posts."""


async def test_a_path_without_a_program_is_kept_shown_and_never_run(at: ServiceHarness, tmp_path: Path) -> None:
    status, answer = await at.call("POST", "/api/config", SAMPLE)
    assert (status, answer["data"]) == (200, SAMPLE)
    assert any("is kept and shown, but not run" in warning for warning in answer["warnings"])
    assert (await at.call("GET", "/api/config"))[1]["data"] == SAMPLE
    assert at.context.configuration.settings.llama_server == ""
    again = (await at.call("POST", "/api/config", SAMPLE))[1]
    assert any("is kept and shown, but not run" in warning for warning in again["warnings"])
    written = json.loads((tmp_path / "data" / "llama-server-config.json").read_text())
    assert "serverPath" not in written
    assert written["llama"] == {"requestedServerPath": SAMPLE["serverPath"]}


async def test_a_program_that_appears_later_at_such_a_path_is_not_run(at: ServiceHarness, tmp_path: Path) -> None:
    later = tmp_path / "later"
    assert (await at.call("POST", "/api/config", {"serverPath": str(later)}))[0] == 200
    later.write_text("#!/bin/sh\n")
    later.chmod(0o755)
    assert (await at.call("POST", "/api/config", {"serverPath": str(later)}))[0] == 200
    assert at.context.configuration.settings.llama_server == ""
    async with client(at) as page:
        shown = (await page.ask("config:get", {"requestId": "r"}))["data"]["config"]
        assert shown["serverPath"] == str(later)
        answer = await page.ask("config:update", {"config": shown, "requestId": "s"})
        assert answer["success"], answer
    assert at.context.configuration.settings.llama_server == ""
