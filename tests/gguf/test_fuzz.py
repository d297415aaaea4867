"""Whatever bytes a file has, all that is read of it ends in an answer or a GgufError, in bounded time and memory."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llama_async_proxy.gguf import reader
from llama_async_proxy.gguf.facts import is_model, is_projector, model_facts, projection_length
from llama_async_proxy.gguf.ggml import F32, Q4_K, ValueType
from llama_async_proxy.gguf.memory import LoadSettings, MemoryBudget, estimate, largest_context, most_gpu_layers
from llama_async_proxy.gguf.reader import GgufError, Header, Tensor, Value, read_header
from llama_async_proxy.gguf.shape import model_shape
from llama_async_proxy.gguf.writer import Metadata, TensorData, Typed, encode_header

SMALL: Metadata = {
    "general.architecture": "gemma3",
    "general.name": "Fuzz",
    "general.file_type": 15,
    "general.alignment": 64,
    "gemma3.block_count": 2,
    "gemma3.context_length": 4096,
    "gemma3.embedding_length": 256,
    "gemma3.feed_forward_length": [512, 512],
    "gemma3.attention.head_count": 4,
    "gemma3.attention.sliding_window": 128,
    "gemma3.flag": True,
    "gemma3.factor": 0.5,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
}
TENSORS = [
    TensorData("token_embd.weight", (256, 3), Q4_K),
    TensorData("blk.0.attn_q.weight", (256, 256), Q4_K),
    TensorData("blk.1.ffn_up_exps.weight", (256, 8), F32),
]
WHOLE = encode_header(SMALL, TENSORS, alignment=1)
"""Without padding, so that every byte means something."""
BOUND_BYTES, SLACK_BYTES = 16 << 20, 6 << 20
"""A sixth of the true bound, because to trace memory is slow; windows and the copies they make come on top."""
SEEDED = settings(derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def use(header: Header) -> None:
    """All that the service asks of a header. Raises GgufError."""
    assert header.needed_size >= 0
    is_model(header), is_projector(header), projection_length(header)
    model_facts(header)
    shape = model_shape(header)
    for budget in (MemoryBudget(1 << 34, 1 << 34), MemoryBudget()):
        most_gpu_layers(shape, LoadSettings(), budget)
        largest_context(shape, LoadSettings(gpu_layers=99, flash_attention="off"), budget)
    assert estimate(shape, LoadSettings()).total_bytes >= 0


def read_and_use(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with suppress(GgufError):
        use(read_header(path))


def header(architecture: str, keys: Mapping[str, Value], *tensors: Tensor) -> Header:
    metadata: dict[str, Value] = {f"{architecture}.{key}": value for key, value in keys.items()}
    return Header(3, "little", {"general.architecture": architecture, **metadata}, tensors, len(tensors), 0, 0)


# --- damaged files ----------------------------------------------------------------------------------------------------


def test_the_whole_header_is_sound(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(WHOLE)
    use(read_header(tmp_path / "m.gguf"))


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    for length in range(len(WHOLE)):
        (tmp_path / "m.gguf").write_bytes(WHOLE[:length])
        with pytest.raises(GgufError):
            read_header(tmp_path / "m.gguf")


@pytest.mark.parametrize("mask", [0x01, 0x08, 0x80, 0xFF])
def test_every_flipped_byte_is_read_or_an_error(tmp_path: Path, mask: int) -> None:
    for position in range(len(WHOLE)):
        damaged = bytearray(WHOLE)
        damaged[position] ^= mask
        read_and_use(tmp_path / "m.gguf", bytes(damaged))


@pytest.mark.parametrize("number", [0, 2**31, 2**63 - 1, 2**64 - 1])
def test_every_eight_bytes_may_claim_anything(tmp_path: Path, number: int) -> None:
    """Each count and length of the header is hit by one of these."""
    for position in range(len(WHOLE) - 8):
        read_and_use(
            tmp_path / "m.gguf", WHOLE[:position] + struct.pack("<Q", number) + WHOLE[position + 8 :] + bytes(4096)
        )


# --- headers that are well-formed and absurd --------------------------------------------------------------------------

KEYS = (
    "block_count", "embedding_length", "context_length", "vocab_size", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.key_length_swa",
    "attention.key_length_mla", "attention.value_length_mla", "attention.sliding_window",
    "attention.sliding_window_pattern", "attention.shared_kv_layers", "attention.recurrent_layers",
    "attention.causal", "nextn_predict_layers", "full_attention_interval", "expert_used_count",
    "expert_feed_forward_length", "pooling_type", "wkv.head_size", "token_shift_count", "shortconv.l_cache",
    "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.group_count", "kda.head_dim",
)  # fmt: skip
ARCHITECTURES = (
    "llama", "gemma3", "gemma3n", "llama4", "mamba2", "rwkv7", "jamba", "nemotron_h", "qwen3next", "deepseek2", "lfm2",
    "falcon-h1", "kimi-linear", "bert", "clip", "mimo2", "phi3", "", "a.b", "nobody-heard-of-it",
)  # fmt: skip
NUMBERS = st.sampled_from([-(2**63), -1, 0, 1, 2, 7, 64, 512, 513, 4096, 2**32, 2**32 + 1, 2**63, 2**64 - 1])
SCALARS = NUMBERS | st.booleans() | st.floats() | st.text(max_size=8)
VALUES = SCALARS | st.lists(SCALARS, max_size=6).map(tuple)
NAMES = st.sampled_from(
    ["token_embd.weight", "output.weight", "blk.0.ffn_up_exps.weight", f"blk.{'9' * 5000}.x", "blk.٣.x", "blk.-1.x", ""]
)
SHAPES = st.lists(st.sampled_from([0, 1, 256, 2**32, 2**64 - 1]), max_size=4).map(tuple)
TENSOR = st.builds(Tensor, NAMES, SHAPES, st.sampled_from([0, 12, 41, 999, 2**32 - 1]), st.integers(0, 2**64 - 1))


@settings(SEEDED, max_examples=600)
@given(
    architecture=st.sampled_from(ARCHITECTURES),
    keys=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=12),
    tensors=st.lists(TENSOR, max_size=3),
)
@example("llama", {"block_count": 4, "embedding_length": 64}, [Tensor(f"blk.{'9' * 5000}.x", (256,), 12, 0)])
def test_absurd_values_make_an_answer_or_an_error(
    architecture: str, keys: dict[str, Value], tensors: list[Tensor]
) -> None:
    with suppress(GgufError):
        use(header(architecture, {"block_count": 4, "embedding_length": 64, **keys}, *tensors))


def test_a_size_no_model_has_is_named() -> None:
    absurd = header("llama", {"block_count": 4, "embedding_length": 64, "context_length": 2**63})
    with pytest.raises(GgufError, match="says that its context_length is 9223372036854775808; it is damaged"):
        model_shape(absurd)


@pytest.mark.parametrize("length", [-1, 2**32 + 1, True, "4096", (4096,)])
def test_a_length_that_is_none_is_not_known(length: Value) -> None:
    assert model_facts(header("llama", {"context_length": length})).context_length is None


def test_an_architecture_nobody_knows_is_rough() -> None:
    assert model_shape(header("nobody", {"block_count": 512, "embedding_length": 1 << 24})).is_rough


# --- built by hypothesis ----------------------------------------------------------------------------------------------

TYPED = st.one_of(
    st.builds(Typed, st.just(ValueType.UINT64), st.integers(0, 2**64 - 1)),
    st.builds(Typed, st.just(ValueType.INT8), st.lists(st.integers(-128, 127), max_size=20)),
    st.builds(Typed, st.just(ValueType.FLOAT64), st.floats()),
    st.builds(Typed, st.just(ValueType.STRING), st.lists(st.text(max_size=9), max_size=20)),
    st.text(max_size=40),
    st.booleans(),
)


@settings(SEEDED, max_examples=150)
@given(
    metadata=st.dictionaries(st.sampled_from([f"llama.{key}" for key in KEYS]) | st.text(max_size=20), TYPED),
    tensors=st.lists(st.builds(TensorData, st.text(max_size=70), SHAPES, st.just(F32)), max_size=4),
    cut=st.integers(0, 64),
)
def test_any_header_of_our_writer_is_read_or_an_error(
    tmp_path: Path, metadata: dict[str, Typed | str | bool], tensors: list[TensorData], cut: int
) -> None:
    """The offsets that follow from absurd shapes fit no field of the format."""
    with suppress(struct.error):
        data = encode_header({"general.architecture": "llama", **metadata}, tensors)
        read_and_use(tmp_path / "m.gguf", data[: len(data) - cut])


# --- memory -----------------------------------------------------------------------------------------------------------


def preamble(tensors: int, entries: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries)


def text(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def greedy_files() -> Iterator[tuple[str, bytes]]:
    """Each makes Python objects much larger than its bytes."""
    numbers = struct.pack("<IIQ", ValueType.ARRAY, ValueType.INT8, 1024) + b"\x80" * 1024
    yield "numbers", preamble(0, 420) + b"".join(text(b"%d" % i) + numbers for i in range(420))
    wide = "😀".encode() + b"a" * ((1 << 20) - 4)
    strings = struct.pack("<I", ValueType.STRING) + text(wide)
    yield "wide", preamble(0, 6) + b"".join(text(b"%d" % i) + strings for i in range(6))
    flag = struct.pack("<I?", ValueType.BOOL, True)
    yield "keys", preamble(0, 90) + b"".join(text(b"%0*d" % (65000, i)) + flag for i in range(90))
    entry = struct.pack("<IQQQIQ", 3, 1 << 40, 1 << 40, 1 << 40, 0, 1 << 62)
    yield "tensors", preamble(8000, 0) + b"".join(text(b"%0*d" % (500, i)) + entry for i in range(8000))


@pytest.mark.parametrize("kind", ["numbers", "wide", "keys", "tensors"])
def test_a_greedy_header_is_refused_before_it_takes_more_than_the_bound(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_KEPT_BYTES", BOUND_BYTES)
    path = tmp_path / "m.gguf"
    path.write_bytes(dict(greedy_files())[kind])
    tracemalloc.start()
    try:
        with pytest.raises(GgufError, match="takes more than 16 MiB of memory; it is damaged"):
            read_header(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BOUND_BYTES + SLACK_BYTES
