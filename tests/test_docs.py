from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TYPES = "../clients/typescript/src/events"


@pytest.mark.parametrize(
    "page", ["settings.md", "cli.md", "openapi.json", "events.md", f"{TYPES}-v1.ts", f"{TYPES}-ack.ts"]
)
def test_generated_pages_are_fresh(page: str) -> None:
    assert (DOCS / page).read_text() == _generator().PAGES[page](), "run: make docs"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda p: p.relative_to(DOCS).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_decision_is_listed() -> None:
    listed = set(re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", (DOCS / "decisions/README.md").read_text()))
    assert listed == {p.name for p in (DOCS / "decisions").glob("[0-9]*.md")}
