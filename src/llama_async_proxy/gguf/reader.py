"""Reads the header of a GGUF file: metadata and the list of tensors, never a tensor.

The file is read in chunks rather than mapped: when a download is cut short or a network disk goes away, a mapped
page raises SIGBUS, which would end the whole service; a read raises OSError. Big arrays (vocabularies, merges) are
hopped over; what a header claims is believed only as far as the file could hold it.

Whatever a file holds or claims, reading it ends in a Header or a GgufError, takes at most MAX_KEPT_BYTES and a few MiB
of memory, and looks at no more than MAX_HEADER_BYTES.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from collections.abc import Mapping
from functools import cache
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias, cast

from msgspec import Struct

from llama_async_proxy.gguf.ggml import DEFAULT_ALIGNMENT, MAGIC, STRUCT_CODES, TENSOR_TYPES, ValueType

# The largest real headers (262,144 tokens with merges and an embedded tokenizer.json) are about 40 MB. The limit keeps
# a hostile header in a sparse file of terabytes to seconds and to bounded memory.
MAX_HEADER_BYTES = 256 << 20
MAX_ENTRIES = 1 << 16
"""Metadata entries, and tensors. Real files have at most some thousands."""
MAX_KEPT_BYTES = 96 << 20
"""Memory of all that is kept of one header, reckoned at its worst. Real ones take some MiB."""
MAX_DIMENSIONS = 4
MAX_NUMBER = 1 << 32
"""Above every length, width and count of a real model by far: a value that says more is damaged."""
MAX_KEY_BYTES = (1 << 16) - 1
KEPT_STRING_BYTES = 1 << 20
"""Longer strings (an embedded tokenizer.json) are only measured."""
KEPT_ELEMENTS = 1024
"""Longer arrays are only measured. Per-layer arrays have one element for each block and are kept."""
_NUMBER_BYTES = 40
"""A Python number and the reference to it."""
_RECORD_BYTES = 400
"""A metadata entry without its value, or a tensor without its name."""
_STRING_BYTES, _CHARACTER_BYTES = 96, 4
"""A Python string takes so much, and up to so much for each byte of UTF-8: one emoji makes all its letters wide."""
BATCH = 256
"""Strings hopped over at once."""
CHUNK_BYTES = 256 << 10
"""Fits in a core's cache, so the hop over a vocabulary runs on warm memory."""


class GgufError(ValueError):
    """The file is not a GGUF model, or a damaged one. The message is a sentence part for people."""


class Omitted(Struct, frozen=True):
    """Stands for a value that was too long to keep."""

    type: ValueType
    """Of the elements; STRING for an array of strings as for a long string."""
    length: int
    """Elements of an array, bytes of a string."""


Scalar: TypeAlias = str | int | float | bool
Value: TypeAlias = Scalar | tuple[Scalar, ...] | Omitted


class Tensor(Struct, frozen=True):
    name: str
    shape: tuple[int, ...]
    """Elements by dimension, the contiguous one first, as ggml counts them."""
    type_id: int
    offset: int
    """Bytes from the header's `data_offset`."""

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int | None:
        """None when the type is newer than our table."""
        kind = TENSOR_TYPES.get(self.type_id)
        return kind.nbytes(self.elements) if kind else None


class Header(Struct, frozen=True):
    version: int
    byte_order: Literal["little", "big"]
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    """Empty when they were not asked for."""
    tensor_count: int
    data_offset: int
    """Where tensor data begins, in bytes; 0 when tensors were not asked for."""
    file_size: int

    @property
    def architecture(self) -> str:
        """Empty when the header names none."""
        return self.string("general.architecture") or ""

    @property
    def needed_size(self) -> int:
        """Smallest file that holds every tensor whose type is known, in bytes."""
        return max((self.data_offset + t.offset + (t.nbytes or 0) for t in self.tensors), default=self.data_offset)

    def specific(self, key: str) -> Value | None:
        """The value of a key of this architecture, given without its prefix: `context_length`."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def string(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def has_magic(path: Path) -> bool:
    """True when the file begins as GGUF does. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        return file.read(len(MAGIC)) == MAGIC


_ZERO_TAIL = 1 << 20
_ZERO_SHARE = 8
_LEAST_DATA = 256 << 10
"""Bytes of tensor data below which zeros say nothing: such files hold a few vectors."""


def ends_in_zeros(path: Path, header: Header) -> bool:
    """True when the last MiB of a file, or an eighth of its tensor data if that is less, holds nothing but zeros.

    Programs that make a file in full size and fill it later leave such an end; weights never look like that, for even
    vectors of zeros are far shorter. Raises OSError.
    """
    data = header.needed_size - header.data_offset
    if data < _LEAST_DATA:
        return False
    size = min(_ZERO_TAIL, data // _ZERO_SHARE)
    with path.open("rb", buffering=0) as file:
        file.seek(header.needed_size - size)
        return not any(file.read(size))


def read_header(path: Path, *, with_tensors: bool = True, kept_elements: int = KEPT_ELEMENTS) -> Header:
    """The header of the GGUF file, version 2 or 3, either byte order. Arrays longer than `kept_elements` are Omitted.

    Takes at most MAX_KEPT_BYTES and some MiB of memory, whatever the file claims.
    Raises GgufError when it is not one or is damaged, OSError when it cannot be read.
    """
    # Asked before opening: to open a pipe would wait for somebody to write to it.
    if not stat.S_ISREG(path.stat().st_mode):
        raise GgufError("is not a regular file")
    with path.open("rb", buffering=0) as file:
        return _Parser(file, kept_elements).header(with_tensors=with_tensors)


@cache
def _short_strings(byte_order: Literal["little", "big"]) -> re.Pattern[bytes]:
    """Matches BATCH strings in a row that are shorter than 64 bytes, as nearly all tokens are.

    The regex engine hops half as fast again as the best Python loop. Likely lengths are tried first.
    """
    lengths = sorted(range(64), key=lambda length: abs(length - 7))
    string = b"|".join(re.escape(length.to_bytes(8, byte_order)) + b".{%d}" % length for length in lengths)
    return re.compile(b"(?:%b){%d}+" % (string, BATCH), re.DOTALL)


class _Parser:
    """A window of bytes that moves through the file, and a position in it."""

    def __init__(self, file: io.FileIO, kept_elements: int) -> None:
        self._file = file
        self._kept_elements = kept_elements
        self._file_size = os.fstat(file.fileno()).st_size
        self._end = min(self._file_size, MAX_HEADER_BYTES)
        self._base = 0
        self._window = b""
        self._position = 0
        self._kept_bytes = 0
        self._use_byte_order("little")

    def _use_byte_order(self, order: Literal["little", "big"]) -> None:
        self._byte_order: Literal["little", "big"] = order
        self._prefix = "<" if order == "little" else ">"
        self._u32 = struct.Struct(self._prefix + "I")
        self._u64 = struct.Struct(self._prefix + "Q")

    def header(self, *, with_tensors: bool) -> Header:
        version = self._preamble()
        tensor_count, entry_count = self._count("tensors", 24), self._count("metadata entries", 13)
        metadata = dict(self._entry() for _ in range(entry_count))
        tensors = tuple(self._tensor() for _ in range(tensor_count)) if with_tensors else ()
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise GgufError(f"has an alignment that is not a power of two: {alignment!r}")
        data_offset = self._absolute() + -self._absolute() % alignment if with_tensors else 0
        return Header(
            version=version,
            byte_order=self._byte_order,
            metadata=MappingProxyType(metadata),
            tensors=tensors,
            tensor_count=tensor_count,
            data_offset=data_offset,
            file_size=self._file_size,
        )

    def _preamble(self) -> int:
        """Checks magic and version, settles the byte order."""
        if self._file_size == 0:
            raise GgufError("is empty")
        magic = self._take(min(len(MAGIC), self._end))
        if magic != MAGIC:
            raise GgufError("is not a GGUF file: it begins with " + (magic.hex(" ") or "nothing"))
        raw = self._take(4)
        version = int.from_bytes(raw, "little")
        if version & 0xFFFF == 0:
            self._use_byte_order("big")
            version = int.from_bytes(raw, "big")
        if version not in (2, 3):
            raise GgufError(f"has GGUF version {version}; versions 2 and 3 can be read")
        return version

    def _entry(self) -> tuple[str, Value]:
        self._keep(_RECORD_BYTES)
        key = self._string(MAX_KEY_BYTES, "a key")
        kind = self._integer(self._u32)
        if kind == ValueType.ARRAY:
            return key, self._array(key)
        if kind == ValueType.STRING:
            return key, self._value_string()
        return key, self._numbers(kind, 1, key)[0]

    def _array(self, key: str) -> Value:
        kind = self._integer(self._u32)
        if kind == ValueType.STRING:
            return self._strings(self._count(f"elements of {key}", 8, most=MAX_HEADER_BYTES))
        length = self._count(f"elements of {key}", 1, most=MAX_HEADER_BYTES)
        if length <= self._kept_elements:
            return self._numbers(kind, length, key)
        self._skip(struct.calcsize(self._code(kind, key)) * length)
        return Omitted(ValueType(kind), length)

    def _strings(self, length: int) -> Value:
        if length > self._kept_elements:
            self._hop(length)
            return Omitted(ValueType.STRING, length)
        return tuple(self._string(KEPT_STRING_BYTES, "an element") for _ in range(length))

    def _hop(self, count: int) -> None:
        """Moves past `count` strings, the one hot loop of this file: 150,000 rounds are ordinary."""
        match = _short_strings(self._byte_order).match
        unpack = self._u64.unpack_from
        while count:
            self._fill(8)
            window, position = self._window, self._position
            while count >= BATCH and (batch := match(window, position)):
                position = batch.end()
                count -= BATCH
            try:
                for done in range(min(count, BATCH)):  # noqa: B007 - read when the window ends
                    position += 8 + unpack(window, position)[0]
            except (struct.error, OverflowError):
                # Past the window: go on there with a new one. `_fill` finds out whether the file goes that far.
                count -= done
            else:
                count -= min(count, BATCH)
            self._position = position
        self._fill(0)

    def _tensor(self) -> Tensor:
        self._keep(_RECORD_BYTES)
        name = self._string(MAX_KEY_BYTES, "a tensor's name")
        dimensions = self._integer(self._u32)
        if dimensions > MAX_DIMENSIONS:
            raise GgufError(
                f"says that tensor {name!r} has {dimensions} dimensions; at most {MAX_DIMENSIONS} are possible"
            )
        *shape, type_id, offset = struct.unpack(f"{self._prefix}{dimensions}QIQ", self._take(8 * dimensions + 12))
        return Tensor(name, tuple(shape), type_id, offset)

    def _numbers(self, kind: int, length: int, key: str) -> tuple[Scalar, ...]:
        self._keep(_NUMBER_BYTES * length)
        layout = f"{self._prefix}{length}{self._code(kind, key)}"
        return cast("tuple[Scalar, ...]", struct.unpack(layout, self._take(struct.calcsize(layout))))

    def _code(self, kind: int, key: str) -> str:
        try:
            return STRUCT_CODES[kind]
        except KeyError:
            raise GgufError(f"has a value of unknown type {kind} at {key}") from None

    def _value_string(self) -> Value:
        length = self._peek_length()
        if length <= KEPT_STRING_BYTES:
            return self._string(KEPT_STRING_BYTES, "a string")
        self._skip(8 + length)
        return Omitted(ValueType.STRING, length)

    def _string(self, most: int, what: str) -> str:
        length = self._integer(self._u64)
        if length > most:
            raise GgufError(f"has {what} of {length} bytes; it is damaged")
        self._keep(_STRING_BYTES + _CHARACTER_BYTES * length)
        return self._take(length).decode("utf-8", "replace")

    def _peek_length(self) -> int:
        self._fill(8)
        return cast("int", self._u64.unpack_from(self._window, self._position)[0])

    def _keep(self, size: int) -> None:
        """Accounts for `size` bytes of memory. Raises GgufError when all that is kept has become too much."""
        self._kept_bytes += size
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise GgufError(f"has a header that takes more than {MAX_KEPT_BYTES >> 20} MiB of memory; it is damaged")

    def _count(self, what: str, smallest: int, most: int = MAX_ENTRIES) -> int:
        """A number of things of at least `smallest` bytes each, checked against what is left of the file."""
        count = self._integer(self._u64)
        if count > most or count * smallest > self._end - self._absolute():
            raise GgufError(f"claims {count} {what}, more than can be in it; it is damaged or truncated")
        return count

    def _integer(self, layout: struct.Struct) -> int:
        return cast("int", layout.unpack(self._take(layout.size))[0])

    def _take(self, size: int) -> bytes:
        self._fill(size)
        start = self._position
        self._position = start + size
        return self._window[start : self._position]

    def _skip(self, size: int) -> None:
        self._position += size
        self._fill(0)

    def _absolute(self) -> int:
        return self._base + self._position

    def _fill(self, size: int) -> None:
        """Makes the window hold `size` bytes from the position on. Raises GgufError when the file ends before."""
        if self._position + size <= len(self._window):
            return
        start = self._absolute()
        if start + size > self._end:
            raise GgufError(self._too_short())
        self._file.seek(start)
        self._window = self._file.read(min(max(size, CHUNK_BYTES), self._end - start)) or b""
        self._base, self._position = start, 0
        if len(self._window) < size:
            raise GgufError("became shorter while it was read")

    def _too_short(self) -> str:
        if self._file_size > MAX_HEADER_BYTES:
            return f"has a header of more than {MAX_HEADER_BYTES >> 20} MiB; it is damaged"
        return "is truncated: the file ends within its header"
