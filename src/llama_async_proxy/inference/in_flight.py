"""The inference requests that have not ended: what each does now, and how to break it off by its id; and what remains
of those that have, a record each, which is made off their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from llama_async_proxy.errors import Cancelled, NotFound, ServiceError
from llama_async_proxy.events import EventBus, RequestsProgressed
from llama_async_proxy.inference.request_log import RequestLogEntry
from llama_async_proxy.records.requests import LiveRequest, RequestPhase, RequestRecord
from llama_async_proxy.records.runtime import ModelRuntime

TICK_S = 0.5
RECORD_S = 0.02
"""How long an end waits for others, to be recorded together with them."""
MOST_PUBLISHED = 200
"""Of the newest requests; nobody can read more of them twice a second."""

Cancel = Callable[[ServiceError], None]


class InFlightRequests:
    """Belongs to the event loop's thread. Its cost for a request is that of an entry in a dictionary."""

    def __init__(
        self,
        runtime: Callable[[int], ModelRuntime],
        bus: EventBus,
        *,
        positions: Callable[[], Mapping[Cancel, int]],
        finished: Callable[[Sequence[RequestRecord]], None],
    ) -> None:
        """`runtime` tells of a model's queue, `positions` of the places in them, by what breaks a request off.
        `finished` gets a record of each request soon after its end."""
        self._runtime = runtime
        self._bus = bus
        self._positions = positions
        self._finished = finished
        self._running: dict[RequestLogEntry, Cancel] = {}
        """In the order of arrival. Ids may be the clients' own, so that two requests can have the same."""
        self._ended: list[RequestLogEntry] = []
        """Not yet recorded."""
        self._watchers = 0
        self._is_watched = asyncio.Event()

    def add(self, entry: RequestLogEntry, cancel: Cancel) -> None:
        self._running[entry] = cancel

    def end(self, entry: RequestLogEntry) -> None:
        """Its last byte has left, or it has failed; it need not have been added."""
        entry.end()
        self._running.pop(entry, None)
        if not self._ended:
            asyncio.get_running_loop().call_later(RECORD_S, self.record)
        self._ended.append(entry)

    def record(self) -> None:
        """Record at once what has ended."""
        if self._ended:
            records = tuple([entry.record() for entry in self._ended])
            self._ended.clear()
            self._finished(records)

    def all(self) -> tuple[LiveRequest, ...]:
        """Newest first."""
        return self._views(dict(reversed(self._running.items())))

    def cancel(self, request_id: str) -> tuple[LiveRequest, ...]:
        """Break off the request of that id, or all who share it; its client gets an error. Raises NotFound."""
        found = {entry: cancel for entry, cancel in self._running.items() if entry.id == request_id}
        if not found:
            raise NotFound("request", request_id, f"No request {request_id[:100]!r} is running; it may have ended.")
        views = self._views(found)
        for cancel in found.values():
            cancel(Cancelled("The request was cancelled."))
        return views

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Have what runs published until the block ends. While nobody watches it costs nothing."""
        self._watchers += 1
        self._is_watched.set()
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._is_watched.clear()

    async def run(self) -> None:
        """Publish what runs while somebody watches, until cancelled: off the requests' own way."""
        while True:
            await self._is_watched.wait()
            had_some = True  # what another watcher saw before may have ended
            while self._watchers:
                newest = self._views(dict(islice(reversed(self._running.items()), MOST_PUBLISHED)))
                if newest or had_some:
                    self._bus.publish(RequestsProgressed(newest))
                had_some = bool(newest)
                await asyncio.sleep(TICK_S)

    def _views(self, running: Mapping[RequestLogEntry, Cancel]) -> tuple[LiveRequest, ...]:
        positions = self._positions()
        return tuple(self._view(entry, positions.get(cancel)) for entry, cancel in running.items())

    def _view(self, entry: RequestLogEntry, position: int | None) -> LiveRequest:
        queue = None
        if entry.is_waiting:
            queue = self._runtime(entry.model_id).queue if entry.model_id is not None else None
            phase = RequestPhase.LOADING if entry.model_id is not None and queue is None else RequestPhase.QUEUED
        else:
            phase = RequestPhase.GENERATING if entry.has_begun else RequestPhase.PROMPT
        return LiveRequest(
            id=entry.id,
            arrived_at_ms=entry.arrived_at_ms,
            client=entry.client,
            route=entry.route,
            model=entry.model,
            phase=phase,
            queue=queue,
            tokens=entry.events,
            elapsed_ms=entry.elapsed_ms,
            position=position,
        )
