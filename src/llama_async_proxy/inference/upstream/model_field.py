"""The model's name in requests to a router, which serves several models at one address. Pure."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import msgspec

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def target_for(model: str, target: bytes) -> bytes:
    """`target` with `model` in its query, and `autoload=false`: this service decides what is loaded."""
    path, _, query = target.partition(b"?")
    kept = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] not in (b"model", b"autoload")]
    return path + b"?" + urlencode([*kept, (b"model", model), (b"autoload", "false")]).encode()


def body_for(model: str, body: bytes) -> bytes:
    """`body` with `model` as its model, the bytes of its other values unchanged. A body that is no JSON object is
    returned as it is."""
    try:
        fields = _OBJECT.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body  # an array, a form or empty: the query names the model
    name = msgspec.json.encode(model)
    if bytes(fields.get("model", b"")) == name:
        return body
    return msgspec.json.encode(fields | {"model": msgspec.Raw(name)})
