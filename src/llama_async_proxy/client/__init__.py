"""A typed client of the service's REST interface, for threads and for asyncio.

    from llama_async_proxy.client import Client, api

    client = Client("http://127.0.0.1:3000")
    for model in client.send(api.list_models())["data"]["models"]:
        print(model["id"], model["status"])

`api` has a function for each operation; it makes a request whose type says what `Client.send`, or `await
AsyncClient.send`, will return. Every failure is an ApiError.
"""

from __future__ import annotations

from llama_async_proxy.client import api
from llama_async_proxy.client.config import (
    LlamaServerConfig,
    get_default_config,
    load_config,
    save_config,
    validate_config,
)
from llama_async_proxy.client.errors import (
    ApiError,
    Conflict,
    ConnectionFailed,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServerFailed,
    Unavailable,
)
from llama_async_proxy.client.exchange import Event, Request
from llama_async_proxy.client.transport import AsyncClient, Client

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "Event",
    "Forbidden",
    "InvalidRequest",
    "LlamaServerConfig",
    "NotFound",
    "RateLimited",
    "Request",
    "ServerFailed",
    "Unavailable",
    "api",
    "get_default_config",
    "load_config",
    "save_config",
    "validate_config",
]
