"""What of a model's header decides how much memory it takes: sizes, kinds of layers, where its weights belong.

Source: llama.cpp's `src/models/*.cpp` (`load_arch_hparams`: which layers slide or recur), `src/llama-hparams.cpp`
(head sizes, recurrent state) and `src/llama-model.cpp` (`create_memory`, `load_tensors`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct

from llama_async_proxy.gguf.reader import MAX_NUMBER, GgufError, Header, Omitted, Tensor

MAX_LAYERS = 512
"""llama.cpp's own limit (`LLAMA_MAX_LAYERS`)."""
_INPUT = ("token_embd", "token_embd_norm", "token_types", "position_embd", "per_layer_token_embd")
"""Tensors of the input layer, which never leaves the host."""
_BLOCK = re.compile(r"blk\.([0-9]{1,9})\.")
_EXPERTS = re.compile(r"\.ffn_(up|down|gate|gate_up)_(ch|)exps\b")
"""As `--n-cpu-moe` selects them."""


class _Sliding(NamedTuple):
    """Which layers attend to a window only, where the file has no per-layer list."""

    period: int
    """One layer of each so many attends to all."""
    dense_first: bool = False
    """It is the first of them rather than the last."""
    window: int = 0
    """Tokens, where the file does not say."""


_SLIDING: Mapping[str, _Sliding] = MappingProxyType({
    "afmoe": _Sliding(4), "cohere2": _Sliding(4), "cohere2moe": _Sliding(4, dense_first=True),
    "exaone-moe": _Sliding(4, window=128), "exaone4": _Sliding(4), "gemma2": _Sliding(2, window=4096),
    "gemma3": _Sliding(6), "gemma3n": _Sliding(5), "gpt-oss": _Sliding(2), "laguna": _Sliding(4, dense_first=True),
    "llama4": _Sliding(4, window=8192), "mellum": _Sliding(4), "muse-glimmer": _Sliding(4), "olmo2": _Sliding(4),
    "plamo3": _Sliding(8), "smallthinker": _Sliding(4, dense_first=True),
})  # fmt: skip
_LISTED_SLIDING = frozenset({"gemma4", "granite-swa", "maple", "mimo2", "step35"})
_NEVER_SLIDING = frozenset({"phi3", "phimoe"})
"""Files name a window that llama.cpp ignores."""
_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_RECURRENT_BY_INTERVAL = frozenset({"qwen3next", "qwen35", "qwen35moe"})
_RECURRENT_WITHOUT_HEADS = frozenset({
    "granitehybrid", "jamba", "kimi-linear", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "plamo2",
})  # fmt: skip
_RECURRENT_AND_ATTENTION = frozenset({"falcon-h1"})
_WITHOUT_CACHE = frozenset({
    "bert", "clef", "dream", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llada", "llada-moe",
    "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "rnd1",
})  # fmt: skip
_PLAIN = frozenset({
    "apertus", "arcee", "arctic", "baichuan", "bailingmoe", "bailingmoe2", "bitnet", "bloom", "chatglm", "codeshell",
    "command-r", "dbrx", "deci", "deepseek", "deepseek2", "dots1", "ernie4_5", "ernie4_5-moe", "exaone", "falcon",
    "gemma", "glm4", "glm4moe", "gpt2", "gptneox", "granite", "granitemoe", "grok", "grovemoe", "hunyuan-dense",
    "hunyuan-moe", "internlm2", "jais", "llama", "minicpm", "minicpm3", "minimax-m2", "mistral3", "mpt", "nemotron",
    "olmo", "olmoe", "openelm", "orion", "pangu-embedded", "phi2", "phi3", "phimoe", "plamo", "plm", "qwen", "qwen2",
    "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3vl", "qwen3vlmoe", "refact", "seed_oss", "smollm3", "stablelm",
    "starcoder", "starcoder2", "xverse",
})  # fmt: skip
_MODELLED = (
    _PLAIN | _SLIDING.keys() | _LISTED_SLIDING | _RECURRENT | _RECURRENT_BY_INTERVAL | _RECURRENT_WITHOUT_HEADS
    | _RECURRENT_AND_ATTENTION | _WITHOUT_CACHE
)  # fmt: skip
_GEMMA3N_CACHING_LAYERS = 20


class Layer(Struct, frozen=True):
    """One block. Sizes are elements."""

    key_width: int
    """Cached for each token: all key heads together; 0 without attention."""
    value_width: int
    """0 where only keys are cached (MLA)."""
    slides: bool
    state_width: int
    """Recurrent state of each slot; 0 without."""
    weights_bytes: int
    expert_bytes: int
    """The part of `weights_bytes` that `--n-cpu-moe` keeps on the host."""


class ModelShape(Struct, frozen=True):
    architecture: str
    trained_context: int
    """Tokens."""
    width: int
    """Elements of one token's embedding."""
    vocabulary: int
    """Tokens it can say; 0 for one that answers embeddings only."""
    heads: int
    """Attention heads of the layer with the most."""
    query_width: int
    """Elements of one token's queries in that layer."""
    feed_forward: int
    """Elements between a block's dense matrices, or of all experts that a token uses, whichever are more."""
    window: int
    """Tokens a sliding layer looks back on; 0 when none slides."""
    layers: tuple[Layer, ...]
    input_bytes: int
    output_bytes: int
    """Weights after the last block."""
    tied_bytes: int
    """The embedding, where it serves as the output too: a GPU gets a copy. 0 where the output has its own weights."""
    keeps_cache: bool
    is_rough: bool
    """The architecture is not modelled here: numbers come from what all transformers share."""

    @property
    def weights_bytes(self) -> int:
        return self.input_bytes + self.output_bytes + sum(layer.weights_bytes for layer in self.layers)


def model_shape(header: Header, *shards: Header) -> ModelShape:
    """The shape of a model: its header with tensors, and those of its further shards when it is split.

    Raises GgufError when the header does not say how large the model is.
    """
    return _Facts(header).shape([tensor for part in (header, *shards) for tensor in part.tensors])


class _Facts:
    """Reads the keys of one architecture."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._architecture = header.architecture
        self._blocks = self._required("block_count", MAX_LAYERS)
        self._width = self._required("embedding_length", 1 << 24)
        self._heads = self._per_layer("attention.head_count", 0)
        self._kv_heads = tuple(
            heads if kv < 0 else kv
            for heads, kv in zip(self._heads, self._per_layer("attention.head_count_kv", -1), strict=True)
        )
        self._recurs = self._recurring()

    def shape(self, tensors: Sequence[Tensor]) -> ModelShape:
        weights = _Weights.of(tensors)
        keeps_cache = self._architecture not in _WITHOUT_CACHE
        window, sliding = self._sliding()
        layers = tuple(
            Layer(
                *(self._cache_widths(index, slides=sliding[index]) if keeps_cache else (0, 0)),
                slides=sliding[index],
                state_width=self._state_width() if self._recurs[index] else 0,
                weights_bytes=weights.blocks[index],
                expert_bytes=weights.experts[index],
            )
            for index in range(self._blocks)
        )
        return ModelShape(
            architecture=self._architecture,
            trained_context=self._number("context_length"),
            width=self._width,
            vocabulary=self._vocabulary() if weights.speaks(self._architecture) else 0,
            heads=max(self._heads),
            query_width=max(self._heads) * self._head_width("key", slides=False),
            feed_forward=self._feed_forward(),
            window=window,
            layers=layers,
            input_bytes=weights.input_bytes,
            output_bytes=weights.output_bytes,
            tied_bytes=weights.tied_bytes if weights.speaks(self._architecture) else 0,
            keeps_cache=keeps_cache,
            is_rough=self._architecture not in _MODELLED or weights.has_unknown_types,
        )

    def _number(self, key: str, default: int = 0) -> int:
        value = self._header.specific(key)
        return self._plausible(key, value) if isinstance(value, int) and value >= 0 else default

    def _plausible(self, key: str, value: int) -> int:
        if value > MAX_NUMBER:
            raise GgufError(f"says that its {key} is {value}; it is damaged")
        return value

    def _required(self, key: str, most: int) -> int:
        value = self._number(key)
        if not 0 < value <= most:
            raise GgufError(f"does not say its {key} (between 1 and {most})")
        return value

    def _per_layer(self, key: str, default: int) -> tuple[int, ...]:
        """One number for each block, however the file says it."""
        value = self._header.specific(key)
        if isinstance(value, tuple):
            numbers = [
                self._plausible(key, n) if isinstance(n, int) and n >= 0 else default for n in value[: self._blocks]
            ]
            return (*numbers, *[default] * (self._blocks - len(numbers)))
        return (self._number(key, default),) * self._blocks

    def _flags(self, key: str) -> tuple[bool, ...] | None:
        if not isinstance(self._header.specific(key), tuple):
            return None
        return tuple(flag > 0 for flag in self._per_layer(key, 0))

    def _vocabulary(self) -> int:
        tokens = self._header.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, Omitted):
            return tokens.length
        return len(tokens) if isinstance(tokens, tuple) else self._number("vocab_size")

    def _feed_forward(self) -> int:
        experts = self._number("expert_used_count") * max(self._per_layer("expert_feed_forward_length", 0))
        return max(*self._per_layer("feed_forward_length", 0), experts)

    def _head_width(self, key: str, *, slides: bool) -> int:
        """Elements of one head's key or value."""
        full = self._number(f"attention.{key}_length") or self._width // max(*self._heads, 1)
        return (self._number(f"attention.{key}_length_swa") or full) if slides else full

    def _cache_widths(self, index: int, *, slides: bool) -> tuple[int, int]:
        """Elements of keys and of values that one token leaves in this layer's cache."""
        heads = self._kv_heads[index]
        recurs_only = self._recurs[index] and self._architecture not in _RECURRENT_AND_ATTENTION
        if recurs_only or index >= self._caching_layers():
            return 0, 0
        is_latent = bool(self._number("attention.key_length_mla") and self._number("attention.value_length_mla"))
        keys = heads * self._head_width("key", slides=slides)
        return keys, 0 if is_latent else heads * self._head_width("value", slides=slides)

    def _caching_layers(self) -> int:
        """Layers before those that share another's cache or predict further tokens."""
        if self._architecture == "gemma3n":
            return min(_GEMMA3N_CACHING_LAYERS, self._blocks)
        return self._blocks - self._number("attention.shared_kv_layers") - self._number("nextn_predict_layers")

    def _sliding(self) -> tuple[int, tuple[bool, ...]]:
        """The window, and which layers it holds for."""
        rule = _SLIDING.get(self._architecture)
        window = self._number("attention.sliding_window", rule.window if rule else 0)
        if self._architecture == "llama4" and window:
            window = _SLIDING["llama4"].window  # whatever the file says
        listed = self._flags("attention.sliding_window_pattern")
        none = (False,) * self._blocks
        if not window or self._architecture in _NEVER_SLIDING:
            return 0, none
        if listed is not None:
            return window, listed
        if self._architecture in ("lfm2", "lfm2moe"):
            return window, tuple(not recurs for recurs in self._recurs)
        if rule is None:
            return 0, none
        period = self._number("attention.sliding_window_pattern") or rule.period
        dense = 0 if rule.dense_first else period - 1
        return window, tuple(index % period != dense for index in range(self._blocks))

    def _recurring(self) -> tuple[bool, ...]:
        if self._architecture in _RECURRENT | _RECURRENT_AND_ATTENTION:
            return (True,) * self._blocks
        if self._architecture in _RECURRENT_BY_INTERVAL:
            interval = self._number("full_attention_interval") or 4
            last = self._blocks - self._number("nextn_predict_layers")
            regular = tuple(index < last and (index + 1) % interval != 0 for index in range(self._blocks))
            return self._flags("attention.recurrent_layers") or regular
        if self._architecture not in _RECURRENT_WITHOUT_HEADS:
            return (False,) * self._blocks
        dense = self._per_layer("feed_forward_length", 0) if "nemotron" in self._architecture else (0,) * self._blocks
        return tuple(heads == 0 and inner == 0 for heads, inner in zip(self._kv_heads, dense, strict=True))

    def _state_width(self) -> int:
        """Elements of a layer's recurrent state for one slot (`n_embd_r` + `n_embd_s` of llama.cpp)."""
        if head := self._number("wkv.head_size"):
            return self._width * (self._number("token_shift_count", 2) + head)
        if kept := self._number("shortconv.l_cache"):
            return self._width * (kept - 1)
        convolution = self._number("ssm.conv_kernel")
        if head := self._number("kda.head_dim"):
            taps = convolution - 1 if convolution else 3
            return max(self._heads) * head * (3 * taps + head)
        inner, state = self._number("ssm.inner_size"), self._number("ssm.state_size")
        convolved = inner + 2 * self._number("ssm.group_count") * state
        return max(convolution - 1, 0) * convolved + state * inner


class _Weights(Struct, frozen=True):
    """Bytes of the tensors by where they belong."""

    blocks: Counter[int]
    experts: Counter[int]
    input_bytes: int
    output_bytes: int
    tied_bytes: int
    has_unknown_types: bool

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> _Weights:
        blocks: Counter[int] = Counter()
        experts: Counter[int] = Counter()
        outside: Counter[str] = Counter()
        has_unknown_types = False
        for tensor in tensors:
            has_unknown_types |= tensor.nbytes is None
            size = tensor.nbytes or 0
            block = _BLOCK.match(tensor.name)
            if block is None:
                outside[tensor.name.partition(".")[0]] += size
                continue
            blocks[int(block[1])] += size
            if _EXPERTS.search(tensor.name):
                experts[int(block[1])] += size
        given = sum(outside[name] for name in _INPUT)
        tied = 0 if "output" in outside else outside["token_embd"]
        return cls(blocks, experts, given, sum(outside.values()) - given, tied, has_unknown_types)

    def speaks(self, architecture: str) -> bool:
        """False for encoders, which end in an embedding rather than in a choice of the next token."""
        return not (self.tied_bytes and architecture in _WITHOUT_CACHE)
