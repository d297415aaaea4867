"""From what a socket client sent to a typed value, or a sentence naming the field at fault."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from llama_async_proxy.errors import InvalidInput

T = TypeVar("T")

_WHERE = re.compile(r" - at `\$\.?(?P<path>.*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<field>.*?)`")


class _NotFinite:
    """Stands for NaN, Infinity or -Infinity, which Python reads although JSON has no such numbers."""


def check_json(text: bytes | str) -> None:
    """Raises InvalidInput for what Python's JSON parser accepts and JSON does not have: NaN, infinities, numbers beyond
    every float, halves of surrogate pairs. Names the field. Other faults are left to who parses the text.
    """
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    else:
        return
    try:
        value = json.loads(text, parse_constant=lambda _: _NotFinite())
    except (ValueError, RecursionError):
        return
    for path, problem in _unknown_to_json(value, ""):
        raise InvalidInput(path or "body", problem)


def _unknown_to_json(value: object, path: str) -> Iterator[tuple[str, str]]:
    """(where, what is wrong with it)"""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _unknown_to_json(key, f"{path}.{key!r}".lstrip("."))
            yield from _unknown_to_json(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unknown_to_json(inner, f"{path}[{index}]")
    elif isinstance(value, _NotFinite) or (isinstance(value, float) and not math.isfinite(value)):
        yield path, "must be a number that JSON has, neither NaN nor infinite nor larger than 1.8e308"
    elif isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        yield path.encode("ascii", "backslashreplace").decode(), "must not hold half of a surrogate pair"


def decode(payload: object, wanted: type[T]) -> T:
    """`payload`, parsed JSON, as a `wanted`. Raises InvalidInput naming the field as the caller spelled it."""
    try:
        return msgspec.convert(payload, wanted)
    except msgspec.ValidationError as exc:
        text = str(exc)
    except (OverflowError, RecursionError):
        raise InvalidInput("payload", "holds a value that is too large") from None
    where = _WHERE.search(text)
    path = where["path"] if where else ""
    problem = text[: where.start()] if where else text
    if missing := _MISSING.match(problem):
        raise InvalidInput(f"{path}.{missing['field']}".lstrip("."), "is required")
    raise InvalidInput(path or "payload", problem[:1].lower() + problem[1:].replace("`", ""))
