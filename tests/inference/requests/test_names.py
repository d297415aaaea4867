from __future__ import annotations

import pytest
from msgspec.structs import replace

from llama_async_proxy.errors import InvalidInput, NotFound
from llama_async_proxy.inference.requests.names import NameIndex, Names, choose, choose_unnamed
from llama_async_proxy.records.models import Model, ModelKind
from support.upstream import make_model

LLAMA = make_model(1, "llama-3.2-1b", name="Llama 3.2 1B", path="/m/Llama-3.2-1B-Q4_K_M.gguf", aliases=("gpt-4o",))
QWEN = make_model(2, "qwen", name="Qwen Coder", path="/m/qwen-coder-00001-of-00003.gguf")
INDEX = NameIndex.of((LLAMA, QWEN))


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("llama-3.2-1b", "llama-3.2-1b"),
        ("Llama 3.2 1B", "llama-3.2-1b"),
        ("gpt-4o", "llama-3.2-1b"),
        ("Llama-3.2-1B-Q4_K_M.gguf", "llama-3.2-1b"),
        ("Llama-3.2-1B-Q4_K_M", "llama-3.2-1b"),
        ("LLAMA-3.2-1b-q4_k_m.GGUF", "llama-3.2-1b"),
        ("qwen coder", "qwen"),
        ("qwen-coder", "qwen"),
        ("qwen-coder.gguf", "qwen"),
        ("qwen-coder-00001-of-00003.gguf", "qwen"),
        ("2", "qwen"),
    ],
)
def test_a_model_answers_to_each_of_its_names(name: str, slug: str) -> None:
    found = INDEX.resolve(name)
    assert found is not None
    assert found.slug == slug


@pytest.mark.parametrize("name", ["", "nothing", "3", "-1", "99999999999999999999", "02", "llama"])
def test_other_names_mean_nothing(name: str) -> None:
    assert INDEX.resolve(name) is None


def test_an_exact_name_of_a_lower_kind_beats_a_folded_one_of_a_higher() -> None:
    upper = make_model(1, "Mistral")
    lower = make_model(2, "other", aliases=("mistral",))
    index = NameIndex.of((upper, lower))
    assert index.resolve("mistral") is lower
    assert index.resolve("MISTRAL") is upper


def test_a_slug_beats_an_alias_and_an_id() -> None:
    alias = make_model(1, "first", aliases=("x", "7"))
    slug = make_model(2, "x")
    numbered = make_model(7, "seven")
    index = NameIndex.of((alias, slug, numbered))
    assert index.resolve("x") is slug
    assert index.resolve("7") is alias


@pytest.mark.parametrize("order", [1, -1])
def test_the_older_of_two_models_with_one_name_wins_in_any_order(order: int) -> None:
    older, newer = make_model(1, "a", aliases=("same",)), make_model(2, "b", aliases=("same",))
    assert NameIndex.of((older, newer)[::order]).resolve("same") is older


def test_similar_names_are_slugs_best_first() -> None:
    assert INDEX.similar("lama-3.2-1b")[0] == "llama-3.2-1b"
    assert INDEX.similar("coder") == ("qwen",)
    assert INDEX.similar("zzzzzz") == ()
    assert INDEX.similar("x" * 1_000_000) == ()


def test_the_index_is_rebuilt_only_for_another_tuple() -> None:
    models: tuple[Model, ...] = (LLAMA,)
    names = Names(lambda: models)
    first = names.index
    assert names.index is first
    models = (LLAMA, QWEN)
    assert names.index is not first
    assert names.index.resolve("qwen") is QWEN


def test_an_unknown_model_names_close_ones() -> None:
    with pytest.raises(NotFound) as caught:
        choose(INDEX, "qwem")
    assert caught.value.similar == ("qwen",)
    assert "'qwem'" in caught.value.message


def test_without_a_name_the_only_model_of_the_routes_kind_is_meant_loaded_or_not() -> None:
    embedder = make_model(3, "bge", facts=replace(LLAMA.facts, kind=ModelKind.EMBEDDING))
    index = NameIndex.of((LLAMA, QWEN, embedder))
    assert choose_unnamed(index, ModelKind.EMBEDDING, loaded=(1, 2)) is embedder
    assert choose_unnamed(NameIndex.of((LLAMA, replace(QWEN, is_missing=True))), ModelKind.CHAT) is LLAMA


def test_without_a_name_the_default_is_meant_then_the_only_loaded_one() -> None:
    assert choose_unnamed(INDEX, ModelKind.CHAT, "qwen", loaded=(1,)) is QWEN
    assert choose_unnamed(INDEX, ModelKind.CHAT, loaded=(2,)) is QWEN


@pytest.mark.parametrize(
    ("kind", "default", "loaded", "says"),
    [
        (ModelKind.CHAT, "", (), "name one of llama-3.2-1b, qwen"),
        (ModelKind.CHAT, "", (1, 2), "name one of"),
        (ModelKind.RERANK, "", (1,), "no model for rerank is registered"),
        (ModelKind.CHAT, "gone", (1,), "the default model 'gone' is not registered"),
    ],
)
def test_without_a_name_anything_else_is_refused(
    kind: ModelKind, default: str, loaded: tuple[int, ...], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        choose_unnamed(INDEX, kind, default, loaded=loaded)
    assert caught.value.field == "model"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/m/models--org--repo/snapshots/abc/TinyLlama-Q4_K_M.gguf", ["org/repo:Q4_K_M", "org/repo", "repo:q4_k_m"]),
        ("/m/lmstudio/org/repo/x-IQ2_XXS.gguf", ["org/repo:IQ2_XXS", "repo:iq2_xxs", "x:IQ2_XXS", "repo/x-IQ2_XXS"]),
        ("/m/dir/name.gguf", ["dir/name", "dir/name.gguf", "name:latest", "dir/name:latest"]),
        ("/m/\u6a21\u578b.gguf", ["\u6a21\u578b", "\u6a21\u578b:latest"]),
        ("/m/caf\u00e9.gguf", ["cafe\u0301", "CAFE\u0301"]),
    ],
)
def test_names_as_hubs_directories_and_other_programs_write_them(path: str, names: list[str]) -> None:
    model = make_model(1, "x1", path=path)
    index = NameIndex.of((model, QWEN))
    for name in names:
        assert index.resolve(name) is model, name


def test_a_link_to_a_file_names_its_model() -> None:
    model = make_model(1, "blob", links=("/m/coder/Qwen-Coder.gguf",))
    for name in ("Qwen-Coder", "qwen-coder.gguf", "coder/Qwen-Coder"):
        assert NameIndex.of((model,)).resolve(name) is model


def test_a_model_without_its_file_is_not_listed_but_keeps_its_name() -> None:
    gone = make_model(1, "gone", is_missing=True)
    index = NameIndex.of((gone, QWEN))
    assert index.listed == (QWEN,)
    assert index.resolve("gone") is gone


def test_a_section_of_the_preset_names_its_file_until_another_preset_does() -> None:
    sections = [{"coder": QWEN.path, "llama-3.2-1b": QWEN.path}, {"writer": QWEN.path}]
    names = Names(lambda: INDEX.models, lambda: sections[0])
    assert names.index.resolve("Coder") is QWEN
    assert names.index.resolve("llama-3.2-1b") is LLAMA, "a slug outranks a section"
    assert [model.aliases for model in names.index.listed] == [("gpt-4o",), ("coder", "llama-3.2-1b")]
    sections.pop(0)
    assert names.index.resolve("coder") is None
    assert names.index.resolve("writer") is QWEN
