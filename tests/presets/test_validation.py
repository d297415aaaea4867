from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.presets.templates import DEFAULT_TEXT
from llama_async_proxy.presets.validation import MAX_PROBLEMS, MAX_SECTIONS, MAX_TEXT_BYTES, check_text, checked_name
from support.engine_help import CATALOGUE


def errors(text: str) -> list[str]:
    return [str(problem) for problem in check_text(text, CATALOGUE).errors]


def warnings(text: str) -> list[str]:
    return [str(problem) for problem in check_text(text, CATALOGUE).warnings]


def test_a_preset_of_every_spelling_and_kind_is_fine() -> None:
    text = """version = 1
[*]
c = 4096
LLAMA_ARG_TOP_K = 20
no-warmup = on
[group:small]
ctx-size = 512
[chat]
group = small
model = /m/chat.gguf
load-on-startup = true
version = 2
"""
    assert (errors(text), warnings(text)) == ([], [])
    assert errors(DEFAULT_TEXT) == errors("") == errors("[*]\n") == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "ctx_size = 1",
            "line 2, column 1: [a] ctx_size is not an option of the installed engine; did you mean ctx-size?",
        ),
        ("zzzz = 1", "line 2, column 1: [a] zzzz is not an option of the installed engine"),
        ("c = many", "line 2, column 5: [a] c must be a whole number, not 'many'"),
        ("draft = 1", "line 2, column 1: [a] draft: the argument has been removed. use another"),
        ("control-vector-layer-range = 1 2", "takes two values"),
        ("group = none", "line 2, column 9: [a] there is no section [group:none]"),
        ("  c = 1", "line 2, column 3: keys and sections must begin in the first column"),
    ],
)
def test_what_the_engine_would_refuse_is_an_error_with_its_place(line: str, problem: str) -> None:
    found = errors(f"[a]\n{line}\n")
    assert len(found) == 1
    assert problem in found[0]


def test_every_error_is_told_at_once_up_to_a_bound() -> None:
    assert len(errors("[a]\nx1 = 1\nx2 = 1\nc = x\n")) == 3
    assert len(errors("[a]\n" + "".join(f"x{n} = 1\n" for n in range(500)))) == MAX_PROBLEMS


def test_only_a_models_section_belongs_to_a_group() -> None:
    assert "only a model's section" in errors("[*]\ngroup = g\n[group:g]\n")[0]


def test_a_preset_is_bounded() -> None:
    assert "larger" in errors("; " + "x" * MAX_TEXT_BYTES)[0]
    assert "sections" in errors("".join(f"[{n}]\n" for n in range(MAX_SECTIONS + 1)))[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[*]\nmodel = /m.gguf\n", "a section of its own"),
        ("[a]\nmodel = m.gguf\n", "relative"),
        ("[a]\nhost = 0.0.0.0\n", "ignored"),
        ("[a]\nc = 1\nctx-size = 2\n", "set 2 times"),
        ("[a]\nc = 1\n[a]\n", "line 1, column 1: [a] is replaced by a later section"),
        ("[group:g]\n", "no model belongs"),
        ("[a]\nmodel = /m.gguf\n[b]\nmodel = /m.gguf\n", "with the options of [a]"),
    ],
)
def test_what_is_allowed_but_hardly_meant_is_a_warning(text: str, words: str) -> None:
    assert errors(text) == []
    assert any(words in warning for warning in warnings(text))


@given(st.text())
def test_any_text_gets_a_verdict(text: str) -> None:
    check_text(text, CATALOGUE)


@pytest.mark.parametrize("name", ["a", "A b", "a.b", "a-", "1_", "x" * 64, "default.ini"])
def test_names_of_presets(name: str) -> None:
    assert checked_name(name) == name.removesuffix(".ini")


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".ini", "../a", "a/b", "a\\b", "/etc", " a", "a ", "a.", ".a", "ä", "a\n", "a\0", "x" * 65]
)
def test_a_name_with_a_path_or_a_trick_in_it_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="letters, digits"):
        checked_name(name)
