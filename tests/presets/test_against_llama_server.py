"""llama-server's router and we read the same from a preset, and refuse the same."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llama_async_proxy.engines.discovery import help_text
from llama_async_proxy.engines.help import parse_help
from llama_async_proxy.presets.catalogue import Catalogue
from llama_async_proxy.presets.inheritance import flattened, layers, model_sections
from llama_async_proxy.presets.ini import Document, IniError
from llama_async_proxy.presets.templates import DEFAULT_TEXT, TEMPLATES
from llama_async_proxy.presets.validation import check_text
from llama_async_proxy.records.options import OptionType
from support.service import clean_environment, free_port

pytestmark = pytest.mark.engine

OWN_ARGUMENTS = {"host", "port", "alias", "log-colors"}
"""What the router adds for every model."""


class Router:
    """A llama-server in router mode, asked to read one preset after the other."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self.catalogue = Catalogue(parse_help(help_text(str(binary))))
        self._file = directory / "preset.ini"
        self._file.write_text("")
        self._url = f"http://127.0.0.1:{(port := free_port())}"
        command = [str(binary), "--models-preset", str(self._file), "--host", "127.0.0.1", "--port", str(port)]
        environment = clean_environment({"LLAMA_CACHE": str(directory / "cache"), "HF_HOME": str(directory / "hub")})
        self.process = subprocess.Popen(
            [*command, "--no-models-autoload", "--offline"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the router ended"
            try:
                urllib.request.urlopen(f"{self._url}/health", timeout=5).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("the router does not answer")

    def read(self, text: str) -> dict[str, list[str]] | None:
        """Arguments by model; None when it refuses the text."""
        self._file.write_bytes(text.encode())
        try:
            with urllib.request.urlopen(f"{self._url}/models?reload=1", timeout=30) as response:
                models: list[Any] = json.load(response)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 500:
                return None
            raise
        return {model["id"]: model["status"]["args"] for model in models if model["source"] == "preset"}


@pytest.fixture(scope="module")
def router(llama_server: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    running = Router(llama_server, tmp_path_factory.mktemp("router"))
    try:
        running.wait()
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def options_in(arguments: list[str], catalogue: Catalogue) -> dict[str, str]:
    """Values, "" for a switch, by the options' own names; a name that turns one off stays as it is."""
    found: dict[str, str] = {}
    items = iter(arguments)
    for item in items:
        if not item.startswith("--"):
            continue
        option = catalogue.find(item[2:])
        assert option is not None, item
        if option.type is OptionType.BOOL:
            found[item[2:] if item[2:] in option.negatives else option.name] = ""
        else:
            found[option.name] = next(items)
    return {name: value for name, value in found.items() if name not in OWN_ARGUMENTS}


TEXT = """\
version = 1
; all of them
[*]
c = 4096 ; tokens
LLAMA_ARG_TOP_K = 20
temp = 0.5
swa-full = off
fa = on
[group:small]
ctx-size = 512
no-warmup = true
nkvo = true
cache-type-k = q8_0
[chat]
group = small
model = /m/a b.gguf
temperature = 0.25
load-on-startup = false
[code]
model = /m/c.gguf
threads = 2
no-warmup = false
"""


def test_what_we_render_is_read_with_the_values_we_mean(router: Router) -> None:
    document = Document.parse(TEXT)
    assert check_text(TEXT, router.catalogue).errors == ()
    models = router.read(flattened(document, router.catalogue).render())
    assert models is not None
    assert models.keys() == {"chat", "code"}
    for name, arguments in models.items():
        ours = layers(document, router.catalogue, name)
        given = options_in(arguments, router.catalogue)
        for option_name, value in {**ours.shared, **ours.group, **ours.own}.items():
            option = router.catalogue.find(option_name)
            assert option is not None
            if option.is_preset_only:
                continue
            if isinstance(value, bool):
                is_on, is_off = option_name in given, any(negative in given for negative in option.negatives)
                assert (is_on, is_off) == (value, not value and bool(option.negatives)), (name, option_name)
            elif isinstance(value, float):
                assert float(given[option_name]) == value
            else:
                assert given[option_name] in (str(value), "on"), (name, option_name)


@pytest.mark.parametrize("name", ["default", *TEMPLATES])
def test_our_own_presets_are_read(router: Router, name: str) -> None:
    text = TEMPLATES.get(name, DEFAULT_TEXT)
    assert check_text(text, router.catalogue).errors == ()
    assert router.read(text) == {}


@pytest.mark.parametrize(
    "line",
    ["ctx_size = 1", "--ctx-size = 1", "  c = 1", "\tc = 1", "c", "c 1", "[a", "[]", "[a] b", "x = 1", "1 = 1", "= 1"],
)
def test_what_it_refuses_we_refuse(router: Router, line: str) -> None:
    text = f"[m]\nmodel = /m.gguf\n{line}\n"
    assert check_text(text, router.catalogue).errors
    assert router.read(text) is None


space = st.text(" \t", max_size=2)
words = st.text("ab.0-_ =[\t;#", max_size=6)
keys = st.sampled_from(["c", "ctx-size", "temp", "LLAMA_ARG_TOP_K", "threads", "version", "no-warmup"])
lines = st.one_of(
    st.builds("{}{}={}{}{}".format, keys, space, space, st.text("a01 .-\"'", max_size=4), st.one_of(space, words)),
    st.builds("[{}{}]{}".format, space, st.text("ab .-*", min_size=1, max_size=3), st.one_of(space, words)),
    st.builds("{};{}".format, space, words),
    words,
)
newlines = st.sampled_from(["\n", "\r\n", "\r"])


@given(st.lists(st.tuples(lines, newlines), max_size=6), lines)
@settings(max_examples=300, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([("[a]", "\n"), ("c=1", "\n"), ("[a]", "\n")], "temp = 1 ; x")
def test_the_grammar_is_the_same(router: Router, body: list[tuple[str, str]], last: str) -> None:
    text = "".join(a + b for a, b in body) + last
    theirs = router.read(text)
    try:
        document = Document.parse(text)
    except IniError:
        # It takes line breaks for a part of a section's name; nobody means that.
        assert theirs is None or any(re.search(r"[\r\n]", name) for name in theirs)
        return
    sections = model_sections(document)
    known = all(router.catalogue.find(e.key) or e.key == "version" for s in document.sections() for e in s.entries)
    if not known:
        assert theirs is None
        return
    assert theirs is not None
    assert theirs.keys() == {section.name for section in sections}
