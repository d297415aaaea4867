"""Priority of a request, from the header `X-Priority`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llama_async_proxy.errors import InvalidInput

HIGHEST_PRIORITY = 9
"""Highest priority; the lowest is -9. Requests without the header have 0."""

_PRIORITY = re.compile(rb"[+-]?[0-9]")


def priority_of(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The priority, -9 to 9. Raises InvalidInput for any other value."""
    value = next((value for name, value in headers if name == b"x-priority"), b"0")
    if not _PRIORITY.fullmatch(value):
        shown = value[:20].decode("latin-1")
        problem = f"must be a whole number from -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}, not {shown!r}"
        raise InvalidInput("X-Priority", problem)
    return int(value)
