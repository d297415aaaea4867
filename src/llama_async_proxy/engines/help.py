"""Parser of the output of --help, which lists the options of an engine. Pure.

The format is that of llama.cpp b11434, common/arg.cpp (common_arg::to_string):

    -c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
                                            (env: LLAMA_ARG_CTX_SIZE)

Spellings and the placeholder of the value are left of column 40, or on a line of their own when they are longer. The
spellings that turn a switch off come last. Flags change between builds, so the only ones named here are those that the
router reads from presets and --help does not list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from llama_async_proxy.engines.arguments import RESERVED
from llama_async_proxy.records.options import EngineOption, OptionType

_HELP_COLUMN = 40
_SPELLINGS = re.compile(r"(--?[A-Za-z0-9][A-Za-z0-9_.-]*)(,\s+(?=-)|\s+|$)")
_ENV = re.compile(r"\(env:\s*([A-Z0-9_, ]+)\)")
_DEFAULT = re.compile(r"\bdefault:\s*((?:[^();,]|\([^()]*\)|[;,](?! ))+)")
_QUOTED = re.compile(r"(['\"])(.*?)\1")
_LISTED = re.compile(r"^\s*- ([a-z0-9+_-]+)(?: \(default\))?:", re.MULTILINE)
_ALLOWED = re.compile(r"allowed values: ((?:[a-z0-9_]+, )*[a-z0-9_]+)")
_BRACKETED = re.compile(r"[\[{<]([^\[\]{}<>]+[|,][^\[\]{}<>]+)[\]}>]")
_WORDS = re.compile(r"either an exact number, '(\w+)', or '(\w+)'")
_DECIMAL = re.compile(r"-?\d*\.\d+")
_WHOLE = re.compile(r"-?\d+")
_COUNTED = re.compile(r"\b(number|first N|size|layers?|tokens?|count|limit|index)\b", re.IGNORECASE)

_NUMBER_HINTS = frozenset({"N", "P", "SECONDS", "PORT", "SEED", "MiB", "SIMILARITY", "INDEX"})
_PATH_HINTS = frozenset({"FNAME", "FILE", "PATH", "DIR", "JINJA_TEMPLATE_FILE"})
_COMMON_NAMES = frozenset({"temp"})
"""Names in general use although the engine does not list them last."""

PRESET_ONLY = (
    EngineOption(
        "load-on-startup",
        ("load-on-startup",),
        OptionType.BOOL,
        description="load this model when the engine starts",
        is_preset_only=True,
    ),
    EngineOption(
        "stop-timeout",
        ("stop-timeout",),
        OptionType.INTEGER,
        default="10",
        description="seconds a model's process may take to stop before it is killed",
        is_preset_only=True,
    ),
    EngineOption(
        "dedup-cache-models",
        ("dedup-cache-models",),
        OptionType.BOOL,
        description="hide a downloaded model from the list where this preset leads to the same file",
        is_preset_only=True,
    ),
)
"""Options that the router reads from presets in addition to those of the command line (common/preset.cpp)."""


def parse_help(text: str) -> tuple[EngineOption, ...]:
    """All options in the order of `text`, then PRESET_ONLY; empty when the text is not llama-server's help."""
    options = [_option(spec, help_text) for spec, help_text in _entries(text.splitlines())]
    known = [option for option in options if option is not None]
    return (*known, *PRESET_ONLY) if known else ()


def _entries(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Spellings with placeholder, and help text, of each option."""
    spec, texts = "", list[str]()
    for line in lines:
        if line.startswith("-----"):
            continue
        if line.startswith("-") and line.strip() != "--":
            if spec:
                yield spec, "\n".join(texts)
            cut = _HELP_COLUMN if line[_HELP_COLUMN - 3 : _HELP_COLUMN].isspace() else len(line)
            spec, texts = line[:cut].rstrip(), [line[cut:]]
        else:
            texts.append(line[_HELP_COLUMN:] if line[:_HELP_COLUMN].isspace() else line)
    if spec:
        yield spec, "\n".join(texts)


def _option(spec: str, text: str) -> EngineOption | None:
    spellings, hint = _spellings(spec)
    if not spellings:
        return None
    names, negatives = _split_negatives(spellings)
    env = _ENV.search(_joined(text))
    description = _ENV.sub("", _joined(text)).strip()
    default = _default(description)
    name = next((n for n in names if n in _COMMON_NAMES), names[-1])
    type_, choices = _type(name, hint, text, default)
    return EngineOption(
        name=name,
        names=tuple(dict.fromkeys(names)),
        type=type_,
        negatives=negatives,
        env=tuple(re.findall(r"[A-Z0-9_]+", env[1])) if env else (),
        choices=choices,
        default=default,
        description=description,
        hint=hint,
        is_removed="the argument has been removed" in description,
        is_reserved=not RESERVED.isdisjoint((*names, *negatives)),
    )


def _joined(text: str) -> str:
    return " ".join(text.split())


def _spellings(spec: str) -> tuple[tuple[str, ...], str | None]:
    """Spellings and placeholder of an option, such as ("-c", "--ctx-size") and "N"."""
    found, at = [], 0
    while match := _SPELLINGS.match(spec, at):
        found.append(match[1])
        at = match.end()
        if not match[2].startswith(","):
            break
    return tuple(found), spec[at:].strip() or None


def _split_negatives(spellings: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names that turn a switch on and names that turn it off, without dashes. The latter come last in `spellings`."""
    without_options = tuple(s.lstrip("-") for s in spellings)
    first_off = next((at for at, s in enumerate(spellings) if s.startswith("--no-") and at), len(spellings))
    last_on = max((at for at, s in enumerate(spellings[:first_off]) if s.startswith("--")), default=len(spellings) - 1)
    return without_options[: last_on + 1], without_options[last_on + 1 :] if first_off < len(spellings) else ()


def _default(description: str) -> str | None:
    found = _DEFAULT.search(description)
    if found is None:
        return None
    text = found[1].strip()
    quoted = _QUOTED.match(text)
    return quoted[2] if quoted else text


def _type(name: str, hint: str | None, text: str, default: str | None) -> tuple[OptionType, tuple[str, ...]]:
    if hint is None:
        return OptionType.BOOL, ()
    if bracketed := _BRACKETED.fullmatch(hint):
        if ".." not in hint:
            return OptionType.ENUM, tuple(re.split(r"[|,]", bracketed[1]))
    elif hint in _NUMBER_HINTS or re.fullmatch(r"<\d+\.\.\.\d+>", hint):
        words = _WORDS.search(_joined(text))
        return _number(name, text, default), tuple(words.groups()) if words else ()
    elif hint in _PATH_HINTS:
        return OptionType.PATH, ()
    allowed = _ALLOWED.search(_joined(text))
    choices = allowed[1].split(", ") if allowed else _LISTED.findall(text)
    if len(choices) < 2:
        return OptionType.STRING, ()
    also = [default] if default and re.fullmatch(r"[a-z0-9_+]+", default) and default not in choices else []
    return OptionType.ENUM, (*also, *choices)


def _number(name: str, text: str, default: str | None) -> OptionType:
    """INTEGER or FLOAT: by the default value or, without one, by the words of the description."""
    if default and _DECIMAL.fullmatch(default):
        return OptionType.FLOAT
    if default and _WHOLE.fullmatch(default):
        return OptionType.INTEGER
    if re.search(r"factor|frequency", text):
        return OptionType.FLOAT
    return OptionType.INTEGER if default or _COUNTED.search(f"{name} {text}") else OptionType.FLOAT
