"""A byte-level BPE vocabulary: any text can be told in it, known words are one token each."""

from __future__ import annotations

from collections.abc import Iterable

from llama_async_proxy.gguf.ggml import ValueType
from llama_async_proxy.gguf.writer import Metadata, Typed

NORMAL, CONTROL = 1, 3
"""Token types of llama.cpp's `enum llama_token_type`."""
START, END = "<|im_start|>", "<|im_end|>"
"""Open and close a turn in ChatML."""
CONTROLS = ("<|endoftext|>", START, END, "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|sep|>", "<|pad|>")
CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


class Vocabulary:
    """Tokens: the 256 bytes, `words` in their order, then the control tokens."""

    def __init__(self, words: Iterable[str]) -> None:
        self._byte_letters = _byte_letters()
        self._ids = {letter: byte for byte, letter in enumerate(self._byte_letters)}
        for word in words:
            self._ids.setdefault(self._spelled(word), len(self._ids))
        self._control_ids = {control: len(self._ids) + i for i, control in enumerate(CONTROLS)}

    def __len__(self) -> int:
        return len(self._ids) + len(self._control_ids)

    def id(self, text: str) -> int:
        """The token that is exactly this text. Raises KeyError."""
        control = self._control_ids.get(text)
        return self._ids[self._spelled(text)] if control is None else control

    def metadata(self) -> Metadata:
        """All `tokenizer.ggml.*` keys."""
        types = [NORMAL] * len(self._ids) + [CONTROL] * len(self._control_ids)
        return {
            # This pre-tokenizer takes a word that is a token as it is, so that no merges are needed.
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "llama-bpe",
            "tokenizer.ggml.tokens": [*self._ids, *self._control_ids],
            "tokenizer.ggml.token_type": Typed(ValueType.INT32, types),
            "tokenizer.ggml.merges": ["Ġ t", "h e"],
            "tokenizer.ggml.bos_token_id": self._control_ids["<|endoftext|>"],
            "tokenizer.ggml.eos_token_id": self._control_ids["<|endoftext|>"],
            "tokenizer.ggml.eot_token_id": self._control_ids[END],
            "tokenizer.ggml.seperator_token_id": self._control_ids["<|sep|>"],  # spelled so in the format
            "tokenizer.ggml.padding_token_id": self._control_ids["<|pad|>"],
            "tokenizer.ggml.fim_pre_token_id": self._control_ids["<|fim_prefix|>"],
            "tokenizer.ggml.fim_suf_token_id": self._control_ids["<|fim_suffix|>"],
            "tokenizer.ggml.fim_mid_token_id": self._control_ids["<|fim_middle|>"],
            "tokenizer.ggml.add_bos_token": False,
        }

    def _spelled(self, text: str) -> str:
        return "".join(self._byte_letters[byte] for byte in text.encode())


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte, as GPT-2 chose them: itself if printable, else from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
