"""What changed from one preset to another. Pure."""

from __future__ import annotations

import difflib

from msgspec import Struct

from llama_async_proxy.presets.ini import Document


class ValueChange(Struct, frozen=True):
    section: str
    key: str
    before: str | None
    """None: it was not there."""
    after: str | None


def value_changes(before: Document, after: Document) -> tuple[ValueChange, ...]:
    """Comments, order and spacing aside."""
    old = {section.name: section.values() for section in before.sections()}
    new = {section.name: section.values() for section in after.sections()}
    return tuple(
        ValueChange(section, key, was, now)
        for section in (old | new)
        for key in (old.get(section, {}) | new.get(section, {}))
        if (was := old.get(section, {}).get(key)) != (now := new.get(section, {}).get(key))
    )


def text_difference(before: str, after: str, names: tuple[str, str]) -> str:
    """As `diff -u` prints it; empty when nothing changed."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm="")
    return "".join(f"{line}\n" for line in lines)
