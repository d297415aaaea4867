from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api.harness import ServiceHarness, house
from llama_async_proxy.operations.active_preset import ActivePreset
from llama_async_proxy.operations.launch import LaunchPlanner
from llama_async_proxy.records.runtime import ModelStatus

GROUPED = {
    "*": {"temp": 0.5},
    "group:small": {"c": 512, "no-warmup": True},
    "chat": {"group": "small", "top-k": 7},
}


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files) as running:
        yield running


async def data(at: ServiceHarness, method: str, path: str, body: Any = None) -> Any:
    status, answer = await at.call(method, path, body)
    assert status == 200, answer
    assert answer["success"] is True
    return answer["data"]


async def refused(at: ServiceHarness, method: str, path: str, body: Any = None) -> tuple[int, str]:
    status, answer = await at.call(method, path, body)
    assert answer["success"] is False, answer
    return status, answer["error"]["message"] + "\n" + answer["error"].get("details", "")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def runtime(at: ServiceHarness, slug: str) -> Any:
    model = at.context.names.index.resolve(slug)
    assert model is not None
    return at.context.scheduler.runtime(model.id)


async def arguments(at: ServiceHarness, slug: str) -> list[str]:
    """What the model's process was started with."""
    endpoint = runtime(at, slug).endpoint
    async with at.http.get(f"http://{endpoint.host}:{endpoint.port}/fake/arguments") as response:
        found: list[str] = json.loads(await response.read())
        return found


# --- files ----------------------------------------------------------------------------------------


async def test_a_preset_from_its_making_to_its_end(at: ServiceHarness) -> None:
    made = await data(at, "POST", "/api/presets", {"name": "mine", "description": "For me"})
    assert (made["name"], made["title"], made["description"]) == ("mine", "mine", "For me")
    saved = await data(at, "PUT", "/api/presets/mine", {"config": GROUPED})
    assert saved["values"] == GROUPED
    assert saved["content"].startswith("; name: mine\n; description: For me\n[*]\ntemp = 0.5\n")
    assert (await data(at, "GET", "/api/presets/mine.ini"))["sections"]["chat"] == {"group": "small", "top-k": "7"}
    listed = await data(at, "GET", "/api/presets")
    assert [preset["name"] for preset in listed["presets"]] == ["default", "mine"]
    assert "active" not in listed
    assert await data(at, "DELETE", "/api/presets/mine") == {"name": "mine"}
    assert (await refused(at, "GET", "/api/presets/mine"))[0] == 404


async def test_text_is_saved_byte_for_byte_and_old_texts_come_back(at: ServiceHarness) -> None:
    first, second = "; one\r\n[*]\r\nc = 1\r\n", "[*]\nc = 2\n"
    await data(at, "POST", "/api/preset-import", {"name": "a", "content": "\ufeff" + first})
    await data(at, "PUT", "/api/presets/a", {"content": second})
    assert (await data(at, "GET", "/api/presets/a/export"))["content"] == second
    [version] = (await data(at, "GET", "/api/presets/a/versions"))["versions"]
    difference = await data(at, "GET", f"/api/presets/a/diff?version={version['id']}")
    assert difference["changes"] == [{"section": "*", "key": "c", "before": "2", "after": "1"}]
    restored = await data(at, "POST", f"/api/presets/a/versions/{version['id']}/restore")
    assert restored["content"] == first
    assert (await refused(at, "GET", "/api/presets/a/diff"))[0] == 400


async def test_copies_new_names_and_templates(at: ServiceHarness) -> None:
    await data(at, "POST", "/api/preset-import", {"name": "a", "content": "[*]\nc = 1\n"})
    assert (await data(at, "POST", "/api/presets/a/clone", {"name": "b"}))["values"] == {"*": {"c": 1}}
    assert (await data(at, "POST", "/api/presets/b/rename", {"name": "c"}))["name"] == "c"
    assert (await data(at, "GET", "/api/presets/a/diff?other=c"))["text"] == ""
    templates = (await data(at, "GET", "/api/preset-templates"))["templates"]
    assert [template["name"] for template in templates] == [
        "fast-chat",
        "code",
        "creative",
        "minimal-memory",
        "embeddings",
        "rerank",
    ]
    assert (await refused(at, "POST", "/api/presets", {"name": "x", "template": "none"}))[0] == 404
    assert (await refused(at, "POST", "/api/presets", {"name": "A"}))[0] == 409
    assert (await refused(at, "POST", "/api/preset-import", {"name": "a", "content": ""}))[0] == 409
    assert (await data(at, "POST", "/api/preset-import", {"name": "a", "content": "", "replace": True}))["values"] == {}


async def test_what_the_engine_would_refuse_changes_nothing(at: ServiceHarness) -> None:
    await data(at, "POST", "/api/preset-import", {"name": "a", "content": "[*]\nc = 1\n"})
    for body in ({"config": {"*": {"ctxsize": 1}}}, {"content": "[*]\nctxsize = 1\n"}):
        status, message = await refused(at, "PUT", "/api/presets/a", body)
        assert (status, "did you mean ctx-size?" in message) == (400, True)
    status, message = await refused(at, "PUT", "/api/presets/a", {"content": "[*]\nc = x\ntemp = y\n"})
    assert "line 2, column 5" in message
    assert "line 3, column 8" in message
    assert "no way to write" in (await refused(at, "PUT", "/api/presets/a", {"config": {"m": {"model": "/a;b"}}}))[1]
    assert (await refused(at, "PUT", "/api/presets/a", {}))[0] == 400
    assert (await refused(at, "PUT", "/api/presets/new", {"content": "[x"}))[0] == 400
    assert (await data(at, "GET", "/api/presets/a"))["content"] == "[*]\nc = 1\n"
    listed = await data(at, "GET", "/api/presets")
    assert [preset["name"] for preset in listed["presets"]] == ["a", "default"]


async def test_validation_tells_everything_and_stores_nothing(at: ServiceHarness) -> None:
    verdict = await data(at, "POST", "/api/preset-validation", {"config": {"*": {"c": 1}, "m": {"usage": True}}})
    assert (verdict["valid"], verdict["errors"], len(verdict["warnings"])) == (True, [], 1)
    verdict = await data(at, "POST", "/api/preset-validation", {"config": {"*": {"c": 1}, "m": {"host": "x"}}})
    assert (verdict["valid"], [fault["kind"] for fault in verdict["errors"]]) == (False, ["owner"])
    verdict = await data(at, "POST", "/api/preset-validation", {"content": "[*]\nc = x\n"})
    assert verdict["valid"] is False
    assert verdict["errors"] == [
        {
            "message": "c must be a whole number, not 'x'",
            "section": "*",
            "key": "c",
            "line": 2,
            "column": 5,
            "kind": "invalid",
        }
    ]
    assert (await data(at, "POST", "/api/preset-validation", {"config": {"a]": {}}}))["valid"] is False
    listed = await data(at, "GET", "/api/presets")
    assert [preset["name"] for preset in listed["presets"]] == ["default"]


async def test_a_name_with_a_trick_in_it_reaches_no_file(at: ServiceHarness) -> None:
    for name in ("..", "%2e%2e", ".hidden", "a%5Cb", "%00", "a%0A", "%20a", "a%2F..%2F..%2Fb"):
        async with at.http.put(f"{at.url}/api/presets/{name}", json={"content": ""}) as response:
            assert response.status in (400, 404, 405), name
    assert [file.name for file in at.context.store.presets.directory.iterdir()] == ["default.ini"]


async def test_a_broken_file_is_listed_with_its_problem(at: ServiceHarness) -> None:
    directory = at.context.store.presets.directory
    (directory / "a.ini").write_text("[*]\n  c = 1\n")
    (directory / "b.ini").write_bytes(b"\xff")
    listed = await data(at, "GET", "/api/presets")
    problems = {preset["name"]: preset.get("problem") for preset in listed["presets"]}
    assert problems.keys() == {"a", "b", "default"}
    assert "line 2, column 3" in problems["a"]
    assert "UTF-8" in problems["b"]
    assert problems["default"] is None
    assert (await data(at, "GET", "/api/presets/a"))["errors"][0]["line"] == 2
    assert (await refused(at, "GET", "/api/presets/a/models"))[0] == 400


# --- parts ----------------------------------------------------------------------------------------


async def test_models_are_added_changed_and_removed(at: ServiceHarness) -> None:
    await data(at, "POST", "/api/preset-import", {"name": "a", "content": "[*]\nc = 1\n"})
    await data(at, "POST", "/api/presets/a/models", {"name": "org/m:Q4", "config": {"temp": 0.1, "top-k": 2}})
    assert (await refused(at, "POST", "/api/presets/a/models", {"name": "org/m:Q4"}))[0] == 409
    assert (await refused(at, "POST", "/api/presets/a/models", {"name": "*"}))[0] == 400
    await data(at, "PATCH", "/api/presets/a/models/org/m:Q4", {"config": {"temperature": 0.2, "top-k": None}})
    [model] = (await data(at, "GET", "/api/presets/a/models"))["models"]
    assert model == {
        "name": "org/m:Q4",
        "config": {"temp": 0.2},
        "options": {"ctx-size": 1, "temp": 0.2},
        "sources": {"ctx-size": "global", "temp": "model"},
    }
    assert (await refused(at, "PATCH", "/api/presets/a/models/x", {"config": {}}))[0] == 404
    assert (await data(at, "DELETE", "/api/presets/a/models/org/m:Q4"))["values"] == {"*": {"c": 1}}
    assert (await refused(at, "DELETE", "/api/presets/a/models/x"))[0] == 404
    assert (await refused(at, "POST", "/api/presets/none/models", {"name": "x"}))[0] == 404


async def test_defaults_and_inheritance(at: ServiceHarness) -> None:
    await data(at, "PUT", "/api/presets/a", {"config": GROUPED})
    await data(at, "PATCH", "/api/presets/a/defaults", {"config": {"temp": None, "threads": 3}})
    assert (await data(at, "GET", "/api/presets/a/defaults"))["config"] == {"threads": 3}
    found = await data(at, "GET", "/api/presets/a/inheritance?model=chat")
    assert found["inheritancePath"] == ["default", "global", "group", "model"]
    assert found["finalConfig"].keys() == found["sources"].keys()
    names = ("threads", "ctx-size", "warmup", "top-k", "temp")
    assert {name: found["sources"][name] for name in names} == dict(
        zip(names, ("global", "group", "group", "model", "default"), strict=True)
    )
    assert (await refused(at, "GET", "/api/presets/a/inheritance?model=x"))[0] == 404


async def test_a_flat_export_has_no_groups(at: ServiceHarness) -> None:
    await data(at, "PUT", "/api/presets/a", {"config": GROUPED})
    content = (await data(at, "GET", "/api/presets/a/export?flat=true"))["content"]
    assert content == "[*]\ntemp = 0.5\n\n[chat]\ntop-k = 7\nc = 512\nno-warmup = true\n"


# --- options --------------------------------------------------------------------------------------


async def test_the_engines_options_are_listed_in_groups(at: ServiceHarness) -> None:
    listed = await data(at, "GET", "/api/options")
    options = {option["name"]: (group["name"], option) for group in listed["groups"] for option in group["options"]}
    group, option = options["ctx-size"]
    assert (group, option["aliases"], option["type"], option["default"]) == ("Context", ["c"], "int", "0")
    assert options["warmup"][1]["negativeAliases"] == ["no-warmup"]


async def test_options_for_every_model_are_checked_and_remembered(at: ServiceHarness) -> None:
    body = {"maxModels": 2, "options": {"ctxSize": 256, "temp": 0.5, "warmup": False}}
    answer = {"maxModels": 2, "options": {"ctx-size": 256, "temp": 0.5, "warmup": False}}
    assert await data(at, "PATCH", "/api/llama-server/options", body) == answer
    await data(at, "PATCH", "/api/llama-server/options", {"options": {"temp": None}})
    del answer["options"]["temp"]  # type: ignore[attr-defined]
    assert await data(at, "GET", "/api/llama-server/options") == answer
    stored = json.loads(at.context.configuration.settings.config_path.read_text())
    assert stored == {"maxModels": 2, "llama": {"options": ["ctx-size=256", "warmup=false"]}}
    for bad in ({"ctxsize": 1}, {"temp": "hot"}, {"host": "x"}, {"ctx-size": 1.5}):
        assert (await refused(at, "PATCH", "/api/llama-server/options", {"options": bad}))[0] == 400
    assert await data(at, "GET", "/api/llama-server/options") == answer


async def test_files_of_the_models_directory_with_their_memory(at: ServiceHarness) -> None:
    found = await data(at, "GET", "/api/models-directory")
    assert found["directory"] == str(at.models_dir)
    assert {model["name"] for model in found["models"]} >= {"chat.gguf", "embed.gguf"}
    assert all(model["vram"] > 0 and model["size"] > 0 for model in found["models"])


# --- the preset in force --------------------------------------------------------------------------


async def test_every_source_of_an_option_has_its_rank(at: ServiceHarness) -> None:
    await data(at, "PATCH", "/api/llama-server/options", {"options": {"threads": 2, "b": 64, "temp": 0.1}})
    await data(at, "PUT", "/api/presets/a", {"config": {**GROUPED, "*": {"temp": 0.5, "c": 1, "b": 128}}})
    started = await data(at, "POST", "/api/llama-server/preset", {"preset": "a"})
    assert started["preset"] == "a"
    await data(at, "PATCH", "/api/models/chat", {"options": {"top-k": 9}})
    found = await data(at, "GET", "/api/models/chat/options")
    assert found["section"] == "chat"
    options = {option["name"]: (option["value"], option["source"]) for option in found["options"]}
    assert {name: options[name] for name in ("threads", "batch-size", "temp", "ctx-size", "top-k", "warmup")} == {
        "threads": (2, "engine options"),
        "batch-size": (128, "preset"),
        "temp": (0.5, "preset"),
        "ctx-size": (512, "preset group"),
        "top-k": (9, "model"),
        "warmup": (False, "preset group"),
    }
    assert options["parallel"] == (-1, "engine")
    await data(at, "POST", "/api/models/chat/load", {"options": {"temp": 0.9}})
    given = await arguments(at, "chat")
    for flag, value in (("--temp", "0.9"), ("--ctx-size", "512"), ("--top-k", "9"), ("--batch-size", "128")):
        assert given[given.index(flag) + 1] == value
    assert "--no-warmup" in given
    assert len([item for item in given if item.startswith("--temp")]) == 1


async def test_a_changed_preset_loads_anew_only_what_it_changes(at: ServiceHarness) -> None:
    await data(at, "PUT", "/api/presets/a", {"config": {"chat": {"c": 512}, "slow": {"c": 512}}})
    await data(at, "POST", "/api/llama-server/preset", {"preset": "a"})
    for slug in ("chat", "slow", "embed"):
        await data(at, "POST", f"/api/models/{slug}/load", {"options": {"top-k": 5}} if slug == "chat" else None)
    before = {slug: runtime(at, slug).pid for slug in ("chat", "slow", "embed")}
    await data(at, "PATCH", "/api/presets/a/models/chat", {"config": {"c": 256}})
    await until(lambda: runtime(at, "chat").pid not in (None, before["chat"]) and runtime(at, "chat").endpoint)
    given = await arguments(at, "chat")
    assert given[given.index("--ctx-size") + 1] == "256"
    assert given[given.index("--top-k") + 1] == "5", "what the load itself asked for stays"
    await data(at, "PUT", "/api/presets/b", {"config": {"*": {"c": 512}, "chat": {"c": 256}, "embed": {"c": 512}}})
    await data(at, "POST", "/api/llama-server/preset", {"preset": "b"})
    await until(lambda: runtime(at, "embed").pid not in (None, before["embed"]) and runtime(at, "embed").endpoint)
    assert runtime(at, "slow").pid == before["slow"]


async def test_starting_a_bad_preset_changes_nothing(at: ServiceHarness) -> None:
    await data(at, "PUT", "/api/presets/a", {"config": GROUPED})
    await data(at, "POST", "/api/llama-server/preset", {"preset": "a"})
    (at.context.store.presets.directory / "bad.ini").write_text("[*]\nctxsize = 1\n")
    status, message = await refused(at, "POST", "/api/llama-server/preset", {"preset": "bad", "maxModels": 1})
    assert (status, "did you mean ctx-size" in message) == (400, True)
    assert (await refused(at, "POST", "/api/llama-server/preset", {"preset": "none"}))[0] == 404
    status, _ = await refused(at, "POST", "/api/llama-server/preset", {"preset": "a", "options": {"nope": 1}})
    assert status == 400
    assert (await data(at, "GET", "/api/presets"))["active"] == "a"
    assert at.context.configuration.settings.max_models != 1


async def test_the_preset_in_force_is_not_deleted_and_keeps_up_with_its_name(at: ServiceHarness) -> None:
    await data(at, "PUT", "/api/presets/a", {"config": GROUPED})
    await data(at, "POST", "/api/llama-server/preset", {"preset": "a"})
    assert (await refused(at, "DELETE", "/api/presets/a"))[0] == 409
    await data(at, "POST", "/api/presets/a/rename", {"name": "b"})
    assert (await data(at, "GET", "/api/llama-server"))["preset"] == "b"
    assert at.context.configuration.settings.preset == "b"
    await data(at, "DELETE", "/api/llama-server/preset")
    await data(at, "DELETE", "/api/presets/b")
    assert "preset" not in await data(at, "GET", "/api/llama-server")


async def test_a_section_that_names_a_file_is_a_model_under_that_name(at: ServiceHarness, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.gguf"
    elsewhere.write_bytes((at.models_dir / "chat.gguf").read_bytes())
    config = {
        "Writer": {"model": str(elsewhere), "temp": 0.9},
        "coder": {"model": "chat.gguf", "temp": 0.1},
        "gone": {"model": "/nowhere/gone.gguf"},
    }
    await data(at, "PUT", "/api/presets/a", {"config": config})
    await data(at, "POST", "/api/llama-server/preset", {"preset": "a"})
    assert (await data(at, "GET", "/api/models/writer"))["path"] == str(elsewhere)
    assert (await data(at, "GET", "/api/models/coder"))["id"] == "chat"
    assert (await refused(at, "GET", "/api/models/gone"))[0] == 404
    await data(at, "POST", "/api/models/coder/load")
    given = await arguments(at, "chat")
    assert given[given.index("--temp") + 1] == "0.1"


async def test_models_marked_for_it_are_loaded_at_the_start(at: ServiceHarness) -> None:
    await data(at, "PUT", "/api/presets/a", {"config": {"chat": {"load-on-startup": True}, "slow": {}}})
    await data(at, "POST", "/api/llama-server/preset", {"preset": "a"})
    await until(lambda: runtime(at, "chat").status is ModelStatus.READY)
    assert runtime(at, "slow").status is ModelStatus.UNLOADED
    assert "--load-on-startup" not in await arguments(at, "chat")
    await data(at, "POST", "/api/llama-server/stop")
    await data(at, "POST", "/api/llama-server/start")
    await until(lambda: runtime(at, "chat").status is ModelStatus.READY)


async def test_a_remembered_preset_that_is_broken_is_told_and_mended_by_saving(at: ServiceHarness) -> None:
    await data(at, "PUT", "/api/presets/a", {"config": GROUPED})
    await data(at, "POST", "/api/llama-server/preset", {"preset": "a"})
    (at.context.store.presets.directory / "a.ini").write_text("[*]\nctxsize = 1\n")
    again = restarted(at)
    await again.restore()
    assert (again.name, "ctxsize" in (again.problem or "")) == (None, True)
    (at.context.store.presets.directory / "a.ini").write_text("[*]\nctx-size = 1\n")
    await again.changed("a")
    assert (again.name, again.problem) == ("a", None)


async def test_an_edit_by_hand_of_the_preset_in_force_is_noticed(at: ServiceHarness) -> None:
    file = at.context.store.presets.directory / "a.ini"
    await data(at, "PUT", "/api/presets/a", {"config": {"chat": {"temp": 0.5}, "slow": {"temp": 0.5}}})
    await data(at, "POST", "/api/llama-server/preset", {"preset": "a"})
    for slug in ("chat", "slow"):
        await data(at, "POST", f"/api/models/{slug}/load")
    kept, replaced = runtime(at, "slow").pid, runtime(at, "chat").pid
    file.write_text("[chat]\ntemperatur = 1\n[slow]\ntemp = 0.5\n")
    await until(lambda: "temperatur" in (at.context.active_preset.problem or ""))
    assert runtime(at, "chat").options == {"temp": 0.5}, "what is no preset changes nothing"
    file.write_text("; mended\n[chat]\ntemp = 0.75\n[slow]\ntemp = 0.5\n")
    await until(lambda: runtime(at, "chat").status is ModelStatus.READY and runtime(at, "chat").pid != replaced)
    assert runtime(at, "chat").options == {"temp": 0.75}
    assert (runtime(at, "slow").pid, at.context.active_preset.problem) == (kept, None)


def restarted(at: ServiceHarness) -> ActivePreset:
    """What a new start of the service would make of the same directory."""
    context = at.context
    return ActivePreset(
        LaunchPlanner(context.configuration.getter(), context.planner.policy),
        context.catalogue,
        configuration=context.configuration,
        store=context.store,
        engine=context.engine,
        scheduler=context.scheduler,
        bus=context.bus,
    )


async def test_the_openapi_document_has_every_route(at: ServiceHarness) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{at.url}/api/openapi.json") as response:
        document = await response.json()
    assert "put" in document["paths"]["/api/presets/{name}"]
    assert "409" in document["paths"]["/api/presets"]["post"]["responses"]
