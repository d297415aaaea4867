"""A real Chromium on a real service. Every page is checked at its end for what it complained about in the console."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from support.browser import OpenPage

FRONTEND = Path(__file__).parents[2] / "frontend"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
VIOLATIONS = """async () => (await axe.run()).violations.map(
    (v) => v.id + ": " + v.nodes.map((n) => n.html + " " + n.failureSummary).join(" | ")
)"""


SETTLED = """() => Promise.allSettled(
    document.getAnimations()
        .filter((animation) => animation.effect.getComputedTiming().endTime !== Infinity)
        .map((animation) => animation.finished)
).then(() => null)"""


@pytest.fixture(scope="session")
def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium: run tests/setup.sh, or set CHROMIUM to its path")
    return found


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
async def open_page(browser: Browser) -> AsyncIterator[OpenPage]:
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"{message.type}: {message.text}")

    async def open_one(url: str, *, quiet: bool = True, **context: Any) -> Page:
        page = await (await browser.new_context(**context)).new_page()
        if quiet:
            page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
        await page.goto(url)
        await page.get_by_role("link", name="Connected").wait_for()
        return page

    yield open_one
    assert complaints == []


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The UI's packages with those for tests, installed anew only when the lock file changed."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no Node.js on PATH")
    modules, lock = FRONTEND / "node_modules", FRONTEND / "package-lock.json"
    installed = modules / ".package-lock.json"
    has_tests = (modules / "axe-core").is_dir()
    if not has_tests or installed.stat().st_mtime < lock.stat().st_mtime:
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=FRONTEND, check=True, capture_output=True)
    return modules


@pytest.fixture
def violations(node_modules: Path) -> Callable[[Page], Awaitable[list[str]]]:
    """What axe-core finds wrong with a page as it is now."""
    axe = (node_modules / "axe-core" / "axe.min.js").read_text()

    async def find(page: Page) -> list[str]:
        # Through the debugger, as the page's own policy forbids foreign scripts.
        await page.evaluate(axe)
        # What is still fading in has not the contrast it will have.
        await page.evaluate(SETTLED)
        found: list[str] = await page.evaluate(VIOLATIONS)
        return found

    return find
