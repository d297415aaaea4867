"""GGUF models for tests, made on the spot: tiny ones that llama.cpp serves, and ghosts with the header of a large one.

Same arguments, same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from llama_async_proxy.gguf.demo import DEMO_DEPTH, Depth, Text, write_demo_model
from llama_async_proxy.gguf.ggml import F32, Q4_K, Q6_K, ValueType
from llama_async_proxy.gguf.reader import Omitted, Scalar, Tensor, Value, read_header
from llama_async_proxy.gguf.stories import OPENINGS, PARAGRAPHS
from llama_async_proxy.gguf.vocabulary import Vocabulary
from llama_async_proxy.gguf.writer import Metadata, TensorData, Typed, write_gguf

TINY_DEPTH = Depth(blocks=1, feed_forward=32)
POOLING_MEAN, POOLING_RANK = 1, 4
ENDLESS = 1e9
"""For `mean_len`: the answer goes on until the request's own limit or the end of the context."""


# --- models that llama.cpp serves -------------------------------------------------------------------------------------


def write_chat(path: Path, *, name: str = "Tiny", seed: int = 0, mean_len: float = 80.0, slow: bool = False) -> Path:
    """A chat model. Tiny: under 1 MB, above 1000 tokens/s. Slow: 30-100 tokens/s on two cores.

    `mean_len` is the mean length of an answer in tokens. Seeds differ in what is said.
    """
    turn = seed % len(PARAGRAPHS)
    paragraphs = PARAGRAPHS[turn:] + PARAGRAPHS[:turn]
    text = Text(OPENINGS, paragraphs, mean_len) if slow else Text(OPENINGS[:2], paragraphs[:5], mean_len)
    write_demo_model(path, name=name, text=text, depth=DEMO_DEPTH if slow else TINY_DEPTH)
    return path


def write_slow_chat(path: Path, *, name: str = "Slow", seed: int = 0, mean_len: float = ENDLESS) -> Path:
    """A chat model of 30-100 tokens/s on two cores whose answer, by default, does not end by itself."""
    return write_chat(path, name=name, seed=seed, mean_len=mean_len, slow=True)


def write_embedding(path: Path, *, name: str = "Tiny Embedding", seed: int = 0) -> Path:
    """A bert with mean pooling, 64 dimensions and 512 tokens of context."""
    return _write_bert(path, name, POOLING_MEAN, seed)


def write_rerank(path: Path, *, name: str = "Tiny Rerank", seed: int = 0) -> Path:
    """A bert with a head that ranks."""
    return _write_bert(path, name, POOLING_RANK, seed)


def _write_bert(path: Path, name: str, pooling: int, seed: int) -> Path:
    width, inner, context = 64, 128, 512
    vocabulary = Vocabulary(sorted({f" {word}" for word in " ".join(PARAGRAPHS).split()}))
    metadata: Metadata = {
        "general.architecture": "bert",
        "general.type": "model",
        "general.name": name,
        "general.file_type": 0,
        "bert.context_length": context,
        "bert.embedding_length": width,
        "bert.block_count": 1,
        "bert.feed_forward_length": inner,
        "bert.attention.head_count": 4,
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "bert.pooling_type": pooling,
        "tokenizer.ggml.token_type_count": 2,
        **vocabulary.metadata(),
    }
    shapes = _bert_shapes(width, inner, context, len(vocabulary))
    if pooling == POOLING_RANK:
        metadata = {**metadata, "bert.classifier.output_labels": ["relevance"]}
        shapes += [("cls", (width, width)), ("cls.output", (width, 1))]
    write_gguf(path, metadata, [tensor for name, shape in shapes for tensor in _layer(name, shape, seed)])
    return path


def _bert_shapes(width: int, inner: int, context: int, tokens: int) -> list[tuple[str, tuple[int, ...]]]:
    square = ("attn_q", "attn_k", "attn_v", "attn_output")
    return [
        ("token_embd", (width, tokens)),
        ("token_types", (width, 2)),
        ("position_embd", (width, context)),
        ("token_embd_norm", (width,)),
        *((f"blk.0.{name}", (width, width)) for name in square),
        ("blk.0.ffn_up", (width, inner)),
        ("blk.0.ffn_down", (inner, width)),
        ("blk.0.attn_output_norm", (width,)),
        ("blk.0.layer_output_norm", (width,)),
    ]


def _layer(name: str, shape: tuple[int, ...], seed: int) -> Iterator[TensorData]:
    """Weight and, but for the embeddings, bias. Norms are ones, biases zero, matrices random."""
    weight = f"{name}.weight"
    if len(shape) == 1:
        yield TensorData(weight, shape, F32, struct.pack("<f", 1.0) * shape[0])
    else:
        yield TensorData(weight, shape, F32, random_floats(shape[0] * shape[1], f"{name}/{seed}", 1 / sqrt(shape[0])))
    if name not in ("token_embd", "token_types", "position_embd"):
        yield TensorData(f"{name}.bias", shape[-1:], F32)


def random_floats(count: int, seed: str, scale: float) -> bytes:
    """`count` float32 values, even between -`scale` and `scale`."""
    noise = hashlib.shake_256(seed.encode()).digest(count)
    return struct.pack(f"<{count}f", *((byte / 127.5 - 1.0) * scale for byte in noise))


# --- ghosts: the header of a large model over a hole ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GhostShape:
    """Sizes of a real model."""

    architecture: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    context: int
    vocab: int
    head: int
    """Elements of one attention head."""
    tied: bool = False
    """The output shares the embedding's weights."""
    qk_norm: bool = False
    experts: int = 0
    extra: tuple[tuple[str, int], ...] = ()
    """Further keys of the architecture."""


GHOSTS = {
    "llama-8b": GhostShape("llama", 32, 4096, 32, 8, 14336, 131072, 128256, 128),
    "gemma3-4b": GhostShape(
        "gemma3", 34, 2560, 8, 4, 10240, 131072, 262144, 256,
        tied=True, qk_norm=True, extra=(("attention.sliding_window", 1024),),
    ),
    "qwen3moe-30b": GhostShape(
        "qwen3moe", 48, 2048, 32, 4, 768, 262144, 151936, 128,
        qk_norm=True, experts=128, extra=(("expert_used_count", 8), ("expert_feed_forward_length", 768)),
    ),
}  # fmt: skip


def write_ghost(path: Path, *, arch: str = "llama-8b", vocab: int | None = None, real_vocab: bool = True) -> Path:
    """A model of gigabytes that takes only its header on disk; `arch` is a key of GHOSTS.

    llama.cpp can measure it (`llama-fit-params`) but not run it. Without `real_vocab` it has no token list, only
    `vocab_size`.
    """
    shape = GHOSTS[arch]
    tokens = vocab or shape.vocab
    metadata = {**_ghost_metadata(path.stem, shape), **_ghost_tokens(shape, tokens, real_vocab=real_vocab)}
    write_gguf(path, metadata, list(_ghost_tensors(shape, tokens)))
    return with_an_end(path)


def with_an_end(path: Path) -> Path:
    """The same sparse file with a last byte: a scan takes an end of zeros for a download that is not finished."""
    with path.open("r+b") as file:
        file.seek(read_header(path).needed_size - 1)
        file.write(b"\1")
    return path


def _ghost_metadata(name: str, shape: GhostShape) -> Metadata:
    specific: dict[str, int | float] = {
        "block_count": shape.layers,
        "context_length": shape.context,
        "embedding_length": shape.width,
        "feed_forward_length": shape.feed_forward,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head,
        "attention.value_length": shape.head,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": shape.head,
        "rope.freq_base": 500000.0,
        **dict(shape.extra),
    }
    if shape.experts:
        specific["expert_count"] = shape.experts
    return {
        "general.architecture": shape.architecture,
        "general.type": "model",
        "general.name": name,
        "general.file_type": 15,
        **{f"{shape.architecture}.{key}": value for key, value in specific.items()},
    }


def _ghost_tokens(shape: GhostShape, tokens: int, *, real_vocab: bool) -> Metadata:
    if not real_vocab:
        return {"tokenizer.ggml.model": "none", f"{shape.architecture}.vocab_size": tokens}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": [f"tok{i}" for i in range(tokens)],
        "tokenizer.ggml.token_type": Typed(ValueType.INT32, [1] * tokens),
        "tokenizer.ggml.merges": [f"a{i} b{i}" for i in range(max(tokens - 256, 1))],
        "tokenizer.chat_template": "{{ messages }}",
    }


def _ghost_tensors(shape: GhostShape, tokens: int) -> Iterator[TensorData]:
    width = shape.width
    yield TensorData("token_embd.weight", (width, tokens), Q6_K if shape.tied else Q4_K)
    yield TensorData("output_norm.weight", (width,), F32)
    if not shape.tied:
        yield TensorData("output.weight", (width, tokens), Q6_K)
    for block in range(shape.layers):
        for name, size in (*_ghost_attention(shape), *_ghost_feed_forward(shape)):
            plain = len(size) == 1 or name == "ffn_gate_inp"
            yield TensorData(f"blk.{block}.{name}.weight", size, F32 if plain else Q4_K)


def _ghost_attention(shape: GhostShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, queries, keys = shape.width, shape.heads * shape.head, shape.kv_heads * shape.head
    yield "attn_norm", (width,)
    yield "attn_q", (width, queries)
    yield "attn_k", (width, keys)
    yield "attn_v", (width, keys)
    yield "attn_output", (queries, width)
    if shape.qk_norm:
        yield "attn_q_norm", (shape.head,)
        yield "attn_k_norm", (shape.head,)
    if shape.architecture == "gemma3":
        yield "post_attention_norm", (width,)
        yield "post_ffw_norm", (width,)


def _ghost_feed_forward(shape: GhostShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner, experts = shape.width, shape.feed_forward, shape.experts
    yield "ffn_norm", (width,)
    if experts:
        yield "ffn_gate_inp", (width, experts)
    suffix, count = ("_exps", (experts,)) if experts else ("", ())
    yield f"ffn_gate{suffix}", (width, inner, *count)
    yield f"ffn_up{suffix}", (width, inner, *count)
    yield f"ffn_down{suffix}", (inner, width, *count)


# --- split models and companions --------------------------------------------------------------------------------------


def write_projector(path: Path, *, name: str = "Tiny Vision", projection: int = 256) -> Path:
    """The header of a multimodal projector (mmproj) for models with embeddings of `projection` elements."""
    metadata: Metadata = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.name": name,
        "clip.has_vision_encoder": True,
        "clip.vision.projection_dim": projection,
    }
    write_gguf(path, metadata, [TensorData("mm.0.weight", (projection, projection), F32)])
    return path


def split(path: Path, count: int = 2) -> list[Path]:
    """Cuts the model into `count` shards beside it and removes it; the shards in order.

    As llama.cpp's own tool does: all metadata in the first shard, the tensors in order spread over all.
    """
    header = read_header(path, kept_elements=1 << 20)
    metadata = {key: _retyped(value) for key, value in header.metadata.items()}
    data = path.read_bytes()
    tensors = [_copied(tensor, data, header.data_offset) for tensor in header.tensors]
    shards = [path.with_name(f"{path.stem}-{index + 1:05}-of-{count:05}{path.suffix}") for index in range(count)]
    for index, shard in enumerate(shards):
        first, last = len(tensors) * index // count, len(tensors) * (index + 1) // count
        keys: Metadata = {
            "split.no": Typed(ValueType.UINT16, index),
            "split.count": Typed(ValueType.UINT16, count),
            "split.tensors.count": Typed(ValueType.INT32, len(tensors)),
        }
        write_gguf(shard, {**metadata, **keys} if index == 0 else keys, tensors[first:last])
    path.unlink()
    return shards


def _retyped(value: Value) -> Scalar | Typed:
    assert not isinstance(value, Omitted)
    if not isinstance(value, tuple):
        return value
    return Typed({int: ValueType.INT32, float: ValueType.FLOAT32, str: ValueType.STRING}[type(value[0])], value)


def _copied(tensor: Tensor, data: bytes, data_offset: int) -> TensorData:
    start = data_offset + tensor.offset
    assert tensor.nbytes is not None
    return TensorData(tensor.name, tensor.shape, tensor.type_id, data[start : start + tensor.nbytes])


def linked(source: Path, target: Path) -> Path:
    """A directory with hard links to the files of `source`: a copy would fill the holes of sparse models."""
    return Path(shutil.copytree(source, target, copy_function=os.link))
