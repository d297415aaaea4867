from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.importers import ollama
from llama_async_proxy.importers.plan import PlannedModel
from llama_async_proxy.records.models import Variant

LIBRARY = "manifests/registry.ollama.ai/library"


class Store:
    """Store that is written as Ollama does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)
        (root / "manifests").mkdir()

    def blob(self, content: bytes | dict[str, Any]) -> Path:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        path = self.root / "blobs" / f"sha256-{hashlib.sha256(data).hexdigest()}"
        path.write_bytes(data)
        return path

    def model(self, manifest: str, **layers: bytes | dict[str, Any]) -> None:
        blobs = {kind: self.blob(content) for kind, content in layers.items()}
        path = self.root / manifest
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = [
            {
                "mediaType": f"application/vnd.ollama.image.{kind}",
                "digest": blob.name.replace("-", ":"),
                "size": blob.stat().st_size,
            }
            for kind, blob in blobs.items()
        ]
        config = {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": "sha256:0", "size": 1}
        path.write_text(json.dumps({"schemaVersion": 2, "config": config, "layers": entries}))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def only_model(store: Store) -> PlannedModel:
    plan = ollama.read(store.root)
    assert plan.problems == ()
    [model] = plan.models
    return model


def test_a_pulled_model_is_its_blob_under_both_names(store: Store) -> None:
    store.model(f"{LIBRARY}/llama3.2/latest", model=b"GGUF1", template=b"{{ .Prompt }}", license=b"MIT")
    model = only_model(store)
    assert model.path == str(store.blob(b"GGUF1"))
    assert (model.name, model.aliases, model.options) == ("llama3.2", ("llama3.2:latest",), {})


def test_parameters_become_options_and_obsolete_ones_are_dropped(store: Store) -> None:
    params = {"num_ctx": 8192, "temperature": 0.6, "top_k": 20, "num_gpu": -1, "stop": ["<|im_end|>"], "num_thread": 4}
    store.model(f"{LIBRARY}/qwen3/4b", model=b"GGUF2", params=params)
    assert only_model(store).options == {"ctx-size": 8192, "temp": 0.6, "top-k": 20, "threads": 4}


def test_projector_and_adapter_become_options(store: Store) -> None:
    store.model(f"{LIBRARY}/llava/7b", model=b"GGUF3", projector=b"GGUF4", adapter=b"GGUF5")
    assert only_model(store).options == {"mmproj": str(store.blob(b"GGUF4")), "lora": str(store.blob(b"GGUF5"))}


def test_a_model_made_from_another_is_its_variant(store: Store) -> None:
    store.model(f"{LIBRARY}/mario/latest", model=b"GGUF", system=b"You are Mario.\n", params={"temperature": 1})
    store.model(f"{LIBRARY}/llama3.2/latest", model=b"GGUF", params={"stop": ["x"]})
    store.model(f"{LIBRARY}/llama3.2/3b", model=b"GGUF", params={"stop": ["x"]})
    store.model(f"{LIBRARY}/hot/latest", model=b"GGUF", params={"temperature": 2})
    model = only_model(store)
    assert (model.name, model.aliases) == ("llama3.2:3b", ("llama3.2", "llama3.2:latest"))
    mario, hot = ({"temperature": 1}, "You are Mario."), ({"temperature": 2}, None)
    assert set(model.aliases).isdisjoint(variant.name for variant in model.variants)
    assert {v.name: (v.parameters, v.system_prompt) for v in model.variants} == {
        "mario": mario, "mario:latest": mario, "hot": hot, "hot:latest": hot
    }  # fmt: skip


def test_a_variant_with_its_own_context_size_is_kept(store: Store) -> None:
    store.model(f"{LIBRARY}/llama3.2/latest", model=b"GGUF", params={"num_ctx": 4096})
    store.model(f"{LIBRARY}/long/latest", model=b"GGUF", params={"num_ctx": 32768, "temperature": 2})
    plan = ollama.read(store.root)
    [model] = plan.models
    assert (model.name, model.options) == ("llama3.2", {"ctx-size": 32768})
    assert plan.problems == (
        "long: has the same file as llama3.2, which is loaded once: --ctx-size is 32768, the larger",
    )
    assert {variant.name for variant in model.variants} == {"long", "long:latest"}


def test_the_name_of_a_single_model_with_a_prompt_is_its_variant(store: Store) -> None:
    store.model(f"{LIBRARY}/mario/big", model=b"GGUF", system=b"Be Mario.", params={"num_ctx": 4096, "top_p": 0.5})
    model = only_model(store)
    assert (model.name, model.options, model.aliases) == ("mario:big (without prompt)", {"ctx-size": 4096}, ())
    assert model.variants == (Variant("mario:big", {"top_p": 0.5}, "Be Mario."),)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("registry.ollama.ai", "library", "llama3.2", "1b"), "llama3.2:1b"),
        (("ollama.com", "library", "llama3.2", "1b"), "llama3.2:1b"),
        (("registry.ollama.ai", "someone", "mine", "latest"), "someone/mine:latest"),
        (("hf.co", "bartowski", "Qwen3-GGUF", "Q4_K_M"), "hf.co/bartowski/Qwen3-GGUF:Q4_K_M"),
    ],
)
def test_names_are_those_of_ollama_list(parts: tuple[str, ...], name: str) -> None:
    assert ollama.display_name(parts) == name


def test_broken_models_are_reported_and_the_others_are_imported(store: Store) -> None:
    store.model(f"{LIBRARY}/good/1b", model=b"GGUF")
    store.model(f"{LIBRARY}/mlx/1b", tensor=b"weights", json=b"{}")
    store.model(f"{LIBRARY}/lost/1b", model=b"GGUF-lost")
    store.blob(b"GGUF-lost").unlink()
    store.model(f"{LIBRARY}/odd/1b", model=b"GGUF-odd", params=b"not json")
    store.model(f"{LIBRARY}/talks/1b", model=b"GGUF-talks", messages=b"[]", params={"tfs_z": 1, "stop": []})
    (store.root / LIBRARY / "cut").mkdir()
    (store.root / LIBRARY / "cut/1b").write_text('{"layers": [')
    (store.root / LIBRARY / "evil").mkdir()
    (store.root / LIBRARY / "evil/1b").write_text(
        '{"layers": [{"mediaType": "x", "digest": "sha256:../../etc/passwd"}]}'
    )
    plan = ollama.read(store.root)
    assert sorted(model.name for model in plan.models) == ["good:1b", "talks:1b"]
    problems = dict(problem.split(": ", 1) for problem in plan.problems)
    assert "no GGUF file, but json, tensor" in problems["mlx:1b"]
    assert "is missing; pull it again" in problems["lost:1b"]
    assert "is not JSON" in problems["odd:1b"]
    assert "is not JSON" in problems["cut:1b"]
    assert "a layer without digest or type" in problems["evil:1b"]
    assert [p for p in plan.problems if p.startswith("talks:1b")] == [
        "talks:1b: its parameter tfs_z is not taken over: the engine has none like it",
        "talks:1b: its messages are not taken over: a conversation begins with its system prompt",
    ]


def test_the_directory_above_is_accepted_and_another_is_refused(store: Store) -> None:
    store.model(f"{LIBRARY}/good/1b", model=b"GGUF")
    assert ollama.read(store.root.parent).models == ollama.read(store.root).models
    with pytest.raises(InvalidInput, match="holds no manifests and blobs"):
        ollama.read(store.root / "blobs")


def test_the_usual_place_is_the_variable_or_the_users_store(tmp_path: Path) -> None:
    assert ollama.default_directory(tmp_path, {"OLLAMA_MODELS": "/big/disk"}) == Path("/big/disk")
    (tmp_path / ".ollama/models").mkdir(parents=True)
    assert ollama.default_directory(tmp_path, {}) == tmp_path / ".ollama/models"


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(["layers", "digest", "mediaType", ""]), x), max_leaves=8))  # fmt: skip
def test_any_json_as_manifest_is_a_problem(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    store = Store(tmp_path_factory.mktemp("store") / "models")
    path = store.root / LIBRARY / "any" / "1b"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    assert len(ollama.read(store.root).problems) == 1
