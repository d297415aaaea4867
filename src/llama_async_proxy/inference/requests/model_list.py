"""The model list that OpenAI's and Anthropic's clients read. Pure.

One object serves both: their keys do not contradict one another. `status` and `meta` are additions of llama-server's
router.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus

_STATUS: Mapping[ModelStatus, str] = {
    ModelStatus.QUEUED: "loading",
    ModelStatus.LOADING: "loading",
    ModelStatus.READY: "loaded",
    ModelStatus.STOPPING: "loaded",
    ModelStatus.SLEEPING: "sleeping",
}
"""The service's status to that of llama-server's router; every other is "unloaded"."""


def model_list(models: Iterable[tuple[Model, ModelRuntime]]) -> dict[str, object]:
    """The whole list, variants included."""
    entries = [listed for model, runtime in models for listed in (entry(model, runtime), *variants(model, runtime))]
    return {
        "object": "list",
        "data": entries,
        "has_more": False,
        "first_id": entries[0]["id"] if entries else None,
        "last_id": entries[-1]["id"] if entries else None,
    }


def entry(model: Model, runtime: ModelRuntime) -> dict[str, object]:
    """One model of the list."""
    created_s = model.created_at_ms // 1000
    return {
        "id": model.slug,
        "object": "model",
        "type": "model",
        "created": created_s,
        "created_at": datetime.fromtimestamp(created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "owned_by": "llamacpp",
        "display_name": model.name,
        "aliases": list(model.aliases),
        "status": _status(runtime),
        "meta": _meta(model, runtime),
    }


def variants(model: Model, runtime: ModelRuntime) -> Iterator[dict[str, object]]:
    """The entries of a model's variants, which clients choose by name like models."""
    for variant in model.variants:
        own = {"id": variant.name, "display_name": variant.name, "aliases": [], "variant_of": model.slug}
        yield {**entry(model, runtime), **own}


def _status(runtime: ModelRuntime) -> dict[str, object]:
    status: dict[str, object] = {"value": _STATUS.get(runtime.status, "unloaded")}
    if runtime.status is ModelStatus.FAILED:
        status |= {"failed": True, "exit_code": runtime.exit_code}
    return status


def _meta(model: Model, runtime: ModelRuntime) -> dict[str, object]:
    """Facts of the model file, and `n_ctx`, the context size of the running process; None while there is none."""
    return {
        "n_ctx": runtime.context_size,
        "n_ctx_train": model.facts.context_length,
        "n_embd": model.facts.embedding_length,
        "n_params": model.facts.parameter_count,
        "size": model.size_bytes,
        "ftype": model.quantization or model.facts.quantization,
        "architecture": model.facts.architecture,
        "kind": model.facts.kind.value,
    }
