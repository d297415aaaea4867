from __future__ import annotations

import pytest

from llama_async_proxy.presets.inheritance import Level, flattened, inheritance, layers
from llama_async_proxy.presets.ini import Document, IniError
from support.engine_help import CATALOGUE

TEXT = """\
[*]
c = 1
top-k = 10
temp = 0.1
[group:g]
temp = 0.2
no-warmup = true
threads = 2
; about it
[m]
group = g
temperature = 0.3
model = /m.gguf
[n]
"""
DOCUMENT = Document.parse(TEXT)


def test_the_nearest_level_that_speaks_of_an_option_wins_under_any_spelling() -> None:
    found = inheritance(DOCUMENT, CATALOGUE, "m")
    assert found.path == (Level.DEFAULT, Level.GLOBAL, Level.GROUP, Level.MODEL)
    assert found.values.keys() == found.sources.keys()
    shown = {name: (found.values[name], found.sources[name]) for name in ("ctx-size", "temp", "warmup", "parallel")}
    assert shown == {
        "ctx-size": (1, Level.GLOBAL),
        "temp": (0.3, Level.MODEL),
        "warmup": (False, Level.GROUP),
        "parallel": (-1, Level.DEFAULT),
    }
    assert found.values["model"] == "/m.gguf"


def test_without_a_group_there_is_no_such_level() -> None:
    assert inheritance(DOCUMENT, CATALOGUE, "n").path == (Level.DEFAULT, Level.GLOBAL, Level.MODEL)


def test_of_two_spellings_the_alphabetically_last_counts_as_in_llama_server() -> None:
    document = Document.parse("[m]\nctx-size = 1\nc = 2\n")
    assert layers(document, CATALOGUE, "m").own == {"ctx-size": 1}


def test_a_model_without_a_section_has_what_all_have() -> None:
    found = layers(DOCUMENT, CATALOGUE, None)
    assert (found.shared["top-k"], found.group, found.own) == (10, {}, {})


def test_groups_are_written_out_for_llama_server() -> None:
    flat = flattened(DOCUMENT, CATALOGUE)
    assert (
        flat.render()
        == """\
[*]
c = 1
top-k = 10
temp = 0.1
[m]
temperature = 0.3
model = /m.gguf
no-warmup = true
threads = 2
[n]
"""
    )
    for section in ("m", "n"):
        assert inheritance(flat, CATALOGUE, section).values == inheritance(DOCUMENT, CATALOGUE, section).values


def test_what_groups_write_out_is_bounded() -> None:
    group = "[group:g]\n" + "".join(f"k{number} = 1\n" for number in range(100))
    with pytest.raises(IniError, match="too many to write out"):
        flattened(Document.parse(group + "".join(f"[m{n}]\ngroup = g\n" for n in range(50))), CATALOGUE)
