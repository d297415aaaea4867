from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.importers import lm_studio

FOLDERS = {
    ("lmstudio-community", "Llama-3.2-1B-Instruct-GGUF"): ["Llama-3.2-1B-Instruct-Q4_K_M.gguf", "README.md"],
    ("bartowski", "Qwen3-4B-GGUF"): ["Qwen3-4B-Q4_K_M.gguf", "Qwen3-4B-Q8_0.gguf"],
    ("ggml-org", "gemma-3-4b-it-GGUF"): ["gemma-3-4b-it-Q4_K_M.gguf", "mmproj-model-f16.gguf"],
    ("unsloth", "Big-GGUF"): ["Big-00001-of-00002.gguf", "Big-00002-of-00002.gguf", ".part.gguf"],
    ("mlx-community", "Llama-3.2-1B-4bit"): ["model.safetensors", "config.json"],
    ("someone", "Qwen3-4B-GGUF"): ["Qwen3-4B-Q4_K_M.gguf"],
    ("empty", "folder"): ["readme.txt"],
}


def names() -> dict[str, tuple[str, ...]]:
    return {model.name: model.aliases for model in lm_studio.plan_of(FOLDERS).models}


def test_a_model_has_the_names_that_lm_studio_gives_it() -> None:
    assert names()["Llama-3.2-1B-Instruct-Q4_K_M"] == (
        "llama-3.2-1b-instruct",
        "lmstudio-community/Llama-3.2-1B-Instruct-GGUF",
        "lmstudio-community/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q4_K_M.gguf",
    )


def test_a_folder_with_several_models_is_no_alias() -> None:
    assert names()["Qwen3-4B-Q8_0"] == ("bartowski/Qwen3-4B-GGUF/Qwen3-4B-Q8_0.gguf",)


def test_files_of_one_name_are_named_by_their_publishers() -> None:
    found = names()
    assert "Qwen3-4B-Q4_K_M" not in found
    assert {"bartowski/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M", "someone/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M"} <= found.keys()


def test_projectors_later_shards_and_leftovers_are_no_models() -> None:
    paths = [model.path for model in lm_studio.plan_of(FOLDERS).models]
    assert [path for path in paths if "mmproj" in path or "00002-of" in path or ".part" in path] == []
    assert "unsloth/Big-GGUF/Big-00001-of-00002.gguf" in paths
    assert "Big" in names()


def test_models_of_another_format_are_reported() -> None:
    [problem] = lm_studio.plan_of(FOLDERS).problems
    assert problem.startswith("mlx-community/Llama-3.2-1B-4bit: not taken over")


def test_folders_are_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "publisher" / "tiny-GGUF" / "tiny-Q8_0.gguf"
    path.parent.mkdir(parents=True)
    path.touch()
    [model] = lm_studio.read(tmp_path).models
    assert (model.path, model.name) == (str(path), "tiny-Q8_0")


@pytest.mark.parametrize("place", ["", "nowhere"])
def test_a_directory_without_models_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(InvalidInput, match="no folders publisher/model"):
        lm_studio.read(tmp_path / place)


def test_the_usual_place_is_the_folder_in_the_settings(tmp_path: Path) -> None:
    assert lm_studio.default_directory(tmp_path) == tmp_path / ".lmstudio/models"
    (tmp_path / ".cache/lm-studio/models").mkdir(parents=True)
    assert lm_studio.default_directory(tmp_path) == tmp_path / ".cache/lm-studio/models"
    (tmp_path / ".lmstudio").mkdir()
    settings = tmp_path / ".lmstudio/settings.json"
    settings.write_text(json.dumps({"downloadsFolder": str(tmp_path)}))
    assert lm_studio.default_directory(tmp_path) == tmp_path
    settings.write_text("[broken")
    assert lm_studio.default_directory(tmp_path) == tmp_path / ".cache/lm-studio/models"
