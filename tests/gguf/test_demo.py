"""The demo model: what its weights say, worked out as an engine would."""

from __future__ import annotations

import random
import time
from functools import cached_property
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

import gguf
from llama_async_proxy.gguf.demo import DEMO_DEPTH, Depth, Text, write_demo_model
from llama_async_proxy.gguf.facts import model_facts
from llama_async_proxy.gguf.reader import read_header
from llama_async_proxy.gguf.stories import OPENINGS, PARAGRAPHS
from llama_async_proxy.gguf.vocabulary import CONTROLS, END, Vocabulary
from llama_async_proxy.records.models import ModelKind

SHALLOW = Depth(blocks=1, feed_forward=32)
NEWLINE = 10
"""The last token of a chat prompt: the id of a byte is the byte."""


class Speaker:
    """Runs the model as an engine would, but for its blocks, which add nothing."""

    def __init__(self, path: Path) -> None:
        self._reader = gguf.GGUFReader(path)
        tensors = {tensor.name: tensor.data for tensor in self._reader.tensors}
        self._embedding = tensors["token_embd.weight"].astype(np.float64)
        self._output = tensors["output.weight"].astype(np.float64)
        self._odds: dict[int, dict[int, float]] = {}
        self.tokens: list[str] = self._reader.fields["tokenizer.ggml.tokens"].contents()

    @cached_property
    def byte_of(self) -> dict[str, int]:
        return {letter: byte for byte, letter in enumerate(self.tokens[:256])}

    def odds(self, token: int) -> dict[int, float]:
        """Probability by next token, where it is not negligible."""
        if token not in self._odds:
            hidden = self._embedding[token]
            normed = hidden / np.sqrt((hidden**2).mean())
            used = normed.nonzero()[0]
            raised = np.exp(self._output[:, used] @ normed[used])
            odds = raised / raised.sum()
            self._odds[token] = {int(following): float(odds[following]) for following in (odds > 1e-6).nonzero()[0]}
        return self._odds[token]

    def answer(self, draw: random.Random | None = None) -> list[str]:
        """Greedy, or drawn at random."""
        said: list[str] = []
        token = NEWLINE
        while True:
            odds = self.odds(token)
            token = draw.choices([*odds], [*odds.values()])[0] if draw else max(odds, key=odds.__getitem__)
            if self.tokens[token] == END:
                return said
            said.append(bytes(self.byte_of[letter] for letter in self.tokens[token]).decode())
            assert len(said) < 2000


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Speaker:
    path = tmp_path_factory.mktemp("demo") / "demo.gguf"
    write_demo_model(path, depth=SHALLOW)
    return Speaker(path)


def test_an_answer_is_an_opening_and_whole_paragraphs(speaker: Speaker) -> None:
    draw = random.Random(1)
    for _ in range(20):
        rest = "".join(speaker.answer(draw))
        opening = next(text for text in OPENINGS if rest.startswith(text))
        rest = rest.removeprefix(opening)
        while rest:
            paragraph = next(text for text in PARAGRAPHS if rest.startswith("\n\n" + text))
            rest = rest.removeprefix("\n\n" + paragraph)


def test_answers_differ(speaker: Speaker) -> None:
    draw = random.Random(2)
    assert len({"".join(speaker.answer(draw)) for _ in range(10)}) > 5


def test_a_greedy_answer_ends_too(speaker: Speaker) -> None:
    assert 20 < len(speaker.answer()) < 200


def test_answers_are_as_long_as_asked_for(speaker: Speaker, tmp_path: Path) -> None:
    draw = random.Random(3)
    assert 60 < mean(len(speaker.answer(draw)) for _ in range(40)) < 120
    write_demo_model(tmp_path / "long.gguf", text=Text(mean_tokens=300), depth=SHALLOW)
    long = Speaker(tmp_path / "long.gguf")
    assert 200 < mean(len(long.answer(draw)) for _ in range(40)) < 400


def test_samplers_that_drop_what_is_unlikely_keep_every_way_on(speaker: Speaker) -> None:
    """llama.cpp's defaults: min-p 0.05, top-k 40."""
    for token in range(len(speaker.tokens)):
        odds = speaker.odds(token)
        assert min(odds.values()) > 0.05 * max(odds.values())
        assert len(odds) <= 40


def test_any_prompt_ends_in_a_token_from_which_the_model_goes_on(speaker: Speaker) -> None:
    assert all(speaker.odds(token) == speaker.odds(NEWLINE) for token in range(256))
    assert len(speaker.tokens) == len(set(speaker.tokens)), "llama.cpp wants token texts to be distinct"


def test_is_written_at_once_and_takes_little_disk(tmp_path: Path) -> None:
    path = tmp_path / "demo.gguf"
    started = time.perf_counter()
    write_demo_model(path)
    assert time.perf_counter() - started < 10
    assert path.stat().st_blocks * 512 < 16 << 20
    assert [p.name for p in tmp_path.iterdir()] == ["demo.gguf"]


def test_the_header_says_what_it_is(tmp_path: Path) -> None:
    write_demo_model(tmp_path / "demo.gguf")
    header = read_header(tmp_path / "demo.gguf")
    facts = model_facts(header)
    assert (facts.name, facts.kind, facts.architecture) == ("Demo", ModelKind.CHAT, "llama")
    assert facts.has_chat_template
    assert (facts.context_length or 0) >= 4096
    assert facts.block_count == DEMO_DEPTH.blocks <= 512
    assert header.string("general.license") == "mit"
    assert header.needed_size <= header.file_size


def test_same_arguments_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_demo_model(tmp_path / name, depth=SHALLOW)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- vocabulary -------------------------------------------------------------------------------------------------------


def test_every_byte_and_every_word_is_a_token() -> None:
    vocabulary = Vocabulary(["hello", " wörld", "日本"])
    assert [vocabulary.id(chr(byte)) for byte in range(128)] == list(range(128))
    assert [vocabulary.id(word) for word in ("hello", " wörld", "日本")] == [256, 257, 258]
    assert [vocabulary.id(control) for control in CONTROLS] == list(range(259, 259 + len(CONTROLS)))
    assert len(vocabulary) == 259 + len(CONTROLS)
    with pytest.raises(KeyError):
        vocabulary.id("unknown")


def test_words_given_twice_or_that_are_bytes_are_one_token() -> None:
    vocabulary = Vocabulary(["hello", "hello", "a"])
    assert (vocabulary.id("hello"), vocabulary.id("a"), len(vocabulary)) == (256, 97, 257 + len(CONTROLS))
