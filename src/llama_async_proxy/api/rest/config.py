"""The routes of the configuration."""

from __future__ import annotations

from fastapi import APIRouter

from llama_async_proxy.api.rest import config_schema as wire
from llama_async_proxy.api.rest.route_policy import BODY, Live, Route, routes_of
from llama_async_proxy.operations import config as config_operations
from llama_async_proxy.operations.config import GetConfig, UpdateConfig


async def get_config(context: Live) -> wire.ConfigAnswer:
    """The configuration in force."""
    view = await config_operations.get_config(context, GetConfig())
    return wire.config_answer(view.settings)


async def update_config(context: Live, body: wire.ConfigBody) -> wire.ConfigUpdatedAnswer:
    """Change any part of the configuration: all of it or, when a value is wrong, nothing."""
    return wire.config_updated_answer(await config_operations.update_config(context, UpdateConfig(body.changes)))


_ROUTES: tuple[Route, ...] = (
    Route("GET", "/api/config", get_config, wire.ConfigAnswer, shows_null=True),
    Route("POST", "/api/config", update_config, wire.ConfigUpdatedAnswer, (*BODY, 403, 503)),
)


def config_routes() -> APIRouter:
    return routes_of("config", _ROUTES)
