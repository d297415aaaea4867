from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from llama_async_proxy.api.http.access import Authority, SecurityMiddleware, host_allowed, no_page
from llama_async_proxy.settings import Settings, resolve
from support.asgi import serving

SETTINGS = resolve(command_line={}, environment={}, file={}, default_data_dir=Path("/data"))


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """A door that answers everything, and speaks of CORS although nobody asked it to."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5"), (b"access-control-allow-origin", b"*")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


class Site:
    """The middleware on a real server."""

    def __init__(self) -> None:
        self.settings = SETTINGS
        self.port = 0

    def get_settings(self) -> Settings:
        return self.settings

    def allow(self, *, hosts: tuple[str, ...] = (), origins: tuple[str, ...] = ()) -> None:
        self.settings = replace(SETTINGS, allowed_hosts=hosts, allowed_origins=origins)

    async def send(self, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
        """(status, headers, body) of a request with exactly these headers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        connection = () if "Connection: Upgrade" in headers else ("Connection: close",)
        lines = [f"{method} / HTTP/1.1", *headers, *connection]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode().removesuffix("\r\n\r\n")
        body = "" if "101 Switching" in head else (await asyncio.wait_for(reader.read(), 30)).decode()
        writer.close()
        status, *fields = head.split("\r\n")
        return int(status.split()[1]), dict(f.lower().split(": ", 1) for f in fields), body

    async def status(self, *headers: str, method: str = "GET") -> int:
        return (await self.send(*headers, method=method))[0]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    async with serving(SecurityMiddleware(hello, site.get_settings, lambda path: path == "/")) as site.port:
        yield site


# --- Host -------------------------------------------------------------------------------------------------------------


LOOPBACK = [
    "localhost",
    "LocalHost:3000",
    "localhost.",
    "models.localhost:80",
    "127.0.0.1:3000",
    "127.8.9.10",
    "[::1]:3000",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[0:0:0:0:0:0:0:1]",
]


async def test_loopback_names_and_addresses_are_ours(site: Site) -> None:
    statuses = {host: await site.status(f"Host: {host}") for host in LOOPBACK}
    assert statuses == dict.fromkeys(LOOPBACK, 200)


STRANGE = [
    "evil.example",
    "localhost.evil.example",
    "notlocalhost",
    "127.0.0.1.nip.io",
    "192.168.1.2",
    "0.0.0.0",
    "[::2]",
]


async def test_any_other_name_is_refused(site: Site) -> None:
    statuses = {host: await site.status(f"Host: {host}") for host in STRANGE}
    assert statuses == dict.fromkeys(STRANGE, 403)


async def test_a_refusal_says_what_to_set_in_every_clients_shape(site: Site) -> None:
    status, headers, body = await site.send("Host: evil.example")
    answer = json.loads(body)
    assert status == 403
    assert headers["content-type"] == "application/json"
    assert answer["success"] is False
    assert answer["error"]["code"] == "PERMISSION_DENIED"
    assert "--allowed-host" in answer["error"]["message"]
    assert answer["error"]["type"] == "permission_error"
    assert answer["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Host: localhost", "Host: localhost"),
        ("Host: localhost", "Host: evil.example"),
        ("Host: evil@localhost",),
        ("Host: ",),
        ("Host: localhost:port",),
        ("Host: [::1",),
        ("Host: localhost/evil",),
    ],
)
async def test_a_request_must_have_one_wellformed_host(site: Site, headers: tuple[str, ...]) -> None:
    status, _, body = await site.send(*headers)
    assert status == 400
    assert "Host" in json.loads(body)["error"]["message"]


async def test_a_configured_host_is_accepted_at_once(site: Site) -> None:
    assert await site.status("Host: box.lan:3000") == 403
    site.allow(hosts=("box.lan", "*.models.example", "192.168.1.2", "fd00::7"))
    for host in ("box.lan:3000", "BOX.lan", "a.b.models.example", "192.168.1.2:3000", "[fd00::7]:3000"):
        assert await site.status(f"Host: {host}") == 200
    for host in ("models.example", "evil-box.lan", "192.168.1.3", "[fd00::8]"):
        assert await site.status(f"Host: {host}") == 403


@pytest.mark.parametrize(
    ("listen", "host", "local", "allowed"),
    [
        ("192.168.1.2", "192.168.1.2", None, True),
        ("192.168.1.2", "192.168.1.3", None, False),
        ("box.lan", "box.lan", None, True),
        ("0.0.0.0", "203.0.113.9", None, True),
        ("0.0.0.0", "evil.example", None, False),
        ("::", "[fd00::1]", None, True),
        ("127.0.0.1", "10.0.0.5", "10.0.0.5", True),
        ("127.0.0.1", "10.0.0.6", "10.0.0.5", False),
    ],
)
def test_the_listen_address_is_ours(listen: str, host: str, local: str | None, allowed: bool) -> None:
    authority = Authority.parse(host)
    assert authority is not None
    assert host_allowed(authority, replace(SETTINGS, host=listen), local) is allowed


# --- Origin -----------------------------------------------------------------------------------------------------------


FOREIGN = [
    "https://evil.example",
    "null",
    "http://localhost:3001",
    "https://localhost:3000",
    "http://127.0.0.1:3000",
    "http://localhost:3000.evil.example",
    "http://localhost:3000@evil.example",
    "http://localhost:port",
    "nonsense",
    "",
]


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
async def test_a_foreign_origin_is_refused_whatever_the_method(site: Site, method: str) -> None:
    for origin in FOREIGN:
        status, headers, body = await site.send("Host: localhost:3000", f"Origin: {origin}", method=method)
        assert status == 403, origin
        assert "--allowed-origin" in json.loads(body)["error"]["message"]
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:3000", "http://localhost:3000"),
        ("LOCALHOST:3000", "http://localhost:3000"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("[::1]:3000", "http://[::1]:3000"),
    ],
)
async def test_our_own_origin_is_accepted_without_cors(site: Site, host: str, origin: str) -> None:
    status, headers, body = await site.send(f"Host: {host}", f"Origin: {origin}", method="POST")
    assert (status, body) == (200, "hello")
    assert "access-control-allow-origin" not in headers


async def test_a_rebinding_pair_of_host_and_origin_is_refused(site: Site) -> None:
    assert await site.status("Host: evil.example:3000", "Origin: http://evil.example:3000") == 403


async def test_several_origins_are_refused(site: Site) -> None:
    own = "Origin: http://localhost"
    assert await site.status("Host: localhost", own, own) == 403


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", ("Sec-Fetch-Site: cross-site",), 403),
        ("POST", ("Sec-Fetch-Site: same-site",), 403),
        ("POST", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"), 403),
        ("GET", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"), 403),
        ("GET", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), 200),
        ("HEAD", ("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), 200),
        ("GET", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"), 403),
        *(
            ("GET", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", f"Sec-Fetch-Dest: {frame}"), 403)
            for frame in ("iframe", "frame", "embed", "object", "fencedframe")
        ),
        ("GET", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: none"), 403),
        ("POST", ("Sec-Fetch-Site: same-origin",), 200),
        ("GET", ("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"), 200),
        ("POST", (), 200),
    ],
)
async def test_without_an_origin_only_links_lead_here_from_other_sites(
    site: Site, method: str, headers: tuple[str, ...], status: int
) -> None:
    assert await site.status("Host: localhost", "Content-Length: 0", *headers, method=method) == status


# --- websockets -------------------------------------------------------------------------------------------------------


async def upgrade(site: Site, *headers: str) -> int:
    key = base64.b64encode(os.urandom(16)).decode()
    return await site.status(
        *headers,
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    )


async def test_websockets_are_judged_alike(site: Site) -> None:
    assert await upgrade(site, "Host: localhost:3000") == 101
    assert await upgrade(site, "Host: localhost:3000", "Origin: http://localhost:3000") == 101
    assert await upgrade(site, "Host: localhost:3000", "Origin: http://evil.example") == 403
    assert await upgrade(site, "Host: evil.example") == 403
    assert await upgrade(site, "Host: localhost", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: websocket") == 403
    site.allow(origins=("http://friend.example",))
    assert await upgrade(site, "Host: localhost:3000", "Origin: http://friend.example") == 101


async def test_a_server_that_cannot_refuse_with_an_answer_closes_the_websocket() -> None:
    sent: list[Mapping[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read of a refused request")

    scope = {"type": "websocket", "scheme": "ws", "path": "/", "headers": [(b"host", b"evil.example")]}
    await SecurityMiddleware(hello, lambda: SETTINGS, no_page)(scope, receive, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


# --- CORS -------------------------------------------------------------------------------------------------------------


async def test_an_allowed_origin_may_read_the_answer(site: Site) -> None:
    site.allow(origins=("https://Friend.example",))
    status, headers, body = await site.send("Host: localhost", "Origin: https://friend.example")
    assert (status, body) == (200, "hello")
    assert headers["access-control-allow-origin"] == "https://friend.example"
    assert headers["vary"] == "origin"


async def test_an_allowed_origin_gets_its_preflight_answered(site: Site) -> None:
    site.allow(origins=("https://friend.example",))
    status, headers, body = await site.send(
        "Host: localhost",
        "Origin: https://friend.example",
        "Access-Control-Request-Method: PATCH",
        "Access-Control-Request-Headers: content-type, x-stainless-os",
        method="OPTIONS",
    )
    assert (status, body) == (204, "")
    assert headers["access-control-allow-origin"] == "https://friend.example"
    assert headers["access-control-allow-methods"] == "patch"  # header values are lowered by this test
    assert headers["access-control-allow-headers"] == "content-type, x-stainless-os"


async def test_null_is_nobody_even_when_the_settings_say_so(site: Site) -> None:
    site.allow(origins=("null", ""))
    assert await site.status("Host: localhost", "Origin: null") == 403


async def test_what_a_door_says_of_cors_does_not_reach_the_client(site: Site) -> None:
    _, headers, _ = await site.send("Host: localhost")
    assert not [name for name in headers if name.startswith("access-control-")]


async def test_a_withdrawn_origin_is_refused_at_once(site: Site) -> None:
    site.allow(origins=("https://friend.example",))
    assert await site.status("Host: localhost", "Origin: https://friend.example") == 200
    site.allow()
    assert await site.status("Host: localhost", "Origin: https://friend.example") == 403
