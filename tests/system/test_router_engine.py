"""The service on llama-server's router: the same doors, another engine below."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.service import RunningService, ServiceFactory, clean_environment, free_port

pytestmark = pytest.mark.engine


def chat(service: RunningService, model: str, **more: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, **more}
    status, answer = service.call("POST", "/v1/chat/completions", body)
    assert status == 200, answer
    return answer


def eventually(condition: Any, limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def service(start_service: ServiceFactory, models_dir: Path) -> RunningService:
    environment = {"LLAMA_ASYNC_PROXY_ENGINE_PORT": str(free_port())}
    service = start_service("--engine", "router", models_dir=models_dir, environment=environment)
    service.wait_for_models(4)
    return service


def test_requests_under_any_name_reach_the_model_at_the_router(service: RunningService) -> None:
    for name in ("chat", "chat.gguf", "CHAT"):  # the first loads it, the others take the short way
        assert chat(service, name)["choices"][0]["message"]["content"]
    status, embedded = service.call("POST", "/v1/embeddings", {"model": "embed.gguf", "input": "x"})
    assert (status, len(embedded["data"][0]["embedding"])) == (200, 64)
    assert service.call("GET", "/props?model=chat.gguf")[1]["total_slots"] >= 1


def test_status_names_the_routers_own_address(service: RunningService) -> None:
    _, listed = service.call("GET", "/api/models")
    assert listed["llamacpp_url"] != service.url
    chat(service, "chat")
    states = {model["id"]: model["status"] for model in service.call("GET", "/api/models")[1]["data"]["models"]}
    assert states["chat"] == "running"
    assert service.call("POST", "/api/models/chat/unload")[0] == 200


def test_kill_minus_9_of_the_service_leaves_no_orphan(service: RunningService) -> None:
    chat(service, "chat")
    children = service.kill()
    assert len(children) >= 2, "the router, and a model's process of its own"
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_kill_minus_9_of_the_router_is_survived(service: RunningService) -> None:
    chat(service, "chat")
    [router] = routers(service)
    os.kill(router, signal.SIGKILL)
    eventually(lambda: routers(service) not in ([], [router]) and answers(service))
    assert "The router ended unexpectedly: killed by signal 9" in service.output


def routers(service: RunningService) -> list[int]:
    """Their process ids."""
    found = []
    for child in service.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "--models-preset" in child.cmdline():
                found.append(child.pid)
    return found


def answers(service: RunningService) -> bool:
    body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    return service.call("POST", "/v1/chat/completions", body)[0] == 200


@pytest.fixture
def elsewhere(llama_server: Path, models_dir: Path, tmp_path: Path) -> Iterator[str]:
    """A router that somebody else runs, on files the service does not look at."""
    port = free_port()
    command = [str(llama_server), "--host", "127.0.0.1", "--port", str(port), "--models-dir", str(models_dir)]
    with subprocess.Popen(
        [*command, "--threads", "1", "--api-key", "sesame"],
        env=clean_environment(),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def test_models_of_a_router_elsewhere_are_shown_and_used(
    start_service: ServiceFactory, elsewhere: str, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("sesame\n")
    arguments = ("--engine", "router", "--router-url", elsewhere, "--router-api-key-file", str(key))
    service = start_service(*arguments, models_dir=tmp_path / "empty")
    models = service.wait_for_models(4)
    assert {model["id"] for model in models} == {"chat", "embed", "rerank", "slow"}
    assert chat(service, "chat")["choices"]
    assert chat(service, "chat")["choices"], "the short way knows the key, too"
    assert "sesame" not in str([service.call("GET", path) for path in ("/api/config", "/api/llama-server", "/models")])
    assert service.stop() == 0
    assert "sesame" not in service.output
    again = start_service(*arguments, models_dir=tmp_path / "empty")
    eventually(lambda: [m["status"] for m in again.wait_for_models(4) if m["id"] == "chat"] == ["running"])


def test_the_service_itself_is_a_router_for_another_service(
    start_service: ServiceFactory, models_dir: Path, tmp_path: Path
) -> None:
    first = start_service(models_dir=models_dir)
    first.wait_for_models(4)
    place = tmp_path / "second"
    place.mkdir()

    def status(at: RunningService) -> str:
        return str(at.call("GET", "/api/models/chat")[1]["data"]["status"])

    with RunningService(place, "--engine", "router", "--router-url", first.url) as second:
        assert {model["id"] for model in second.wait_for_models(4)} == {"chat", "embed", "rerank", "slow"}
        assert chat(second, "chat")["choices"]
        assert (status(first), status(second)) == ("running", "running")
        assert second.call("POST", "/api/models/chat/unload")[0] == 200
        assert status(first) != "running"
        assert first.call("POST", "/api/models/chat/load")[0] == 200
        eventually(lambda: status(second) == "running")
