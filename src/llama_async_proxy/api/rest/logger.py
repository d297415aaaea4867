"""The routes of the log's settings. They are part of the configuration, under names of their own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llama_async_proxy.api.rest.routing import BODY, RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.rest.schema import CamelModel, RestAnswer
from llama_async_proxy.operations.config import GetConfig, UpdateConfig, get_config, update_config
from llama_async_proxy.settings import Settings


class LoggerData(CamelModel):
    level: str = Field(description="Least severe level that is logged.")
    console: bool
    file: bool
    max_files: int = Field(description="Rotated files that are kept of each log.")


class LoggerBody(CamelModel):
    """Any part of it; what is absent keeps its value."""

    # Factories, so that the document shows neither null, which is refused, nor a default, which there is none.
    level: Literal["debug", "info", "warn", "error"] = Field(default_factory=lambda: "info")
    console: bool = Field(default_factory=bool)
    file: bool = Field(default_factory=bool)
    max_files: int = Field(default_factory=int, ge=0, le=1000)


async def get_logger(context: ServiceContext) -> RestAnswer[LoggerData]:
    """What is logged, and where to."""
    view = await get_config(context, GetConfig())
    return RestAnswer(data=_logger_data(view.settings))


async def update_logger(context: ServiceContext, body: LoggerBody) -> RestAnswer[LoggerData]:
    """Change what is logged and where to, at once and for later starts."""
    changes = body.model_dump(exclude_unset=True, by_alias=True)
    updated = await update_config(context, UpdateConfig({"logging": changes}))
    return RestAnswer(data=_logger_data(updated.settings), message="Logger updated successfully")


def _logger_data(settings: Settings) -> LoggerData:
    return LoggerData(
        level=settings.log_level,
        console=settings.log_console,
        file=settings.log_file,
        max_files=settings.log_max_files,
    )


TABLES = (
    RouteTable(
        "config",
        (
            RestRoute("GET", "/api/logger", get_logger, RestAnswer[LoggerData]),
            RestRoute("POST", "/api/logger", update_logger, RestAnswer[LoggerData], (*BODY, 403, 503)),
        ),
    ),
)
