"""Values of engine options beyond which llama.cpp ends, or which nobody means. Pure.

llama.cpp reads most numbers without looking at them, and dies when the model is loaded, so they are looked at when they
are written. Seen with llama-server b11434: a negative `--ctx-size` and a `--batch-size` below 1 end in SIGABRT
(llama-context.cpp), `--parallel 0` and `--n-cpu-moe -2` in exit code 1; more than 256 sequences cannot be made. The
value -1 is left out of all limits: it means that the option is not passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from llama_async_proxy.records.options import OptionValue

NOT_PASSED = -1
_TOKENS = 1 << 31
LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "ctx-size": (0, _TOKENS - 1),
        "batch-size": (1, _TOKENS - 1),
        "ubatch-size": (0, _TOKENS - 1),
        "parallel": (1, 256),
        "n-cpu-moe": (0, 100_000),
    }
)
"""Least and largest value that llama.cpp takes, by long name."""
USUAL: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "temperature": (0, 5),
        "temp": (0, 5),
        "top-p": (0, 1),
        "min-p": (0, 1),
        "typical": (0, 1),
        "top-k": (0, 100_000),
        "repeat-penalty": (0.1, 5),
        "presence-penalty": (-2, 2),
        "frequency-penalty": (-2, 2),
    }
)
"""Values that give sensible text; others work and deserve a warning."""


def is_passed(value: OptionValue) -> bool:
    """False for -1, by which clients say that an option is left to the engine."""
    return isinstance(value, bool) or value not in (NOT_PASSED, str(NOT_PASSED))


def limit_fault(name: str, value: OptionValue) -> str | None:
    """The reason why llama.cpp would not take the value; None when it does."""
    return _outside(LIMITS, name, value, "must be")


def doubt(name: str, value: OptionValue) -> str | None:
    """A warning about a value that works and is hardly meant."""
    return _outside(USUAL, name, value, "is usually")


def _outside(limits: Mapping[str, tuple[float, float]], name: str, value: OptionValue, verb: str) -> str | None:
    bounds = limits.get(name)
    if bounds is None or isinstance(value, bool | str) or not is_passed(value):
        return None
    least, largest = bounds
    if least <= value <= largest:
        return None
    return f"{verb} {least:g} to {largest:g}, or {NOT_PASSED} for the engine's choice, not {value:g}"
