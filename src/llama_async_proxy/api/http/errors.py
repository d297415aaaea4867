"""How an error reads on the HTTP doors that are ours."""

from __future__ import annotations

import time

import msgspec

from llama_async_proxy.errors import ServiceError
from llama_async_proxy.monitor.logtext import timestamp


def iso_now() -> str:
    """The present as ISO 8601 in UTC."""
    return timestamp(time.time_ns() // 1_000_000)


def error_envelope(code: str, message: str, kind: str, details: str | None = None) -> dict[str, object]:
    """`kind` is what clients of the OpenAI API look for, so that they too show the sentence."""
    error: dict[str, object] = {"code": code, "message": message, "type": kind}
    if details:
        error["details"] = details
    return {"success": False, "error": error, "timestamp": iso_now()}


def error_body(error: ServiceError) -> bytes:
    return msgspec.json.encode(error_envelope(error.rest_code, error.message, error.openai_type, error.details))
