"""The way of a new user: a demo model, the service, a first answer; by both engines."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from support.models import write_chat
from support.service import REPOSITORY, RunningService, clean_environment

pytestmark = pytest.mark.engine


@pytest.fixture(params=["llama-server", "embedded"], scope="module")
def first_service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, llama_server: Path
) -> Iterator[RunningService]:
    directory = tmp_path_factory.mktemp("first")
    demo = [sys.executable, "-m", "llama_async_proxy", "demo", "--models-dir", str(directory / "models"), "--if-empty"]
    for _ in range(2):
        subprocess.run(demo, check=True, env=clean_environment(), capture_output=True)
    arguments = ["--engine", "embedded"] if request.param == "embedded" else ["--llama-server", str(llama_server)]
    with RunningService(directory, *arguments) as service:
        service.wait_for_models(1)
        yield service


def test_the_demo_model_is_found_at_the_start(first_service: RunningService) -> None:
    [model] = first_service.call("GET", "/api/models")[1]["data"]["models"]
    assert (model["id"], model["format"], model["family"]) == ("demo", "gguf", "llama")


def test_openai_package_lists_streams_and_completes(first_service: RunningService) -> None:
    client = openai.OpenAI(base_url=first_service.url + "/v1", api_key="none")
    assert [m.id for m in client.models.list()] == ["demo"]
    stream = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "Tell me something."}], stream=True, max_tokens=24
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(pieces) > 5
    assert "".join(pieces).strip()
    whole = client.chat.completions.create(
        model="demo.gguf", messages=[{"role": "user", "content": "And again?"}], max_tokens=8
    )
    assert whole.choices[0].message.content
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 8


def test_an_answer_is_counted_and_listed_as_soon_as_it_has_come(first_service: RunningService) -> None:
    client = openai.OpenAI(base_url=first_service.url + "/v1", api_key="mine")
    before = requests_counted(first_service)
    answer = client.chat.completions.with_raw_response.create(
        model="demo", messages=[{"role": "user", "content": "x"}], max_tokens=1
    )
    assert requests_counted(first_service) == before + 1
    [newest] = first_service.call("GET", "/api/requests?limit=1")[1]["data"]["recent"]
    assert (newest["id"], newest["completionTokens"]) == (answer.headers["x-request-id"], 1)


def requests_counted(service: RunningService) -> int:
    page = httpx.get(service.url + "/metrics").text
    counts = re.findall(r'^llama_async_proxy_inference_requests_total\{.*status="200".*\} (\d+)$', page, re.MULTILINE)
    return sum(map(int, counts))


def test_an_unknown_model_is_an_openai_not_found_error(first_service: RunningService) -> None:
    client = openai.OpenAI(base_url=first_service.url + "/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.NotFoundError, match="demo") as caught:
        client.chat.completions.create(model="dmeo", messages=[{"role": "user", "content": "x"}])
    assert caught.value.code == "model_not_found"


def test_models_command_lists_loads_and_unloads(first_service: RunningService) -> None:
    def models(*arguments: str) -> str:
        command = [sys.executable, "-m", "llama_async_proxy", "models", *arguments, "--url", first_service.url]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=clean_environment()).stdout

    assert models("load", "demo") == "demo: running\n"
    assert "demo" in models("list")
    assert "running" in models("list")
    assert models("unload", "demo") == "demo: stopped\n"
    assert models("scan") == "0 new, 0 changed, 1 in all\n"


def test_doctor_finds_the_engine_and_names_sources(llama_server: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llama_async_proxy", "doctor", "--data-dir", str(tmp_path), "--port", "0"]
    refused = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)
    assert refused.returncode == 2
    assert "--port" in refused.stderr
    environment = clean_environment({"LLAMA_ASYNC_PROXY_LLAMA_SERVER": str(llama_server)})
    result = subprocess.run(command[:-2], capture_output=True, text=True, env=environment, check=False)
    assert str(llama_server) in result.stdout
    assert "environment" in result.stdout
    assert "command line" in result.stdout


def test_nothing_in_the_package_needs_the_repository() -> None:
    """The installed program answers from any directory."""
    command = [sys.executable, "-m", "llama_async_proxy", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY.parent, check=True)
    assert result.stdout.startswith("llama-async-proxy ")


def test_everything_works_on_the_loop_of_asyncio(tmp_path: Path, llama_server: Path) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/uvloop.py").write_text("raise ImportError('not on this machine')")
    (tmp_path / "models").mkdir()
    write_chat(tmp_path / "models/chat.gguf")
    environment = {"PYTHONPATH": str(tmp_path / "blocked")}
    with RunningService(tmp_path, "--llama-server", str(llama_server), environment=environment) as service:
        service.wait_for_models(1)
        assert "uvloop/loop." not in Path(f"/proc/{service.process.pid}/maps").read_text()
        client = openai.OpenAI(base_url=service.url + "/v1", api_key="none")
        for stream in (True, False):
            answer = client.chat.completions.create(
                model="chat", messages=[{"role": "user", "content": "?"}], stream=stream, max_tokens=8
            )
            assert len(list(answer)) > 1
