"""Error answers of requests that are refused before they reach an API."""

from __future__ import annotations

import msgspec

from llama_async_proxy.api.units import iso_now
from llama_async_proxy.errors import ServiceError


def error_body(error: ServiceError) -> bytes:
    """JSON in the form of /api, with the `type` that clients of the OpenAI API look for: they show the message, too."""
    content: dict[str, object] = {"code": error.rest_code, "message": error.message, "type": error.openai_type}
    if error.details:
        content["details"] = error.details
    return msgspec.json.encode({"success": False, "error": content, "timestamp": iso_now()})
