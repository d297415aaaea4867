"""Errors that an engine tells within a stream, whose status has left already. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from llama_async_proxy.inference.streaming.sse import EventReader, StreamEvent

_FRAMING = re.compile(rb"\r\n[0-9A-Fa-f]{1,8}\r\n")
_Raw = msgspec.Raw | msgspec.UnsetType
_ENDS = (b"[DONE]", b'{"type":"message_stop"}')
_SERVER_ERROR = 500


class StreamError(NamedTuple):
    status: int
    """400 to 599; 500 where the engine names none of these."""
    message: str
    fields: Mapping[str, msgspec.Raw]
    """The engine's own error object."""


class _ErrorEvent(msgspec.Struct):
    error: _Raw = msgspec.UNSET
    type: object = None
    response: _Raw = msgspec.UNSET


class _FailedResponse(msgspec.Struct):
    error: _Raw = msgspec.UNSET


def error_in(event: StreamEvent) -> StreamError | None:
    """The error that an event tells, in the form of any of the dialects; None for every other event."""
    named = event.name == b"error"
    if not named and b'"error"' not in event.data:
        return None
    try:
        told = _ERROR_EVENT.decode(event.data)
        error = told.error
        if told.type == "response.failed" and isinstance(told.response, msgspec.Raw):
            error = _FAILED_RESPONSE.decode(told.response).error
    except msgspec.DecodeError:
        return _stream_error(msgspec.Raw(msgspec.json.encode(event.data.decode()))) if named else None
    if isinstance(error, msgspec.Raw) and bytes(error) != b"null":
        return _stream_error(error)
    return _stream_error(msgspec.Raw(event.data)) if named or told.type == "error" else None


def error_at_end(tail: bytes) -> StreamError | None:
    """The error with which a stream ended, of which `tail` is the last part, with its chunk framing or without."""
    if b'"error"' not in tail and b"event: error" not in tail:
        return None
    reader = EventReader()
    events = reader.feed(_FRAMING.sub(b"", tail)) + reader.rest()
    said = [event for event in events if event.data not in _ENDS]
    return error_in(said[-1]) if said else None


def _stream_error(error: msgspec.Raw) -> StreamError:
    try:
        fields = _FIELDS.decode(error)
    except msgspec.DecodeError:
        fields = {"code": msgspec.Raw(b"500"), "message": _message(error), "type": msgspec.Raw(b'"server_error"')}
    return StreamError(_status(fields.get("code")), _text(fields.get("message")), fields)


def _message(error: msgspec.Raw) -> msgspec.Raw:
    """A JSON string as it is, any other value as a string that shows it."""
    text = bytes(error)
    return error if text.startswith(b'"') else msgspec.Raw(msgspec.json.encode(text.decode(errors="replace")))


def _status(code: msgspec.Raw | None) -> int:
    digits = b"" if code is None else bytes(code)
    return int(digits) if digits.isdigit() and len(digits) == 3 and 400 <= int(digits) < 600 else _SERVER_ERROR


def _text(message: msgspec.Raw | None) -> str:
    try:
        return _STRING.decode(b'""' if message is None else message) or "The engine ended its stream with an error."
    except msgspec.DecodeError:
        return bytes(message or b"").decode(errors="replace")


_ERROR_EVENT = msgspec.json.Decoder(_ErrorEvent)
_FAILED_RESPONSE = msgspec.json.Decoder(_FailedResponse)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
