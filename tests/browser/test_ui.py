from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, Route, expect

from support.browser import PAGES, OpenPage
from support.service import RunningService, ServiceFactory

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}
Violations = Callable[[Page], Awaitable[list[str]]]


def row(page: Page, model: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=re.compile(rf"^{model}\b")))


def make_unloaded(service: RunningService, slug: str) -> None:
    """Whatever an earlier test left. A model that is unloaded already is refused, which is as good."""
    status, _ = service.call("POST", f"/api/models/{slug}/unload")
    assert status in (200, 409)


async def choose(page: Page, slug: str) -> None:
    await page.get_by_role("combobox", name="Model").select_option(slug)


async def ask(page: Page, question: str) -> None:
    await page.get_by_role("textbox", name="Message").fill(question)
    await page.keyboard.press("Enter")


def answer(page: Page) -> Locator:
    return page.get_by_role("article", name="Assistant").last


async def sideways(page: Page) -> int:
    """How many pixels the page can be scrolled to the side."""
    extra: int = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return extra


# --- doing things -----------------------------------------------------------------------------------------------------


async def test_model_is_loaded_asked_and_unloaded(service: RunningService, open_page: OpenPage) -> None:
    make_unloaded(service, "chat")
    page = await open_page(f"{service.url}/models")
    chat = row(page, "chat")
    await expect(chat).to_contain_text("Unloaded")
    await page.get_by_role("button", name="Load chat", exact=True).click()
    await expect(chat).to_contain_text("Ready", timeout=30_000)

    await page.get_by_role("link", name="Chat", exact=True).click()
    await expect(page).to_have_url(f"{service.url}/chat")
    await choose(page, "chat")
    await ask(page, "Tell me a story")
    await expect(answer(page)).to_contain_text(re.compile(r"\d+ tokens · [\d.]+ tokens/s · [\d.]+ m?s"), timeout=30_000)
    await expect(page.get_by_role("status").filter(has_text="Answer complete")).to_have_count(1)

    await page.get_by_role("link", name="Dashboard", exact=True).click()
    await expect(page.get_by_role("row").filter(has_text="/api/chat").first).to_contain_text("OK")
    await page.get_by_role("button", name="Unload chat").click()
    await expect(page.get_by_role("button", name="Unload chat")).to_have_count(0, timeout=15_000)
    await page.get_by_role("link", name="Models", exact=True).click()
    await expect(row(page, "chat")).to_contain_text("Unloaded")


async def test_unloaded_model_is_loaded_by_the_first_prompt_and_escape_stops_the_answer(
    service: RunningService, open_page: OpenPage
) -> None:
    make_unloaded(service, "slow")
    page = await open_page(f"{service.url}/chat")
    await choose(page, "slow")
    await expect(page.get_by_text("slow is loaded when you send.")).to_be_visible()
    await ask(page, "Never stop")
    await expect(answer(page).locator(".prose")).to_contain_text(re.compile(r"\w+ \w+"), timeout=30_000)
    await page.keyboard.press("Escape")
    await expect(answer(page)).to_contain_text("Stopped")
    # The engine was told, too: nothing runs on.
    await page.get_by_role("link", name="Dashboard", exact=True).click()
    await expect(page.get_by_text("0 in flight")).to_be_visible(timeout=10_000)


async def test_reader_who_scrolled_up_stays_there_while_text_grows(
    service: RunningService, open_page: OpenPage
) -> None:
    page = await open_page(f"{service.url}/chat", viewport={"width": 340, "height": 480})
    await choose(page, "slow")
    await ask(page, "Never stop")
    thread = page.get_by_role("region", name="Conversation")
    overflow = "(e) => e.scrollHeight - e.clientHeight"
    while await thread.evaluate(overflow) < 120:
        await asyncio.sleep(0.1)
    assert await thread.evaluate("(e) => e.scrollHeight - e.scrollTop - e.clientHeight") < 60

    await thread.evaluate("(e) => { e.scrollTop = 20; }")
    pill = page.get_by_role("button", name="New text")
    await expect(pill).to_be_visible()
    before = await thread.evaluate(overflow)
    while await thread.evaluate(overflow) < before + 24:
        await asyncio.sleep(0.1)
    assert await thread.evaluate("(e) => e.scrollTop") == 20

    await pill.click()
    await expect(pill).to_have_count(0)
    await page.get_by_role("button", name="Stop").click()
    await expect(answer(page)).to_contain_text("Stopped")


async def test_failed_load_says_why_and_what_to_do(service: RunningService, open_page: OpenPage) -> None:
    path = Path(service.models_dir) / "embed.gguf"
    whole = path.read_bytes()
    page = await open_page(f"{service.url}/models")
    try:
        path.write_bytes(whole[: len(whole) // 2])
        await page.get_by_role("button", name="Load embed", exact=True).click()
        await expect(row(page, "embed")).to_contain_text("Failed", timeout=30_000)
        await page.get_by_text("Why, and what to do").click()
        await expect(page.get_by_text("The file cannot be read.")).to_be_visible()
        await expect(page.get_by_role("region", name="Last lines of its log")).to_be_visible()
    finally:
        path.write_bytes(whole)


async def test_failed_answer_says_why_and_can_be_retried(service: RunningService, open_page: OpenPage) -> None:
    page = await open_page(service.url, quiet=False)  # Chromium reports every 503 in the console
    service.call("POST", "/api/models/chat/start")
    await expect(page.get_by_role("button", name="Unload chat")).to_be_visible(timeout=30_000)
    await page.get_by_role("button", name="Stop", exact=True).click()
    dialog = page.get_by_role("dialog", name="Stop the engine?")
    await expect(dialog).to_contain_text(re.compile(r"This unloads \d models? and cancels"))
    await dialog.get_by_role("button", name="Stop").click()
    await expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible(timeout=15_000)
    await page.get_by_role("link", name="Chat", exact=True).click()
    await choose(page, "chat")
    await ask(page, "Hello")
    await expect(page.get_by_role("alert")).to_contain_text("Start the engine")
    service.call("POST", "/api/llama-server/start")
    await page.get_by_role("button", name="Retry").click()
    await expect(answer(page)).to_contain_text("tokens/s", timeout=30_000)
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_models_are_filtered_and_sorted_by_the_address(service: RunningService, open_page: OpenPage) -> None:
    page = await open_page(f"{service.url}/models?q=chat&sort=-size")
    names = page.get_by_role("rowheader")
    await expect(names).to_have_text([re.compile("^slow"), re.compile("^chat")])
    await page.get_by_role("searchbox").fill("no such model")
    await expect(page.get_by_text("No model matches “no such model”.")).to_be_visible()
    await page.get_by_role("button", name="Clear filter").click()
    await expect(names).to_have_count(4)
    await expect(page).to_have_url(f"{service.url}/models?sort=-size")


# --- by keyboard and for everyone -------------------------------------------------------------------------------------


async def test_everything_is_reached_by_keyboard(service: RunningService, open_page: OpenPage) -> None:
    make_unloaded(service, "chat")
    page = await open_page(service.url)
    press = page.keyboard.press

    await press("Tab")
    await expect(page.get_by_role("button", name="Skip to content")).to_be_focused()
    await press("Enter")
    await expect(page.get_by_role("heading", name="Dashboard")).to_be_focused()

    await press("g")
    await press("m")
    await expect(page.get_by_role("heading", name="Models", level=1)).to_be_focused()
    await expect(page.get_by_role("rowheader")).not_to_have_count(0)  # the page is there, and takes keys
    await press("/")
    await page.keyboard.type("chat")
    await expect(page.get_by_role("rowheader")).to_have_count(2)
    load = page.get_by_role("button", name="Load chat", exact=True)
    for _ in range(30):
        await press("Tab")
        if await load.evaluate("(e) => e === document.activeElement"):
            break
    await press("Enter")
    unload = page.get_by_role("button", name="Unload chat", exact=True)
    await expect(unload).to_be_visible(timeout=30_000)

    await press("g")
    await press("c")
    await expect(page.get_by_role("heading", name="Chat")).to_be_focused()
    await page.get_by_role("combobox", name="Model").focus()
    await page.keyboard.type("chat")
    await press("/")  # belongs to the list while that has the focus
    await page.get_by_role("textbox", name="Message").focus()
    await page.keyboard.type("Hello")
    await press("Enter")
    await expect(answer(page)).to_contain_text("tokens/s", timeout=30_000)

    title = page.get_by_role("heading", name="Hello", level=1)  # named after what was said first
    await title.focus()
    await press("?")
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    await press("g")  # silent below a dialog
    await press("d")
    await press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(title).to_be_visible()
    await press("Control+b")
    await expect(page.get_by_role("button", name="Expand sidebar")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_page_has_an_accessibility_fault(
    service: RunningService, open_page: OpenPage, violations: Violations, scheme: str
) -> None:
    page = await open_page(service.url, color_scheme=scheme)
    for path, title in PAGES.items():
        await page.goto(service.url + path)
        await page.get_by_role("heading", name=title, level=1).wait_for()
        await page.get_by_role("link", name="Connected").wait_for()
        assert await violations(page) == [], path
    await page.goto(f"{service.url}/chat")
    await choose(page, "chat")
    await ask(page, "Hello")
    await expect(answer(page)).to_contain_text("tokens/s", timeout=30_000)
    assert await violations(page) == [], "answer"
    await page.get_by_role("button", name="Shortcuts").click()
    assert await violations(page) == [], "shortcuts"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
async def test_no_page_scrolls_sideways(service: RunningService, open_page: OpenPage, width: int) -> None:
    page = await open_page(service.url, viewport={"width": width, "height": 700})
    for path, title in PAGES.items():
        await page.goto(service.url + path)
        await page.get_by_role("heading", name=title, level=1).wait_for()
        await page.get_by_role("link", name="Connected").wait_for()
        assert await sideways(page) == 0, path


async def test_phone_has_a_bottom_bar_with_everything(
    service: RunningService, open_page: OpenPage, violations: Violations
) -> None:
    page = await open_page(service.url, viewport=PHONE, has_touch=True, color_scheme="light")
    await page.get_by_role("link", name="Models", exact=True).tap()
    await expect(page.get_by_role("heading", name="Models")).to_be_visible()
    await page.get_by_role("button", name="More").tap()
    await page.get_by_role("button", name="Theme: System").tap()
    await page.get_by_role("button", name="Theme: Light").tap()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert await violations(page) == []


async def test_theme_holds_from_the_first_paint_of_the_next_visit(service: RunningService, open_page: OpenPage) -> None:
    page = await open_page(service.url, quiet=False, color_scheme="light")  # Chromium reports the scripts held back
    for expected in ("light", "dark"):  # system -> light -> dark
        await page.keyboard.press("t")
        await expect(page.locator("html")).to_have_attribute("data-theme", expected)
    await page.route("**/assets/*.js", lambda route: route.abort())
    await page.reload(wait_until="commit")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.wait_for_function("getComputedStyle(document.documentElement).colorScheme.includes('dark')")


# --- when things are not as usual -------------------------------------------------------------------------------------


async def test_lost_connection_is_said_dated_and_resumed(start_service: ServiceFactory, open_page: OpenPage) -> None:
    service = start_service()
    page = await open_page(service.url, quiet=False)  # Chromium reports every refused connection
    service.stop()
    await expect(page.get_by_text(re.compile(r"Connection lost, retrying (in \d+ s|now)"))).to_be_visible(
        timeout=15_000
    )
    await expect(page.get_by_text(re.compile(r"^as of \d\d:\d\d:\d\d$"))).to_be_visible()
    await expect(page.get_by_role("button", name="Restart")).to_be_disabled()
    service.start()
    await page.get_by_role("button", name="Retry").click()
    await expect(page.get_by_role("link", name="Connected")).to_be_visible(timeout=15_000)
    await expect(page.get_by_text("as of")).to_have_count(0)
    await expect(page.get_by_role("button", name="Restart")).to_be_enabled()


async def test_a_page_keeps_its_heading_until_the_next_one_is_loaded(
    service: RunningService, open_page: OpenPage
) -> None:
    page = await open_page(service.url)
    asked, released = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        asked.set()
        await released.wait()
        await route.continue_()

    await page.route(re.compile(r"/assets/Page-.*\.js"), hold)
    await page.get_by_role("link", name="Models", exact=True).click()
    await asyncio.wait_for(asked.wait(), timeout=15)
    await expect(page).to_have_url(f"{service.url}/models")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Dashboard")
    released.set()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Models")
    await expect(page.get_by_role("heading", level=1)).to_be_focused()


async def test_code_that_could_not_be_loaded_is_asked_for_again(service: RunningService, open_page: OpenPage) -> None:
    page = await open_page(f"{service.url}/models", quiet=False)  # Chromium reports the failed request
    refused = asyncio.Event()

    async def refuse_once(route: Route) -> None:
        if refused.is_set():
            await route.continue_()
        else:
            refused.set()
            await route.abort()

    await page.route(re.compile(r"/assets/line_chart-"), refuse_once)
    await page.get_by_role("link", name="Dashboard", exact=True).click()
    await asyncio.wait_for(refused.wait(), timeout=15)
    await expect(page.get_by_role("img", name=re.compile("CPU")).locator("canvas")).to_be_visible(timeout=15_000)


async def test_first_run_names_the_directory_and_ticks_off_what_is_done(
    start_service: ServiceFactory, open_page: OpenPage, model_files: Path
) -> None:
    service = start_service()
    page = await open_page(service.url)
    steps = page.get_by_role("region", name="First steps").get_by_role("listitem")
    await expect(steps.nth(0)).to_contain_text("done")
    await expect(steps.nth(1)).to_contain_text("to do")
    await page.get_by_role("link", name="Add a model").click()
    await expect(page.get_by_text(str(service.models_dir))).to_be_visible()

    (Path(service.models_dir) / "chat.gguf").write_bytes((model_files / "chat.gguf").read_bytes())
    await page.get_by_role("button", name="Scan").click()
    await expect(row(page, "chat")).to_be_visible()
    await expect(page.get_by_text("1 model, 1 new or changed")).to_be_visible()
    await page.get_by_role("link", name="Dashboard", exact=True).click()
    await expect(steps.nth(1)).to_contain_text("done")


async def test_unknown_address_says_so(service: RunningService, open_page: OpenPage) -> None:
    page = await open_page(f"{service.url}/nowhere", quiet=False)  # Chromium reports the 404
    await expect(page.get_by_role("heading", name="Page not found")).to_be_visible()
    await page.get_by_role("button", name="Go to the dashboard").click()
    await expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()


# --- budgets ----------------------------------------------------------------------------------------------------------

_MEASURE = """() => new Promise((resolve) => {
    let shift = 0;
    new PerformanceObserver((list) => list.getEntries().forEach((e) => { shift += e.value; }))
        .observe({ type: "layout-shift", buffered: true });
    setTimeout(() => resolve({
        shift,
        script: performance.getEntriesByType("resource")
            .filter((e) => e.name.endsWith(".js")).reduce((sum, e) => sum + e.encodedBodySize, 0),
        paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
    }), 1500);
})"""


@pytest.mark.parametrize("path", list(PAGES))
async def test_first_load_keeps_its_budget(service: RunningService, open_page: OpenPage, path: str) -> None:
    shifts = []
    for _ in range(3):  # on a busy machine what belongs to a page may come late once, but not each time
        page = await open_page(service.url + path)
        measured = await page.evaluate(_MEASURE)
        assert measured["script"] <= 110_000
        shifts.append(measured["shift"])
        if shifts[-1] < 0.02:
            return
    pytest.fail(f"what was shown moved each time: {shifts}")
