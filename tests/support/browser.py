"""What the browser tests and their fixtures share."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from playwright.async_api import Page

PAGES = {"/": "Dashboard", "/models": "Models", "/chat": "Chat"}
"""Path and title."""


class OpenPage(Protocol):
    def __call__(self, url: str, *, quiet: bool = True, **context: Any) -> Awaitable[Page]:
        """A page of its own, loaded and connected. `quiet`: its console must stay empty of errors and warnings."""
