"""Numbers and times in the units of the APIs."""

from __future__ import annotations

import time
from typing import overload

from llama_async_proxy.monitor.logtext import timestamp

_MIB = 1024 * 1024


def tenth(value: float) -> float:
    """`value` rounded to one decimal place."""
    return round(value, 1)


@overload
def mib(size_bytes: int) -> float: ...
@overload
def mib(size_bytes: int | None) -> float | None: ...
def mib(size_bytes: int | None) -> float | None:
    """Size in MiB, rounded to a tenth."""
    return None if size_bytes is None else tenth(size_bytes / _MIB)


@overload
def iso_time(milliseconds: int) -> str: ...
@overload
def iso_time(milliseconds: int | None) -> str | None: ...
def iso_time(milliseconds: int | None) -> str | None:
    """Milliseconds since the epoch as ISO 8601 in UTC: 2026-01-31T23:59:59.123Z."""
    return None if milliseconds is None else timestamp(milliseconds)


def iso_now() -> str:
    """The present as ISO 8601 in UTC."""
    return timestamp(time.time_ns() // 1_000_000)
