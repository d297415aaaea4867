"""Inference requests as the engine gets them: without headers that concern only the service and its client."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from llama_async_proxy.inference.request_log import key_id, request_id
from llama_async_proxy.inference.requests.routes import Headers, InferenceRoute
from llama_async_proxy.inference.upstream.client import UpstreamRequest, authority, authorization
from llama_async_proxy.inference.upstream.response_headers import HOP_BY_HOP, Header
from llama_async_proxy.records.runtime import Endpoint

_NOT_FORWARDED = HOP_BY_HOP | {
    *(b"host", b"content-length", b"expect"),  # written anew for the engine's connection
    *(b"authorization", b"proxy-authorization", b"x-api-key", b"cookie"),  # secrets for the service
    *(b"origin", b"referer"),  # the engine would allow any origin
    b"content-encoding",  # the body was decoded on its way in
    b"accept-encoding",  # a compressed stream could not be counted, nor end with an error event
    b"x-conversation-id",  # with it the engine would continue after its client has left
}


class InferenceRequest(Struct, frozen=True):
    """One request of a client."""

    route: InferenceRoute
    method: str
    query: bytes
    headers: Headers
    body: bytes
    client: str
    """Address of the peer, for the request log."""


def to_upstream_request(request: InferenceRequest) -> UpstreamRequest:
    """The request for the engine, with the same body."""
    target = request.route.path.encode()
    return UpstreamRequest(
        request.method,
        target + b"?" + request.query if request.query else target,
        _forwarded_headers(request.headers),
        request.body,
    )


class RequestHead:
    """Head of a client's request, parsed once for all requests that repeat it with other bodies."""

    __slots__ = ("_endpoint", "_head", "_lines", "headers", "key", "method", "own_id", "query", "route")

    def __init__(self, route: InferenceRoute, method: str, query: bytes, headers: Sequence[Header]) -> None:
        self.route = route
        self.method = method
        self.query = query
        self.headers = headers
        self.own_id = request_id(headers)
        """The client's own id for its requests."""
        self.key = key_id(headers)
        self._lines = header_lines(_forwarded_headers(headers))
        self._endpoint: Endpoint | None = None
        self._head = b""
        """Head of the request for `_endpoint`, without content length and blank line."""

    def to_bytes(self, endpoint: Endpoint, body: bytes) -> bytes:
        """The whole request for the engine at `endpoint`."""
        if endpoint.model is not None:
            request = InferenceRequest(self.route, self.method, self.query, self.headers, body, "")
            routed = to_upstream_request(request).to(endpoint)
            return routed.head(endpoint) + routed.body
        if endpoint is not self._endpoint:
            query = b"?" + self.query if self.query else b""
            target = b"%b %b%b" % (self.method.encode(), self.route.path.encode(), query)
            lines = header_lines([(b"host", authority(endpoint)), *authorization(endpoint)]) + self._lines
            self._head = b"%b HTTP/1.1\r\n%b" % (target, lines)
            self._endpoint = endpoint
        if body or self.method == "POST":
            return b"%bcontent-length: %d\r\n\r\n%b" % (self._head, len(body), body)
        return self._head + b"\r\n"


def header_lines(headers: Sequence[Header]) -> bytes:
    """Headers as they are written, each with its line end."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def _forwarded_headers(headers: Headers) -> list[Header]:
    """A client's headers without those that are not for the engine, nor those its Connection header names."""
    named = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    return [(name, value) for name, value in headers if name not in _NOT_FORWARDED and name not in named]
