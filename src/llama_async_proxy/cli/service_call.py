"""Requests to the running service."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from llama_async_proxy.cli.arguments import ADDRESS, add_settings, settings_of
from llama_async_proxy.errors import InvalidInput, ServiceError
from llama_async_proxy.settings import Settings


def add_address(parser: argparse.ArgumentParser) -> None:
    """Flags that say where the service answers."""
    parser.add_argument("--url", help="address of the service (default: from the settings)")
    add_settings(parser, ADDRESS)


def address_of(arguments: argparse.Namespace) -> str:
    """URL of the service that the arguments mean."""
    return arguments.url or _url(settings_of(arguments))


def _url(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def call_service(base: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """The JSON answer of the running service. Raises ServiceError with the service's own sentence."""
    from llama_async_proxy.client import ApiError, Client, ConnectionFailed, Request

    try:
        client = Client(base)
    except ValueError as exc:
        raise InvalidInput("--url", str(exc)) from exc
    request: Request[Any] = Request(method, path, body=None if method == "GET" else body or {})
    try:
        return client.send(request)
    except ConnectionFailed as exc:
        raise ServiceError(f"{exc.message}; start the service with: llama-async-proxy serve") from exc
    except ApiError as exc:
        raise ServiceError(exc.message, details=exc.details) from exc
