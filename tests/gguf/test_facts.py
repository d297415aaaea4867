"""Facts of a model, checked against ggml's own reader where it knows them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

import gguf
from llama_async_proxy.gguf.facts import is_model, is_projector, model_facts, projection_length
from llama_async_proxy.gguf.ggml import F16, F32, Q4_K, Q8_0
from llama_async_proxy.gguf.reader import Header, read_header
from llama_async_proxy.gguf.writer import Metadata, TensorData, write_gguf
from llama_async_proxy.records.models import ModelFacts, ModelKind
from support.models import (
    GHOSTS,
    split,
    write_chat,
    write_embedding,
    write_ghost,
    write_projector,
    write_rerank,
)

TENSOR = TensorData("output.weight", (64, 4), F16)


def header(tmp_path: Path, metadata: Metadata, *tensors: TensorData) -> Header:
    write_gguf(tmp_path / "m.gguf", metadata, tensors or (TENSOR,))
    return read_header(tmp_path / "m.gguf")


def facts(tmp_path: Path, architecture: str = "llama", **specific: object) -> ModelFacts:
    metadata: dict[str, object] = {"general.architecture": architecture}
    metadata |= {f"{architecture}.{key.replace('__', '.')}": value for key, value in specific.items()}
    return model_facts(header(tmp_path, metadata))  # type: ignore[arg-type]


@pytest.mark.parametrize("arch", GHOSTS)
def test_numbers_agree_with_ggmls_reader(tmp_path: Path, arch: str) -> None:
    path = write_ghost(tmp_path / "m.gguf", arch=arch, vocab=2000)
    reader = gguf.GGUFReader(path)
    known = model_facts(read_header(path))

    def field(key: str) -> object:
        return reader.fields[f"{known.architecture}.{key}"].contents()

    assert known.parameter_count == sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert known.architecture == reader.fields["general.architecture"].contents()
    assert known.name == reader.fields["general.name"].contents()
    assert (known.context_length, known.embedding_length, known.block_count) == (
        field("context_length"), field("embedding_length"), field("block_count"),
    )  # fmt: skip
    assert (known.kind, known.quantization, known.has_chat_template) == (ModelKind.CHAT, "Q4_K_M", True)


@pytest.mark.parametrize(
    ("write", "kind"),
    [(write_chat, ModelKind.CHAT), (write_embedding, ModelKind.EMBEDDING), (write_rerank, ModelKind.RERANK)],
)
def test_the_models_that_llama_cpp_serves_are_of_their_kind(
    tmp_path: Path, write: Callable[[Path], Path], kind: ModelKind
) -> None:
    assert model_facts(read_header(write(tmp_path / "m.gguf"))).kind is kind


@pytest.mark.parametrize(
    ("architecture", "specific", "kind"),
    [
        ("llama", {}, ModelKind.CHAT),
        ("bert", {}, ModelKind.EMBEDDING),
        ("nomic-bert-moe", {}, ModelKind.EMBEDDING),
        ("jina-bert-v3", {"pooling_type": 0}, ModelKind.EMBEDDING),
        ("t5encoder", {}, ModelKind.EMBEDDING),
        ("t5", {}, ModelKind.CHAT),
        ("bert", {"pooling_type": 4}, ModelKind.RERANK),
        ("qwen3", {"pooling_type": 4}, ModelKind.RERANK),
        ("qwen3", {"pooling_type": 3}, ModelKind.EMBEDDING),
        ("qwen3", {"pooling_type": 0}, ModelKind.CHAT),
        ("llama", {"attention__causal": False}, ModelKind.EMBEDDING),
        ("llama", {"attention__causal": True}, ModelKind.CHAT),
        ("llada", {"attention__causal": False}, ModelKind.CHAT),
        ("llama", {"pooling_type": "mean"}, ModelKind.CHAT),
    ],
)
def test_the_header_decides_the_kind(
    tmp_path: Path, architecture: str, specific: dict[str, object], kind: ModelKind
) -> None:
    assert facts(tmp_path, architecture, **specific).kind is kind


@pytest.mark.parametrize(
    ("file_type", "name"), [(0, "F32"), (1, "F16"), (15, "Q4_K_M"), (30, "IQ4_XS"), (38, "MXFP4_MOE")]
)
def test_the_file_type_names_the_quantization(tmp_path: Path, file_type: int, name: str) -> None:
    metadata: Metadata = {"general.architecture": "llama", "general.file_type": file_type}
    assert model_facts(header(tmp_path, metadata)).quantization == name


@pytest.mark.parametrize("metadata", [{}, {"general.file_type": 1024}, {"general.file_type": "Q4"}])
def test_without_a_known_file_type_the_tensors_name_it(tmp_path: Path, metadata: Metadata) -> None:
    tensors = (
        TensorData("many.but.small", (64,), F32),
        TensorData("norm", (64,), F32),
        TensorData("big", (256, 64), Q4_K),
        TensorData("bigger", (256, 64), Q8_0),
    )
    assert model_facts(header(tmp_path, {"general.architecture": "llama", **metadata}, *tensors)).quantization == "Q8_0"


def test_what_a_header_does_not_say_is_not_known(tmp_path: Path) -> None:
    known = model_facts(header(tmp_path, {"general.architecture": "llama", "general.name": "  "}))
    assert (known.name, known.description, known.version) == (None, None, None)
    assert (known.context_length, known.embedding_length, known.block_count) == (None, None, None)
    assert not known.has_chat_template


def test_values_of_a_wrong_type_are_not_taken_for_facts(tmp_path: Path) -> None:
    known = facts(tmp_path, context_length="4096", embedding_length=True, block_count=1.5)
    assert (known.context_length, known.embedding_length, known.block_count) == (None, None, None)


def test_all_shards_count(tmp_path: Path) -> None:
    whole = read_header(write_chat(tmp_path / "m.gguf"))
    first, *others = [read_header(path) for path in split(tmp_path / "m.gguf", 3)]
    assert model_facts(first, *others).parameter_count == model_facts(whole).parameter_count
    assert (model_facts(first).parameter_count or 0) < (model_facts(whole).parameter_count or 0)


def test_metadata_is_json_and_bounded(tmp_path: Path) -> None:
    metadata: Metadata = {
        "general.architecture": "llama",
        "a.nan": math.nan,
        "a.list": [1.5, math.inf, -math.inf],
        "a.names": ["x", "y"],
        "a.long": [0] * 5000,
        "a.flag": False,
        "a.text": "日本",
    }
    known = model_facts(header(tmp_path, metadata)).metadata
    assert json.loads(json.dumps(known, allow_nan=False)) == {
        "general.architecture": "llama",
        "a.nan": None,
        "a.list": [1.5, None, None],
        "a.names": ["x", "y"],
        "a.long": {"type": "uint32", "length": 5000},
        "a.flag": False,
        "a.text": "日本",
    }


def test_text_that_is_no_utf8_is_still_json(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama", "general.name": "N?N"}, [TENSOR])
    damaged = (tmp_path / "m.gguf").read_bytes().replace(b"N?N", b"N\xffN")
    (tmp_path / "m.gguf").write_bytes(damaged)
    known = model_facts(read_header(tmp_path / "m.gguf"))
    assert known.name == "N\ufffdN"
    json.dumps(known.metadata, ensure_ascii=False).encode()


def test_companions_of_models_are_no_models(tmp_path: Path) -> None:
    projector = read_header(write_projector(tmp_path / "p.gguf", projection=512))
    assert is_projector(projector)
    assert not is_model(projector)
    assert projection_length(projector) == 512
    adapter = header(tmp_path, {"general.architecture": "llama", "general.type": "adapter"})
    assert not is_model(adapter)
    assert not is_projector(adapter)
    assert not is_model(header(tmp_path, {"general.architecture": "controlvector"}))
    assert is_model(header(tmp_path, {"general.architecture": "llama", "general.type": "model"}))
    assert is_model(header(tmp_path, {"general.architecture": "llama"}))
