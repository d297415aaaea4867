"""Conversations as people see them: kept by the service, the same in every tab, over reloads and crashes."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from support.browser import OpenPage
from support.models import write_projector
from support.service import RunningService, ServiceFactory

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

LONG_MS = 60_000
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # 1 x 1 px
Violations = Callable[[Page], Awaitable[list[str]]]


async def ask(page: Page, model: str, question: str) -> None:
    await page.get_by_role("combobox", name="Model").select_option(model)
    await page.get_by_role("textbox", name="Message").fill(question)
    await page.keyboard.press("Enter")


def answer(page: Page) -> Locator:
    return page.get_by_role("article", name="Assistant").last


_LETTERS = """(prose) => {
    const copy = prose.cloneNode(true);
    copy.querySelectorAll("button").forEach((button) => button.remove());
    return copy.textContent;
}"""


def letters(text: str) -> str:
    """What is left of a text, whether or not its Markdown is rendered."""
    without_marks = re.sub(r"^ *(```.*|\d+\.)", "", text, flags=re.MULTILINE)
    return re.sub(r"[\W_]+", "", without_marks)


async def shown(page: Page) -> str:
    """Letters of the last answer, as far as it is shown."""
    return letters(await answer(page).locator(".prose").evaluate(_LETTERS))


async def until_longer(page: Page, than: int) -> None:
    """Wait until more than so many letters of the last answer are shown."""
    async with asyncio.timeout(LONG_MS / 1000):
        while len(await shown(page)) <= than:
            await asyncio.sleep(0.1)


def chat_id(page: Page) -> int:
    found = re.search(r"/chat/(\d+)", page.url)
    assert found is not None
    return int(found[1])


def stored(service: RunningService, chat: int) -> list[Any]:
    status, body = service.call("GET", f"/api/conversations/{chat}")
    assert status == 200
    messages: list[Any] = body["messages"]
    return messages


async def grown(service: RunningService, chat: int, than: int) -> None:
    """Wait until more than so many letters of the last answer are stored."""
    await asyncio.to_thread(
        service.wait_until,
        lambda: len(letters(stored(service, chat)[-1]["content"])),
        lambda length: length > than,
        LONG_MS / 1000,
    )


def begin(service: RunningService, title: str | None, message: str) -> int:
    """A conversation with one answer."""
    _, made = service.call("POST", "/api/conversations", {"title": title, "model": "chat"})
    chat: int = made["conversation_id"]
    status, _ = service.call("POST", "/api/chat", {"conversation_id": chat, "message": message, "model": "chat"})
    assert status == 200
    return chat


def entry(page: Page, title: str) -> Locator:
    return page.get_by_role("navigation", name="Conversations").get_by_role("link", name=title, exact=True)


async def do(page: Page, title: str, action: str) -> None:
    """Choose from the menu of a conversation."""
    await page.get_by_role("button", name=f"Actions for {title}", exact=True).click()
    await page.get_by_role("button", name=action, exact=True).click()


# --- an answer belongs to the service ---------------------------------------------------------------------------------


async def test_answer_goes_on_over_a_reload_and_another_page(service: RunningService, open_page: OpenPage) -> None:
    page = await open_page(f"{service.url}/chat")
    await ask(page, "slow", "Never stop")
    await until_longer(page, 20)
    before = await shown(page)
    await page.reload()
    await until_longer(page, len(before))
    # Its end may have been read as something else before more of it was there.
    assert (await shown(page)).startswith(before[:-10])

    seen, chat = len(await shown(page)), chat_id(page)
    await page.get_by_role("link", name="Dashboard", exact=True).click()
    await grown(service, chat, seen)
    await page.go_back()
    await until_longer(page, seen)

    await page.get_by_role("button", name="Stop", exact=True).click()
    await expect(answer(page)).to_contain_text("Stopped", timeout=LONG_MS)
    assert await shown(page) == letters(stored(service, chat)[-1]["content"])


async def test_two_tabs_see_the_same_tokens(service: RunningService, open_page: OpenPage) -> None:
    one = await open_page(f"{service.url}/chat")
    await ask(one, "slow", "Two readers")
    await until_longer(one, 3)
    other = await open_page(one.url)
    await until_longer(other, len(await shown(one)))
    # Whoever stops it, it has ended for both.
    await other.keyboard.press("Escape")
    for page in (one, other):
        await expect(answer(page)).to_contain_text("Stopped", timeout=LONG_MS)
    kept = letters(stored(service, chat_id(one))[-1]["content"])
    assert [await shown(one), await shown(other)] == [kept, kept]


async def test_answer_that_a_crash_broke_off_is_marked_as_interrupted(
    start_service: ServiceFactory, open_page: OpenPage, models_dir: Path
) -> None:
    service = start_service(models_dir=models_dir)
    service.wait_for_models(4)
    page = await open_page(f"{service.url}/chat", quiet=False)  # Chromium reports every refused connection
    await ask(page, "slow", "Never stop")
    await until_longer(page, 40)
    chat = chat_id(page)
    await grown(service, chat, 20)
    service.kill()
    await expect(page.get_by_text(re.compile("Connection lost, retrying"))).to_be_visible(timeout=LONG_MS)
    service.start()
    await expect(answer(page)).to_contain_text("Interrupted", timeout=LONG_MS)
    kept = stored(service, chat)[-1]
    assert kept["status"] == "interrupted"
    assert await shown(page) == letters(kept["content"])
    # It can be asked for again.
    await page.get_by_role("combobox", name="Model").select_option("chat")
    await page.get_by_role("button", name="Regenerate").click()
    await expect(answer(page)).to_contain_text("tokens/s", timeout=LONG_MS)
    await expect(page.get_by_role("group", name="Version 2 of 2")).to_be_visible()


async def test_what_runs_is_seen_and_cancelled_on_the_dashboard(service: RunningService, open_page: OpenPage) -> None:
    page = await open_page(f"{service.url}/chat")
    await ask(page, "slow", "Never stop")
    await until_longer(page, 3)
    await page.get_by_role("link", name="Dashboard", exact=True).click()
    table = page.get_by_role("region", name="Table of running requests")
    await expect(table.get_by_role("row").filter(has_text="slow")).to_contain_text("Generating", timeout=LONG_MS)
    await table.get_by_role("button", name="Cancel the request to slow").click()
    await expect(page.get_by_text("Nothing is running.")).to_be_visible(timeout=LONG_MS)
    await page.go_back()
    await expect(answer(page)).to_contain_text("Stopped", timeout=LONG_MS)


# --- branches ---------------------------------------------------------------------------------------------------------


async def test_changing_a_message_begins_a_branch_and_the_old_one_stays(
    service: RunningService, open_page: OpenPage
) -> None:
    page = await open_page(f"{service.url}/chat")
    await ask(page, "chat", "The first wording")
    await expect(answer(page)).to_contain_text("tokens/s", timeout=LONG_MS)
    await page.get_by_role("textbox", name="Message").press("ArrowUp")
    await page.get_by_role("textbox", name="Change the message").fill("The second wording")
    await page.keyboard.press("Enter")
    said = page.get_by_role("article", name="You")
    await expect(said).to_contain_text("The second wording", timeout=LONG_MS)
    await expect(answer(page)).to_contain_text("tokens/s", timeout=LONG_MS)

    await said.get_by_role("button", name="Previous version").click()
    await expect(said).to_contain_text("The first wording", timeout=LONG_MS)
    await expect(said.get_by_role("group", name="Version 1 of 2")).to_be_visible()
    await page.get_by_role("button", name="Regenerate").click()
    await expect(answer(page).get_by_role("group", name="Version 2 of 2")).to_be_visible(timeout=LONG_MS)
    assert stored(service, chat_id(page))[0]["content"] == "The first wording"


# --- the list ---------------------------------------------------------------------------------------------------------


async def test_deletion_can_be_undone_and_is_carried_out_otherwise(
    service: RunningService, open_page: OpenPage
) -> None:
    chat = begin(service, "To be deleted", "Hello")
    page = await open_page(f"{service.url}/chat/{chat}")
    await do(page, "To be deleted", "Delete")
    await expect(entry(page, "To be deleted")).to_have_count(0)
    await expect(page).to_have_url(f"{service.url}/chat")
    await page.get_by_role("button", name="Undo").click()
    await expect(entry(page, "To be deleted")).to_be_visible()
    assert stored(service, chat)

    await do(page, "To be deleted", "Delete")
    await asyncio.to_thread(
        service.wait_until,
        lambda: service.call("GET", f"/api/conversations/{chat}")[0],
        lambda status: status == 404,
        LONG_MS / 1000,
    )
    await expect(page.get_by_role("button", name="Undo")).to_have_count(0, timeout=LONG_MS)


async def test_deletion_is_carried_out_when_the_page_is_left_before_it_is_too_late(
    service: RunningService, open_page: OpenPage
) -> None:
    chat = begin(service, "Left behind", "Hello")
    page = await open_page(f"{service.url}/chat")
    await do(page, "Left behind", "Delete")
    await page.goto("about:blank")
    await asyncio.to_thread(
        service.wait_until,
        lambda: service.call("GET", f"/api/conversations/{chat}")[0],
        lambda status: status == 404,
        LONG_MS / 1000,
    )


async def test_conversations_are_renamed_pinned_and_archived_for_every_tab(
    service: RunningService, open_page: OpenPage
) -> None:
    chat = begin(service, "Plain", "Hello")
    page = await open_page(f"{service.url}/chat/{chat}")
    other = await open_page(f"{service.url}/chat/{chat}")
    await do(page, "Plain", "Rename")
    await page.get_by_role("textbox", name="New title").fill("Fancy")
    await page.keyboard.press("Enter")
    await expect(other.get_by_role("heading", name="Fancy", level=1)).to_be_visible(timeout=LONG_MS)
    await do(page, "Fancy", "Pin")
    await expect(other.get_by_role("heading", name="Pinned")).to_be_visible(timeout=LONG_MS)
    await do(page, "Fancy", "Archive")
    await expect(entry(other, "Fancy")).to_have_count(0, timeout=LONG_MS)
    await other.get_by_role("button", name="Archived").click()
    await expect(entry(other, "Fancy")).to_be_visible()
    service.call("DELETE", f"/api/conversations/{chat}")
    await expect(other.get_by_text("This conversation was deleted.")).to_be_visible(timeout=LONG_MS)


async def test_list_is_walked_by_keyboard(service: RunningService, open_page: OpenPage) -> None:
    first, second = begin(service, "Walk one", "Hello"), begin(service, "Walk two", "Hello")
    page = await open_page(f"{service.url}/chat/{second}")
    await entry(page, "Walk two").focus()
    await page.keyboard.press("j")
    await expect(entry(page, "Walk one")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(f"{service.url}/chat/{first}")
    await page.keyboard.press("Alt+ArrowUp")
    await expect(page.get_by_role("heading", name="Walk two", level=1)).to_be_focused()
    await page.keyboard.press("Control+Shift+O")
    await expect(page.get_by_role("textbox", name="Message")).to_be_focused()
    await page.keyboard.type("not sent")
    await page.reload()
    await expect(page.get_by_role("textbox", name="Message")).to_have_value("not sent")


async def test_search_finds_while_typing_and_leads_to_the_message(service: RunningService, open_page: OpenPage) -> None:
    chat = begin(service, "Zoology", "What does an aardwolf eat? <b>Termites</b>")
    for _ in range(3):
        body = {"conversation_id": chat, "message": "Go on", "model": "chat"}
        assert service.call("POST", "/api/chat", body)[0] == 200
    page = await open_page(f"{service.url}/chat")
    await page.keyboard.press("/")
    await page.keyboard.type("aardw")
    results = page.get_by_role("navigation", name="Conversations")
    await expect(results.locator("mark")).to_have_text("aardwolf", timeout=LONG_MS)
    await expect(results).to_contain_text("<b>Termites</b>")  # as it was written, never as markup
    await page.keyboard.press("Enter")
    await expect(results).to_contain_text("Nothing was found", timeout=LONG_MS)  # whole words only
    await page.keyboard.type("olf")
    await page.keyboard.press("Enter")
    await expect(results).to_contain_text("Best first.", timeout=LONG_MS)
    await results.get_by_role("link").click()
    await expect(page).to_have_url(re.compile(rf"/chat/{chat}\?message=\d+$"))
    said = page.get_by_role("article", name="You").filter(has_text="aardwolf")
    await expect(said).to_be_in_viewport(timeout=LONG_MS)
    await page.get_by_role("searchbox").press("Escape")
    await expect(entry(page, "Zoology")).to_be_visible()


async def test_conversations_leave_as_files_and_come_back(
    service: RunningService, open_page: OpenPage, tmp_path: Path
) -> None:
    begin(service, "Traveller", "Hello abroad")
    page = await open_page(f"{service.url}/chat")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Actions for Traveller", exact=True).click()
        await page.get_by_role("link", name="Export as JSON").click()
    file = tmp_path / "traveller.json"
    await (await download.value).save_as(file)
    assert "Hello abroad" in file.read_text()
    await page.locator('input[accept*="json"]').set_input_files(file)
    await expect(page.get_by_text("1 conversation imported")).to_be_visible(timeout=LONG_MS)
    await expect(entry(page, "Traveller")).to_have_count(2, timeout=LONG_MS)

    broken = tmp_path / "broken.json"
    broken.write_text("{")
    await page.locator('input[accept*="json"]').set_input_files(broken)
    await expect(page.get_by_text("broken.json is not a JSON file")).to_be_visible()


# --- instructions and sampling ----------------------------------------------------------------------------------------


async def test_instructions_and_sampling_are_kept_with_the_conversation(
    service: RunningService, open_page: OpenPage
) -> None:
    page = await open_page(f"{service.url}/chat")
    await page.get_by_role("button", name="Instructions and sampling").click()
    drawer = page.get_by_role("dialog", name="Instructions and sampling")
    await drawer.get_by_label("Instructions for the model").fill("Be brief.")
    await drawer.get_by_role("textbox", name="Longest answer", exact=True).fill("five")
    await drawer.get_by_role("button", name="Save").click()
    await expect(drawer.get_by_role("alert")).to_contain_text("must be a number")
    await drawer.get_by_role("textbox", name="Longest answer", exact=True).fill("5")
    await drawer.get_by_role("button", name="Save").click()
    await expect(drawer).to_have_count(0)
    await ask(page, "chat", "Hello")
    await expect(answer(page)).to_contain_text("5 tokens ·", timeout=LONG_MS)
    _, body = service.call("GET", f"/api/conversations/{chat_id(page)}")
    kept = body["conversation"]
    assert (kept["system_prompt"], kept["options"]["num_predict"]) == ("Be brief.", 5)

    # What the service refuses is said where it is wrong.
    await page.get_by_role("button", name="Instructions and sampling (changed)").click()
    await drawer.get_by_role("textbox", name="Top-p", exact=True).fill("7")
    await drawer.get_by_role("button", name="Save").click()
    await expect(drawer.get_by_role("alert")).to_contain_text("between 0 and 1", timeout=LONG_MS)
    await drawer.get_by_role("button", name="Reset Top-p").click()
    await drawer.get_by_role("button", name="Save").click()
    await expect(drawer).to_have_count(0, timeout=LONG_MS)


async def test_image_goes_with_a_message_to_a_model_that_can_see(
    start_service: ServiceFactory, open_page: OpenPage, models_dir: Path, tmp_path: Path
) -> None:
    # A header only: the model counts as one that sees, and cannot be loaded.
    write_projector(models_dir / "mmproj-chat.gguf")
    service = start_service(models_dir=models_dir)
    service.wait_for_models(4)
    picture = tmp_path / "dot.png"
    picture.write_bytes(base64.b64decode(DOT))
    page = await open_page(f"{service.url}/chat", quiet=False)  # Chromium reports the failed load
    await page.get_by_role("combobox", name="Model").select_option("chat")
    async with page.expect_file_chooser() as chooser:
        await page.get_by_role("button", name="Attach images").click()
    await (await chooser.value).set_files(picture)
    await expect(page.get_by_role("button", name="Remove dot.png")).to_be_visible()
    await ask(page, "chat", "What is this?")
    await expect(page.get_by_role("alert").filter(has_text="No answer")).to_be_visible(timeout=LONG_MS)
    shown = page.get_by_role("article", name="You").get_by_role("img", name="dot.png")
    await expect(shown).to_be_visible(timeout=LONG_MS)
    assert await shown.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 1
    await page.get_by_role("combobox", name="Model").select_option("slow")
    await expect(page.get_by_role("button", name="Attach images")).to_have_count(0)


# --- for everyone -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_part_of_the_page_has_an_accessibility_fault(
    service: RunningService, open_page: OpenPage, violations: Violations, scheme: str
) -> None:
    chat = begin(service, "Looked at", "A heliotrope")
    page = await open_page(f"{service.url}/chat/{chat}", color_scheme=scheme)
    await expect(answer(page)).to_contain_text("tokens/s", timeout=LONG_MS)
    await page.get_by_role("button", name="Actions for Looked at").first.click()
    assert await violations(page) == [], "menu"
    await page.keyboard.press("Escape")
    await page.get_by_role("searchbox").fill("heliotrope")
    await expect(page.locator("mark").first).to_be_visible(timeout=LONG_MS)
    assert await violations(page) == [], "results"
    await page.get_by_role("button", name="Edit").click()
    assert await violations(page) == [], "changing a message"
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Instructions and sampling").click()
    assert await violations(page) == [], "drawer"


async def test_phone_has_the_list_as_a_sheet(
    service: RunningService, open_page: OpenPage, violations: Violations
) -> None:
    begin(service, "On the road", "Hello")
    page = await open_page(f"{service.url}/chat", viewport={"width": 320, "height": 640}, has_touch=True)
    await page.get_by_role("button", name="Show conversations").tap()
    assert await violations(page) == []
    await entry(page, "On the road").tap()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(answer(page)).to_contain_text("tokens/s", timeout=LONG_MS)
    wide: int = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide == 0


async def test_address_of_no_conversation_says_so(service: RunningService, open_page: OpenPage) -> None:
    page = await open_page(f"{service.url}/chat/999999")
    await expect(page.get_by_text("This conversation cannot be shown")).to_be_visible()
    await page.get_by_role("main").get_by_role("button", name="New chat").last.click()
    await expect(page).to_have_url(f"{service.url}/chat")


async def test_long_conversation_opens_at_its_end_and_shows_more_without_moving_the_reader(
    service: RunningService, open_page: OpenPage
) -> None:
    messages = [
        {
            "parent": number - 1 if number else None,
            "role": ("user", "assistant")[number % 2],
            "content": f"No. {number}",
        }
        for number in range(1000)
    ]
    conversation = {"title": "Long", "model": "chat", "messages": messages, "active": 999}
    document = {"format": "llama-async-proxy/conversations", "version": 1, "conversations": [conversation]}
    status, imported = service.call("POST", "/api/conversations/import", document)
    assert status == 201
    page = await open_page(f"{service.url}/chat/{imported['conversations'][0]['id']}")
    await expect(page.get_by_text("No. 999", exact=True)).to_be_in_viewport(timeout=LONG_MS)
    await expect(page.get_by_role("article")).to_have_count(100)
    more = page.get_by_role("button", name="Show 100 earlier")
    await more.scroll_into_view_if_needed()
    await more.click()
    await expect(page.get_by_role("article")).to_have_count(200)
    await expect(page.get_by_text("No. 900", exact=True)).to_be_in_viewport()
