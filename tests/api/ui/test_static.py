from __future__ import annotations

import base64
import gzip
import hashlib
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from llama_async_proxy.api.ui.pages import PAGES
from llama_async_proxy.api.ui.static import static_app

SCRIPT = "document.documentElement.dataset.theme = 'dark'"
INDEX = f'<!doctype html><head><base href="/" /><script>{SCRIPT}</script><script type="module" src="./assets/app-1.js">'
CODE = "export const answer = 42;\n" * 100
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html,*/*"}


@pytest.fixture
def web(tmp_path: Path) -> Path:
    assets = tmp_path / "web" / "assets"
    assets.mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (assets.parent / "index.html").write_text(INDEX)
    (assets.parent / "favicon.svg").write_text("<svg/>")
    (assets.parent / ".digest").write_text("stamp")
    (assets / "app-1.js").write_text(CODE)
    (assets / "app-1.js.gz").write_bytes(gzip.compress(CODE.encode()))
    return assets.parent


def client(web: Path, base_path: str = "/") -> httpx.AsyncClient:
    app = Starlette(routes=[Mount("/", static_app(web, base_path))])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:3000", verify=False)


@pytest.mark.parametrize("path", sorted(PAGES))
async def test_each_page_is_the_index_and_never_stale(web: Path, path: str) -> None:
    async with client(web) as http:
        answer = await http.get(path.replace(":id", "7"))
    assert answer.status_code == 200
    assert answer.text == INDEX
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_policy_allows_the_boot_script_by_hash_and_no_other_inline_script(web: Path) -> None:
    async with client(web) as http:
        policy = (await http.get("/")).headers["content-security-policy"]
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "unsafe" not in policy


async def test_page_is_revalidated_not_resent(web: Path) -> None:
    async with client(web) as http:
        first = await http.get("/chat")
        second = await http.get("/chat", headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
    assert second.status_code == 304
    assert second.content == b""
    assert second.headers["content-security-policy"] == first.headers["content-security-policy"]


async def test_asset_is_immutable_and_gzipped_for_clients_that_accept_it(web: Path) -> None:
    async with client(web) as http:
        zipped = await http.get("/assets/app-1.js", headers={"Accept-Encoding": "br, gzip;q=0.5"})
        plain = await http.get("/assets/app-1.js", headers={"Accept-Encoding": "br, gzip;q=0"})
    assert zipped.text == plain.text == CODE
    assert zipped.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    for answer in (zipped, plain):
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"].startswith("text/javascript")
        assert answer.headers["vary"] == "Accept-Encoding"


async def test_file_without_a_hash_is_revalidated(web: Path) -> None:
    async with client(web) as http:
        icon = await http.get("/favicon.svg")
        again = await http.get("/favicon.svg", headers={"If-None-Match": icon.headers["etag"]})
    assert icon.headers["cache-control"] == "no-cache"
    assert icon.headers["content-type"] == "image/svg+xml"
    assert again.status_code == 304


@pytest.mark.parametrize(
    "path",
    [
        "/assets/app-0.js",
        "/assets/gone",
        "/missing.png",
        "/.digest",
        "/assets/app-1.js.gz",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
    ],
)
async def test_missing_asset_is_404_and_never_the_ui(web: Path, path: str) -> None:
    async with client(web) as http:
        answer = await http.get(path, headers=NAVIGATION)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert "secret" not in answer.json()["error"]


async def test_unknown_page_is_404_with_the_ui_for_a_browser_only(web: Path) -> None:
    async with client(web) as http:
        browser = await http.get("/nowhere", headers=NAVIGATION)
        program = await http.get("/nowhere", headers={"Accept": "application/json"})
    assert (browser.status_code, browser.text) == (404, INDEX)
    assert program.status_code == 404
    assert program.json()["path"] == "/nowhere"


async def test_head_answers_like_get_without_a_body(web: Path) -> None:
    async with client(web) as http:
        for path in ("/", "/assets/app-1.js", "/gone.js"):
            got, head = await http.get(path), await http.head(path)
            assert head.content == b""
            assert head.status_code == got.status_code
            assert head.headers == got.headers


async def test_other_methods_are_refused(web: Path) -> None:
    async with client(web) as http:
        answer = await http.post("/", content=b"x")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


async def test_base_href_comes_from_setting_or_proxy(web: Path) -> None:
    async with client(web, "/llm") as http:
        configured = await http.get("/models")
        forwarded = await http.get("/models", headers={"X-Forwarded-Prefix": "/tools/llama/"})
    assert '<base href="/llm/" />' in configured.text
    assert '<base href="/tools/llama/" />' in forwarded.text
    assert configured.headers["etag"] != forwarded.headers["etag"]
    assert "X-Forwarded-Prefix" in configured.headers["vary"]


@pytest.mark.parametrize("prefix", ['/"><script>', "//evil.example", "/a/../b", "https://evil.example/", "/a" * 9, ""])
async def test_hostile_prefix_is_ignored(web: Path, prefix: str) -> None:
    async with client(web) as http:
        answer = await http.get("/", headers={"X-Forwarded-Prefix": prefix})
    assert answer.text == INDEX


@pytest.mark.parametrize("base_path", ["llm", "//x", "/a b"])
def test_impossible_base_path_is_refused_at_start(web: Path, base_path: str) -> None:
    with pytest.raises(ValueError, match="base path must look like"):
        static_app(web, base_path)


async def test_without_a_built_ui_a_page_says_how_to_get_it(tmp_path: Path) -> None:
    async with client(tmp_path / "absent") as http:
        answer = await http.get("/")
        asset = await http.get("/assets/app-1.js")
    assert answer.status_code == 503
    assert "LLAMA_ASYNC_PROXY_SKIP_FRONTEND" in answer.text
    assert asset.status_code == 404
