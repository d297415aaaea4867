"""What we write is what ggml's own reader reads."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import gguf
from llama_async_proxy.gguf.ggml import F16, F32, Q8_0, ValueType
from llama_async_proxy.gguf.writer import Metadata, TensorData, Typed, write_gguf

METADATA: Metadata = {
    "general.architecture": "llama",
    "a.bool": True,
    "a.int": 7,
    "a.negative": -7,
    "a.float": 0.5,
    "a.text": "Grüße, 世界",
    "a.byte": Typed(ValueType.UINT8, 255),
    "a.long": Typed(ValueType.UINT64, 2**63),
    "a.double": Typed(ValueType.FLOAT64, 0.1),
    "list.text": ["x", "", "日本"],
    "list.int": [1, 2, 3],
    "list.signed": Typed(ValueType.INT32, [-1, 1]),
    "list.bool": [True, False],
}
TYPES = {
    "a.bool": ValueType.BOOL,
    "a.int": ValueType.UINT32,
    "a.negative": ValueType.INT32,
    "a.float": ValueType.FLOAT32,
    "a.byte": ValueType.UINT8,
    "a.long": ValueType.UINT64,
    "a.double": ValueType.FLOAT64,
}
ONES = struct.pack("<6f", *range(6))
TENSORS = [
    TensorData("first", (3, 2), F32, ONES),
    TensorData("hole", (64, 5), Q8_0),
    TensorData("last", (2,), F16, b"\x00\x3c\x00\x40"),
]


def write(path: Path, **options: int) -> gguf.GGUFReader:
    write_gguf(path, METADATA, TENSORS, **options)
    return gguf.GGUFReader(path)


def test_metadata_arrives_with_its_types(tmp_path: Path) -> None:
    reader = write(tmp_path / "m.gguf")
    for key, value in METADATA.items():
        plain = value.value if isinstance(value, Typed) else value
        assert reader.fields[key].contents() == plain
    assert {key: int(reader.fields[key].types[0]) for key in TYPES} == TYPES
    assert int(reader.fields["list.signed"].types[-1]) == ValueType.INT32


@pytest.mark.parametrize("alignment", [32, 64, 4096])
def test_tensors_arrive_where_the_alignment_puts_them(tmp_path: Path, alignment: int) -> None:
    reader = write(tmp_path / "m.gguf", alignment=alignment)
    assert [t.name for t in reader.tensors] == ["first", "hole", "last"]
    assert [t.data_offset % alignment for t in reader.tensors] == [0, 0, 0]
    assert reader.tensors[0].data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not reader.tensors[1].data.any()
    assert reader.tensors[2].data.tolist() == [1, 2]


def test_a_hole_takes_no_disk(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, {"general.architecture": "llama"}, [TensorData("hole", (1 << 26,), F32)])
    assert path.stat().st_size > 1 << 28
    assert path.stat().st_blocks * 512 < 1 << 20


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="first: 3 bytes given, 24 needed"):
        write_gguf(path, METADATA, [TensorData("first", (3, 2), F32, b"abc")])
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_a_directory_that_does_not_exist_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_gguf(tmp_path / "nowhere" / "m.gguf", METADATA, [])
