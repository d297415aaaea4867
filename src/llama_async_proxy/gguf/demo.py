"""Writes the demo model: a chat model without training, to see the whole system work before any download.

It is a real llama model whose weights are made, not learned. Each step of its text has a token of its own, an
embedding that says only "I am at this step", and an output matrix that holds the odds of the next step. All other
weights are zero: they cost time but change nothing, and they are a hole in the file.

The pace is set by depth: many very small blocks. Each of their thousands of operations costs a synchronisation of
the threads, or a kernel's launch, which differs far less between machines than arithmetic or memory do. A long
prompt passes them once, so that its tokens stay cheap, and the weights stay small.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import log, sqrt
from pathlib import Path

from msgspec import Struct

from llama_async_proxy.gguf.ggml import F16, F32, Q8_0
from llama_async_proxy.gguf.stories import OPENINGS, PARAGRAPHS
from llama_async_proxy.gguf.vocabulary import CHATML, END, Vocabulary
from llama_async_proxy.gguf.writer import Metadata, TensorData, write_gguf

CONTEXT_LENGTH = 4096
FOLLOWERS = 8
"""Paragraphs that may come after one. With more, each would be so unlikely that samplers drop it (min-p 0.05)."""
CERTAINTY = 40.0
"""Logit of a certain step, over 0 for an impossible one: at temperature 2 there are still 20 between them."""
ROW_ELEMENTS = 64
"""Widths are multiples of it, as quantized rows and SIMD kernels like them."""
HEAD_ELEMENTS = 32
START_STATE = 0
"""The state of every token that is no step of the text: after it comes an opening."""


class Depth(Struct, frozen=True):
    """What the model does besides talking, which makes it slow."""

    blocks: int
    """At most 512, llama.cpp's limit."""
    feed_forward: int
    """Elements between the two halves of a block; a multiple of 32."""


DEMO_DEPTH = Depth(blocks=220, feed_forward=192)
"""30-100 tokens/s on two cores."""


class Text(Struct, frozen=True):
    """What a model of this kind can say."""

    openings: Sequence[str] = OPENINGS
    paragraphs: Sequence[str] = PARAGRAPHS
    mean_tokens: float = 80.0
    """Mean length of an answer; at least an opening and a paragraph. From about 1,000 on an answer goes on until a
    limit ends it, since common samplers drop the end when it is that unlikely."""


def write_demo_model(path: Path, *, name: str = "Demo", text: Text | None = None, depth: Depth = DEMO_DEPTH) -> None:
    """Writes the demo model. Raises OSError; `path` then is as it was."""
    chain = _Chain(text or Text())
    metadata = {
        **_metadata(name, chain.width, depth),
        **chain.vocabulary.metadata(),
        "tokenizer.chat_template": CHATML,
    }
    write_gguf(path, metadata, [*chain.tensors(), *_idle_tensors(chain.width, depth)])


class _Chain:
    """The text as a Markov chain over tokens."""

    def __init__(self, text: Text) -> None:
        used: set[str] = set()
        openings = [_steps(opening, used) for opening in text.openings]
        paragraphs = [_steps("\n\n" + paragraph, used) for paragraph in text.paragraphs]
        steps = [step for part in (*openings, *paragraphs) for step in part]
        self.vocabulary = Vocabulary([*steps, *_plain_words(steps)])
        self._state = {self.vocabulary.id(step): number for number, step in enumerate(steps, START_STATE + 1)}
        self.width = (len(steps) // ROW_ELEMENTS + 1) * ROW_ELEMENTS
        """Of the hidden state, in elements: one for each state of the chain, and some to spare."""
        wanted = (text.mean_tokens - _mean_length(openings)) / _mean_length(paragraphs)
        self._odds = dict(self._transitions(openings, paragraphs, 1.0 / max(wanted, 1.0)))

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

    def tensors(self) -> list[TensorData]:
        """Embedding, final norm and output; the hidden state between them is one hot by the chain's state."""
        size, width = len(self.vocabulary), self.width
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


def _mean_length(parts: Sequence[Sequence[str]]) -> float:
    return sum(map(len, parts)) / len(parts)


def _plain_words(steps: Sequence[str]) -> list[str]:
    """The words in `steps`, bare and after a space, so that a prompt that uses them needs one token for each."""
    words = sorted(set(re.findall(r"[A-Za-z]+", " ".join(steps))))
    return [spelled for word in words for spelled in (word, f" {word}")]


def _metadata(name: str, width: int, depth: Depth) -> Metadata:
    return {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": name,
        "general.description": "Made by hand to show that everything works; it understands nothing.",
        "general.size_label": "demo",
        "general.license": "mit",
        "general.file_type": 7,
        "general.quantization_version": 2,
        "llama.context_length": CONTEXT_LENGTH,
        "llama.embedding_length": width,
        "llama.block_count": depth.blocks,
        "llama.feed_forward_length": depth.feed_forward,
        # One short head: with this many blocks the cache of the context is what takes memory.
        "llama.attention.head_count": 1,
        "llama.attention.head_count_kv": 1,
        "llama.attention.key_length": HEAD_ELEMENTS,
        "llama.attention.value_length": HEAD_ELEMENTS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": HEAD_ELEMENTS,
        "llama.rope.freq_base": 10000.0,
    }


def _idle_tensors(width: int, depth: Depth) -> Iterator[TensorData]:
    """The blocks: zero but for the norms."""
    shapes = {
        "attn_q": (width, HEAD_ELEMENTS),
        "attn_k": (width, HEAD_ELEMENTS),
        "attn_v": (width, HEAD_ELEMENTS),
        "attn_output": (HEAD_ELEMENTS, width),
        "ffn_gate": (width, depth.feed_forward),
        "ffn_up": (width, depth.feed_forward),
        "ffn_down": (depth.feed_forward, width),
    }
    for block in range(depth.blocks):
        for norm in ("attn_norm", "ffn_norm"):
            yield TensorData(f"blk.{block}.{norm}.weight", (width,), F32, _ones(width))
        for name, shape in shapes.items():
            yield TensorData(f"blk.{block}.{name}.weight", shape, Q8_0)


def _ones(count: int) -> bytes:
    return struct.pack("<f", 1.0) * count
