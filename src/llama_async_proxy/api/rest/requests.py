"""/api/requests: the inference requests that run and those that have ended; DELETE breaks one off."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import Field

from llama_async_proxy.api.rest.routing import RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.rest.schema import CamelModel, RestAnswer
from llama_async_proxy.api.units import iso_time
from llama_async_proxy.operations import requests as request_operations
from llama_async_proxy.operations.requests import CancelRequest, ListRequests
from llama_async_proxy.records.requests import LiveRequest, RequestPhase, RequestRecord

# --- schema -----------------------------------------------------------------------------------------------------------


class Waiting(CamelModel):
    position: int = Field(description="Of the model among all that wait, from 1.")
    requests: int = Field(description="How many wait for the model.")
    reason: str


class RunningRequest(CamelModel):
    id: str = Field(description="Also in the answer's header X-Request-Id; the client's own if it sent one.")
    arrived_at: str
    client: str
    route: str
    model: str
    status: RequestPhase
    queue: Waiting | None
    tokens: int = Field(description="Pieces of the answer so far: one for each token.")
    elapsed_ms: float


class EndedRequest(CamelModel):
    id: str
    arrived_at: str
    client: str
    route: str
    model: str
    status: int = Field(description="Of HTTP; 499 when the client left or the request was cancelled.")
    streamed: bool
    queued_ms: float | None
    load_ms: float | None
    first_token_ms: float | None
    total_ms: float
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    tokens_per_second: float | None
    error: str | None
    key: str | None = Field(description="First eight digits of the SHA-256 of the API key it came with.")


class Requests(CamelModel):
    live: list[RunningRequest]
    recent: list[EndedRequest]


class CancelledData(CamelModel):
    cancelled: list[RunningRequest] = Field(description="Several when clients gave them the same id.")


# --- mapping ----------------------------------------------------------------------------------------------------------


def _running(request: LiveRequest) -> RunningRequest:
    queue = request.queue
    return RunningRequest(
        id=request.id,
        arrived_at=iso_time(request.arrived_at_ms),
        client=request.client,
        route=request.route,
        model=request.model,
        status=request.phase,
        queue=None if queue is None else Waiting(position=queue.position, requests=queue.requests, reason=queue.reason),
        tokens=request.tokens,
        elapsed_ms=request.elapsed_ms,
    )


def _ended(record: RequestRecord) -> EndedRequest:
    return EndedRequest(
        id=record.id,
        arrived_at=iso_time(record.arrived_at_ms),
        client=record.client,
        route=record.route,
        model=record.model,
        status=record.status,
        streamed=record.streamed,
        queued_ms=record.queued_ms,
        load_ms=record.load_ms,
        first_token_ms=record.first_token_ms,
        total_ms=record.total_ms,
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        cached_tokens=record.cached_tokens,
        tokens_per_second=record.tokens_per_second,
        error=record.error,
        key=record.key,
    )


# --- routes -----------------------------------------------------------------------------------------------------------


async def list_requests(
    context: ServiceContext,
    limit: Annotated[int, Query(description="Of those that have ended; 0 to 1000.")] = 100,
    model: Annotated[str | None, Query(description="Only requests to the model of this id.")] = None,
) -> RestAnswer[Requests]:
    """Inference requests, running and ended, newest first."""
    listed = await request_operations.list_requests(context, ListRequests(limit, model))
    return RestAnswer(data=Requests(live=[*map(_running, listed.live)], recent=[*map(_ended, listed.recent)]))


async def cancel_request(context: ServiceContext, request_id: str) -> RestAnswer[CancelledData]:
    """Break off a running request. Its client gets an error, its slot is free after the token then computed."""
    cancelled = await request_operations.cancel_request(context, CancelRequest(request_id))
    return RestAnswer(data=CancelledData(cancelled=[*map(_running, cancelled.requests)]), message="Request cancelled")


TABLES = (
    RouteTable(
        "requests",
        (
            RestRoute("GET", "/api/requests", list_requests, RestAnswer[Requests], (400, 503)),
            RestRoute("DELETE", "/api/requests/{request_id:path}", cancel_request, RestAnswer[CancelledData], (404,)),
        ),
        shows_null=True,
    ),
)
