"""Memory on the real service with the real engine: what fits is decided by numbers, estimated and then measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
    process = at.call("GET", "/api/models/chat")[1]["data"]
    configure(at, maxModels=7, memory={"strict": True}, ctx_size=2048, logging={"level": "debug"})
    ask(at, "chat")
    after = at.call("GET", "/api/models/chat")[1]["data"]
    assert [after[key] for key in ("status", "pid") if key in after] == [
        process[key] for key in ("status", "pid") if key in process
    ]
