from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.engines.help import PRESET_ONLY, parse_help
from llama_async_proxy.records.options import EngineOption, OptionType
from support.engine_help import HELP

OPTIONS = {option.name: option for option in parse_help(HELP)}


def test_names_hints_environment_and_descriptions() -> None:
    assert OPTIONS["ctx-size"] == EngineOption(
        name="ctx-size",
        names=("c", "ctx-size"),
        type=OptionType.INTEGER,
        env=("LLAMA_ARG_CTX_SIZE",),
        default="0",
        description="tokens of context (default: 0, 0 = as the model was trained)",
        hint="N",
    )


def test_the_name_is_the_last_long_one_but_temp() -> None:
    assert OPTIONS["n-gpu-layers"].names == ("ngl", "gpu-layers", "n-gpu-layers")
    assert OPTIONS["temp"].names == ("temp", "temperature")


@pytest.mark.parametrize(
    ("name", "on", "off"),
    [
        ("kv-offload", ("kvo", "kv-offload"), ("nkvo", "no-kv-offload")),
        ("warmup", ("warmup",), ("no-warmup",)),
        ("mmproj-auto", ("mmproj-auto",), ("no-mmproj", "no-mmproj-auto")),
        ("no-host", ("no-host",), ()),
        ("swa-full", ("swa-full",), ()),
    ],
)
def test_spellings_that_turn_a_switch_off_are_separated(name: str, on: tuple[str, ...], off: tuple[str, ...]) -> None:
    assert (OPTIONS[name].names, OPTIONS[name].negatives, OPTIONS[name].type) == (on, off, OptionType.BOOL)


@pytest.mark.parametrize(
    ("name", "type_", "choices"),
    [
        ("threads", OptionType.INTEGER, ()),
        ("log-verbosity", OptionType.INTEGER, ()),
        ("rope-freq-base", OptionType.FLOAT, ()),
        ("temp", OptionType.FLOAT, ()),
        ("n-gpu-layers", OptionType.INTEGER, ("auto", "all")),
        ("cpu-strict", OptionType.ENUM, ("0", "1")),
        ("flash-attn", OptionType.ENUM, ("on", "off", "auto")),
        ("cache-type-k", OptionType.ENUM, ("f16", "q8_0", "q4_0")),
        ("load-mode", OptionType.ENUM, ("auto", "mmap+mlock")),
        ("model", OptionType.PATH, ()),
        ("tensor-split", OptionType.STRING, ()),
        ("fit-target", OptionType.STRING, ()),
    ],
)
def test_types_follow_from_hints_and_text(name: str, type_: OptionType, choices: tuple[str, ...]) -> None:
    assert (OPTIONS[name].type, OPTIONS[name].choices) == (type_, choices)


@pytest.mark.parametrize(
    ("name", "default"),
    [("flash-attn", "auto"), ("cpu-mask", ""), ("rope-freq-base", "loaded from model"), ("reasoning", "auto")],
)
def test_defaults_lose_their_quotes(name: str, default: str) -> None:
    assert OPTIONS[name].default == default


def test_removed_and_reserved_options_are_marked() -> None:
    assert {name for name, option in OPTIONS.items() if option.is_removed} == {"draft-max"}
    assert {name for name, option in OPTIONS.items() if option.is_reserved} == {"usage", "model", "host"}
    assert {option.name for option in OPTIONS.values() if option.is_preset_only} == {o.name for o in PRESET_ONLY}


def test_another_programs_output_has_no_options() -> None:
    assert parse_help("Usage: cat [OPTION]... [FILE]...\nConcatenate FILE(s)\n") == ()


@given(st.text())
def test_any_text_is_parsed_without_an_exception(text: str) -> None:
    parse_help(text)
    parse_help("--" + text)
