"""Headers of real models over holes: gigabytes to llama.cpp's own count of memory, kilobytes on disk.

Sizes are those of the published models; tensor types those of a usual 4 bit file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from llama_async_proxy.gguf.ggml import F32, Q4_K, Q6_K, Q8_0
from llama_async_proxy.gguf.reader import Scalar
from llama_async_proxy.gguf.writer import TensorData, write_gguf
from support.models import with_an_end

Q5_0, MXFP4 = 6, 39
Tensor: TypeAlias = tuple[str, tuple[int, ...], int]
"""Name without `.weight`, elements by dimension, type."""
Keys: TypeAlias = Mapping[str, Scalar | Sequence[Scalar]]


@dataclass(frozen=True, slots=True)
class Ghost:
    architecture: str
    keys: Keys
    """Of the architecture, without its prefix."""
    tensors: tuple[Tensor, ...]
    vocabulary: int
    bare: tuple[str, ...] = ("ssm_a", "ssm_d")
    """Tensors whose name has no `.weight`."""


def write_shape(path: Path, ghost: Ghost) -> Path:
    prefixed = {f"{ghost.architecture}.{key}": value for key, value in ghost.keys.items()}
    metadata = {
        "general.architecture": ghost.architecture,
        "general.name": path.stem,
        "general.file_type": 15,
        "tokenizer.ggml.model": "none",
        "tokenizer.ggml.token_type_count": 2,
        f"{ghost.architecture}.vocab_size": ghost.vocabulary,
        **prefixed,
    }
    tensors = [
        TensorData(name if name.endswith((".bias", *ghost.bare)) else f"{name}.weight", shape, kind)
        for name, shape, kind in ghost.tensors
    ]
    write_gguf(path, metadata, tensors)
    return with_an_end(path)


@dataclass(frozen=True, slots=True)
class Size:
    """Of a transformer; the letters of the papers would be n, d, h, kv, ff, V, T."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    context: int
    head: int

    def keys(self, **more: Scalar | Sequence[Scalar]) -> dict[str, Scalar | Sequence[Scalar]]:
        return {
            "block_count": self.layers,
            "embedding_length": self.width,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "feed_forward_length": self.feed_forward,
            "context_length": self.context,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "attention.key_length": self.head,
            "attention.value_length": self.head,
            "rope.dimension_count": self.head,
            "rope.freq_base": 500000.0,
            **{key.replace("__", "."): value for key, value in more.items()},
        }


def _ends(size: Size, *, tied: bool = False, kind: int = Q4_K) -> Iterator[Tensor]:
    yield "token_embd", (size.width, size.vocabulary), Q6_K if tied else kind
    yield "output_norm", (size.width,), F32
    if not tied:
        yield "output", (size.width, size.vocabulary), Q6_K if kind == Q4_K else kind


def _attention(
    block: str, size: Size, *, qk_norm: bool = False, gated: bool = False, kind: int = Q4_K
) -> Iterator[Tensor]:
    width, queries, keys = size.width, size.heads * size.head, size.kv_heads * size.head
    yield f"{block}attn_norm", (width,), F32
    yield f"{block}attn_q", (width, queries * (2 if gated else 1)), kind
    yield f"{block}attn_k", (width, keys), kind
    yield f"{block}attn_v", (width, keys), kind
    yield f"{block}attn_output", (queries, width), kind
    if qk_norm:
        yield f"{block}attn_q_norm", (size.head,), F32
        yield f"{block}attn_k_norm", (size.head,), F32


def _dense(block: str, size: Size, *, kind: int = Q4_K) -> Iterator[Tensor]:
    width, inner = size.width, size.feed_forward
    yield f"{block}ffn_norm", (width,), F32
    yield f"{block}ffn_gate", (width, inner), kind
    yield f"{block}ffn_up", (width, inner), kind
    yield f"{block}ffn_down", (inner, width), kind


def _experts(
    block: str, width: int, inner: int, count: int, *, kind: int = Q4_K, down: int | None = None
) -> Iterator[Tensor]:
    yield f"{block}ffn_gate_inp", (width, count), F32
    yield f"{block}ffn_gate_exps", (width, inner, count), kind
    yield f"{block}ffn_up_exps", (width, inner, count), kind
    yield f"{block}ffn_down_exps", (inner, width, count), kind if down is None else down


def _shared(block: str, width: int, inner: int) -> Iterator[Tensor]:
    yield f"{block}ffn_gate_shexp", (width, inner), Q4_K
    yield f"{block}ffn_up_shexp", (width, inner), Q4_K
    yield f"{block}ffn_down_shexp", (inner, width), Q4_K


def _mamba2(block: str, width: int, ssm: Mapping[str, int]) -> Iterator[Tensor]:
    inner, heads, groups = ssm["inner_size"], ssm["time_step_rank"], ssm["group_count"]
    convolved = inner + 2 * groups * ssm["state_size"]
    yield f"{block}ssm_in", (width, inner + convolved + heads), Q4_K
    yield f"{block}ssm_conv1d", (ssm["conv_kernel"], convolved), F32
    yield f"{block}ssm_conv1d.bias", (convolved,), F32
    yield f"{block}ssm_dt.bias", (heads,), F32
    yield f"{block}ssm_a", (1, heads), F32
    yield f"{block}ssm_d", (1, heads), F32
    yield f"{block}ssm_norm", (inner // groups, groups), F32
    yield f"{block}ssm_out", (inner, width), Q4_K


def _blocks(layers: int, tensors: Callable[[int, str], Iterator[Tensor]]) -> Iterator[Tensor]:
    for index in range(layers):
        yield from tensors(index, f"blk.{index}.")


def llama(size: Size, architecture: str = "llama") -> Ghost:
    def block(_: int, name: str) -> Iterator[Tensor]:
        yield from _attention(name, size, qk_norm=architecture == "qwen3")
        yield from _dense(name, size)

    return Ghost(architecture, size.keys(), (*_ends(size), *_blocks(size.layers, block)), size.vocabulary)


def gemma3(size: Size) -> Ghost:
    def block(_: int, name: str) -> Iterator[Tensor]:
        yield from _attention(name, size, qk_norm=True)
        yield from _dense(name, size)
        yield f"{name}post_attention_norm", (size.width,), F32
        yield f"{name}post_ffw_norm", (size.width,), F32

    keys = size.keys(attention__sliding_window=1024)
    return Ghost("gemma3", keys, (*_ends(size, tied=True), *_blocks(size.layers, block)), size.vocabulary)


def qwen3moe(size: Size, experts: int = 128, inner: int = 768) -> Ghost:
    def block(_: int, name: str) -> Iterator[Tensor]:
        yield from _attention(name, size, qk_norm=True)
        yield f"{name}ffn_norm", (size.width,), F32
        yield from _experts(name, size.width, inner, experts)

    keys = size.keys(expert_count=experts, expert_used_count=8, expert_feed_forward_length=inner)
    return Ghost("qwen3moe", keys, (*_ends(size), *_blocks(size.layers, block)), size.vocabulary)


def gpt_oss(size: Size, experts: int = 32) -> Ghost:
    width, inner = size.width, size.feed_forward
    queries, keys_width = size.heads * size.head, size.kv_heads * size.head

    def block(_: int, name: str) -> Iterator[Tensor]:
        yield from _attention(name, size, kind=Q8_0)
        yield from _experts(name, width, inner, experts, kind=MXFP4)
        yield f"{name}post_attention_norm", (width,), F32
        yield f"{name}attn_sinks", (size.heads,), F32
        biases = {"attn_q": (queries,), "attn_k": (keys_width,), "attn_v": (keys_width,), "attn_output": (width,)}
        wide = {"gate_inp": (experts,), "gate_exps": (inner, experts), "up_exps": (inner, experts)}
        for part, shape in {**biases, **{f"ffn_{k}": v for k, v in wide.items()}}.items():
            yield f"{name}{part}.bias", shape, F32
        yield f"{name}ffn_down_exps.bias", (width, experts), F32

    keys = size.keys(
        expert_count=experts, expert_used_count=4, expert_feed_forward_length=inner, attention__sliding_window=128
    )
    tensors = (*_ends(size, kind=Q8_0), *_blocks(size.layers, block))
    return Ghost("gpt-oss", keys, tensors, size.vocabulary)


def deepseek2(size: Size, experts: int = 64, inner: int = 1408, latent: int = 512) -> Ghost:
    rope, plain, value, width, heads = 64, 128, 128, size.width, size.heads

    def block(index: int, name: str) -> Iterator[Tensor]:
        yield f"{name}attn_norm", (width,), F32
        yield f"{name}attn_kv_a_norm", (latent,), F32
        yield f"{name}attn_q", (width, heads * (rope + plain)), Q4_K
        yield f"{name}attn_kv_a_mqa", (width, latent + rope), Q4_K
        yield f"{name}attn_k_b", (plain, latent, heads), Q8_0
        yield f"{name}attn_v_b", (latent, value, heads), Q8_0
        yield f"{name}attn_output", (heads * value, width), Q4_K
        if index == 0:
            yield from _dense(name, size, kind=Q5_0)
            return
        yield f"{name}ffn_norm", (width,), F32
        yield from _experts(name, width, inner, experts, down=Q5_0)
        yield from _shared(name, width, inner * 2)

    keys = size.keys(
        attention__key_length=latent + rope, attention__value_length=latent,
        attention__key_length_mla=rope + plain, attention__value_length_mla=value, attention__kv_lora_rank=latent,
        rope__dimension_count=rope, expert_count=experts, expert_used_count=6, expert_shared_count=2,
        expert_feed_forward_length=inner, leading_dense_block_count=1, expert_weights_scale=1.0,
    )  # fmt: skip
    return Ghost("deepseek2", keys, (*_ends(size), *_blocks(size.layers, block)), size.vocabulary)


def lfm2(size: Size, attending: Sequence[int] = (2, 5, 8, 10, 12, 14), taps: int = 3) -> Ghost:
    width = size.width

    def block(index: int, name: str) -> Iterator[Tensor]:
        yield from _dense(name, size)
        if index in attending:
            yield from _attention(name, size, qk_norm=True)
            return
        yield f"{name}attn_norm", (width,), F32
        yield f"{name}shortconv.conv", (taps, width), F32
        yield f"{name}shortconv.in_proj", (width, 3 * width), Q4_K
        yield f"{name}shortconv.out_proj", (width, width), Q4_K

    heads = [size.kv_heads if index in attending else 0 for index in range(size.layers)]
    ends: tuple[Tensor, ...] = (
        ("token_embd", (width, size.vocabulary), Q6_K),
        ("token_embd_norm", (width,), F32),
    )
    keys = size.keys(attention__head_count_kv=heads, shortconv__l_cache=taps)
    return Ghost("lfm2", keys, (*ends, *_blocks(size.layers, block)), size.vocabulary)


def mamba2(size: Size) -> Ghost:
    ssm = {"conv_kernel": 4, "inner_size": 2 * size.width, "state_size": 128, "time_step_rank": 64, "group_count": 1}

    def block(_: int, name: str) -> Iterator[Tensor]:
        yield f"{name}attn_norm", (size.width,), F32
        yield from _mamba2(name, size.width, ssm)

    keys = {
        "block_count": size.layers, "embedding_length": size.width, "context_length": size.context,
        "attention.head_count": 0, "feed_forward_length": 0, "attention.layer_norm_rms_epsilon": 1e-5,
        **{f"ssm.{key}": value for key, value in ssm.items()},
    }  # fmt: skip
    return Ghost("mamba2", keys, (*_ends(size, tied=True), *_blocks(size.layers, block)), size.vocabulary)


def falcon_h1(size: Size) -> Ghost:
    ssm = {"conv_kernel": 4, "inner_size": 3072, "state_size": 256, "time_step_rank": 24, "group_count": 1}

    def block(_: int, name: str) -> Iterator[Tensor]:
        yield from _attention(name, size)
        yield from _mamba2(name, size.width, ssm)
        yield from _dense(name, size)

    keys = size.keys(**{f"ssm__{key}": value for key, value in ssm.items()})
    tensors = (*_ends(size), *_blocks(size.layers, block))
    return Ghost("falcon-h1", keys, tensors, size.vocabulary, bare=("ssm_a", "ssm_d", "ffn_norm"))


def qwen3next(size: Size, experts: int = 512, inner: int = 512) -> Ghost:
    ssm = {"conv_kernel": 4, "inner_size": 4096, "state_size": 128, "time_step_rank": 32, "group_count": 16}
    width, keys_width = size.width, ssm["state_size"] * ssm["group_count"]

    def delta_net(name: str) -> Iterator[Tensor]:
        yield f"{name}attn_norm", (width,), F32
        yield f"{name}attn_qkv", (width, 2 * keys_width + ssm["inner_size"]), Q4_K
        yield f"{name}attn_gate", (width, ssm["inner_size"]), Q4_K
        yield f"{name}ssm_conv1d", (4, 2 * keys_width + ssm["inner_size"]), F32
        yield f"{name}ssm_dt.bias", (32,), F32
        yield f"{name}ssm_a", (32,), F32
        yield f"{name}ssm_ba", (width, 64), Q4_K
        yield f"{name}ssm_norm", (128,), F32
        yield f"{name}ssm_out", (ssm["inner_size"], width), Q4_K

    def block(index: int, name: str) -> Iterator[Tensor]:
        yield from delta_net(name) if (index + 1) % 4 else _attention(name, size, qk_norm=True, gated=True)
        yield f"{name}post_attention_norm", (width,), F32
        yield from _experts(name, width, inner, experts)
        yield f"{name}ffn_gate_inp_shexp", (width,), F32
        yield from _shared(name, width, inner)

    keys = size.keys(
        rope__dimension_count=64, expert_count=experts, expert_used_count=10, expert_feed_forward_length=inner,
        expert_shared_feed_forward_length=inner, **{f"ssm__{key}": value for key, value in ssm.items()},
    )  # fmt: skip
    return Ghost("qwen3next", keys, (*_ends(size), *_blocks(size.layers, block)), size.vocabulary)


def phi3(size: Size) -> Ghost:
    width = size.width

    def block(_: int, name: str) -> Iterator[Tensor]:
        yield f"{name}attn_norm", (width,), F32
        yield f"{name}attn_qkv", (width, (size.heads + 2 * size.kv_heads) * size.head), Q4_K
        yield f"{name}attn_output", (width, width), Q4_K
        yield f"{name}ffn_norm", (width,), F32
        yield f"{name}ffn_up", (width, 2 * size.feed_forward), Q4_K
        yield f"{name}ffn_down", (size.feed_forward, width), Q4_K

    keys = size.keys(attention__sliding_window=2047)
    return Ghost("phi3", keys, (*_ends(size), *_blocks(size.layers, block)), size.vocabulary)


def bert(size: Size) -> Ghost:
    width = size.width

    def block(_: int, name: str) -> Iterator[Tensor]:
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"{name}{part}", (width, width), Q8_0
            yield f"{name}{part}.bias", (width,), F32
        yield f"{name}ffn_up", (width, size.feed_forward), Q8_0
        yield f"{name}ffn_up.bias", (size.feed_forward,), F32
        yield f"{name}ffn_down", (size.feed_forward, width), Q8_0
        yield f"{name}ffn_down.bias", (width,), F32
        for norm in ("attn_output_norm", "layer_output_norm"):
            yield f"{name}{norm}", (width,), F32
            yield f"{name}{norm}.bias", (width,), F32

    ends: tuple[Tensor, ...] = (
        ("token_embd", (width, size.vocabulary), Q8_0),
        ("token_types", (width, 2), F32),
        ("position_embd", (width, size.context), F32),
        ("token_embd_norm", (width,), F32),
        ("token_embd_norm.bias", (width,), F32),
    )
    keys = size.keys(attention__layer_norm_epsilon=1e-12, attention__causal=False, pooling_type=1)
    return Ghost("bert", keys, (*ends, *_blocks(size.layers, block)), size.vocabulary)


SHAPES: Mapping[str, Ghost] = {
    "llama-1b": llama(Size(16, 2048, 32, 8, 8192, 128256, 131072, 64)),
    "llama-8b": llama(Size(32, 4096, 32, 8, 14336, 128256, 131072, 128)),
    "llama-70b": llama(Size(80, 8192, 64, 8, 28672, 128256, 131072, 128)),
    "qwen3-8b": llama(Size(36, 4096, 32, 8, 12288, 151936, 40960, 128), "qwen3"),
    "gemma3-4b": gemma3(Size(34, 2560, 8, 4, 10240, 262144, 131072, 256)),
    "gemma3-27b": gemma3(Size(62, 5376, 32, 16, 21504, 262144, 131072, 128)),
    "qwen3moe-30b": qwen3moe(Size(48, 2048, 32, 4, 6144, 151936, 262144, 128)),
    "gpt-oss-20b": gpt_oss(Size(24, 2880, 64, 8, 2880, 201088, 131072, 64)),
    "deepseek2-lite": deepseek2(Size(27, 2048, 16, 1, 10944, 102400, 163840, 128)),
    "lfm2-1.2b": lfm2(Size(16, 2048, 32, 8, 8192, 65536, 128000, 64)),
    "mamba2-1.3b": mamba2(Size(48, 2048, 0, 0, 0, 50288, 1048576, 0)),
    "falcon-h1-1.5b": falcon_h1(Size(24, 2048, 8, 2, 4096, 65536, 131072, 128)),
    "qwen3next-80b": qwen3next(Size(48, 2048, 16, 2, 5120, 151936, 262144, 256)),
    "phi3-mini": phi3(Size(32, 3072, 32, 32, 8192, 32064, 131072, 96)),
    "bert-large": bert(Size(24, 1024, 16, 16, 4096, 30522, 512, 64)),
}
"""By the name people know them under."""
