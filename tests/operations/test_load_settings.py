from __future__ import annotations

import pytest

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.gguf.memory import LoadSettings
from llama_async_proxy.operations.load_settings import (
    ALL_LAYERS,
    draft_path,
    draft_settings,
    gpu_layers,
    load_settings,
)
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import LaunchSpec


def spec(**options: OptionValue) -> LaunchSpec:
    return LaunchSpec(1, "a", "/a.gguf", ModelKind.CHAT, {name.replace("_", "-"): v for name, v in options.items()})


def test_what_nobody_set_is_as_the_engine_has_it() -> None:
    assert load_settings(spec()) == LoadSettings()
    assert gpu_layers(spec()) is None
    assert draft_path(spec()) is None


def test_options_that_touch_memory_are_read() -> None:
    asked = spec(ctx_size=4096, parallel=2, cache_type_k="q8_0", flash_attn="off", swa_full=True, n_cpu_moe=3)
    assert load_settings(asked) == LoadSettings(
        context_size=4096,
        slots=2,
        cache_type_k="q8_0",
        flash_attention="off",
        full_sliding_cache=True,
        cpu_expert_layers=3,
    )


@pytest.mark.parametrize(("value", "layers"), [("all", ALL_LAYERS), ("auto", None), (-1, None), (7, 7), ("7", 7)])
def test_layers_on_the_gpu_are_a_number_or_a_word(value: OptionValue, layers: int | None) -> None:
    assert gpu_layers(spec(n_gpu_layers=value)) == layers


@pytest.mark.parametrize(
    "options",
    [
        {"spec_draft_model": "/d.gguf", "spec_draft_type_k": "q4_0", "spec_draft_ngl": 3},
        {"model_draft": "/d.gguf", "cache_type_k_draft": "q4_0", "gpu_layers_draft": 3},
    ],
)
def test_a_draft_model_has_settings_of_its_own_under_old_and_new_names(options: dict[str, OptionValue]) -> None:
    asked = spec(ctx_size=2048, cache_type_v="q8_0", **options)
    found = draft_settings(asked, load_settings(asked))
    assert draft_path(asked) == "/d.gguf"
    assert found == LoadSettings(context_size=2048, cache_type_k="q4_0", cache_type_v="f16", gpu_layers=3)


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, ()),
        ({"tensor_split": "3,1"}, (3.0, 1.0)),
        ({"tensor_split": "0/0"}, ()),
        ({"split_mode": "none"}, (1.0,)),
        ({"split_mode": "none", "main_gpu": 1}, (0.0, 1.0)),
        ({"device": "CUDA2"}, (0.0, 0.0, 1.0)),
        ({"device": "CUDA1,CUDA0", "tensor_split": "3,1"}, (1.0, 3.0)),
        ({"device": "CUDA0,CUDA1"}, ()),
    ],
)
def test_how_gpus_share_the_layers_is_read(options: dict[str, OptionValue], shares: tuple[float, ...]) -> None:
    assert load_settings(spec(**options)).gpu_shares == shares


def test_without_a_device_no_layer_is_on_a_gpu() -> None:
    assert gpu_layers(spec(device="none", n_gpu_layers=9)) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"tensor_split": "a,b"},
        {"ctx_size": "much"},
        {"cache_type_k": "f17"},
        {"flash_attn": "maybe"},
        {"parallel": True},
    ],
)
def test_an_unfit_value_is_named(options: dict[str, OptionValue]) -> None:
    [name] = options
    with pytest.raises(InvalidInput, match=f"options.{name.replace('_', '-')}"):
        load_settings(spec(**options))
