"""Probes of a model's server: health, properties and busy slots, by small GET requests on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from urllib.parse import quote

from msgspec import Struct

from llama_async_proxy.engines.http_client import send_request
from llama_async_proxy.records.runtime import Endpoint

TIMEOUT_S = 2.0
MAX_RESPONSE = 4 << 20
"""Largest body in bytes. /props carries the chat template, /slots the parameters of every slot."""


class Properties(Struct, frozen=True):
    """Properties that a ready server reports; None for those that it does not report."""

    context_size: int | None = None
    """Tokens per slot."""
    slots: int | None = None
    path: str | None = None
    """Path of the model's file."""


async def is_healthy(endpoint: Endpoint, path: str = "/health") -> bool:
    """True when the server answers that its model is loaded."""
    try:
        status, _ = await _get(endpoint, path)
    except (OSError, TimeoutError, ValueError):
        return False
    return status == 200


async def properties(endpoint: Endpoint) -> Properties:
    """Properties from /props; all None for a server without it."""
    try:
        status, body = await _get(endpoint, "/props")
        document = json.loads(body) if status == 200 else {}
    except (OSError, TimeoutError, ValueError):
        return Properties()
    if not isinstance(document, Mapping):
        return Properties()
    defaults = document.get("default_generation_settings")
    path = document.get("model_path")
    return Properties(
        context_size=_count(defaults.get("n_ctx") if isinstance(defaults, Mapping) else None),
        slots=_count(document.get("total_slots")),
        path=path if isinstance(path, str) else None,
    )


async def is_busy(endpoint: Endpoint) -> bool:
    """True while the server works on a request; False when it does not report its slots."""
    try:
        status, body = await _get(endpoint, "/slots")
        slots = json.loads(body) if status == 200 else []
    except TimeoutError:
        # The main loop answers /slots, which waits for the current decoding step (b11434, server-context.cpp).
        return True
    except (OSError, ValueError):
        return False
    return isinstance(slots, list) and any(isinstance(s, Mapping) and s.get("is_processing") is True for s in slots)


async def _get(endpoint: Endpoint, path: str) -> tuple[int, bytes]:
    """Status and body of a GET request. Raises OSError, TimeoutError, or ValueError when the server speaks no HTTP."""
    if endpoint.model is not None:
        path += f"?model={quote(endpoint.model, safe='')}&autoload=false"
    async with asyncio.timeout(TIMEOUT_S), send_request(endpoint, "GET", path) as exchange:
        response = await exchange.read_all(MAX_RESPONSE)
    return response.status, bytes(response.body)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
