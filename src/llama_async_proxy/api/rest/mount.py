"""REST behind the service's port, built when its first request comes.

FastAPI, pydantic and a hundred routes take as long to make as the rest of the service together, and 16 MiB. The pages,
Socket.IO and inference do not need them.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from llama_async_proxy.operations.context import Context


class RestMount:
    """The ASGI application of everything below /api. Owned by the event loop."""

    def __init__(self, context: Callable[[], Context]) -> None:
        self._context = context
        self._app: asyncio.Future[ASGIApp] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            # In a thread, so that running streams go on meanwhile; requests that come meanwhile share the building.
            self._app = asyncio.ensure_future(asyncio.to_thread(self._build))
        app = await asyncio.shield(self._app)
        await app(scope, receive, send)

    def _build(self) -> ASGIApp:
        built: ASGIApp = importlib.import_module("llama_async_proxy.api.rest.app").create_rest(self._context)
        return built
