"""Envelopes of Socket.IO v1: reading a request out of one, and wrapping answers and broadcasts."""

from __future__ import annotations

import uuid
from typing import TypeAlias

import msgspec

from llama_async_proxy.api.socketio.contract import Call
from llama_async_proxy.api.socketio.dispatch import CallFailure, CallSuccess, as_object, json_type
from llama_async_proxy.api.socketio.emitter import Unreadable
from llama_async_proxy.api.socketio.v1.dialect import V1
from llama_async_proxy.errors import InvalidInput

Envelope: TypeAlias = dict[str, object]

_VERSION = "1.0"
_NAME_SHOWN = 100
"""Characters of an unknown event's name that are repeated to its sender."""


def request_data(payload: object) -> object:
    """Fields of a request, which come flat or in an envelope. Raises InvalidInput."""
    if isinstance(payload, Unreadable):
        return payload
    fields = as_object(payload)
    given = fields.get("requestId")
    if given is not None and not isinstance(given, str | int):
        raise InvalidInput("requestId", f"must be a string, not {json_type(given)}")
    if fields.get("type") != "request" or fields.get("data") is None:
        return fields
    return as_object(fields["data"], "data")


def request_id(payload: object) -> str | int:
    """The client's id for a request, from the envelope or its data, so that a refusal reaches it too; else a new id."""
    if isinstance(payload, Unreadable) and payload.request_id is not None:
        return payload.request_id
    envelope = payload if isinstance(payload, dict) else {}
    data = envelope.get("data")
    for holder in (envelope, data if isinstance(data, dict) else {}):
        given = holder.get("requestId")
        if isinstance(given, str | int):
            return given
    return f"req_{uuid.uuid4().hex[:16]}"


def response(event: object, given_id: str | int, outcome: CallSuccess | CallFailure, now_ms: int) -> Envelope:
    """Envelope of the answer to a request."""
    return {
        "type": "response",
        "event": _result_event(event),
        "success": isinstance(outcome, CallSuccess),
        "data": outcome.data if isinstance(outcome, CallSuccess) else None,
        "error": _error(outcome) if isinstance(outcome, CallFailure) else None,
        "requestId": given_id,
        "timestamp": now_ms,
        "version": _VERSION,
    }


def broadcast(event: str, data: msgspec.Struct, now_ms: int) -> Envelope:
    """Envelope of an event that no client asked for."""
    return {"type": "broadcast", "event": event, "data": msgspec.to_builtins(data), "timestamp": now_ms}


def _result_event(event: object) -> str:
    call = V1.by_event.get(event) if isinstance(event, str) else None
    answers_as = call.answers_as if isinstance(call, Call) else ""
    return f"{answers_as or str(event)[:_NAME_SHOWN]}:result"


def _error(refusal: CallFailure) -> dict[str, str]:
    details = {"details": refusal.details} if refusal.details else {}
    return {"code": refusal.code, "message": refusal.message, **details}
