"""Writes GGUF version 3, little endian: enough for models of our own making."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

from msgspec import Struct

from llama_async_proxy.gguf.ggml import DEFAULT_ALIGNMENT, MAGIC, STRUCT_CODES, TENSOR_TYPES, ValueType

Scalar: TypeAlias = str | int | float | bool


class Typed(NamedTuple):
    """A value stored as `type` rather than as its Python type suggests; of an array, the type of its elements."""

    type: ValueType
    value: Scalar | Sequence[Scalar]


Metadata: TypeAlias = Mapping[str, Scalar | Sequence[Scalar] | Typed]
"""bool, int, float and str become BOOL, INT32, FLOAT32 and STRING, a sequence an array of its first element's type.
INT32 is what most readers expect of lengths and ids when it is not negative: those become UINT32."""


class TensorData(Struct, frozen=True):
    name: str
    shape: tuple[int, ...]
    """Elements by dimension, the contiguous one first."""
    type_id: int
    data: bytes | None = None
    """None: all zero bytes, a hole that needs no disk where the file system can do that."""

    @property
    def nbytes(self) -> int:
        return TENSOR_TYPES[self.type_id].nbytes(prod(self.shape))


def write_gguf(
    path: Path, metadata: Metadata, tensors: Sequence[TensorData], *, alignment: int = DEFAULT_ALIGNMENT
) -> None:
    """Writes the file under another name first, so that `path` is never half a model. Raises OSError, ValueError."""
    if alignment != DEFAULT_ALIGNMENT:
        metadata = {**metadata, "general.alignment": alignment}
    header = encode_header(metadata, tensors, alignment)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(header)
            _write_tensors(file, tensors, alignment)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def encode_header(metadata: Metadata, tensors: Sequence[TensorData], alignment: int = DEFAULT_ALIGNMENT) -> bytes:
    """All before the tensors' data, padded to where that begins."""
    parts = [MAGIC, struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_string(key), _value(value)]
    offset = 0
    for tensor in tensors:
        dimensions = len(tensor.shape)
        parts += [
            _string(tensor.name),
            struct.pack(f"<I{dimensions}QIQ", dimensions, *tensor.shape, tensor.type_id, offset),
        ]
        offset += _padded(tensor.nbytes, alignment)
    header = b"".join(parts)
    return header.ljust(_padded(len(header), alignment), b"\0")


def _write_tensors(file: BinaryIO, tensors: Iterable[TensorData], alignment: int) -> None:
    end = file.tell()
    for tensor in tensors:
        if tensor.data is not None:
            if len(tensor.data) != tensor.nbytes:
                raise ValueError(f"{tensor.name}: {len(tensor.data)} bytes given, {tensor.nbytes} needed")
            file.seek(end)
            file.write(tensor.data)
        end += _padded(tensor.nbytes, alignment)
    file.truncate(end)


def _padded(size: int, alignment: int) -> int:
    return size + -size % alignment


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Scalar | Sequence[Scalar] | Typed) -> bytes:
    """Type and value as they stand after a key."""
    if isinstance(value, Typed):
        kind, value = value
    elif isinstance(value, str | int | float):
        kind = _natural_type(value)
    else:
        kind = _natural_type(value[0] if value else 0)
    if isinstance(value, str | int | float):
        return struct.pack("<I", kind) + _scalars(kind, [value])
    return struct.pack("<IIQ", ValueType.ARRAY, kind, len(value)) + _scalars(kind, value)


def _natural_type(value: Scalar) -> ValueType:
    if isinstance(value, bool):
        return ValueType.BOOL
    if isinstance(value, int):
        return ValueType.INT32 if value < 0 else ValueType.UINT32
    return ValueType.STRING if isinstance(value, str) else ValueType.FLOAT32


def _scalars(kind: ValueType, values: Sequence[Scalar]) -> bytes:
    if kind is ValueType.STRING:
        return b"".join(_string(str(value)) for value in values)
    return struct.pack(f"<{len(values)}{STRUCT_CODES[kind]}", *values)
