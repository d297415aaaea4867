from __future__ import annotations

import re
from pathlib import Path

import pytest

from llama_async_proxy.engines.discovery import embedded_launcher, help_text
from llama_async_proxy.engines.help import PRESET_ONLY, parse_help
from llama_async_proxy.errors import EngineMissing
from llama_async_proxy.presets import option_classes
from llama_async_proxy.presets.catalogue import Catalogue
from llama_async_proxy.presets.option_classes import (
    OPTION_CLASSES,
    NotPaths,
    OptionClass,
    class_of,
    model_paths,
    names_of,
    reason,
)
from llama_async_proxy.records.options import OptionValue
from support.engine_help import CATALOGUE

HARMLESS, MODEL_FILE, OWNER = OptionClass.HARMLESS, OptionClass.MODEL_FILE, OptionClass.OWNER
NO_ENGINE = Catalogue(())
FILE_WORDS = re.compile(r"\b(files?|paths?|director(y|ies)|downloads?|commands?|repo)\b", re.IGNORECASE)
LOOKED_AT = {"model", "mmproj-auto", "chat-template", "dedup-cache-models", "load-mode", "lazy-mode"}
"""Harmless ones whose descriptions speak of files: their values are no paths, or their files are models."""


def check_every_option_has_a_class(text: str) -> None:
    options = parse_help(text)
    catalogue = Catalogue(options)
    assert len(options) > 200
    missing = [o.name for o in options if not any(name in OPTION_CLASSES for name in (o.name, *o.names))]
    assert missing == [], "look at what these can do, and add them to presets/option_classes.py"
    for option in options:
        for spelling in (*option.names, *option.negatives, *option.env):
            assert class_of(spelling, catalogue) is class_of(option.name, catalogue), spelling
    doubtful = {
        option.name
        for option in options
        if class_of(option.name, catalogue) is HARMLESS
        and not option.is_removed
        and FILE_WORDS.search(option.description)
    }
    assert doubtful <= LOOKED_AT, "their descriptions speak of files or of the network: look again"
    paths = [o for o in options if o.type == "path" and o.name != "model"]
    assert [o.name for o in paths if class_of(o.name, catalogue) is HARMLESS] == []


@pytest.mark.engine
def test_every_option_of_the_real_llama_server_has_a_class(llama_server: Path) -> None:
    check_every_option_has_a_class(help_text(str(llama_server)))


@pytest.mark.engine
def test_every_option_of_the_built_in_engine_has_a_class() -> None:
    try:
        embedded_launcher()
    except EngineMissing as exc:
        pytest.skip(exc.message)
    check_every_option_has_a_class(help_text(None))


def test_options_that_only_presets_know_have_a_class() -> None:
    assert {class_of(option.name, NO_ENGINE) for option in PRESET_ONLY} == {HARMLESS}


def test_no_name_stands_in_the_table_twice() -> None:
    groups = [option_classes._HARMLESS, *option_classes._OWNER.values()]
    names = [name for group in groups for name in group.split()]
    names += [*option_classes._MODEL_FILES, *option_classes._SCALED_MODEL_FILES]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("temp", HARMLESS),
        ("c", HARMLESS),
        ("no-warmup", HARMLESS),
        ("LLAMA_ARG_CTX_SIZE", HARMLESS),
        ("mmproj", MODEL_FILE),
        ("mm", MODEL_FILE),
        ("lora-scaled", MODEL_FILE),
        ("log-file", OWNER),
        ("--log-file", OWNER),
        ("log_file", OWNER),
        ("LOG-FILE", OWNER),
        (" log-file", OWNER),
        ("LLAMA_ARG_LOG_FILE", OWNER),
        ("LLAMA_ARG_MCP_SERVERS_JSON", OWNER),
        ("ag", OWNER),
        ("no-agent", OWNER),
        ("no-ag", OWNER),
        ("no-such-option", OWNER),
        ("a-new-option", OWNER),
        ("", OWNER),
    ],
)
def test_every_spelling_of_an_option_has_its_class(key: str, expected: OptionClass) -> None:
    assert class_of(key, CATALOGUE) is expected


@pytest.mark.parametrize(
    ("key", "expected"), [("temp", HARMLESS), ("no-mmap", HARMLESS), ("log-file", OWNER), ("lf", OWNER)]
)
def test_without_a_catalogue_the_table_alone_decides(key: str, expected: OptionClass) -> None:
    assert class_of(key, NO_ENGINE) is expected


def test_an_option_has_the_strictest_class_of_its_names() -> None:
    classes = {"ctx-size": HARMLESS, "c": OWNER}
    assert class_of("ctx-size", CATALOGUE, classes) is OWNER
    assert names_of("LLAMA_ARG_CTX_SIZE", CATALOGUE) == ("ctx-size", "c", "ctx-size")


def test_the_reason_says_what_an_option_can_do() -> None:
    assert "programs" in reason("LLAMA_ARG_MCP_SERVERS_JSON", CATALOGUE)
    assert "reviewed" in reason("a-new-option", CATALOGUE)


@pytest.mark.parametrize(
    ("key", "value", "paths"),
    [
        ("mmproj", "/m/p.gguf", ["/m/p.gguf"]),
        ("mmproj", False, []),
        ("lora", "/a.gguf,/b.gguf", ["/a.gguf", "/b.gguf"]),
        ("lora-scaled", "/a.gguf:0.5,/b.gguf:-1", ["/a.gguf", "/b.gguf"]),
        ("control-vector-scaled", "/a.gguf:1e-3", ["/a.gguf"]),
    ],
)
def test_the_paths_of_a_value(key: str, value: OptionValue, paths: list[str]) -> None:
    assert list(model_paths(key, value, NO_ENGINE)) == paths


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mmproj", True),
        ("mmproj", ""),
        ("mmproj", 7),
        ("mmproj", "/a,b.gguf"),
        ("lora", '"/a,b.gguf",/c.gguf'),
        ("lora-scaled", "/a.gguf"),
        ("lora-scaled", "/a.gguf:half"),
        ("lora-scaled", "/a:b.gguf:1"),
    ],
)
def test_a_value_that_can_be_read_in_two_ways_is_refused(key: str, value: OptionValue) -> None:
    with pytest.raises(NotPaths):
        list(model_paths(key, value, NO_ENGINE))
