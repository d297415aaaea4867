"""`serve` runs the service."""

from __future__ import annotations

import argparse
import gc
from typing import Any

from llama_async_proxy.cli.arguments import add_settings, settings_of
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.settings import SETTINGS, is_loopback


def add_serve(commands: Any) -> None:
    serve = commands.add_parser("serve", help="run the service", description="Run the service until Ctrl+C or SIGTERM.")
    add_settings(serve, SETTINGS)
    serve.set_defaults(command=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    runs_router = settings.engine == "router" and not settings.router_url
    if runs_router and not is_loopback(settings.engine_host) and not settings.insecure_no_auth:
        raise InvalidInput(
            "host",
            f"the router would listen on {settings.engine_host}, where other machines reach it, and it has no "
            "authentication; set localhost, or add --insecure-no-auth if you accept that",
        )
    if not is_loopback(settings.host) and not settings.insecure_no_auth:
        raise InvalidInput(
            "--host",
            f"{settings.host} can be reached from other machines and this service has no authentication; keep "
            "127.0.0.1 behind a reverse proxy or a tunnel, or add --insecure-no-auth if you accept that",
        )
    # All that imports make lives as long as the process: collecting among it costs a sixth of the start.
    gc.disable()
    from llama_async_proxy import app

    gc.freeze()
    gc.enable()
    return app.run(settings, lambda: settings_of(arguments))
