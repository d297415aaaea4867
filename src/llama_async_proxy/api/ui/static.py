"""The web UI's files, held in memory. Hashed assets are cached for ever; a missing asset is a 404."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from llama_async_proxy.api.ui.pages import PAGES

_PAGE = re.compile("|".join(page.replace(":id", r"[1-9]\d{0,18}") for page in PAGES))

_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# The prefix becomes part of HTML and of every URL the browser builds, so only characters without escapes are accepted.
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*){1,8}/?")
_BASE = b'<base href="/"'
_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_MISSING_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Llama Async Proxy</title>
<h1>The web UI is not part of this installation</h1>
<p>The API works: see <a href="api/docs">its documentation</a>. To get the UI, install a released wheel, or reinstall
from a checkout with Node.js 20.19 or newer and without <code>LLAMA_ASYNC_PROXY_SKIP_FRONTEND</code>:</p>
<pre>pip install --force-reinstall --no-deps .</pre>
</html>
"""


class _File(Struct, frozen=True):
    body: bytes
    gzipped: bytes | None
    media_type: str
    etag: str
    cache: str


def static_app(web_dir: Path, base_path: str = "/") -> ASGIApp:
    """An ASGI application serving the built UI in `web_dir`, or a page on how to get it when there is none.

    `base_path` is where browsers find the service ("/", "/llm/"). A proxy that strips a prefix may name it in each
    request with X-Forwarded-Prefix instead. All files are read here, once. Raises ValueError for a malformed base path.
    """
    if base_path != "/" and not _PREFIX.fullmatch(base_path):
        raise ValueError(f"base path must look like / or /some/path/, not {base_path!r}")
    files = _read(web_dir)
    index = files.pop("/index.html", None)
    return _Site(files, index.body if index else None, base_path)


def is_page(path: str) -> bool:
    """True for the address of a page of the web UI."""
    return _PAGE.fullmatch(path) is not None


def is_navigation(headers: Headers) -> bool:
    """True when a browser asks for a page to show: some addresses offer both a page and data."""
    mode = headers.get("sec-fetch-mode")
    return mode == "navigate" if mode else "text/html" in headers.get("accept", "")


class _Site:
    def __init__(self, files: Mapping[str, _File], index: bytes | None, base_path: str) -> None:
        self._files = files
        self._index = index
        self._base_path = base_path
        self._policy = _content_security_policy(index or b"")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self._respond(
            scope["method"], scope["path"].removeprefix(scope.get("root_path", "")), Headers(scope=scope)
        )
        response.headers.update(_SECURITY)
        if scope["method"] == "HEAD":
            response.body = b""  # the length of what GET would send stays in the headers
        await response(scope, receive, send)

    def _respond(self, method: str, path: str, headers: Headers) -> Response:
        if method not in ("GET", "HEAD"):
            return JSONResponse({"error": f"{method} is not possible here"}, 405, headers={"Allow": "GET, HEAD"})
        if file := self._files.get(path):
            return _file_response(file, headers)
        if _PAGE.fullmatch(path):
            return self._page(headers, 200)
        # An open page may ask for an asset of an earlier version; the index in its place would break it.
        if is_navigation(headers) and "." not in path.rpartition("/")[2] and not path.startswith("/assets/"):
            return self._page(headers, 404)
        return JSONResponse({"error": "Not found", "path": path}, 404, headers={"Cache-Control": "no-store"})

    def _page(self, headers: Headers, status: int) -> Response:
        if self._index is None:
            return HTMLResponse(_MISSING_PAGE, 503, headers={"Cache-Control": "no-store"})
        base = _base_href(headers.get("x-forwarded-prefix"), self._base_path)
        body = self._index.replace(_BASE, f'<base href="{base}"'.encode(), 1)
        etag = _etag(body)
        always = {
            "Cache-Control": "no-cache",
            "ETag": etag,
            "Vary": "Accept, Sec-Fetch-Mode, X-Forwarded-Prefix",
            "Content-Security-Policy": self._policy,
        }
        if status == 200 and _matches(headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=always)
        return HTMLResponse(body, status, headers=always)


def _file_response(file: _File, headers: Headers) -> Response:
    always = {"Cache-Control": file.cache, "ETag": file.etag}
    if file.gzipped is not None:
        always["Vary"] = "Accept-Encoding"
    if _matches(headers.get("if-none-match"), file.etag):
        return Response(status_code=304, headers=always)
    if file.gzipped is not None and _accepts_gzip(headers.get("accept-encoding", "")):
        return Response(file.gzipped, headers={**always, "Content-Encoding": "gzip"}, media_type=file.media_type)
    return Response(file.body, headers=always, media_type=file.media_type)


def _read(web_dir: Path) -> dict[str, _File]:
    """Files by URL path. Hidden files are left out; a .gz file belongs to the file it was made of."""
    paths = [path for path in sorted(web_dir.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {f"/{p.relative_to(web_dir).as_posix()}": _read_file(p, web_dir) for p in paths if p.suffix != ".gz"}


def _read_file(path: Path, web_dir: Path) -> _File:
    body = path.read_bytes()
    twin = path.with_name(path.name + ".gz")
    hashed = path.parent == web_dir / "assets"
    return _File(
        body=body,
        gzipped=twin.read_bytes() if twin.is_file() else None,
        # The platform's table may have any type for .js, and with nosniff a wrong type breaks the page.
        media_type=_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream",
        etag=_etag(body),
        cache="public, max-age=31536000, immutable" if hashed else "no-cache",
    )


_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}


def _content_security_policy(index: bytes) -> str:
    """Allows scripts of our own files, and inline scripts of `index` by hash; 'self' includes our websocket."""
    digests = (hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(index))
    hashes = "".join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self'{hashes}; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
    )


def _base_href(forwarded: str | None, configured: str) -> str:
    prefix = forwarded if forwarded and _PREFIX.fullmatch(forwarded) else configured
    return prefix if prefix.endswith("/") else prefix + "/"


def _etag(body: bytes) -> str:
    # The tag is weak, because the gzipped form of the same content shares it.
    return f'W/"{hashlib.sha256(body).hexdigest()[:24]}"'


def _matches(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    candidates = {candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")}
    return "*" in candidates or etag.removeprefix("W/") in candidates


def _accepts_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", parameters)
    return False
