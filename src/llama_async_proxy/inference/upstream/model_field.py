"""Requests to a router, which answers for several models at one address and must be told which is meant. Pure."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import msgspec

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def target_for(model: str, target: bytes) -> bytes:
    """`target` naming `model` in its query. The router is told to load nothing: that is decided here."""
    path, _, query = target.partition(b"?")
    kept = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] not in (b"model", b"autoload")]
    return path + b"?" + urlencode([*kept, (b"model", model), (b"autoload", "false")]).encode()


def body_for(model: str, body: bytes) -> bytes:
    """A JSON object naming `model`, the values of its other keys unchanged to the byte; any other body as it is."""
    try:
        fields = _OBJECT.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body  # an array, a form, nothing: the query says it
    name = msgspec.json.encode(model)
    if bytes(fields.get("model", b"")) == name:
        return body
    return msgspec.json.encode(fields | {"model": msgspec.Raw(name)})
