"""Names of files: which make a model together, and which projector belongs to which model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.gguf.files import (
    Companioned,
    FileEntry,
    Projector,
    Shard,
    companions,
    group,
    is_candidate,
    model_stem,
    shard_of,
)


def entries(*names: str, directory: str = "/m") -> list[FileEntry]:
    return [FileEntry(f"{directory}/{name}", size_bytes=10, mtime_ns=i) for i, name in enumerate(names)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.gguf", True),
        ("A.GGUF", True),
        ("a.bin", True),
        ("a.gguf.part", False),
        ("a.safetensors", False),
        ("gguf", False),
        (".a.gguf", False),
        ("._a.gguf", False),
    ],
)
def test_candidates_are_told_by_suffix_and_are_not_hidden(name: str, expected: bool) -> None:
    assert is_candidate(name) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("big-00002-of-00003.gguf", Shard("big", 2, 3)),
        ("big-Q4_K_M-00001-of-00001.gguf", Shard("big-Q4_K_M", 1, 1)),
        ("a-00001-of-00002-00001-of-00003.gguf", Shard("a-00001-of-00002", 1, 3)),
        ("big-00004-of-00003.gguf", None),
        ("big-00000-of-00003.gguf", None),
        ("big-2-of-3.gguf", None),
        ("big-00002-of-00003.bin", None),
        ("-00001-of-00002.gguf", None),
        ("big.gguf", None),
    ],
)
def test_shards_are_told_by_name(name: str, expected: Shard | None) -> None:
    assert shard_of(name) == expected


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.gguf", "a"),
        ("a.b.GGUF", "a.b"),
        ("a-00002-of-00003.gguf", "a"),
        ("a-00004-of-00003.gguf", "a-00004-of-00003"),
    ],
)
def test_the_stem_is_what_people_call_the_model(name: str, stem: str) -> None:
    assert model_stem(name) == stem


@given(st.text(min_size=1).filter(lambda s: "/" not in s), st.integers(1, 99999), st.integers(1, 99999))
def test_every_shard_name_is_understood(stem: str, number: int, of: int) -> None:
    expected = Shard(stem, number, of) if number <= of else None
    assert shard_of(f"{stem}-{number:05}-of-{of:05}.gguf") == expected


def test_shards_in_any_order_are_one_model_in_order() -> None:
    files = entries("b-00002-of-00002.gguf", "a.gguf", "b-00001-of-00002.gguf")
    candidates, broken = group(files)
    assert not broken
    assert [[file.name for file in candidate.files] for candidate in candidates] == [
        ["a.gguf"],
        ["b-00001-of-00002.gguf", "b-00002-of-00002.gguf"],
    ]
    split = candidates[1]
    assert (split.path, split.size_bytes, split.mtime_ns, split.is_split) == ("/m/b-00001-of-00002.gguf", 20, 2, True)


def test_shards_of_different_models_are_kept_apart() -> None:
    candidates, broken = group([
        *entries("a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "a-00001-of-00001.gguf"),
        *entries("a-00001-of-00002.gguf", "a-00002-of-00002.gguf", directory="/other"),
    ])  # fmt: skip
    assert sorted(len(candidate.files) for candidate in candidates) == [1, 2, 2]
    assert not broken


def test_missing_shards_are_named() -> None:
    candidates, [broken] = group(entries("b-00003-of-00003.gguf"))
    assert not candidates
    assert broken.path == "/m/b-00003-of-00003.gguf"
    assert broken.reason == (
        "is split into 3 files of which 2 are missing: b-00001-of-00003.gguf, b-00002-of-00003.gguf"
    )


def test_only_some_of_many_missing_shards_are_named() -> None:
    _, [broken] = group(entries("b-00001-of-99999.gguf"))
    assert broken.reason.endswith("b-00002-of-99999.gguf, b-00003-of-99999.gguf, b-00004-of-99999.gguf and 99995 more")


# --- companions -------------------------------------------------------------------------------------------------------


def models(*names: str, length: int = 2560) -> list[Companioned]:
    return [Companioned(f"/m/{name}.gguf", length) for name in names]


def projectors(*names: str, length: int | None = 2560) -> list[Projector]:
    return [Projector(f"/m/{name}.gguf", length) for name in names]


def chosen(models: list[Companioned], projectors: list[Projector]) -> dict[str, str]:
    pairs = companions(models, projectors).items()
    return {
        model.removeprefix("/m/").removesuffix(".gguf"): p.removeprefix("/m/").removesuffix(".gguf")
        for model, p in pairs
    }


@pytest.mark.parametrize(
    "projector",
    [
        "mmproj",
        "mmproj-F16",
        "mmproj-model-f16",
        "mmproj-gemma-3-4b-it-Q8_0",
        "gemma-3-4b-it.mmproj-bf16",
        "Gemma-3-4B-it-mmproj",
    ],
)
def test_a_projector_is_recognised_by_the_words_of_its_name(projector: str) -> None:
    assert chosen(models("gemma-3-4b-it-Q4_K_M"), projectors(projector)) == {"gemma-3-4b-it-Q4_K_M": projector}


def test_a_projector_of_another_model_is_not_taken() -> None:
    assert chosen(models("llama-3-8b-Q4_K_M"), projectors("mmproj-gemma-3-4b-it-f16")) == {}


def test_all_quantizations_share_a_projector() -> None:
    both = models("gemma-3-4b-it-Q4_K_M", "gemma-3-4b-it-Q8_0")
    assert set(chosen(both, projectors("mmproj-gemma-3-4b-it-f16"))) == {"gemma-3-4b-it-Q4_K_M", "gemma-3-4b-it-Q8_0"}


def test_each_model_gets_the_most_specific_projector() -> None:
    result = chosen(
        models("gemma-3-4b-it-Q4", "gemma-3-12b-it-Q4"), projectors("mmproj-gemma-3-it", "mmproj-gemma-3-4b-it")
    )
    assert result == {"gemma-3-4b-it-Q4": "mmproj-gemma-3-4b-it", "gemma-3-12b-it-Q4": "mmproj-gemma-3-it"}


def test_half_precision_is_preferred() -> None:
    result = chosen(models("gemma"), projectors("mmproj-gemma-BF16", "mmproj-gemma-F16", "mmproj-gemma-F32"))
    assert result == {"gemma": "mmproj-gemma-F16"}


def test_among_models_of_several_lengths_the_length_must_fit() -> None:
    both = [*models("gemma"), *models("llama", length=4096)]
    assert chosen(both, projectors("mmproj-F16")) == {"gemma": "mmproj-F16"}
    assert chosen(both, projectors("mmproj-F16", length=None)) == {"gemma": "mmproj-F16", "llama": "mmproj-F16"}


def test_a_projector_that_states_another_length_is_not_taken() -> None:
    assert chosen(models("llava"), projectors("mmproj-model-f16", length=768)) == {}
