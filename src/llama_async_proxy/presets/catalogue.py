"""The engine's options by every name they have, grouped for people, and what their values may be. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

from llama_async_proxy.presets.option_limits import limit_fault
from llama_async_proxy.records.options import EngineOption, OptionType, OptionValue

_TRUE = frozenset({"on", "enabled", "true", "1"})
_FALSE = frozenset({"off", "disabled", "false", "0"})
_AUTOMATIC = frozenset({"auto", "-1"})
_ON_OFF = frozenset({"on", "off"})
_MAX_COMPARED = 64
"""difflib is quadratic in the length of the name, which a stranger chose."""

OTHER = "Other"

_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Model",
        (
            *("model", "model-url", "hf-*", "docker-repo", "mmproj*", "image-*-tokens", "mtmd-*", "video-*", "lora*"),
            *("control-vector*", "override-kv", "check-tensors", "load-mode", "lazy-mode", "offline", "warmup"),
            *("load-on-startup", "stop-timeout", "dedup-cache-models", "sleep-idle-seconds", "alias", "tags"),
        ),
    ),
    ("Context", ("ctx-size", "parallel", "keep", "n-predict", "context-shift", "rope-*", "yarn-*", "fit-ctx")),
    (
        "GPU",
        (
            *("n-gpu-layers", "gpu-layers", "split-mode", "tensor-split", "main-gpu", "device", "flash-attn", "fit"),
            *("fit-target", "kv-offload", "op-offload", "override-tensor", "rpc", "list-devices", "no-host"),
            "moe-cache-mib",
        ),
    ),
    (
        "CPU",
        ("threads", "threads-batch", "cpu-*", "n-cpu-*", "prio", "prio-batch", "poll", "poll-batch", "numa", "repack"),
    ),
    ("Batching", ("batch-size", "ubatch-size", "cont-batching", "perf")),
    (
        "Cache",
        (
            *("cache-*", "kv-unified*", "swa-*", "ctx-checkpoints", "checkpoint-*", "defrag-thold", "slot-save-path"),
            "slot-prompt-similarity",
        ),
    ),
    (
        "Sampling",
        (
            *("temp", "temperature", "top-*", "min-p", "typical*", "seed", "sampler*", "sampling-seq", "repeat-*"),
            *("presence-*", "frequency-*", "dry-*", "xtc-*", "dynatemp-*", "mirostat*", "adaptive-*", "logit-bias"),
            *("grammar*", "json-schema*", "ignore-eos", "backend-sampling", "reverse-prompt", "special"),
        ),
    ),
    ("Speculative", ("spec-*", "draft*", "*-draft", "lookup-*")),
    ("Chat", ("jinja", "chat-template*", "reasoning*", "skip-chat-parsing", "prefill-assistant", "escape")),
    ("Embeddings and infill", ("embedding*", "rerank*", "pooling", "embd-normalize", "spm-infill")),
    (
        "Server",
        (
            *("host", "port", "reuse-port", "path", "api-*", "ssl-*", "cors-*", "timeout", "threads-http", "metrics"),
            *("props", "slots", "sse-*", "ui*", "webui*", "tools*", "mcp-*", "agent", "models-*", "media-path"),
        ),
    ),
    ("Logging", ("log-*", "verbos*")),
    ("Ready-made models", ("*-default", "fim-*")),
)
"""Groups in the order in which they are shown, each with the names of its options; `*` stands for anything."""


class OptionGroup(Struct, frozen=True):
    name: str
    options: tuple[EngineOption, ...]


class BadValue(ValueError):
    """The message says what a value must be, and what it is."""


class Catalogue:
    """Finds options by any of their names."""

    def __init__(self, options: Sequence[EngineOption]) -> None:
        self.options = tuple(options)
        self._by_spelling = {spelling: option for option in options for spelling in _spellings(option)}

    def find(self, spelling: str) -> EngineOption | None:
        """By a long, short, negative or environment name, without dashes."""
        return self._by_spelling.get(spelling)

    def similar(self, spelling: str, limit: int = 3) -> tuple[str, ...]:
        """Names that somebody who wrote `spelling` may have meant, best first."""
        wanted = spelling.strip("-").replace("_", "-").lower()[:_MAX_COMPARED]
        if wanted in self._by_spelling:
            return (wanted,)
        known = [s for s in self._by_spelling if len(s) > 2 and not s.isupper()]
        close = difflib.get_close_matches(wanted, known, n=3 * limit, cutoff=0.6)
        return tuple(dict.fromkeys(self._by_spelling[s].name for s in close))[:limit]

    def canonical(self, key: str, value: OptionValue) -> tuple[str, OptionValue]:
        """The same choice under the option's own name; unknown keys and odd values stay as they are."""
        option = self._by_spelling.get(key)
        if option is None:
            return key, value
        return option.name, (not value if key in option.negatives and isinstance(value, bool) else value)

    def groups(self) -> tuple[OptionGroup, ...]:
        """Every option in one group, both in a fixed order; no group is empty."""
        members: dict[str, list[EngineOption]] = {name: [] for name in (*(name for name, _ in _GROUPS), OTHER)}
        for option in self.options:
            members[group_of(option)].append(option)
        return tuple(OptionGroup(name, tuple(options)) for name, options in members.items() if options)


def _spellings(option: EngineOption) -> Iterator[str]:
    yield from option.names
    yield from option.negatives
    yield from option.env


def group_of(option: EngineOption) -> str:
    """What somebody who looks for the option would look under."""
    own = (option.name, *(name for name in option.names if len(name) > 3))
    return next((_GROUP_OF[n] for n in own if n in _GROUP_OF), None) or next(
        (group for pattern, group in _PATTERNS if any(pattern.fullmatch(name) for name in own)), OTHER
    )


def _patterns() -> Iterator[tuple[re.Pattern[str], str]]:
    for group, names in _GROUPS:
        for name in names:
            if "*" in name:
                yield re.compile(re.escape(name).replace(r"\*", ".*")), group


_GROUP_OF: Mapping[str, str] = MappingProxyType(
    {name: group for group, names in _GROUPS for name in names if "*" not in name}
)
# The longest first: *-draft says more of an option than cache-* does.
_PATTERNS = tuple(sorted(_patterns(), key=lambda found: (found[1] != "Speculative", -len(found[0].pattern))))


# --- values ---------------------------------------------------------------------------------------


def typed(option: EngineOption, key: str, text: str) -> OptionValue:
    """The value that a preset's `key = text` gives the option. Raises BadValue."""
    if option.type is OptionType.BOOL:
        return _switch(text) is not (key in option.negatives)
    if option.type in (OptionType.INTEGER, OptionType.FLOAT):
        number = _number(option, text)
        if fault := limit_fault(option.name, number):
            raise BadValue(fault)
        return number
    if option.type is OptionType.ENUM:
        return _choice(option, text)
    if not text:
        raise BadValue("must not be empty")
    return text


def as_text(value: OptionValue) -> str:
    """The value as a preset writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.0f}"
    return str(value)


def default_value(option: EngineOption) -> OptionValue | None:
    """The engine's default as a value; None where that is a sentence, such as "same as --threads"."""
    if option.default is None or option.type in (OptionType.STRING, OptionType.PATH):
        return None
    try:
        return typed(option, option.name, option.default)
    except BadValue:
        return None


def _switch(text: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise BadValue(f"must be true or false, not {_shown(text)}")


def _number(option: EngineOption, text: str) -> OptionValue:
    if text in option.choices:
        return text
    words = "".join(f", or {choice}" for choice in option.choices)
    if option.type is OptionType.INTEGER:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise BadValue(f"must be a whole number{words}, not {_shown(text)}")
        return int(text)
    if not re.fullmatch(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", text) or len(text) > 40:
        raise BadValue(f"must be a number{words}, not {_shown(text)}")
    return float(text)


def _choice(option: EngineOption, text: str) -> OptionValue:
    if text in option.choices:
        return text
    if _ON_OFF.issubset(option.choices):
        if text in _TRUE | _FALSE:
            return "on" if text in _TRUE else "off"
        if text in _AUTOMATIC and "auto" in option.choices:
            return "auto"
    raise BadValue(f"must be one of {', '.join(option.choices)}, not {_shown(text)}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_COMPARED else text[:_MAX_COMPARED] + "...")
