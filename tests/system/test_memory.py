"""Memory on the real service with the real engine: what fits is decided by numbers, estimated and then measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_async_proxy import cli
from support.service import RunningService, ServiceFactory

pytestmark = pytest.mark.engine


@pytest.fixture
def at(start_service: ServiceFactory, models_dir: Path) -> Iterator[RunningService]:
    service = start_service(models_dir=models_dir)
    service.wait_for_models(4)
    yield service
    service.stop()


def memory(at: RunningService, model: str) -> Any:
    status, answer = at.call("GET", f"/api/models/{model}/memory")
    assert status == 200, answer
    return answer["data"]


def configure(at: RunningService, **changes: Any) -> None:
    status, answer = at.call("POST", "/api/config", changes)
    assert status == 200, answer


def ask(at: RunningService, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    assert at.call("POST", "/v1/chat/completions", body)[0] == 200


def is_loaded(at: RunningService, model: str) -> bool:
    return bool(at.call("GET", f"/api/models/{model}")[1]["data"]["status"] == "running")


def test_models_that_do_not_fit_together_take_each_others_place(at: RunningService) -> None:
    ask(at, "chat")
    ask(at, "slow")
    assert is_loaded(at, "chat"), "there is room for both as long as nobody limits it"
    at.call("POST", "/api/models/slow/unload")
    limit = round(max(memory(at, model)["total"] for model in ("chat", "slow"))) + 1
    configure(at, memory={"limit": limit})
    ask(at, "slow")
    assert not is_loaded(at, "chat")
    ask(at, "chat")
    assert not is_loaded(at, "slow")


def test_an_impossible_load_is_refused_with_numbers_and_with_what_would_fit(at: RunningService) -> None:
    configure(at, memory={"limit": 64})
    greedy = {"options": {"ctx-size": 1 << 20, "parallel": 1, "flash-attn": "on"}}
    status, answer = at.call("POST", "/api/models/chat/load", greedy)
    assert (status, answer["error"]["code"]) == (507, "INSUFFICIENT_MEMORY")
    assert "needs" in answer["error"]["message"]
    assert "--ctx-size" in answer["error"]["details"]
    assert not is_loaded(at, "chat")
    modest = {"options": {"ctx-size": 8192, "parallel": 1}, "force": True}
    configure(at, memory={"limit": 1})
    assert at.call("POST", "/api/models/chat/load", modest)[0] == 200


def test_what_a_loaded_model_takes_is_shown_beside_what_was_expected(at: RunningService) -> None:
    assert "measured" not in memory(at, "chat")
    ask(at, "chat")
    report = memory(at, "chat")
    assert report["measured"]["host"] > 1
    assert report["counted"]["host"] == pytest.approx(report["total"], abs=3), "the engine counts whole MiB"


def test_models_of_a_group_never_run_at_the_same_time(at: RunningService) -> None:
    configure(at, groups={"one": {"models": ["chat", "slow"]}})
    ask(at, "chat")
    ask(at, "slow")
    assert not is_loaded(at, "chat")


def test_changing_settings_unloads_no_model(at: RunningService) -> None:
    ask(at, "chat")
    ask(at, "slow")
    processes = {child.pid for child in at.children()}
    configure(at, maxModels=7, memory={"strict": True}, ctx_size=2048, logging={"level": "debug"})
    assert at.call("PATCH", "/api/models/slow", {"options": {"idle-ttl": 3600}})[0] == 200
    ask(at, "chat")
    ask(at, "slow")
    assert {child.pid for child in at.children()} == processes


def test_the_command_line_forces_and_shows_what_is_needed_and_taken(
    at: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        status = cli.main(["models", *arguments, "--url", at.url])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    configure(at, memory={"limit": 1})
    status, refusal = run("load", "chat")
    assert status == 1
    assert "needs" in refusal
    assert "fits: no" in run("memory", "chat")[1]
    assert run("load", "chat", "--option", "ctx-size=512", "--option", "parallel=1", "--force") == (
        0,
        "chat: running\n",
    )
    assert run("load", "chat", "--option", "512")[0] == 2
    assert at.call("GET", "/props?model=chat")[1]["default_generation_settings"]["n_ctx"] == 512
    [line] = [line for line in run("memory", "chat")[1].splitlines() if line.startswith("main memory")]
    assert line.count("iB") == 4, "estimated, counted, measured, free"
    listed = {model["name"]: model for model in at.call("GET", "/api/models-directory")[1]["data"]["models"]}
    assert listed["chat.gguf"]["vram"] != listed["chat.gguf"]["estimatedVram"]
    assert listed["slow.gguf"]["vram"] == listed["slow.gguf"]["estimatedVram"]
