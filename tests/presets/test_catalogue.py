from __future__ import annotations

import pytest

from llama_async_proxy.presets.catalogue import OTHER, BadValue, as_text, default_value, group_of, typed
from llama_async_proxy.records.options import EngineOption, OptionValue
from support.engine_help import CATALOGUE


def option(name: str) -> EngineOption:
    found = CATALOGUE.find(name)
    assert found is not None, name
    return found


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("c", "ctx-size"),
        ("ctx-size", "ctx-size"),
        ("LLAMA_ARG_CTX_SIZE", "ctx-size"),
        ("ngl", "n-gpu-layers"),
        ("gpu-layers", "n-gpu-layers"),
        ("temperature", "temp"),
        ("nkvo", "kv-offload"),
        ("no-mmproj", "mmproj-auto"),
        ("load-on-startup", "load-on-startup"),
    ],
)
def test_an_option_is_found_by_each_of_its_names(spelling: str, name: str) -> None:
    assert option(spelling).name == name


@pytest.mark.parametrize(
    ("written", "meant"), [("ctx_size", "ctx-size"), ("--ngl", "ngl"), ("tempp", "temp"), ("Threads", "threads")]
)
def test_a_near_miss_is_understood(written: str, meant: str) -> None:
    assert CATALOGUE.find(written) is None
    assert CATALOGUE.similar(written)[0] == meant


def test_nothing_is_similar_to_nonsense_however_long() -> None:
    assert CATALOGUE.similar("x" * 1_000_000) == ()


def test_canonical_names_turn_negatives_around_and_leave_the_unknown_alone() -> None:
    assert CATALOGUE.canonical("no-warmup", True) == ("warmup", False)
    assert CATALOGUE.canonical("nkvo", False) == ("kv-offload", True)
    assert CATALOGUE.canonical("c", 1) == ("ctx-size", 1)
    assert CATALOGUE.canonical("mystery", 1) == ("mystery", 1)


def test_every_option_is_in_one_group() -> None:
    groups = CATALOGUE.groups()
    assert sorted(o.name for g in groups for o in g.options) == sorted(o.name for o in CATALOGUE.options)
    assert [g.name for g in groups][:3] == ["Model", "Context", "GPU"]
    assert groups[-1].name == OTHER


@pytest.mark.parametrize(
    ("name", "group"),
    [("temp", "Sampling"), ("ctx-size", "Context"), ("threads", "CPU"), ("cache-type-k", "Cache"), ("host", "Server")],
)
def test_people_find_an_option_where_they_look_for_it(name: str, group: str) -> None:
    assert group_of(option(name)) == group


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("c", "4096", 4096),
        ("threads", "-1", -1),
        ("ngl", "all", "all"),
        ("ngl", "7", 7),
        ("temp", "0.7", 0.7),
        ("temp", "1", 1.0),
        ("temp", ".5", 0.5),
        ("temp", "1e-1", 0.1),
        ("warmup", "on", True),
        ("warmup", "disabled", False),
        ("no-warmup", "true", False),
        ("no-warmup", "0", True),
        ("no-host", "1", True),
        ("fa", "auto", "auto"),
        ("fa", "true", "on"),
        ("fa", "0", "off"),
        ("fa", "-1", "auto"),
        ("load-mode", "mmap+mlock", "mmap+mlock"),
        ("cache-type-k", "q8_0", "q8_0"),
        ("cpu-strict", "1", "1"),
        ("chat-template", "{{ x }}", "{{ x }}"),
        ("model", "/m/a.gguf", "/m/a.gguf"),
    ],
)
def test_text_becomes_what_it_means(key: str, text: str, value: OptionValue) -> None:
    found = typed(option(key), key, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("c", "abc", "whole number"),
        ("c", "1.5", "whole number"),
        ("c", "", "whole number"),
        ("c", "9" * 30, "whole number"),
        ("c", "\u0663", "whole number"),
        ("ngl", "most", "or auto, or all"),
        ("temp", "hot", "a number"),
        ("temp", "nan", "a number"),
        ("temp", "inf", "a number"),
        ("warmup", "yes", "true or false"),
        ("fa", "maybe", "one of on, off, auto"),
        ("cache-type-k", "q3", "one of f16, q8_0, q4_0"),
        ("model", "", "not be empty"),
    ],
)
def test_text_that_means_nothing_is_refused_with_what_it_could_be(key: str, text: str, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        typed(option(key), key, text)


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), (4.0, "4"), (0.7, "0.7"), ("a", "a")])
def test_values_as_presets_write_them(value: OptionValue, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ctx-size", 0),
        ("temp", 0.8),
        ("warmup", True),
        ("flash-attn", "auto"),
        ("rope-freq-base", None),
        ("host", None),
    ],
)
def test_a_default_is_a_value_unless_it_is_a_sentence(name: str, value: OptionValue | None) -> None:
    assert default_value(option(name)) == value
