"""Docstrings and comments begin with a subject or a verb, so that one reading is enough."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "llama_async_proxy"
FRONTEND = ROOT / "frontend" / "src"
# A pronoun or a fragment at the beginning sends the reader looking for what it stands for.
OPENERS = re.compile(r"(Of|What|Who|Whose|It|Its|They|Them|That|Nothing|Nobody|Else|Again|Where|Whether)(?![\w'-])")
SCRIPT_COMMENT = re.compile(
    r"(?P<quoted>\"(?:\\.|[^\"\\\n])*\"|`(?:\\.|[^`\\])*`)|/\*+(?P<block>.*?)\*/|<!--(?P<html>.*?)-->|(?<![:\w/])//(?P<line>[^\n]*)",
    re.DOTALL,
)
# Rooms that are not rewritten yet. The list only becomes shorter.
EXEMPT = {
    "api/http",
    "api/inference",
    "api/rest",
    "client",
    "gguf",
    "monitor",
    "operations",
    "presets",
    "records",
    "settings.py",
}


def python_prose(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, and of every comment (lines of comment below one another are one)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()
    above = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        own_line = token.line.lstrip().startswith("#")
        if not (own_line and above == line - 1):
            yield line, token.string.lstrip("#: ")
        above = line if own_line else 0


def script_prose(source: str) -> Iterator[tuple[int, str]]:
    """The same for TypeScript and Svelte."""
    above = 0
    for match in SCRIPT_COMMENT.finditer(source):
        if match["quoted"]:
            continue
        line = source.count("\n", 0, match.start()) + 1
        own_line = not source[source.rfind("\n", 0, match.start()) + 1 : match.start()].strip()
        text = match["line"] if match["line"] is not None else match["block"] or match["html"] or ""
        single = match["line"] is not None
        if not (single and own_line and above == line - 1):
            yield line, text.strip(" *\n")
        above = line if single and own_line else 0


def room(path: Path) -> str:
    """`engines`, `inference/scheduling`, `frontend/chat`, or `app.py` for a file beside the rooms."""
    inside = path.relative_to(FRONTEND if path.is_relative_to(FRONTEND) else PACKAGE)
    name = inside.parent.as_posix() if len(inside.parts) > 1 else inside.name
    return f"frontend/{name}" if path.is_relative_to(FRONTEND) else name


def files() -> list[Path]:
    scripts = (p for p in FRONTEND.rglob("*") if p.suffix in {".ts", ".svelte"})
    return sorted([*PACKAGE.rglob("*.py"), *scripts])


def riddles(path: Path) -> list[str]:
    prose = python_prose if path.suffix == ".py" else script_prose
    found = sorted((line, text) for line, text in prose(path.read_text()) if OPENERS.match(text))
    return [f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0][:80]}" for line, text in found]


@pytest.mark.parametrize("name", sorted({room(path) for path in files()} - EXEMPT))
def test_prose_begins_with_a_subject(name: str) -> None:
    assert [riddle for path in files() if room(path) == name for riddle in riddles(path)] == []


@pytest.mark.parametrize(
    "source",
    ['"""Of the last one."""', "def f():\n    '''What is left.'''", "x = 1  # It stays.", "x = 1\n'''Whose key.'''"],
)
def test_riddles_of_python_are_found(source: str) -> None:
    assert any(OPENERS.match(text) for _, text in python_prose(source))


def test_later_lines_and_sentences_may_begin_with_a_pronoun() -> None:
    source = '"""Head of the last one. It stays."""\n# The head stays.\n# It is bytes.\nx = 1  # whether\n# Offer'
    assert not any(OPENERS.match(text) for _, text in python_prose(source))


@pytest.mark.parametrize(
    "source", ["/** What goes. */", "/**\n * Of all.\n */", "let x; // It stays", "<!-- Who -->", "// The\nx\n// Its"]
)
def test_riddles_of_scripts_are_found(source: str) -> None:
    assert any(OPENERS.match(text) for _, text in script_prose(source))


def test_addresses_and_quoted_text_are_not_comments() -> None:
    source = '"// It"; `// What`; x("http://Of"); // The\n\n// The\n// It goes on\n/* Whole */'
    assert not any(OPENERS.match(text) for _, text in script_prose(source))
