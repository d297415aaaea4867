"""Asking a model's process about itself: small GET requests on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from urllib.parse import quote

from msgspec import Struct

from llama_async_proxy.engines.exchange import exchange
from llama_async_proxy.records.runtime import Endpoint

TIMEOUT_S = 2.0
MAX_ANSWER = 4 << 20
"""Bytes. /props carries the chat template, /slots the parameters of every slot."""


class Properties(Struct, frozen=True):
    """What a ready server says of itself; None where it does not say."""

    context_size: int | None = None
    """Tokens per slot."""
    slots: int | None = None
    path: str | None = None
    """Of the model's file."""


async def is_healthy(endpoint: Endpoint, path: str = "/health") -> bool:
    """True when the server answers that its model is loaded."""
    try:
        status, _ = await _get(endpoint, path)
    except (OSError, TimeoutError, ValueError):
        return False
    return status == 200


async def properties(endpoint: Endpoint) -> Properties:
    """All None for a server that has no /props."""
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
    """True while a request is being worked on; False when the server does not tell."""
    try:
        status, body = await _get(endpoint, "/slots")
        slots = json.loads(body) if status == 200 else []
    except TimeoutError:
        return True  # the answer waits for the decoding step that is running
    except (OSError, ValueError):
        return False
    return isinstance(slots, list) and any(isinstance(s, Mapping) and s.get("is_processing") is True for s in slots)


async def _get(endpoint: Endpoint, path: str) -> tuple[int, bytes]:
    """(status, body). Raises OSError, TimeoutError, or ValueError for what is no HTTP."""
    if endpoint.model is not None:
        path += f"?model={quote(endpoint.model, safe='')}&autoload=false"
    async with asyncio.timeout(TIMEOUT_S), exchange(endpoint, "GET", path) as sent:
        answer = await sent.whole(MAX_ANSWER)
    return answer.status, bytes(answer.body)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
