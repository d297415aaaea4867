"""Inference requests, running and ended."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

from llama_async_proxy.records.runtime import QueueState


class RequestPhase(StrEnum):
    QUEUED = "queued"
    LOADING = "loading"
    """Its model comes up."""
    PROMPT = "prompt"
    """The engine has it, and has said nothing yet."""
    GENERATING = "generating"


class LiveRequest(Struct, frozen=True):
    """One inference request that has not ended."""

    id: str
    arrived_at_ms: int
    client: str
    route: str
    model: str
    """As in RequestRecord."""
    phase: RequestPhase
    queue: QueueState | None
    """Of its model, while QUEUED."""
    tokens: int
    """Pieces of the answer so far, of which llama-server sends one for each token."""
    elapsed_ms: float
    position: int | None = None
    """In its model's line, counted from 1, while it waits there."""


class RequestRecord(NamedTuple):
    """One inference request from arrival to end. Times are durations in ms from arrival."""

    # A tuple, because a busy service makes thousands a second.

    id: str
    arrived_at_ms: int
    client: str
    route: str
    model: str
    """The model's slug, or the name asked for when it resolved to nothing."""
    status: int
    streamed: bool
    queued_ms: float | None = None
    load_ms: float | None = None
    first_token_ms: float | None = None
    total_ms: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_per_second: float | None = None
    error: str | None = None
    key: str | None = None
    """What tells the client's key from others: the first eight digits of its SHA-256."""
