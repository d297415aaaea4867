"""One option of the engine, and what was given for it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

from msgspec import Struct

OptionValue: TypeAlias = str | int | float | bool
"""A value of one engine option. True/False select the positive/negative form of a switch."""


NO_OPTIONS: Mapping[str, OptionValue] = MappingProxyType({})


def no_options() -> Mapping[str, OptionValue]:
    """Default factory: dataclasses take an unhashable default for a mutable one."""
    return NO_OPTIONS


class OptionType(StrEnum):
    BOOL = "bool"
    """A switch: given or not, without a value."""
    INTEGER = "int"
    FLOAT = "float"
    STRING = "string"
    PATH = "path"
    ENUM = "enum"


class EngineOption(Struct, frozen=True):
    """One option of the engine, as its --help tells. Spellings are without leading dashes."""

    name: str
    """The one we use: the last long spelling, but "temp"."""
    names: tuple[str, ...]
    """Every spelling that sets it, short ones too."""
    type: OptionType
    negatives: tuple[str, ...] = ()
    """Spellings that turn a switch off."""
    env: tuple[str, ...] = ()
    """Environment variables; presets take them as keys, too."""
    choices: tuple[str, ...] = ()
    """Of an ENUM, all there are; of a number, words it may be instead."""
    default: str | None = None
    """As the engine words it; None when it names none."""
    description: str = ""
    hint: str | None = None
    """What --help shows in the value's place: "N", "FNAME" ..."""
    is_removed: bool = False
    """Listed by the engine only to say what replaced it."""
    is_reserved: bool = False
    """The service's own business: ignored where a person sets it."""
    is_preset_only: bool = False
    """Read by llama-server's router from presets; no flag of the command line."""
