"""Models of other programs: imported into a real service, listed, and run where they lie."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from support.models import write_chat
from support.service import RunningService, ServiceFactory, clean_environment


def imported(service: RunningService, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llama_async_proxy", "import", *arguments, "--url", service.url]
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)


def ollama_store(root: Path) -> Path:
    """A store with "tiny" and "pirate", which is made from it."""
    root.mkdir()
    model = write_chat(root / "model")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    (root / "blobs").mkdir()
    model.rename(root / "blobs" / f"sha256-{digest}")

    def layer(kind: str, digest: str) -> dict[str, str]:
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"}

    def text(content: str) -> str:
        name = hashlib.sha256(content.encode()).hexdigest()
        (root / "blobs" / f"sha256-{name}").write_text(content)
        return name

    system, params = text("You are a pirate."), text(json.dumps({"temperature": 0, "num_predict": 4}))
    for name, layers in {
        "tiny": [layer("model", digest)],
        "pirate": [layer("model", digest), layer("system", system), layer("params", params)],
    }.items():
        manifest = root / "manifests/registry.ollama.ai/library" / name / "latest"
        manifest.parent.mkdir(parents=True)
        manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return root


@pytest.fixture
def idle_service(tmp_path: Path) -> Iterator[RunningService]:
    """Nothing is loaded in it, so that any engine or none will do."""
    with RunningService(tmp_path) as service:
        yield service


def test_models_of_all_three_programs_are_listed_where_they_lie(idle_service: RunningService, tmp_path: Path) -> None:
    studio = tmp_path / "studio/publisher/small-GGUF"
    studio.mkdir(parents=True)
    write_chat(studio / "small-Q8_0.gguf", seed=1)
    write_chat(tmp_path / "swapped.gguf", seed=2)
    (tmp_path / "swap.yaml").write_text(
        "models: {swapped: {cmd: 'llama-server --port ${PORT} -m swapped.gguf --log-file x', ttl: 9, unlisted: true}}"
    )
    results = [
        imported(idle_service, "ollama", str(ollama_store(tmp_path / "ollama"))),
        imported(idle_service, "lm-studio", str(tmp_path / "studio")),
        imported(idle_service, "llama-swap", str(tmp_path / "swap.yaml")),
    ]
    assert [result.returncode for result in results] == [0, 0, 3], results
    assert results[0].stdout == "tiny: new, as tiny\n"
    assert "models.swapped.unlisted: not taken over" in results[2].stderr
    assert "swapped: --log-file is not taken over: it reads or writes files" in results[2].stderr
    models = {model["id"]: model for model in idle_service.call("GET", "/api/models")[1]["data"]["models"]}
    assert models.keys() == {"tiny", "small-Q8_0", "swapped"}
    assert Path(models["tiny"]["path"]).parent == tmp_path / "ollama/blobs"
    assert models["swapped"]["options"] == {"idle-ttl": 9}
    assert models["small-Q8_0"]["path"] == str(studio / "small-Q8_0.gguf")
    ids = [model["id"] for model in idle_service.call("GET", "/v1/models")[1]["data"]]
    assert ids == ["tiny", "pirate", "pirate:latest", "small-Q8_0", "swapped"]
    again = imported(idle_service, "ollama", str(tmp_path / "ollama"))
    assert (again.returncode, again.stdout) == (0, "tiny: known, as tiny\n")


@pytest.mark.engine
def test_an_imported_model_and_its_variant_answer_from_one_process(
    start_service: ServiceFactory, tmp_path: Path
) -> None:
    service = start_service()
    assert imported(service, "ollama", str(ollama_store(tmp_path / "ollama"))).returncode == 0
    client = openai.OpenAI(base_url=service.url + "/v1", api_key="none")
    hello = [{"role": "user", "content": "hello"}]

    def ask(model: str, **more: int) -> openai.types.chat.ChatCompletion:
        return client.chat.completions.create(model=model, messages=hello, **more)  # type: ignore[call-overload, no-any-return]

    plain, pirate = ask("tiny:latest", max_tokens=6), ask("pirate")
    assert (plain.model, pirate.model) == ("tiny", "tiny"), "the engine names itself, whatever it is asked as"
    assert plain.usage is not None
    assert pirate.usage is not None
    assert (plain.usage.completion_tokens, pirate.usage.completion_tokens) == (6, 4)
    assert pirate.usage.prompt_tokens > plain.usage.prompt_tokens, "the system prompt is in it"
    assert ask("pirate", max_tokens=2).usage.completion_tokens == 2  # type: ignore[union-attr]
    assert sum("llama-server" in child.name() for child in service.children()) == 1
