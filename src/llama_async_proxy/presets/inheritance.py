"""What holds for a model after all: the engine's defaults < [*] < its group < its own section. Pure.

A group is our own: a section [group:NAME], and `group = NAME` in a model's section. llama-server knows no groups, so it
is given `flattened` documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

from msgspec import Struct, field

from llama_async_proxy.presets.catalogue import BadValue, Catalogue, default_value, typed
from llama_async_proxy.presets.ini import GLOBAL, Document, IniError, Section
from llama_async_proxy.records.options import OptionValue

GROUP_PREFIX = "group:"
GROUP_KEY = "group"
VERSION_KEY = "version"
"""llama-server keeps it for itself and ignores it."""
MAX_INHERITED = 4000
"""Far beyond what anybody writes, for each takes time in the length of the file."""
OUR_KEYS = frozenset({GROUP_KEY, VERSION_KEY})
"""Keys that are no options."""


class Level(StrEnum):
    DEFAULT = "default"
    GLOBAL = "global"
    GROUP = "group"
    MODEL = "model"


class Inheritance(Struct, frozen=True):
    """Keys are the options' own names; both mappings have the same."""

    values: Mapping[str, OptionValue]
    sources: Mapping[str, Level]
    path: tuple[Level, ...]
    """The levels there are, weakest first."""


class Layers(Struct, frozen=True):
    """What a preset says of one model, level by level, under the options' own names."""

    shared: Mapping[str, OptionValue] = field(default_factory=dict)
    group: Mapping[str, OptionValue] = field(default_factory=dict)
    own: Mapping[str, OptionValue] = field(default_factory=dict)
    has_group: bool = False


def is_group(section: str) -> bool:
    return section.startswith(GROUP_PREFIX)


def is_model(section: str) -> bool:
    return section != GLOBAL and not is_group(section)


def model_sections(document: Document) -> tuple[Section, ...]:
    return tuple(section for section in document.sections() if is_model(section.name))


def layers(document: Document, catalogue: Catalogue, section: str | None) -> Layers:
    """For the model of `section`; None for one that has no section. Values that are none are left out."""
    sections = {found.name: found for found in document.sections()}
    own = sections.get(section) if section is not None else None
    group = own.values().get(GROUP_KEY) if own else None
    return Layers(
        shared=_typed(sections.get(GLOBAL), catalogue),
        group=_typed(sections.get(f"{GROUP_PREFIX}{group}"), catalogue),
        own=_typed(own, catalogue),
        has_group=group is not None,
    )


def inheritance(document: Document, catalogue: Catalogue, section: str) -> Inheritance:
    found = layers(document, catalogue, section)
    values: dict[str, OptionValue] = {}
    sources: dict[str, Level] = {}
    for level, options in (
        (Level.DEFAULT, dict(_defaults(catalogue))),
        (Level.GLOBAL, found.shared),
        (Level.GROUP, found.group),
        (Level.MODEL, found.own),
    ):
        values |= options
        sources |= dict.fromkeys(options, level)
    path = tuple(level for level in Level if level is not Level.GROUP or found.has_group)
    return Inheritance(values, sources, path)


def flattened(document: Document, catalogue: Catalogue) -> Document:
    """The same for llama-server: each model's section says what its group said, and there are no groups.

    Raises IniError for more than MAX_INHERITED values to write out.
    """
    written = 0
    sections = {section.name: section for section in document.sections()}
    for section in model_sections(document):
        group = section.values().get(GROUP_KEY)
        if group is None:
            continue
        document = document.without_value(section.name, GROUP_KEY)
        said = {_name(catalogue, entry.key) for entry in section.entries}
        inherited = sections.get(f"{GROUP_PREFIX}{group}")
        for entry in inherited.entries if inherited else ():
            if _name(catalogue, entry.key) not in said and entry.key not in OUR_KEYS:
                written += 1
                if written > MAX_INHERITED:
                    raise IniError(f"groups give models more than {MAX_INHERITED} values, too many to write out")
                document = document.with_value(section.name, entry.key, entry.value)
    for name in filter(is_group, sections):
        document = document.without_section(name)
    return document


def _name(catalogue: Catalogue, key: str) -> str:
    option = catalogue.find(key)
    return option.name if option else key


def _typed(section: Section | None, catalogue: Catalogue) -> dict[str, OptionValue]:
    """In llama-server's order: of two spellings of one option the alphabetically last counts."""
    values: dict[str, OptionValue] = {}
    for entry in sorted(section.entries, key=lambda entry: entry.key) if section else ():
        option = catalogue.find(entry.key)
        if option is None:
            continue
        try:
            values[option.name] = typed(option, entry.key, entry.value)
        except BadValue:
            continue
    return values


def _defaults(catalogue: Catalogue) -> Iterator[tuple[str, OptionValue]]:
    for option in catalogue.options:
        value = default_value(option)
        if value is not None and not (option.is_reserved or option.is_removed):
            yield option.name, value
