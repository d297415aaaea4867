from __future__ import annotations

import pytest

from llama_async_proxy.presets.difference import ValueChange, text_difference, value_changes
from llama_async_proxy.presets.editing import merged, typed_config, with_config
from llama_async_proxy.presets.ini import Document, IniError
from support.engine_help import CATALOGUE

TEXT = "; keep\n[*]\nc = 1 ; why\n\n[a]\nno-warmup = on\ntemp = 0.5\n"
DOCUMENT = Document.parse(TEXT)


def test_a_change_uses_the_spelling_that_is_there() -> None:
    assert merged(DOCUMENT, "*", {"ctx-size": 2}, CATALOGUE).render() == TEXT.replace("c = 1", "c = 2")
    assert merged(DOCUMENT, "a", {"warmup": True}, CATALOGUE).render() == TEXT.replace("= on", "= false")
    assert merged(DOCUMENT, "a", {"warmup": False}, CATALOGUE).render() == TEXT, "it means that"


def test_none_removes_an_option_under_any_spelling() -> None:
    assert merged(DOCUMENT, "a", {"temperature": None, "top-k": None}, CATALOGUE).section("a") == (
        Document.parse(TEXT.replace("temp = 0.5\n", "")).section("a")
    )


def test_of_quarrelling_spellings_one_is_left() -> None:
    document = merged(Document.parse("[a]\nc = 1\nctx-size = 2\n"), "a", {"c": 3}, CATALOGUE)
    assert document.render() == "[a]\nctx-size = 3\n"


def test_a_whole_configuration_replaces_sections_and_keys_and_keeps_comments() -> None:
    new = with_config(DOCUMENT, {"*": {"ctx-size": 1, "warmup": False}, "b": {"temp": 1.0}}, CATALOGUE)
    assert new.render() == "; keep\n[*]\nc = 1 ; why\nwarmup = false\n\n[b]\ntemp = 1\n"


def test_saving_what_was_read_changes_nothing() -> None:
    assert with_config(DOCUMENT, typed_config(DOCUMENT, CATALOGUE), CATALOGUE).render() == TEXT


def test_values_are_typed_by_the_keys_as_written() -> None:
    assert typed_config(DOCUMENT, CATALOGUE) == {"*": {"c": 1}, "a": {"no-warmup": True, "temp": 0.5}}
    odd = Document.parse("[a]\nc = many\nunknown = 1\n")
    assert typed_config(odd, CATALOGUE) == {"a": {"c": "many", "unknown": "1"}}


def test_a_switch_under_its_negative_name_takes_only_what_can_be_turned_around() -> None:
    with pytest.raises(IniError, match="true or false"):
        merged(DOCUMENT, "a", {"warmup": "perhaps"}, CATALOGUE)


def test_differences_name_what_changed() -> None:
    other = Document.parse(TEXT.replace("c = 1 ; why", "c = 2 ; so").replace("temp = 0.5\n", "") + "[z]\nx = 1\n")
    assert value_changes(DOCUMENT, other) == (
        ValueChange("*", "c", "1", "2"),
        ValueChange("a", "temp", "0.5", None),
        ValueChange("z", "x", None, "1"),
    )
    shown = text_difference(TEXT, other.render(), ("old", "new"))
    assert shown.startswith("--- old\n+++ new\n")
    assert "-c = 1 ; why\n+c = 2 ; so\n" in shown
    assert text_difference(TEXT, TEXT, ("a", "b")) == ""


def test_a_configuration_is_bounded() -> None:
    with pytest.raises(IniError, match="more than 4000"):
        with_config(Document(), {str(number): {} for number in range(4001)}, CATALOGUE)
