"""Our tables against those of ggml's own Python package."""

from __future__ import annotations

import gguf
from llama_async_proxy.gguf.ggml import FILE_TYPES, TENSOR_TYPES, ValueType


def test_tensor_types_are_ggmls() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {number: tuple(kind) for number, kind in TENSOR_TYPES.items()} == theirs


def test_file_types_are_llama_cpps() -> None:
    theirs = {int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in gguf.LlamaFileType}
    del theirs[gguf.LlamaFileType.GUESSED]
    assert theirs.items() <= FILE_TYPES.items()


def test_value_types_are_ggmls() -> None:
    assert {kind.name: int(kind) for kind in ValueType} == {kind.name: int(kind) for kind in gguf.GGUFValueType}
