"""What travels on the routes of the engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llama_async_proxy.api.rest.schema import CamelWire
from llama_async_proxy.api.units import iso_time
from llama_async_proxy.operations.engine import EngineView


class EngineData(CamelWire):
    status: Literal["idle", "running", "error"]
    mode: Literal["router"] = "router"
    kind: str = Field(description="How models are run: workers, embedded, router.")
    host: str
    port: int
    url: str = Field(description="Where inference is answered.")
    binary: str | None = None
    version: str | None = None
    error: str | None = None
    started_at: str | None = None
    preset: str | None = Field(None, description="The one it runs with.")


def engine_data(view: EngineView) -> EngineData:
    state = view.state
    return EngineData(
        status=state.status.value,
        kind=state.kind,
        host=view.host,
        port=view.port,
        url=view.url,
        binary=state.binary,
        version=state.version,
        error=state.error,
        started_at=iso_time(state.started_at_ms),
        preset=view.preset,
    )
