from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from llama_async_proxy.inference.requests import model_list
from llama_async_proxy.records.models import Variant
from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus
from support.upstream import make_model

MODEL = make_model(3, "tiny", name="Tiny", aliases=("t",), created_at_ms=1_700_000_000_999, quantization="Q8_0")


def test_an_entry_has_the_fields_of_openai_and_anthropic() -> None:
    entry = model_list.entry(MODEL, ModelRuntime(3))
    assert (entry["id"], entry["object"], entry["owned_by"], entry["created"]) == (
        "tiny",
        "model",
        "llamacpp",
        1_700_000_000,
    )
    assert (entry["type"], entry["display_name"], entry["created_at"]) == ("model", "Tiny", "2023-11-14T22:13:20Z")
    assert entry["aliases"] == ["t"]


def test_a_variant_is_listed_beside_its_model() -> None:
    model = replace(MODEL, variants=(Variant("tiny-bold", {"temperature": 2}),))
    listed: Any = model_list.model_list([(model, ModelRuntime(3, ModelStatus.READY))])
    assert [entry["id"] for entry in listed["data"]] == ["tiny", "tiny-bold"]
    assert (listed["first_id"], listed["last_id"]) == ("tiny", "tiny-bold")
    own, variant = listed["data"]
    assert variant == own | {
        "id": "tiny-bold", "display_name": "tiny-bold", "aliases": [], "variant_of": "tiny"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "value"),
    [
        (ModelStatus.UNLOADED, "unloaded"),
        (ModelStatus.LOADING, "loading"),
        (ModelStatus.READY, "loaded"),
        (ModelStatus.SLEEPING, "sleeping"),
    ],
)
def test_the_status_has_the_routers_values(status: ModelStatus, value: str) -> None:
    assert model_list.entry(MODEL, ModelRuntime(3, status))["status"] == {"value": value}


def test_a_failed_model_has_its_exit_code() -> None:
    entry = model_list.entry(MODEL, ModelRuntime(3, ModelStatus.FAILED, exit_code=-9))
    assert entry["status"] == {"value": "unloaded", "failed": True, "exit_code": -9}


def test_unknown_facts_are_null() -> None:
    meta = model_list.entry(MODEL, ModelRuntime(3))["meta"]
    assert isinstance(meta, dict)
    assert meta["n_ctx"] is None
    assert (meta["n_ctx_train"], meta["n_params"], meta["size"], meta["ftype"]) == (2048, 1000, 1000, "Q8_0")


def test_the_list_has_anthropics_page_ids() -> None:
    listed = model_list.model_list([(MODEL, ModelRuntime(3)), (make_model(4, "next"), ModelRuntime(4))])
    assert (listed["object"], listed["first_id"], listed["last_id"], listed["has_more"]) == (
        "list",
        "tiny",
        "next",
        False,
    )
    assert model_list.model_list([])["first_id"] is None
