"""Writes the demo model: a chat model without training, to see the whole system work before any download.

It is a real llama model whose weights are made, not learned. Each step of its text has a token of its own, an
embedding that says only "I am at this step", and an output matrix that holds the odds of the next step. All other
weights are zero: they cost time, which sets the speed, but change nothing, and they are a hole in the file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, sqrt
from pathlib import Path

from llama_async_proxy.gguf.ggml import F16, F32
from llama_async_proxy.gguf.stories import OPENINGS, PARAGRAPHS
from llama_async_proxy.gguf.vocabulary import CHATML, END, Vocabulary
from llama_async_proxy.gguf.writer import Metadata, TensorData, write_gguf

CONTEXT_LENGTH = 16384
FOLLOWERS = 8
"""Paragraphs that may come after one. With more, each would be so unlikely that samplers drop it (min-p 0.05)."""
CERTAINTY = 40.0
"""Logit of a certain step, over 0 for an impossible one: at temperature 2 there are still 20 between them."""
START_STATE = 0
"""The state of every token that is no step of the text: after it comes an opening."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the model. Its speed follows from `layers` and `feed_forward`: their weights are read for each token."""

    embedding: int
    """More than there are steps; a multiple of `head`."""
    layers: int
    feed_forward: int
    head: int = 64


DEMO_SHAPE = Shape(embedding=1024, layers=4, feed_forward=3072)


@dataclass(frozen=True, slots=True)
class Text:
    """What a model of this kind can say."""

    openings: Sequence[str] = OPENINGS
    paragraphs: Sequence[str] = PARAGRAPHS
    mean_paragraphs: float = 2.0
    """Mean number of them in an answer. From about 30 on it goes on until a limit ends it, since common samplers
    then drop the unlikely end."""


def write_demo_model(path: Path, *, name: str = "Demo", text: Text | None = None, shape: Shape = DEMO_SHAPE) -> None:
    """Writes the demo model. Raises OSError; `path` then is as it was."""
    chain = _Chain(text or Text())
    if chain.states > shape.embedding:
        raise ValueError(f"the text has {chain.states} states, more than the embedding's {shape.embedding}")
    metadata = {**_metadata(name, shape), **chain.vocabulary.metadata(), "tokenizer.chat_template": CHATML}
    write_gguf(path, metadata, [*chain.tensors(shape.embedding), *_idle_tensors(shape)])


class _Chain:
    """The text as a Markov chain over tokens."""

    def __init__(self, text: Text) -> None:
        used: set[str] = set()
        openings = [_steps(opening, used) for opening in text.openings]
        paragraphs = [_steps("\n\n" + paragraph, used) for paragraph in text.paragraphs]
        steps = [step for part in (*openings, *paragraphs) for step in part]
        self.vocabulary = Vocabulary([*steps, *_plain_words(steps)])
        self._state = {self.vocabulary.id(step): number for number, step in enumerate(steps, START_STATE + 1)}
        self.states = len(steps) + 1
        self._odds = dict(self._transitions(openings, paragraphs, 1.0 / text.mean_paragraphs))

    def _transitions(
        self, openings: list[list[str]], paragraphs: list[list[str]], end_odds: float
    ) -> Iterator[tuple[int, Mapping[int, float]]]:
        """(state, probability by next token) for every state."""
        token = self.vocabulary.id
        yield START_STATE, {token(opening[0]): 1.0 / len(openings) for opening in openings}
        for part in (*openings, *paragraphs):
            for step, following in pairwise(part):
                yield self._state[token(step)], {token(following): 1.0}
        firsts = [token(paragraph[0]) for paragraph in paragraphs]
        for opening in openings:
            yield self._state[token(opening[-1])], {first: 1.0 / len(firsts) for first in firsts}
        for number, paragraph in enumerate(paragraphs, 1):
            nexts = [*firsts[number:], *firsts[: number - 1]][:FOLLOWERS]
            ends = {token(END): end_odds if nexts else 1.0}
            yield self._state[token(paragraph[-1])], ends | dict.fromkeys(nexts, (1.0 - end_odds) / (len(nexts) or 1))

    def tensors(self, width: int) -> list[TensorData]:
        """Embedding, final norm and output; the hidden state between them is one hot by the chain's state."""
        size = len(self.vocabulary)
        embedding, output = bytearray(2 * size * width), bytearray(2 * size * width)
        for token in range(size):
            struct.pack_into("<e", embedding, 2 * (token * width + self._state.get(token, START_STATE)), 1.0)
        # The norm makes a one-hot vector as long as one of all ones.
        scale = sqrt(width)
        for state, odds in self._odds.items():
            for token, probability in odds.items():
                logit = CERTAINTY + log(max(probability, 1e-9))
                struct.pack_into("<e", output, 2 * (token * width + state), logit / scale)
        return [
            TensorData("token_embd.weight", (width, size), F16, bytes(embedding)),
            TensorData("output_norm.weight", (width,), F32, _ones(width)),
            TensorData("output.weight", (width, size), F16, bytes(output)),
        ]


def _steps(text: str, used: set[str]) -> list[str]:
    """The text cut into pieces of whole words that are not in `used`, and are after: as short as that allows."""
    pieces: list[str] = []
    piece = ""
    for word in re.findall(r"\s*\S+", text):
        piece += word
        if piece not in used:
            used.add(piece)
            pieces.append(piece)
            piece = ""
    if piece:
        pieces[-1] += piece
        used.add(pieces[-1])
    return pieces


def _plain_words(steps: Sequence[str]) -> list[str]:
    """The words in `steps`, bare and after a space, so that a prompt that uses them needs one token for each."""
    words = sorted(set(re.findall(r"[A-Za-z]+", " ".join(steps))))
    return [spelled for word in words for spelled in (word, f" {word}")]


def _metadata(name: str, shape: Shape) -> Metadata:
    return {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": name,
        "general.description": "Made by hand to show that everything works; it understands nothing.",
        "general.size_label": "demo",
        "general.license": "mit",
        "general.file_type": 1,
        "general.quantization_version": 2,
        "llama.context_length": CONTEXT_LENGTH,
        "llama.embedding_length": shape.embedding,
        "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.feed_forward,
        "llama.attention.head_count": shape.embedding // shape.head,
        # One shared head keeps the cache of a long context small.
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": shape.head,
        "llama.rope.freq_base": 10000.0,
    }


def _idle_tensors(shape: Shape) -> Iterator[TensorData]:
    """The blocks: zero but for the norms. F32 because its speed depends least on the processor's extensions."""
    width, inner, head = shape.embedding, shape.feed_forward, shape.head
    for block in range(shape.layers):
        for norm in ("attn_norm", "ffn_norm"):
            yield TensorData(f"blk.{block}.{norm}.weight", (width,), F32, _ones(width))
        for name, size in (
            ("attn_q", (width, width)),
            ("attn_k", (width, head)),
            ("attn_v", (width, head)),
            ("attn_output", (width, width)),
            ("ffn_gate", (width, inner)),
            ("ffn_up", (width, inner)),
            ("ffn_down", (inner, width)),
        ):
            yield TensorData(f"blk.{block}.{name}.weight", size, F32)


def _ones(count: int) -> bytes:
    return struct.pack("<f", 1.0) * count
