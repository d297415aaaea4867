"""Requests that a browser sends for pages of other sites, against the whole service with a real model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.models import write_chat
from support.service import ServiceFactory

pytestmark = pytest.mark.engine
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
LOADING = ("/props?model=chat", "/slots?model=chat", "/metrics?model=chat", "/lora-adapters?model=chat")
DATA = ("/models?reload=1", "/v1/models", "/api/models", "/api/docs", "/models/sse", "/metrics", "/props")
SITES = ("cross-site", "same-site")
MODES = ("navigate", "no-cors", "cors", "websocket", "same-origin")
DESTINATIONS = ("document", "iframe", "frame", "embed", "object", "image", "script", "empty")


@pytest.fixture
def browser(start_service: ServiceFactory, tmp_path: Path) -> Iterator[httpx.Client]:
    (tmp_path / "models").mkdir()
    write_chat(tmp_path / "models" / "chat.gguf")
    service = start_service()
    service.wait_for_models(1)
    with httpx.Client(base_url=service.url, headers={"user-agent": CHROME}, timeout=60) as client:
        yield client


def is_loaded(browser: httpx.Client) -> bool:
    [model] = browser.get("/api/models").json()["data"]["models"]
    return bool(model["status"] in ("loading", "running"))


def test_no_page_of_another_site_loads_a_model_or_reads_an_answer(browser: httpx.Client) -> None:
    for target, site, mode, destination in itertools.product((*LOADING, *DATA), SITES, MODES, DESTINATIONS):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": destination}
        with browser.stream("GET", target, headers=headers) as answer:
            # /models in a tab of its own is a page of the web UI.
            if target.startswith("/models?") and (mode, destination) == ("navigate", "document"):
                assert answer.headers["content-type"].startswith("text/html")
            else:
                assert answer.status_code == 403, (target, headers)
    assert not is_loaded(browser)


def test_a_browser_that_does_not_say_whose_page_asks_loads_nothing(browser: httpx.Client) -> None:
    """Browsers send no Sec-Fetch headers over plain HTTP to other addresses than loopback."""
    for target in LOADING:
        answer = browser.get(target)
        assert (answer.status_code, "is not loaded" in answer.text) == (400, True), target
    assert not is_loaded(browser)


@pytest.mark.parametrize(
    "headers", [{"user-agent": "curl/8.5"}, {"sec-fetch-site": "same-origin"}], ids=["program", "our own page"]
)
def test_programs_and_our_own_pages_load_by_asking(browser: httpx.Client, headers: dict[str, str]) -> None:
    assert browser.get(LOADING[0], headers=headers).status_code == 200
    assert is_loaded(browser)
