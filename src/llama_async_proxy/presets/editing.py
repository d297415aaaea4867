"""Changing a preset by section, key and value, whatever spelling its file uses for them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from llama_async_proxy.presets.catalogue import BadValue, Catalogue, as_text, typed
from llama_async_proxy.presets.inheritance import OUR_KEYS
from llama_async_proxy.presets.ini import Document, IniError
from llama_async_proxy.records.options import OptionValue

Config: TypeAlias = Mapping[str, Mapping[str, OptionValue]]
"""Values by section and key."""
MAX_VALUES = 4000
"""Of a whole configuration; far beyond what anybody writes, for each takes time in the length of the file."""
Changes: TypeAlias = Mapping[str, OptionValue | None]
"""New values by key; None removes one."""


def with_config(document: Document, config: Config, catalogue: Catalogue) -> Document:
    """The document with just these sections and values; comments, and the places of what stays, are kept.

    Raises IniError for what a preset cannot say, and for more than MAX_VALUES sections and values.
    """
    if len(config) + sum(map(len, config.values())) > MAX_VALUES:
        raise IniError(f"a preset must not have more than {MAX_VALUES} sections and values")
    for section in document.sections():
        if section.name not in config:
            document = document.without_section(section.name)
    for name, values in config.items():
        document = document.with_section(name)
        spelled = _spelled(document, name, values, catalogue)
        document = document.with_section_values(name, {k: v for k, v in spelled.items() if v is not None})
    return document


def merged(document: Document, section: str, changes: Changes, catalogue: Catalogue) -> Document:
    """The document with some values of one section changed. Raises IniError."""
    document = document.with_section(section)
    for key, text in _spelled(document, section, changes, catalogue).items():
        document = document.without_value(section, key) if text is None else document.with_value(section, key, text)
    return document


def typed_config(document: Document, catalogue: Catalogue) -> dict[str, dict[str, OptionValue]]:
    """Every section's values as what they mean, by the keys as they are written; what means nothing stays text."""
    return {
        section.name: {entry.key: _meaning(entry.key, entry.value, catalogue) for entry in section.entries}
        for section in document.sections()
    }


def _meaning(key: str, text: str, catalogue: Catalogue) -> OptionValue:
    option = catalogue.find(key)
    if option is None:
        return text
    try:
        # A key that turns a switch off keeps its own sense here: no-warmup = true is true.
        return typed(option, option.name, text)
    except BadValue:
        return text


def _spelled(document: Document, section: str, changes: Changes, catalogue: Catalogue) -> dict[str, str | None]:
    """`changes` as text under the keys that the section has for the same options already."""
    found = document.section(section)
    present = found.values() if found else {}
    spellings: dict[str, list[str]] = {}
    for written_key in present:
        option = catalogue.find(written_key)
        spellings.setdefault(option.name if option else written_key, []).append(written_key)
    result: dict[str, str | None] = {}
    for key, value in changes.items():
        option = catalogue.find(key)
        written = spellings.get(option.name if option else key, [])
        # More than one spelling of an option would quarrel about the value.
        result.update(dict.fromkeys(written[:-1]))
        as_written = written[-1] if written else key
        old = present.get(as_written)
        text = None if value is None else _text(key, value, as_written, catalogue)
        if text is not None and old is not None and _mean_the_same(as_written, text, old, catalogue):
            text = old  # "on" stays "on" where true is asked for
        result[as_written] = text
    return result


def _mean_the_same(key: str, text: str, other: str, catalogue: Catalogue) -> bool:
    return _meaning(key, text, catalogue) == _meaning(key, other, catalogue)


def _text(key: str, value: OptionValue, as_written: str, catalogue: Catalogue) -> str:
    text = as_text(value)
    if key in OUR_KEYS or key == as_written:
        return text
    option = catalogue.find(key)
    if option is None or (key in option.negatives) is (as_written in option.negatives):
        return text
    try:
        return as_text(not typed(option, option.name, text))
    except BadValue as exc:
        raise IniError(f"{key} {exc}") from exc
