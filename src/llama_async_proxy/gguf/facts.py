"""What a header says about its model, and what kind of file it heads."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from llama_async_proxy.gguf.ggml import FILE_TYPES, TENSOR_TYPES
from llama_async_proxy.gguf.reader import MAX_NUMBER, Header, Omitted, Tensor, Value
from llama_async_proxy.records.models import ModelFacts, ModelKind

# llama.cpp's `enum llama_pooling_type`.
POOLING_NONE, POOLING_RANK = 0, 4
EMBEDDING_ARCHITECTURES = frozenset({
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    "t5encoder", "gemma-embedding", "llama-embed",
})  # fmt: skip
"""Encoders: they cannot generate text."""
DIFFUSION_ARCHITECTURES = frozenset({"dream", "llada", "llada-moe", "rnd1"})
"""They generate text although their attention is not causal."""
NOT_MODEL_TYPES = frozenset({"adapter", "imatrix", "mmproj"})
"""Values of `general.type` of files that only accompany a model."""
NOT_MODEL_ARCHITECTURES = frozenset({"clip", "controlvector", "imatrix"})


def is_projector(header: Header) -> bool:
    """True for a multimodal projector (mmproj): loaded beside a model, never alone."""
    return header.architecture == "clip" or header.string("general.type") == "mmproj"


def projection_length(header: Header) -> int | None:
    """Elements of the embeddings that a projector makes; None when it does not say."""
    return header.integer("clip.vision.projection_dim") or header.integer("clip.audio.projection_dim") or None


def is_model(header: Header) -> bool:
    """False for what only accompanies a model: projectors, LoRA adapters, control vectors, importance matrices."""
    return header.string("general.type") not in NOT_MODEL_TYPES and header.architecture not in NOT_MODEL_ARCHITECTURES


def model_facts(header: Header, *shards: Header) -> ModelFacts:
    """The facts of a model: its header, and those of its further shards when it is split."""
    tensors = [tensor for part in (header, *shards) for tensor in part.tensors]
    return ModelFacts(
        architecture=header.architecture,
        kind=_kind(header),
        name=_text(header, "general.name"),
        description=_text(header, "general.description"),
        version=_text(header, "general.version"),
        quantization=_quantization(header, tensors),
        parameter_count=sum(tensor.elements for tensor in tensors) or None,
        context_length=_number(header, "context_length"),
        embedding_length=_number(header, "embedding_length"),
        block_count=_number(header, "block_count"),
        has_chat_template=header.string("tokenizer.chat_template") is not None,
        metadata={key: _json_safe(value) for key, value in header.metadata.items()},
    )


def _kind(header: Header) -> ModelKind:
    pooling = header.specific("pooling_type")
    if pooling == POOLING_RANK:
        return ModelKind.RERANK
    encoder = header.architecture in EMBEDDING_ARCHITECTURES
    pools = isinstance(pooling, int) and pooling > POOLING_NONE
    looks_both_ways = header.specific("attention.causal") is False
    if encoder or pools or (looks_both_ways and header.architecture not in DIFFUSION_ARCHITECTURES):
        return ModelKind.EMBEDDING
    return ModelKind.CHAT


def _quantization(header: Header, tensors: Sequence[Tensor]) -> str | None:
    file_type = header.integer("general.file_type")
    if file_type is not None and file_type in FILE_TYPES:
        return FILE_TYPES[file_type]
    bytes_by_type: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.type_id in TENSOR_TYPES:
            bytes_by_type[TENSOR_TYPES[tensor.type_id].name] += tensor.nbytes or 0
    return bytes_by_type.most_common(1)[0][0] if bytes_by_type else None


def _text(header: Header, key: str) -> str | None:
    return (header.string(key) or "").strip() or None


def _number(header: Header, key: str) -> int | None:
    value = header.specific(key)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MAX_NUMBER else None


def _json_safe(value: Value) -> object:
    """JSON has no NaN and no infinities: they become null."""
    if isinstance(value, Omitted):
        return {"type": value.type.name.lower(), "length": value.length}
    if isinstance(value, tuple):
        return [_json_safe(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
