"""Headers: as ggml's own reader reads them, and never more than an error when they are damaged."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gguf
from llama_async_proxy.gguf.ggml import F32, Q4_K, ValueType
from llama_async_proxy.gguf.reader import (
    BATCH,
    CHUNK_BYTES,
    KEPT_ELEMENTS,
    KEPT_STRING_BYTES,
    MAX_HEADER_BYTES,
    GgufError,
    Header,
    Omitted,
    has_magic,
    read_header,
)
from llama_async_proxy.gguf.writer import Metadata, TensorData, encode_header, write_gguf
from support.models import GHOSTS, write_chat, write_ghost

SMALL: Metadata = {
    "general.architecture": "llama",
    "llama.context_length": 4096,
    "llama.list": [1, 2, 3],
    "llama.names": ["a", "b"],
    "llama.flag": True,
    "llama.factor": 0.5,
}
SMALL_HEADER = encode_header(SMALL, [TensorData("output.weight", (4, 2), F32)])


def read_bytes(tmp_path: Path, data: bytes) -> Header:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    return read_header(path)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def preamble(tensors: int = 0, entries: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries)


# --- what is right ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", GHOSTS)
def test_agrees_with_ggmls_reader_on_a_model_of_real_shape(tmp_path: Path, arch: str) -> None:
    path = write_ghost(tmp_path / "m.gguf", arch=arch, vocab=3000)
    header, reader = read_header(path), gguf.GGUFReader(path)
    assert header.version == 3
    assert [
        (t.name, t.shape, t.type_id, header.data_offset + t.offset, t.nbytes, t.elements) for t in header.tensors
    ] == [
        (t.name, tuple(int(n) for n in t.shape), int(t.tensor_type), t.data_offset, t.n_bytes, t.n_elements)
        for t in reader.tensors
    ]
    assert header.needed_size == header.file_size == path.stat().st_size
    theirs = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert header.metadata.keys() == theirs.keys()
    for key, value in header.metadata.items():
        if isinstance(value, Omitted):
            assert value.length == len(theirs[key])
        else:
            assert value == theirs[key]


def test_long_arrays_are_measured_and_short_ones_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    long = KEPT_ELEMENTS + 1
    write_gguf(path, {"texts": ["x"] * long, "numbers": [1] * long, "short": [1] * KEPT_ELEMENTS, "last": 5}, [])
    assert read_header(path).metadata == {
        "texts": Omitted(ValueType.STRING, long),
        "numbers": Omitted(ValueType.UINT32, long),
        "short": (1,) * KEPT_ELEMENTS,
        "last": 5,
    }
    assert read_header(path, kept_elements=long).metadata["texts"] == ("x",) * long


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.sampled_from([0, 1, 7, 63, 64, 255, 256, 300, 70_000]), min_size=1, max_size=9),
    repeats=st.integers(1, 2 * BATCH),
    big=st.booleans(),
)
def test_any_strings_are_hopped_over_exactly(tmp_path: Path, lengths: list[int], repeats: int, big: bool) -> None:
    """Across batches, windows and lengths; what follows the array is still found."""
    order = ">" if big else "<"
    strings = [b"x" * length for length in lengths * repeats][: CHUNK_BYTES // 16]
    if sum(map(len, strings)) > 4 * CHUNK_BYTES:
        strings = strings[: len(lengths)]
    data = b"".join((
        b"GGUF", struct.pack(f"{order}IQQ", 3, 0, 2),
        struct.pack(f"{order}Q", 1), b"a", struct.pack(f"{order}IIQ", ValueType.ARRAY, ValueType.STRING, len(strings)),
        *(struct.pack(f"{order}Q", len(string)) + string for string in strings),
        struct.pack(f"{order}Q", 1), b"b", struct.pack(f"{order}Ii", ValueType.INT32, -5),
    ))  # fmt: skip
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    header = read_header(path, kept_elements=0)
    assert header.metadata == {"a": Omitted(ValueType.STRING, len(strings)), "b": -5}
    assert header.byte_order == ("big" if big else "little")


def test_a_long_string_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, {"tokenizer.huggingface.json": "x" * (KEPT_STRING_BYTES + 1), "after": 1}, [])
    assert read_header(path).metadata == {
        "tokenizer.huggingface.json": Omitted(ValueType.STRING, KEPT_STRING_BYTES + 1),
        "after": 1,
    }


def test_big_endian_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_context_length(4096)
    writer.add_array("llama.list", [1, 2, 3])
    writer.add_token_list(["a"] * 2000)
    writer.add_tensor("output.weight", np.ones((2, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path)
    assert (header.byte_order, header.version) == ("big", 3)
    assert (header.specific("context_length"), header.specific("list")) == (4096, (1, 2, 3))
    assert [(t.name, t.shape, t.nbytes) for t in header.tensors] == [("output.weight", (8, 2), 64)]


def test_version_2_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(SMALL_HEADER[:4] + struct.pack("<I", 2) + SMALL_HEADER[8:])
    assert read_header(path).specific("context_length") == 4096


def test_typed_access_does_not_mistake_types(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, {**SMALL, "text": "7", "flag": True}, [])
    header = read_header(path)
    assert header.architecture == "llama"
    assert (header.string("text"), header.integer("text")) == ("7", None)
    assert (header.integer("flag"), header.string("flag")) == (None, None)
    assert header.specific("no_such_key") is None


def test_a_tensor_of_a_newer_type_has_no_known_size(tmp_path: Path) -> None:
    data = preamble(tensors=1) + text("t") + struct.pack("<IQIQ", 1, 256, 999, 0)
    header = read_bytes(tmp_path, data)
    assert header.tensors[0].nbytes is None
    assert header.needed_size == header.data_offset


def test_without_tensors_only_their_number_is_told(tmp_path: Path) -> None:
    header = read_header(write_chat(tmp_path / "m.gguf"), with_tensors=False)
    assert header.tensors == ()
    assert header.tensor_count == 12


def test_the_alignment_of_the_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, SMALL, [TensorData("t", (4,), F32)], alignment=1024)
    assert read_header(path).data_offset == 1024


def test_magic_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "yes").write_bytes(SMALL_HEADER)
    (tmp_path / "no").write_bytes(b"GGM")
    assert (has_magic(tmp_path / "yes"), has_magic(tmp_path / "no")) == (True, False)


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_a_header_cut_at_any_byte_is_an_error(tmp_path: Path) -> None:
    whole = SMALL_HEADER.rstrip(b"\0")
    for length in range(len(whole) - 8):
        with pytest.raises(GgufError):
            read_bytes(tmp_path, whole[:length])


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(SMALL_HEADER) - 1), value=st.integers(0, 255))
def test_a_flipped_byte_is_read_or_an_error(tmp_path: Path, position: int, value: int) -> None:
    damaged = bytearray(SMALL_HEADER)
    damaged[position] = value
    read_or_refuse(tmp_path, bytes(damaged))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400), version=st.sampled_from([2, 3]), entries=st.integers(0, 12))
def test_noise_after_the_preamble_is_read_or_an_error(tmp_path: Path, data: bytes, version: int, entries: int) -> None:
    read_or_refuse(tmp_path, preamble(tensors=entries // 3, entries=entries, version=version) + data)


def read_or_refuse(tmp_path: Path, data: bytes) -> None:
    with suppress(GgufError):
        read_bytes(tmp_path, data)


HUGE = 2**64 - 1
ENTRY = text("key")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"GG", "is not a GGUF file: it begins with 47 47"),
        (b"PK\x03\x04rest of a zip", "is not a GGUF file: it begins with 50 4b 03 04"),
        (b"GGUF\x03\0\0", "is truncated"),
        (preamble(version=1), "has GGUF version 1; versions 2 and 3 can be read"),
        (preamble(version=4), "has GGUF version 4"),
        (preamble(tensors=HUGE), "claims 18446744073709551615 tensors"),
        (preamble(entries=HUGE), "claims 18446744073709551615 metadata entries"),
        (preamble(entries=1) + struct.pack("<Q", HUGE) + bytes(9), "has a key of 18446744073709551615 bytes"),
        (preamble(entries=1) + ENTRY + struct.pack("<IQ", 8, HUGE), "is truncated"),
        (preamble(entries=1) + ENTRY + struct.pack("<IQ", 99, 0), "has a value of unknown type 99 at key"),
        (preamble(entries=1) + ENTRY + struct.pack("<IIQ", 9, 8, HUGE), "claims 18446744073709551615 elements of key"),
        (preamble(entries=1) + ENTRY + struct.pack("<IIQ", 9, 4, HUGE), "claims 18446744073709551615 elements of key"),
        (preamble(entries=1) + ENTRY + struct.pack("<IIQ", 9, 9, 1) + bytes(30), "a value of unknown type 9 at key"),
        (preamble(entries=1) + ENTRY + struct.pack("<IIQ", 9, 4, 2000) + bytes(2000), "is truncated"),
        (preamble(entries=1) + ENTRY + struct.pack("<IIQ", 9, 8, 2000) + b"\xff" * 16000, "is truncated"),
        (preamble(entries=1) + ENTRY + struct.pack("<IIQ", 9, 8, 2000) + bytes(15999), "claims 2000 elements of key"),
        (preamble(tensors=1) + text("t") + struct.pack("<I", 5) + bytes(60), "says that tensor 't' has 5 dimensions"),
        (preamble(entries=1) + text("general.alignment") + struct.pack("<II", 4, 3), "is not a power of two"),
        (preamble(entries=1) + text("general.alignment") + struct.pack("<II", 4, 0), "is not a power of two"),
    ],
)  # fmt: skip
def test_the_error_says_what_is_wrong(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(GgufError, match=reason):
        read_bytes(tmp_path, data)


@pytest.mark.parametrize(
    "entry",
    [
        struct.pack("<IIQ", ValueType.ARRAY, ValueType.STRING, MAX_HEADER_BYTES // 64),
        struct.pack("<IIQ", ValueType.ARRAY, ValueType.UINT64, MAX_HEADER_BYTES // 8),
        struct.pack("<IQ", ValueType.STRING, 1 << 39),
    ],
    ids=["strings", "numbers", "string"],
)
def test_claims_that_a_sparse_terabyte_backs_take_no_memory(tmp_path: Path, entry: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(preamble(entries=2) + ENTRY + entry)
    os.truncate(path, 1 << 40)
    tracemalloc.start()
    try:
        with suppress(GgufError):
            read_header(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_header_that_never_ends_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(preamble(entries=1) + ENTRY + struct.pack("<IQ", ValueType.STRING, 1 << 39))
    os.truncate(path, 1 << 40)
    with pytest.raises(GgufError, match="has a header of more than 256 MiB; it is damaged"):
        read_header(path)


def make_directory(path: Path) -> None:
    path.mkdir()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [make_directory, make_pipe])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "m.gguf")
    with pytest.raises(GgufError, match="is not a regular file"):
        read_header(tmp_path / "m.gguf")


def test_a_file_that_is_gone_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "m.gguf")


def test_the_tensors_are_never_read(tmp_path: Path) -> None:
    """The header of a tensor list is enough: the data may be missing altogether."""
    path = tmp_path / "m.gguf"
    path.write_bytes(encode_header(SMALL, [TensorData("t", (256, 1 << 20), Q4_K)]))
    header = read_header(path)
    assert header.needed_size - header.file_size == (1 << 20) * 144
