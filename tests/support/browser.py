"""What the browser tests and their fixtures share."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Protocol

from playwright.async_api import Page

PAGE_TABLE = Path(__file__).parents[2] / "frontend" / "src" / "app" / "pages.ts"
PAGES = dict(re.findall(r'paths: \["([^"]+)".*\],\n    label: "(.+)",', PAGE_TABLE.read_text()))
"""First path and title of every page of the UI."""


class OpenPage(Protocol):
    def __call__(self, url: str, *, quiet: bool = True, **context: Any) -> Awaitable[Page]:
        """A page of its own, loaded and connected. `quiet`: its console must stay empty of errors and warnings."""
