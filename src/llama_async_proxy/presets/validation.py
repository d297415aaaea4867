"""What the engine would refuse in a preset, found before it is asked. Pure.

One unknown key keeps llama-server's whole router from starting, and a value is looked at only when the model is loaded.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import PurePath

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.presets.catalogue import BadValue, Catalogue, typed
from llama_async_proxy.presets.inheritance import GROUP_KEY, GROUP_PREFIX, VERSION_KEY, is_group, is_model
from llama_async_proxy.presets.ini import GLOBAL, Document, Entry, IniError, Section
from llama_async_proxy.presets.option_limits import doubt
from llama_async_proxy.records.options import EngineOption

MAX_PROBLEMS = 100
MAX_TEXT_BYTES = 256 << 10
MAX_SECTIONS = 1000
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._ -]{0,62}[A-Za-z0-9_-])?")
_EXTENSION = ".ini"


class ProblemKind(StrEnum):
    INVALID = "invalid"
    """The engine would refuse it."""
    OWNER = "owner"
    """Only the owner of the machine may say it, in the file on disk."""


class Problem(Struct, frozen=True):
    """`line` and `column` count from 1; 0 where the problem is not at one place."""

    message: str
    section: str = ""
    key: str = ""
    line: int = 0
    column: int = 0
    kind: ProblemKind = ProblemKind.INVALID

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line else ""
        return f"{place}[{self.section}] {self.message}" if self.section else f"{place}{self.message}"


class Verdict(Struct, frozen=True):
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def checked_name(name: str, field: str = "filename") -> str:
    """The name of a preset, without `.ini`. Raises InvalidInput for one that no preset can have."""
    bare = name.removesuffix(_EXTENSION)
    if not _NAME.fullmatch(bare):
        raise InvalidInput(
            field,
            "must be 1 to 64 letters, digits, spaces, '.', '_' or '-', beginning with a letter or digit and not ending "
            f"with a space or '.', not {name[:80]!r}",
        )
    return bare


def check_text(text: str, catalogue: Catalogue) -> Verdict:
    """Of a file's whole text."""
    if len(text.encode(errors="surrogatepass")) > MAX_TEXT_BYTES:
        return Verdict((Problem(f"A preset must not be larger than {MAX_TEXT_BYTES >> 10} KiB."),))
    try:
        return check(Document.parse(text), catalogue)
    except IniError as exc:
        return Verdict((Problem(exc.problem, line=exc.line, column=exc.column),))


def check(document: Document, catalogue: Catalogue) -> Verdict:
    sections = document.sections()
    if len(sections) > MAX_SECTIONS:
        return Verdict((Problem(f"A preset must not have more than {MAX_SECTIONS} sections."),))
    names = {section.name for section in sections}
    found = (problem for section in sections for problem in _errors(section, names, catalogue))
    warnings = (problem for section in sections for problem in _warnings(section, catalogue))
    more = (*_repeated(document), *_unused(sections), *_shared_files(sections))
    return Verdict(tuple(islice(found, MAX_PROBLEMS)), tuple(islice((*warnings, *more), MAX_PROBLEMS)))


# --- errors ---------------------------------------------------------------------------------------


def _errors(section: Section, names: set[str], catalogue: Catalogue) -> Iterator[Problem]:
    for entry in section.entries:
        if entry.key == VERSION_KEY:
            continue
        fault = _group_fault(section, entry, names) if entry.key == GROUP_KEY else _fault(entry, catalogue)
        if fault is not None:
            message, at_value = fault
            yield Problem(message, section.name, entry.key, entry.line, entry.column if at_value else 1)


def _fault(entry: Entry, catalogue: Catalogue) -> tuple[str, bool] | None:
    """(what is wrong, whether with the value rather than the key)."""
    option = catalogue.find(entry.key)
    if option is None:
        similar = catalogue.similar(entry.key)
        hint = f"; did you mean {', '.join(similar)}?" if similar else ""
        return f"{entry.key} is not an option of the installed engine{hint}", False
    if option.is_removed:
        return f"{entry.key}: {option.description}", False
    if _takes_two_values(option):
        return f"{entry.key} takes two values, and presets can give only one", False
    try:
        typed(option, entry.key, entry.value)
    except BadValue as exc:
        return f"{entry.key} {exc}", True
    return None


def _takes_two_values(option: EngineOption) -> bool:
    return option.hint is not None and re.fullmatch(r"[A-Z]+ [A-Z]+", option.hint) is not None


def _group_fault(section: Section, entry: Entry, names: set[str]) -> tuple[str, bool] | None:
    if not is_model(section.name):
        return "only a model's section can belong to a group", False
    if f"{GROUP_PREFIX}{entry.value}" not in names:
        return f"there is no section [{GROUP_PREFIX}{entry.value}]", True
    return None


# --- warnings -------------------------------------------------------------------------------------


def _warnings(section: Section, catalogue: Catalogue) -> Iterator[Problem]:
    spellings = Counter(option.name for entry in section.entries if (option := catalogue.find(entry.key)))
    for entry in section.entries:
        option = catalogue.find(entry.key)
        if option is None:
            continue
        for message in _doubts(section, entry, option):
            yield Problem(message, section.name, entry.key, entry.line, 1)
        if spellings[option.name] > 1:
            message = f"{option.name} is set {spellings[option.name]} times; the spelling that sorts last counts"
            yield Problem(message, section.name, entry.key, entry.line, 1)


def _doubts(section: Section, entry: Entry, option: EngineOption) -> Iterator[str]:
    if option.name == "model":
        if not is_model(section.name):
            yield "model belongs into a section of its own, not into one that others inherit"
        elif not PurePath(entry.value).is_absolute():
            yield "model is a relative path; it is looked for in the models directory"
    elif option.is_reserved:
        yield f"{entry.key} is the service's own business and is ignored"
    else:
        with contextlib.suppress(BadValue):
            if unusual := doubt(option.name, typed(option, entry.key, entry.value)):
                yield f"{entry.key} {unusual}"


def _repeated(document: Document) -> Iterator[Problem]:
    """llama-server takes a later section of the same name instead of the earlier one, not in addition to it."""
    headers = Counter(line.header for line in document.lines if line.header is not None)
    for number, line in enumerate(document.lines, 1):
        if line.header is not None and headers[line.header] > 1:
            headers[line.header] -= 1
            yield Problem("is replaced by a later section of the same name", line.header, line=number, column=1)


def _unused(sections: tuple[Section, ...]) -> Iterator[Problem]:
    used = {section.values().get(GROUP_KEY) for section in sections}
    for section in sections:
        if is_group(section.name) and section.name.removeprefix(GROUP_PREFIX) not in used:
            yield Problem("no model belongs to this group", section.name, line=section.line, column=1)


def _shared_files(sections: tuple[Section, ...]) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for section in sections:
        path = section.values().get("model")
        if path is None or section.name == GLOBAL or is_group(section.name):
            continue
        owner = owners.setdefault(path, section.name)
        if owner != section.name:
            message = f"has the same file as [{owner}]: both names lead to one process, with the options of [{owner}]"
            yield Problem(message, section.name, "model", section.line, 1)
