from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llama_async_proxy.gguf.ggml import F32, ValueType
from llama_async_proxy.gguf.memory import LoadSettings, estimate
from llama_async_proxy.gguf.reader import MAX_NUMBER, GgufError, Header, Omitted, Scalar, Tensor, Value, read_header
from llama_async_proxy.gguf.shape import ModelShape, model_shape
from support.ghosts import SHAPES, write_shape
from support.models import split, write_chat

SIZES: Mapping[str, Value] = {"embedding_length": 64, "attention.head_count": 4}


def shape_of(directory: Path, name: str) -> ModelShape:
    return model_shape(read_header(write_shape(directory / "m.gguf", SHAPES[name])))


def header(architecture: str, keys: Mapping[str, Value], *tensors: Tensor) -> Header:
    metadata: dict[str, Value] = {"general.architecture": architecture}
    metadata |= {f"{architecture}.{key}": value for key, value in keys.items()}
    return Header(3, "little", metadata, tensors, len(tensors), 0, 0)


def small(architecture: str, keys: Mapping[str, Value] = SIZES, *, blocks: int = 8) -> ModelShape:
    return model_shape(header(architecture, {**SIZES, "block_count": blocks, **keys}))


def sliding(shape: ModelShape) -> str:
    return "".join("s" if layer.slides else "F" for layer in shape.layers)


def test_grouped_heads_cache_less_than_they_ask(tmp_path: Path) -> None:
    shape = shape_of(tmp_path, "llama-8b")
    assert {(layer.key_width, layer.value_width) for layer in shape.layers} == {(1024, 1024)}
    assert shape.query_width == 4096
    assert not shape.is_rough


def test_without_head_sizes_the_width_is_shared_by_the_heads() -> None:
    layer = small("llama", {"attention.head_count_kv": 2}).layers[0]
    assert (layer.key_width, layer.value_width) == (32, 32)


def test_latent_attention_caches_keys_only(tmp_path: Path) -> None:
    layer = shape_of(tmp_path, "deepseek2-lite").layers[5]
    assert (layer.key_width, layer.value_width) == (576, 0)


@pytest.mark.parametrize(
    ("architecture", "keys", "pattern"),
    [
        ("llama", {"attention.sliding_window": 128}, "FFFFFFFF"),
        ("phi3", {"attention.sliding_window": 128}, "FFFFFFFF"),
        ("gemma2", {}, "sFsFsFsF"),
        ("gemma3", {}, "FFFFFFFF"),
        ("gemma3", {"attention.sliding_window": 512}, "sssssFss"),
        ("gemma3", {"attention.sliding_window": 512, "attention.sliding_window_pattern": 2}, "sFsFsFsF"),
        ("cohere2moe", {"attention.sliding_window": 512}, "FsssFsss"),
        ("gemma4", {"attention.sliding_window": 9, "attention.sliding_window_pattern": (True, False)}, "sFFFFFFF"),
        ("llama4", {"attention.sliding_window": 0}, "FFFFFFFF"),
        ("llama4", {}, "sssFsssF"),
    ],
)
def test_sliding_layers(architecture: str, keys: dict[str, Value], pattern: str) -> None:
    assert sliding(small(architecture, keys)) == pattern


def test_a_hybrid_has_a_cache_or_a_state_in_each_layer(tmp_path: Path) -> None:
    layers = shape_of(tmp_path, "qwen3next-80b").layers
    assert [bool(layer.state_width) for layer in layers] == [(i + 1) % 4 != 0 for i in range(48)]
    assert all(bool(layer.state_width) != bool(layer.key_width) for layer in layers)


def test_falcon_h1_has_a_cache_and_a_state_in_each_layer(tmp_path: Path) -> None:
    assert all(layer.state_width and layer.key_width for layer in shape_of(tmp_path, "falcon-h1-1.5b").layers)


@pytest.mark.parametrize(
    ("architecture", "keys", "width"),
    [
        ("rwkv7", {"wkv.head_size": 16}, 64 * (2 + 16)),
        ("lfm2", {"shortconv.l_cache": 3, "attention.head_count_kv": 0}, 64 * 2),
        ("kimi-linear", {"kda.head_dim": 8, "ssm.conv_kernel": 4, "attention.head_count_kv": 0}, 4 * 8 * (9 + 8)),
        ("mamba", {"ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16}, 3 * 128 + 16 * 128),
    ],
)
def test_recurrent_state(architecture: str, keys: dict[str, Value], width: int) -> None:
    assert {layer.state_width for layer in small(architecture, keys).layers} == {width}


def test_layers_that_share_a_cache_have_none() -> None:
    shared = small("gemma4", {"attention.shared_kv_layers": 3})
    assert [bool(layer.key_width) for layer in shared.layers] == [True] * 5 + [False] * 3
    assert sum(bool(layer.key_width) for layer in small("gemma3n", blocks=30).layers) == 20


def test_weights_are_told_apart_by_where_they_belong(tmp_path: Path) -> None:
    path = write_shape(tmp_path / "m.gguf", SHAPES["qwen3moe-30b"])
    shape = model_shape(read_header(path))
    assert shape.weights_bytes == sum(tensor.nbytes or 0 for tensor in read_header(path).tensors)
    assert shape.layers[0].expert_bytes > 0.9 * shape.layers[0].weights_bytes
    assert shape.tied_bytes == 0
    assert shape.vocabulary == 151936


def test_of_the_input_layer_only_the_embedding_is_tied() -> None:
    inputs = (Tensor("token_embd.weight", (64, 100), F32, 0), Tensor("per_layer_token_embd.weight", (64, 900), F32, 0))
    shape = model_shape(header("gemma3n", {**SIZES, "block_count": 1}, *inputs))
    assert (shape.input_bytes, shape.tied_bytes) == (64 * 1000 * 4, 64 * 100 * 4)


def test_an_encoder_says_no_tokens(tmp_path: Path) -> None:
    shape = shape_of(tmp_path, "bert-large")
    assert (shape.vocabulary, shape.tied_bytes, shape.keeps_cache) == (0, 0, False)


def test_shards_count_as_one_model(tmp_path: Path) -> None:
    whole = model_shape(read_header(write_chat(tmp_path / "m.gguf")))
    shards = [read_header(shard) for shard in split(tmp_path / "m.gguf", 3)]
    assert model_shape(*shards) == whole


def test_what_is_not_modelled_says_so() -> None:
    unknown_type = Tensor("blk.0.attn_q.weight", (32,), 9999, 0)
    assert small("a-new-one").is_rough
    assert model_shape(header("llama", {**SIZES, "block_count": 1}, unknown_type)).is_rough


@pytest.mark.parametrize("keys", [{}, {"block_count": 4}, {"block_count": 513, "embedding_length": 64}])
def test_a_header_without_sizes_is_refused(keys: dict[str, Value]) -> None:
    with pytest.raises(GgufError, match=r"does not say its \w+ \(between 1 and"):
        model_shape(header("llama", keys))


scalars: st.SearchStrategy[Scalar] = st.integers(-5, MAX_NUMBER) | st.floats() | st.booleans() | st.text(max_size=3)
KEYS = (
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.key_length_mla",
    "attention.value_length_mla", "attention.sliding_window", "attention.sliding_window_pattern",
    "attention.recurrent_layers", "attention.shared_kv_layers", "full_attention_interval", "ssm.conv_kernel",
    "ssm.inner_size", "wkv.head_size", "shortconv.l_cache", "kda.head_dim", "feed_forward_length", "context_length",
    "vocab_size", "expert_used_count", "nextn_predict_layers",
)  # fmt: skip


@given(
    architecture=st.sampled_from(("llama", "gemma3", "qwen3next", "lfm2", "mamba2", "nemotron_h", "bert", "")),
    values=st.dictionaries(st.sampled_from(KEYS), scalars | st.lists(scalars, max_size=9).map(tuple), max_size=8),
    blocks=st.integers(1, 12),
)
def test_no_header_breaks_the_estimate(architecture: str, values: dict[str, Value], blocks: int) -> None:
    shape = model_shape(header(architecture, {"block_count": blocks, "embedding_length": 64, **values}))
    answer = estimate(shape, LoadSettings(gpu_layers=3))
    parts = (answer.host, answer.gpu)
    assert all(min(part.weights_bytes, part.context_bytes, part.compute_bytes) >= 0 for part in parts)


def test_a_vocabulary_that_was_skipped_counts() -> None:
    said = header("llama", {**SIZES, "block_count": 1}, Tensor("output.weight", (64, 5000), F32, 0))
    tokens = Omitted(ValueType.STRING, 5000)
    assert model_shape(replace(said, metadata={**said.metadata, "tokenizer.ggml.tokens": tokens})).vocabulary == 5000
