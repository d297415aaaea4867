"""Presets of the real service with the real engine: what is written is what runs, over restarts too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_async_proxy import cli
from support.service import RunningService, ServiceFactory, free_port

pytestmark = pytest.mark.engine


def data(at: RunningService, method: str, path: str, body: Any = None) -> Any:
    status, answer = at.call(method, path, body)
    assert status == 200, answer
    return answer["data"]


def properties(at: RunningService, model: str) -> Any:
    """What the model's own process says of itself."""
    return at.call("GET", f"/props?model={model}")[1]


def generation(at: RunningService, model: str) -> Any:
    return properties(at, model)["default_generation_settings"]


def test_effective_options_reach_the_process_and_survive_a_restart(
    start_service: ServiceFactory, models_dir: Path
) -> None:
    at = start_service(models_dir=models_dir)
    at.wait_for_models(4)
    assert [preset["name"] for preset in data(at, "GET", "/api/presets")["presets"]] == ["default"]
    config = {
        "*": {"temp": 0.25, "parallel": 1},
        "group:small": {"c": 256, "no-warmup": True},
        "writer": {"model": "chat.gguf", "group": "small", "top-k": 3, "load-on-startup": True},
    }
    data(at, "PUT", "/api/presets/mine", {"config": config})
    data(at, "POST", "/api/llama-server/preset", {"preset": "mine", "options": {"ctxSize": 512, "minP": 0.5}})
    at.wait_for_status("chat", "running")
    listed = {model["id"]: model["aliases"] for model in at.call("GET", "/v1/models")[1]["data"]}
    assert listed["chat"] == ["writer"]
    settings = generation(at, "writer")
    params = settings["params"]
    assert settings["n_ctx"] == 512, "options of a start are over everything until the next"
    assert [round(params[name], 4) for name in ("temperature", "top_k", "min_p")] == [0.25, 3, 0.5]
    at.stop()
    at.start()
    at.wait_for_status("chat", "running")
    assert data(at, "GET", "/api/llama-server")["preset"] == "mine"
    assert generation(at, "chat")["n_ctx"] == 256


def test_a_change_reloads_what_it_changes_and_leaves_the_rest(service: RunningService) -> None:
    data(service, "PUT", "/api/presets/two", {"config": {"chat": {"c": 256}, "slow": {"c": 256}}})
    data(service, "POST", "/api/llama-server/preset", {"preset": "two"})
    for slug in ("chat", "slow"):
        data(service, "POST", f"/api/models/{slug}/load")
    children = {child.pid for child in service.children()}
    data(service, "PATCH", "/api/presets/two/models/chat", {"config": {"c": 512}})
    service.wait_until(
        lambda: service.call("GET", "/props?model=chat")[1],
        lambda found: found.get("default_generation_settings", {}).get("n_ctx") == 512,
        60,
    )
    assert len(children & {child.pid for child in service.children()}) == 1, "the other one runs on"
    assert generation(service, "slow")["n_ctx"] == 256
    data(service, "DELETE", "/api/llama-server/preset")


@pytest.mark.parametrize("engine", ["embedded", "router"])
def test_other_engines_run_with_a_preset_and_keep_it(
    engine: str, start_service: ServiceFactory, models_dir: Path
) -> None:
    environment = {"LLAMA_ASYNC_PROXY_ENGINE_PORT": str(free_port())}
    at = start_service("--engine", engine, models_dir=models_dir, environment=environment)
    at.wait_for_models(4)
    chat = {"c": 256, "parallel": 1, "load-on-startup": True}
    data(at, "PUT", "/api/presets/mine", {"config": {"chat": chat, "slow": {"c": 512}}})
    data(at, "POST", "/api/llama-server/preset", {"preset": "mine"})
    at.wait_for_status("chat", "running")
    data(at, "POST", "/api/models/slow/load")
    before = {child.pid for child in at.children()}
    data(at, "PATCH", "/api/presets/mine/models/chat", {"config": {"c": 768}})
    at.wait_until(
        lambda: at.call("GET", "/props?model=chat")[1],
        lambda found: found.get("default_generation_settings", {}).get("n_ctx") == 768,
        60,
    )
    gone = before - {child.pid for child in at.children()}
    assert len(gone) == 1, "only what changed is loaded anew"
    at.stop()
    at.start()
    at.wait_for_status("chat", "running")
    assert data(at, "GET", "/api/llama-server")["preset"] == "mine"
    assert generation(at, "chat")["n_ctx"] == 768


def test_every_template_is_accepted_by_the_installed_engine(service: RunningService) -> None:
    for template in data(service, "GET", "/api/preset-templates")["templates"]:
        name = template["name"]
        made = data(service, "POST", "/api/presets", {"name": name, "template": name})
        assert (made["errors"], made["warnings"]) == ([], [])


def test_the_command_line_lists_checks_and_chooses(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.ini"
    file.write_text("[*]\nctxsize = 1\n")

    def run(*arguments: str) -> tuple[int, str]:
        status = cli.main(["presets", *arguments, "--url", service.url])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    status, output = run("validate", str(file))
    assert (status, "line 2, column 1: ctxsize" in output) == (1, True)
    assert run("import", str(file))[0] == 1
    file.write_text("; description: Small\n[*]\nctx-size = 256\n")
    assert run("validate", str(file)) == (0, "fine\n")
    assert run("import", str(file)) == (0, "imported as mine\n")
    assert run("start", "mine") == (0, "the engine is running, with preset mine\n")
    assert any(line.split() == ["mine", "runs", "Small"] for line in run("list")[1].splitlines())
    assert run("show", "mine")[1].startswith("; description: Small\n[*]\n")
    assert run("stop") == (0, "no preset\n")
    assert run("start", "none")[0] == 1
    assert run("validate", str(tmp_path / "none.ini"))[0] == 2
