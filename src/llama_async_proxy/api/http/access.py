"""Who may talk to us: the Host allow-list, the Origin check and CORS, in front of every door.

A browser runs strangers' programs next to a service that has no password. Two headers tell them apart, and a page
cannot forge either: Host, which keeps a name of theirs from being pointed at our address (DNS rebinding), and Origin,
which says whose page asks.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from msgspec import Struct
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_async_proxy.api.http.errors import error_body
from llama_async_proxy.errors import InvalidInput, PermissionDenied, ServiceError
from llama_async_proxy.settings import Settings

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_WEB_SCHEMES = {"ws": "http", "wss": "https"}
_LOOPBACK_NAMES = ("localhost", "*.localhost")
_PREFLIGHT_MAX_AGE = b"600"
_OWN_SITES = (b"same-origin", b"none")
"""`Sec-Fetch-Site` of requests that our own pages make, or a person by the address bar or a bookmark."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Authority(Struct, frozen=True):
    """A host, in lower case without brackets and trailing dot, and its port if one was given."""

    name: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Authority | None:
        """None for what is no `host[:port]`."""
        match = _HOST.fullmatch(text.strip())
        if match is None:
            return None
        name = match["name"].strip("[]").removesuffix(".").lower()
        return cls(name, int(match["port"]) if match["port"] else None)

    @property
    def address(self) -> Address | None:
        """The IP address it spells, if it is one; an IPv4 address in IPv6 clothes is that IPv4 address."""
        try:
            address = ipaddress.ip_address(self.name)
        except ValueError:
            return None
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return mapped or address


def host_allowed(host: Authority, settings: Settings, local_address: str | None = None) -> bool:
    """May a request name us so? `local_address` is the address of ours that the connection came in on."""
    address = host.address
    if address is None:
        return _matches(host.name, (*_LOOPBACK_NAMES, *settings.allowed_hosts, settings.host))
    if address.is_loopback:
        return True
    # A page's origin is a name, so a rebinding attack never shows an address: on a wildcard every address is ours.
    listens_everywhere = settings.host in ("0.0.0.0", "::")
    named = {parsed.name for text in (settings.host, *settings.allowed_hosts) if (parsed := _bare(text))}
    return listens_everywhere or host.name in named or host.name == local_address


def _matches(name: str, patterns: Iterable[str]) -> bool:
    for pattern in patterns:
        if pattern.startswith("*."):
            if name.endswith(pattern[1:].lower()):
                return True
        elif (wanted := _bare(pattern)) and wanted.name == name:
            return True
    return False


def _bare(text: str) -> Authority | None:
    """An allow-list entry: a name, an address with or without brackets, either with or without a port."""
    return Authority.parse(f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text)


def is_own_origin(origin: str, scheme: str, host: Authority) -> bool:
    """True when `origin` is the address that the request itself names. `null` is nobody's."""
    web_scheme = _WEB_SCHEMES.get(scheme, scheme)
    return _origin(origin) == (web_scheme, host.name, host.port or _DEFAULT_PORTS.get(web_scheme))


def is_allowed_origin(origin: str, settings: Settings) -> bool:
    """True when the settings name `origin`; a `null` among them allows nobody."""
    asked = _origin(origin)
    return asked is not None and asked in {_origin(allowed) for allowed in settings.allowed_origins}


def _origin(text: str) -> tuple[str, str, int | None] | None:
    """(scheme, host, port) of a serialised origin; None for `null` and for what is none."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        return None
    if not parts.scheme or not parts.hostname or parts.path.strip("/") or parts.query:
        return None
    return parts.scheme, parts.hostname.removesuffix("."), port or _DEFAULT_PORTS.get(parts.scheme)


class SecurityMiddleware:
    """Refuses what a stranger's page sends, and lets the pages the settings name read the answers.

    `settings` is asked for every request, so that a change holds at once.
    """

    def __init__(self, app: ASGIApp, settings: Callable[[], Settings], is_page: Callable[[str], bool]) -> None:
        """`is_page` tells whether a path is a page of the web UI, which a link on another site may open."""
        self._app = app
        self._settings = settings
        self._is_page = is_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            cross_origin = judge(scope, self._settings(), self._is_page)
        except ServiceError as refusal:
            await _refuse(refusal, scope, send)
            return
        if cross_origin is not None and _is_preflight(scope):
            await _answer_preflight(scope, cross_origin, send)
            return
        await self._app(scope, receive, _with_cors(send, cross_origin) if scope["type"] == "http" else send)


def no_page(path: str) -> bool:  # noqa: ARG001 - the shape of a predicate
    """The predicate of ways in that serve no pages: no link of another site leads there."""
    return False


def judge(scope: Scope, settings: Settings, is_page: Callable[[str], bool] = no_page) -> bytes | None:
    """The origin of a request from another site that is allowed to make it; None for any other request.

    Raises InvalidInput for a Host header that is none, PermissionDenied for a stranger's request.
    """
    host = _host(scope)
    server = scope.get("server")
    if not host_allowed(host, settings, server[0] if server else None):
        raise PermissionDenied(
            f"Host {host.name!r} is not allowed. If this service may be reached under that name, add it to "
            "server.allowedHosts (--allowed-host)."
        )
    origins = _values(scope, b"origin")
    if not origins:
        _check_without_origin(scope, is_page)
        return None
    origin = origins[0].decode("latin-1")
    if len(origins) == 1 and is_own_origin(origin, scope["scheme"], host):
        return None
    if len(origins) == 1 and is_allowed_origin(origin, settings):
        return origins[0]
    raise PermissionDenied(
        f"Origin {origin!r} is not allowed. If its pages may use this service, add it to server.allowedOrigins "
        "(--allowed-origin)."
    )


def accepts_origin(scope: Scope, settings: Settings) -> bool:
    """Whether `judge` lets the request pass; for a library that asks for itself."""
    try:
        judge(scope, settings)
    except ServiceError:
        return False
    return True


def _host(scope: Scope) -> Authority:
    values = _values(scope, b"host")
    if len(values) != 1:
        raise InvalidInput("Host", f"a request must have one Host header, this one has {len(values)}")
    host = Authority.parse(values[0].decode("latin-1"))
    if host is None:
        raise InvalidInput("Host", "is not a host name or address with an optional port")
    return host


def _check_without_origin(scope: Scope, is_page: Callable[[str], bool]) -> None:
    """Browsers leave Origin out of navigations and of what a page embeds (Fetch standard, "origin" header).

    Of these only a link that opens a page of the web UI in a tab of its own is harmless: the page does nothing before
    its person acts, and the other site cannot read it. A frame, an image or a link to an address of the API is refused,
    for a GET of llama-server's router API can load a model.
    """
    site = _values(scope, b"sec-fetch-site")
    if not site or (len(site) == 1 and site[0] in _OWN_SITES):
        return
    opens_tab = _values(scope, b"sec-fetch-mode") == [b"navigate"] and _values(scope, b"sec-fetch-dest") == [
        b"document"
    ]
    is_read = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    if not (is_read and opens_tab and is_page(scope.get("path", ""))):
        raise PermissionDenied(
            "A page of another site sent this request. Open the address yourself, or add the site to "
            "server.allowedOrigins (--allowed-origin) if its pages may use this service."
        )


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


async def _refuse(refusal: ServiceError, scope: Scope, send: Send) -> None:
    await answer_with_error(refusal, error_body(refusal), scope, send)


async def answer_with_error(
    refusal: ServiceError, body: bytes, scope: Scope, send: Send, *more_headers: tuple[bytes, bytes]
) -> None:
    """Answer a request or a websocket's handshake with an error, of which `body` is the JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *more_headers]
    # A websocket is refused by an HTTP answer too, where the server can send one.
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    if scope["type"] == "websocket" and kind not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.message[:120]})
        return
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


# --- CORS -----------------------------------------------------------------------------------------


def _is_preflight(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] == "OPTIONS"
        and bool(_values(scope, b"access-control-request-method"))
    )


async def _answer_preflight(scope: Scope, origin: bytes, send: Send) -> None:
    """Whoever may call us may call everything."""
    methods = _values(scope, b"access-control-request-method")
    headers = _values(scope, b"access-control-request-headers")
    answer = [
        *_cors_headers(origin),
        (b"access-control-allow-methods", b", ".join(methods)),
        (b"access-control-max-age", _PREFLIGHT_MAX_AGE),
    ]
    if headers:
        answer.append((b"access-control-allow-headers", b", ".join(headers)))
    await send({"type": "http.response.start", "status": 204, "headers": answer})
    await send({"type": "http.response.body", "body": b""})


def _cors_headers(origin: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]


def _with_cors(send: Send, origin: bytes | None) -> Send:
    """CORS is decided here alone: what a door, or an engine behind it, says of it is dropped."""

    async def send_with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [h for h in message.get("headers", ()) if not h[0].lower().startswith(b"access-control-")]
            message = {**message, "headers": [*kept, *(_cors_headers(origin) if origin else ())]}
        await send(message)

    return send_with_cors
