"""Addresses of the web UI's pages, made by clients/generate.py from its pages.ts; `:id` is a number."""

from __future__ import annotations

PAGES = frozenset(
    {
        "/",
        "/dashboard",
        "/chat",
        "/chat/:id",
        "/models",
    }
)
