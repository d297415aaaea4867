"""Writes the parts of docs/ that follow from the code: settings.md, cli.md, openapi.json.

`python docs/generate.py` rewrites them; tests/test_docs.py fails when one is stale.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from llama_async_proxy.cli import build_parser
from llama_async_proxy.doors.rest import create_rest
from llama_async_proxy.settings import SETTINGS, Setting

DIRECTORY = Path(__file__).parent


def settings_page() -> str:
    """The table of settings, in the order of declaration."""
    head = """# Settings

Each setting has one meaning and several names. Precedence at start: command line, then environment, then
`llama-server-config.json` in the data directory, then the default. A change at run time is written to the file and,
unless the last column says restart, holds at once; `llama-async-proxy doctor` shows every value and its source.

| setting | command line | environment | file key | default | takes effect |
|---|---|---|---|---|---|
"""
    rows = "".join(_row(s) for s in SETTINGS)
    notes = "".join(f"- **{s.name}**: {s.help}{_limits(s)}\n" for s in SETTINGS)
    return f"{head}{rows}\n{notes}"


def _row(setting: Setting) -> str:
    environment = ", ".join(f"`{name}`" for name in setting.env_names)
    keys = ", ".join(f"`{key}`" for key in (setting.file_key, *setting.aliases))
    default = "" if setting.default in ("", None, ()) else f"`{setting.default}`"
    flag = f"`{setting.flag}`" if setting.flag else ""
    effect = "restart" if setting.restart else "at once"
    return f"| {setting.name} | {flag} | {environment} | {keys} | {default} | {effect} |\n"


def _limits(setting: Setting) -> str:
    if setting.choices:
        return f" One of {', '.join(setting.choices)}."
    if setting.minimum is not None and setting.maximum is not None:
        return f" From {setting.minimum:g} to {setting.maximum:g}."
    return ""


def cli_page() -> str:
    """What `--help` says, of every command."""
    os.environ["COLUMNS"] = "110"
    pages = "".join(f"\n## {p.prog}\n\n```\n{p.format_help()}```\n" for p in _with_subcommands(build_parser()))
    return f"# Command line\n{pages}"


def _with_subcommands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    found = [parser]
    for action in parser._subparsers._group_actions if parser._subparsers else ():
        for choice in action.choices.values() if isinstance(action.choices, Mapping) else ():
            found += _with_subcommands(choice)
    return found


def openapi() -> str:
    """The OpenAPI document of /api."""

    def no_services() -> object:
        raise AssertionError("the document needs no running service")

    document = create_rest(no_services).openapi()  # type: ignore[arg-type]
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {"settings.md": settings_page, "cli.md": cli_page, "openapi.json": openapi}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (DIRECTORY / name).write_text(make())
        print(f"wrote docs/{name}")
