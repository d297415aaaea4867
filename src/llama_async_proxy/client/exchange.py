"""One request and its answer as bytes, without a socket: what the clients for threads and for asyncio share."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote, unquote, urlencode, urlsplit

import httptools

from llama_async_proxy.client.errors import ConnectionFailed, from_answer

T = TypeVar("T")
Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """An operation with its arguments; `T` is what its answer becomes."""

    method: str
    path: str
    query: Mapping[str, Value | None] = field(default_factory=dict)
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: object = None
    """JSON; None for no body."""
    is_wrapped: bool = False
    """The answer is an envelope of which only `data` matters."""


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event of a streamed answer."""

    type: str
    data: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service is. `url` may have a path, if a proxy puts the service below one, and user and password."""

    scheme: str
    host: str
    port: int
    prefix: str
    authorization: str | None

    @classmethod
    def parse(cls, url: str, api_key: str | None = None) -> Address:
        """Raises ValueError for what is no http or https URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a URL such as http://127.0.0.1:3000")
        authorization = f"Bearer {api_key}" if api_key else None
        if parts.username and authorization is None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"), authorization)

    def encode(self, request: Request[Any]) -> bytes:
        """The whole request. Its connection is for it alone: local connections cost less than keeping count of them."""
        query = urlencode({k: _text(v) for k, v in request.query.items() if v is not None})
        target = f"{self.prefix}{request.path}{'?' if query else ''}{query}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        headers = {"Host": f"{host}:{self.port}", "Connection": "close", "Accept": "*/*", **request.headers}
        if self.authorization:
            headers["Authorization"] = self.authorization
        body = b"" if request.body is None else json.dumps(request.body, allow_nan=False).encode()
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        headers["Content-Length"] = str(len(body))
        lines = [f"{request.method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items() if v is not None)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def path_of(template: str, **values: Value) -> str:
    """`/api/models/{model_id}` with its parameters filled in."""
    return template.format(**{name: quote(_text(value), safe="") for name, value in values.items()})


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Answer:
    """The answer as it arrives. Feed it what the socket gave, `b""` for its end."""

    def __init__(self) -> None:
        self.is_complete = False
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Raises ConnectionFailed for an answer that broke off or is not one of HTTP."""
        if not data:
            if not self.is_complete and not self._ends_with_connection:
                raise ConnectionFailed("The service closed the connection before its answer was complete.")
            self.is_complete = True
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            raise ConnectionFailed(f"What answers is no HTTP server: {exc}") from exc

    @property
    def _ends_with_connection(self) -> bool:
        framed = {"content-length", "transfer-encoding"} & self._headers.keys()
        return self.has_head and not framed

    @property
    def has_head(self) -> bool:
        return bool(self._headers)

    @property
    def status(self) -> int:
        status: int = self._parser.get_status_code()
        return status

    @property
    def is_stream(self) -> bool:
        return self._headers.get("content-type", "").startswith("text/event-stream") and self.status < 300

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.is_complete = True

    def result(self, request: Request[T]) -> T:
        """What the complete answer says. Raises ApiError when that is a failure."""
        is_json = self._headers.get("content-type", "").startswith("application/json")
        body: Any = _json(self._body) if is_json else bytes(self._body)
        if self.status >= 300:
            raise from_answer(self.status, self._headers, body)
        if self.status == 204:
            body = None
        return cast("T", body["data"] if request.is_wrapped else body)

    def events(self) -> Iterator[Event]:
        """The events that are complete and were not taken yet."""
        text, separator, rest = self._body.replace(b"\r\n", b"\n").rpartition(b"\n\n")
        if separator:
            self._body = bytearray(rest)
            yield from (event for block in text.decode().split("\n\n") if (event := _event(block)))


def _json(body: bytearray) -> Any:
    try:
        return json.loads(body)
    except ValueError as exc:
        raise ConnectionFailed(f"The answer is not the JSON that it says it is: {exc}") from exc


def _event(block: str) -> Event | None:
    """None for a comment, which only keeps the connection in use."""
    fields = {"event": "message", "id": "", "data": ""}
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        if name in fields:
            fields[name] = value.removeprefix(" ")
    return Event(fields["event"], json.loads(fields["data"]), fields["id"]) if fields["data"] else None
