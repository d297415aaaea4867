"""The inference requests in flight: their state, and cancelling them by id. Ended requests are recorded in batches."""

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
"""Seconds between two publications of the requests in flight."""
RECORD_S = 0.02
"""Seconds that an ended request waits for others, to be recorded together with them."""
MOST_PUBLISHED = 200
"""Requests in one publication, the newest; more could not be read twice a second."""

Cancel = Callable[[ServiceError], None]


class InFlightRequests:
    """Requests in flight, for the event loop's thread only. A request costs one entry in a dictionary."""

    def __init__(
        self,
        runtime: Callable[[int], ModelRuntime],
        bus: EventBus,
        *,
        positions: Callable[[], Mapping[Cancel, int]],
        finished: Callable[[Sequence[RequestRecord]], None],
    ) -> None:
        """`runtime` gives the state of a model by its id; `positions` the places in the queue, by the request's cancel
        function. `finished` gets a record of each request soon after its end."""
        self._runtime = runtime
        self._bus = bus
        self._positions = positions
        self._finished = finished
        self._running: dict[RequestLogEntry, Cancel] = {}
        """Cancel functions in the order of arrival. Clients may choose ids, so that two requests can share one."""
        self._ended: list[RequestLogEntry] = []
        """Entries that are not recorded yet."""
        self._watchers = 0
        self._is_watched = asyncio.Event()

    def add(self, entry: RequestLogEntry, cancel: Cancel) -> None:
        self._running[entry] = cancel

    def end(self, entry: RequestLogEntry) -> None:
        """Note the end of a request: its last byte was sent, or it failed. The request need not have been added."""
        entry.end()
        self._running.pop(entry, None)
        if not self._ended:
            asyncio.get_running_loop().call_later(RECORD_S, self.record)
        self._ended.append(entry)

    def record(self) -> None:
        """Record the ended requests at once."""
        if self._ended:
            records = tuple([entry.record() for entry in self._ended])
            self._ended.clear()
            self._finished(records)

    def all(self) -> tuple[LiveRequest, ...]:
        """The requests in flight, newest first."""
        return self._views(dict(reversed(self._running.items())))

    def cancel(self, request_id: str) -> tuple[LiveRequest, ...]:
        """Cancel the request with this id, or all that share it; their clients get an error. Raises NotFound."""
        found = {entry: cancel for entry, cancel in self._running.items() if entry.id == request_id}
        if not found:
            raise NotFound("request", request_id, f"No request {request_id[:100]!r} is running; it may have ended.")
        views = self._views(found)
        for cancel in found.values():
            cancel(Cancelled("The request was cancelled."))
        return views

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Publish the requests in flight (`RequestsProgressed`) until the block ends. Without watchers this costs
        nothing."""
        self._watchers += 1
        self._is_watched.set()
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._is_watched.clear()

    async def run(self) -> None:
        """Publish the requests in flight while there are watchers, until cancelled."""
        while True:
            await self._is_watched.wait()
            had_some = True  # requests that an earlier watcher saw may have ended
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
