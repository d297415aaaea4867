"""One request's claim on a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llama_async_proxy.errors import ServiceError
from llama_async_proxy.inference.scheduling.policy import Obstacle
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import Endpoint

Revoke = Callable[[ServiceError], None]
"""Breaks off the request that holds a lease, with what to tell its client."""


def ignore(_: ServiceError) -> None:
    """For claims with no request behind them."""


class Lease:
    """One request's claim on a model; while it is held the model is not evicted."""

    __slots__ = ("_endpoint", "load_s", "model", "place", "queued_s", "revoke")

    def __init__(self, model: Model, revoke: Revoke = ignore) -> None:
        self.model = model
        self.revoke = revoke
        self.place: asyncio.Future[ServiceError | Obstacle | None] | None = None
        """Done when it need not queue any more, or may not; None when it never had to. An error is a value here because
        its reader may have left."""
        self.queued_s: float | None = None
        """Time waited for a place or a turn; None when the model was ready."""
        self.load_s: float | None = None
        """Time waited for the load itself; None when the model was ready."""
        self._endpoint: Endpoint | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Where to send the request."""
        if self._endpoint is None:
            raise RuntimeError("the lease has not been granted yet")
        return self._endpoint

    @property
    def is_granted(self) -> bool:
        """False while the request waits for its model."""
        return self._endpoint is not None

    def grant(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint


def resolve(lease: Lease, refusal: ServiceError | Obstacle | None = None) -> None:
    """End its wait, unless its client has left or its time is up at this very moment."""
    if lease.place is not None and not lease.place.done():
        lease.place.set_result(refusal)
