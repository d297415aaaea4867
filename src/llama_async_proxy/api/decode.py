"""From what a socket client sent to a typed value, or a sentence naming the field at fault."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from llama_async_proxy.errors import InvalidInput

T = TypeVar("T")

_WHERE = re.compile(r" - at `\$\.?(?P<path>.*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<field>.*?)`")


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
