"""The INI document of a preset: what llama-server's router reads, kept byte for byte where nobody changes it. Pure.

    file     lines that end in LF, CRLF or CR; the last one may end without
    header   "[" name "]"           in the first column; a repeated name replaces all the earlier section said
    entry    key "=" value          likewise; key is [A-Za-z_][A-Za-z0-9_.-]*, the last one of a key counts
    comment  ";" or "#" to the end of the line, on a line of its own or after a header or a value

A value ends where a ";" or "#" begins, even inside a word; there are no quotes, escapes or continued lines. Entries
before the first header belong to a section named "default".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

GLOBAL = "*"
"""The section whose entries hold for every model."""
HEADLESS = "default"
"""The section of the entries before the first header."""

_LINE = re.compile(r"([^\r\n]*)(\r\n|\n|\r|\Z)")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_COMMENT_START = re.compile(r"[;#]")
_SPACE = " \t"
_BYTE_ORDER_MARK = "\ufeff"


class IniError(ValueError):
    """`line` and `column` count from 1; both are 0 where a change, not a text, was at fault."""

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"line {line}, column {column}: {problem}" if line else problem)
        self.problem = problem
        self.line = line
        self.column = column


class Line(Struct, frozen=True):
    """One line, `text + newline` as it stands in the file. At most one of `header` and `key` is set."""

    text: str
    newline: str
    header: str | None = None
    key: str | None = None
    value: tuple[int, int] = (0, 0)
    """Where in `text` an entry's value stands."""

    @property
    def value_text(self) -> str:
        return self.text[slice(*self.value)]

    @property
    def is_comment(self) -> bool:
        return self.header is None and self.key is None and bool(self.text.strip(_SPACE))


class Entry(Struct, frozen=True):
    """What a section says of one key, and where its value stands: both count from 1."""

    key: str
    value: str
    line: int
    column: int


class Section(Struct, frozen=True):
    name: str
    entries: tuple[Entry, ...]
    """In the order of the file, each key once: as the last of its kind says."""
    line: int
    """Of the header, from 1; 0 for the entries before the first one."""

    def values(self) -> dict[str, str]:
        return {entry.key: entry.value for entry in self.entries}


class Document(Struct, frozen=True):
    """Immutable: a change makes another document. `parse(text).render() == text`, always."""

    lines: tuple[Line, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises IniError at the first place that llama-server would refuse."""
        if text.startswith(_BYTE_ORDER_MARK):
            raise IniError("the file begins with a byte order mark; save it as UTF-8 without one", 1, 1)
        matches = [match for match in _LINE.finditer(text) if match[0]]
        return cls(tuple(_parse_line(match[1], match[2], number) for number, match in enumerate(matches, 1)))

    def render(self) -> str:
        return "".join(line.text + line.newline for line in self.lines)

    # --- reading ----------------------------------------------------------------------------------

    def sections(self) -> tuple[Section, ...]:
        """In the order of the file, each name once: as the last of its kind says, at its place."""
        found: dict[str, Section] = {}
        for name, first, last in self._blocks():
            entries = {
                line.key: Entry(line.key, line.value_text, number, line.value[0] + 1)
                for number, line in enumerate(self.lines[first:last], first + 1)
                if line.key is not None
            }
            if name == HEADLESS and self._is_headless(first) and not entries.keys() - {"version"}:
                continue
            found.pop(name, None)
            found[name] = Section(name, tuple(entries.values()), 0 if self._is_headless(first) else first + 1)
        return tuple(found.values())

    def section(self, name: str) -> Section | None:
        return next((section for section in self.sections() if section.name == name), None)

    def note(self, field: str) -> str | None:
        """The text of `; field: text` among the comments the file begins with."""
        at = self._note_at(field)
        return None if at is None else self.lines[at].text.partition(":")[2].strip()

    # --- changing ---------------------------------------------------------------------------------

    def with_value(self, section: str, key: str, value: str) -> Self:
        """Set one value; nothing but its line changes. Makes the section where there is none.

        Raises IniError for what could not be read back as it was given.
        """
        _check_key(key)
        _check_value(key, value)
        block = self._block(section)
        if block is None:
            return self.with_section(section).with_value(section, key, value)
        first, last = block
        places = [at for at in range(first, last) if self.lines[at].key == key]
        if places:
            at = places[-1]
            return self._with_lines(at, at + 1, (_with_value(self.lines[at], value),))
        at = self._end_of_entries(first, last)
        text = f"{key} = {value}" if value else f"{key} ="
        return self._ended(at)._with_lines(at, at, (_parse_line(text, self._newline, at + 1),))

    def without_value(self, section: str, key: str) -> Self:
        """Remove every entry of the key, for an earlier one would count once the last is gone."""
        block = self._block(section)
        if block is None:
            return self
        kept = tuple(line for line in self.lines[slice(*block)] if line.key != key)
        return self._with_lines(*block, kept)

    def with_section(self, name: str) -> Self:
        """Append an empty section; nothing happens where it exists. Raises IniError for a name that cannot be one."""
        if self._block(name) is not None:
            return self
        _check_section(name)
        end = len(self.lines)
        gap = () if not self.lines or not self.lines[-1].text.strip() else (Line("", self._newline),)
        header = Line(f"[{name}]", self._newline, header=name)
        return self._ended(end)._with_lines(end, end, (*gap, header))

    def without_section(self, name: str) -> Self:
        """Remove a section with the comments that lead it, and every earlier one of that name.

        What follows its entries after a blank line stays: it leads the next section.
        """
        document = self
        while (block := document._block(name)) is not None:
            first, last = block
            document = document._with_lines(document._lead(first), document._tail(first, last), ())
        return document

    def with_section_values(self, name: str, values: Mapping[str, str]) -> Self:
        """The section with just these values; comments, and the places of keys that stay, are kept."""
        document = self.with_section(name)
        section = document.section(name)
        for entry in section.entries if section else ():
            if entry.key not in values:
                document = document.without_value(name, entry.key)
        for key, value in values.items():
            document = document.with_value(name, key, value)
        return document

    def with_note(self, field: str, text: str | None) -> Self:
        """Set, or with None remove, `; field: text` among the comments the file begins with. Raises IniError."""
        if text is not None and re.search(r"[\r\n]", text):
            raise IniError(f"the {field} must be one line")
        at = self._note_at(field)
        new = () if not text else (Line(f"; {field}: {text}", self._newline),)
        if at is not None:
            return self._with_lines(at, at + 1, new)
        end = len(list(self._leading_comments()))
        return self._ended(end)._with_lines(end, end, new)

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _newline(self) -> str:
        return next((line.newline for line in self.lines if line.newline), "\n")

    def _with_lines(self, first: int, last: int, new: Iterable[Line]) -> Self:
        lines = [*self.lines[:first], *new]
        seams = (first - 1, len(lines) - 1)
        lines += self.lines[last:]
        for at in seams:
            # A CR that comes to stand before an LF would make one line end with it.
            if 0 <= at < len(lines) - 1 and (lines[at].newline, lines[at + 1].text + lines[at + 1].newline) == (
                "\r",
                "\n",
            ):
                lines[at] = replace(lines[at], newline="\r\n")
        return replace(self, lines=tuple(lines))

    def _ended(self, at: int) -> Self:
        """The same with the line before `at` ended, so that another can follow."""
        if at == 0 or self.lines[at - 1].newline:
            return self
        return self._with_lines(at - 1, at, (replace(self.lines[at - 1], newline=self._newline),))

    def _blocks(self) -> Iterator[tuple[str, int, int]]:
        """(name, first line, line after the last) of each section; a header is its first line."""
        heads = [at for at, line in enumerate(self.lines) if line.header is not None]
        starts = [0, *heads] if heads[:1] != [0] else heads
        for first, last in zip(starts, [*starts[1:], len(self.lines)], strict=True):
            if first < last:
                yield self.lines[first].header or HEADLESS, first, last

    def _block(self, name: str) -> tuple[int, int] | None:
        """Of the last section of that name, the one that counts."""
        found = [
            (first, last)
            for block, first, last in self._blocks()
            if block == name and not (self._is_headless(first) and not self._has_entries(first, last))
        ]
        return found[-1] if found else None

    def _has_entries(self, first: int, last: int) -> bool:
        return any(line.key not in (None, "version") for line in self.lines[first:last])

    def _is_headless(self, first: int) -> bool:
        return self.lines[first].header is None

    def _end_of_entries(self, first: int, last: int) -> int:
        """After the last entry, or the header, of a section: before the blank lines and comments that follow."""
        return next(
            (at + 1 for at in range(last - 1, first - 1, -1) if self.lines[at].key or self.lines[at].header), first
        )

    def _lead(self, header: int) -> int:
        """Where the comments directly above a header begin, unless they follow an entry or begin the file."""
        at = header
        while at > 0 and self.lines[at - 1].is_comment:
            at -= 1
        return at if at > 0 and not self.lines[at - 1].text.strip(_SPACE) else header

    def _tail(self, first: int, last: int) -> int:
        """Where what stands in a section, but after a blank line behind its entries, begins."""
        if last == len(self.lines):
            return last
        places = range(self._end_of_entries(first, last), last)
        return next((at + 1 for at in places if not self.lines[at].text.strip(_SPACE)), last)

    def _leading_comments(self) -> Iterator[int]:
        for at, line in enumerate(self.lines):
            if not line.is_comment:
                return
            yield at

    def _note_at(self, field: str) -> int | None:
        note = re.compile(rf"[ \t]*[;#][ \t]*{re.escape(field)}[ \t]*:.*", re.IGNORECASE | re.DOTALL)
        return next((at for at in self._leading_comments() if note.fullmatch(self.lines[at].text)), None)


# --- lines ----------------------------------------------------------------------------------------


def _parse_line(text: str, newline: str, number: int) -> Line:
    # By hand where a regular expression could take quadratic time on a stranger's file.
    if not text.strip(_SPACE) or _COMMENT_START.match(text.lstrip(_SPACE)):
        return Line(text, newline)
    if text[0] == "[":
        closing = text.find("]")
        name, rest = text[1:closing].lstrip(_SPACE), text[closing + 1 :].lstrip(_SPACE)
        if closing > 0 and name and (not rest or _COMMENT_START.match(rest)):
            return Line(text, newline, header=name)
    if match := _ASSIGNMENT.match(text):
        comment = _COMMENT_START.search(text, match.end())
        value = text[match.end() : comment.start() if comment else len(text)].rstrip(_SPACE)
        return Line(text, newline, key=match[1], value=(match.end(), match.end() + len(value)))
    raise _error(text, number)


def _error(text: str, number: int) -> IniError:
    """What is wrong with a line that is none of the known kinds."""
    if text[0] in _SPACE:
        column = len(text) - len(text.lstrip(_SPACE)) + 1
        return IniError("keys and sections must begin in the first column; remove the spaces before it", number, column)
    if text[0] == "[":
        closing = text.find("]")
        if closing < 0:
            return IniError("the section's name is not closed by ']'", number, len(text) + 1)
        if not text[1:closing].strip(_SPACE):
            return IniError("the section has no name", number, 2)
        return IniError("nothing but a comment may follow a section's name", number, closing + 2)
    key = _KEY.match(text)
    if key is None:
        hint = "; write it without dashes" if text[0] == "-" else ""
        return IniError(f"a key must begin with a letter{hint}", number, 1)
    if "=" not in text[key.end() :]:
        return IniError(f"{key[0]!r} has no '=' and no value", number, key.end() + 1)
    column = len(text) - len(text[key.end() :].lstrip(_SPACE)) + 1
    return IniError("a key has only letters, digits, '_', '.' and '-'", number, column)


def _with_value(line: Line, value: str) -> Line:
    first, last = line.value
    # Two things would run together where the value was empty.
    before = " " if first == last and value and line.text[:first].endswith("=") else ""
    after = " " if first == last and value and line.text[last:].lstrip(_SPACE) == line.text[last:] != "" else ""
    return _parse_line(line.text[:first] + before + value + after + line.text[last:], line.newline, 0)


def _check_key(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise IniError(f"{key!r} cannot be a key: only letters, digits, '_', '.' and '-', and no leading dashes")


def _check_value(key: str, value: str) -> None:
    for character, name in ((";", "';'"), ("#", "'#'"), ("\n", "a line break"), ("\r", "a line break")):
        if character in value:
            raise IniError(f"the value of {key} contains {name}, and a preset has no way to write that")
    if value != value.strip(_SPACE):
        raise IniError(f"the value of {key} begins or ends with a space, which would be lost")


def _check_section(name: str) -> None:
    if not name.strip() or name != name.strip() or re.search(r"[\]\r\n]", name):
        raise IniError(f"{name!r} cannot be the name of a section: one line without ']' or spaces around it")
