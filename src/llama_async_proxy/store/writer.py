"""The only thread that writes. What must be kept at once is run and committed; what comes in streams is collected
and committed together, because a commit costs ten times a row."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import repeat
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct
from sqlalchemy import Connection

from llama_async_proxy.errors import StoreUnavailable
from llama_async_proxy.store.database import Database, our_errors

T = TypeVar("T")

Sink: TypeAlias = Callable[[Connection, Sequence[T]], None]
"""Stores rows inside a transaction it neither begins nor ends. It may see the same rows again after a rollback."""

_log = logging.getLogger(__name__)

FLUSH_S = 0.2
"""Longest a row waits for company. Readers accept to see streams this late."""
BATCH_ROWS = 2000
"""Where larger batches stop being cheaper per row and start to hold up the event loop."""
MAX_WAITING_ROWS = 20_000
"""What is kept while the disk is full or the database locked, about 10 MB; beyond it the oldest are lost."""
RETRY_S = 1.0


_Row: TypeAlias = tuple[Sink[Any], Any]
"""A value and who stores it."""


class _Job(Struct, frozen=True):
    work: Callable[[Connection], Any]
    on_commit: Callable[[Any], None] | None
    outcome: Future[Any]


class Writer:
    """Rows are stored in the order in which they came, jobs are run in theirs, and a job finds all rows that were
    appended before it. Any thread may append, and any event loop use the coroutines."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wake = threading.Condition()
        # Guarded by _wake.
        self._rows: deque[_Row] = deque()
        self._jobs: deque[_Job] = deque()
        self._due_s: float | None = None
        self._closing = False
        self._dropped = 0
        self._problem: StoreUnavailable | None = None
        self._thread = threading.Thread(target=self._work, name="store-write", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> StoreUnavailable | None:
        """Why rows cannot be written at present; None when all is well."""
        return self._problem

    def append(self, sink: Sink[T], *rows: T) -> None:
        """Store `rows` soon, together with others. Never fails and never blocks; see MAX_WAITING_ROWS."""
        with self._wake:
            if self._closing or not rows:
                return
            before = len(self._rows)
            self._rows.extend(zip(repeat(sink), rows, strict=False))
            self._trim()
            if self._due_s is None:
                self._due_s = time.monotonic() + FLUSH_S
                self._wake.notify()
            elif before < BATCH_ROWS <= len(self._rows):
                self._wake.notify()

    async def run(self, work: Callable[[Connection], T], on_commit: Callable[[T], None] | None = None) -> T:
        """What `work` returns, after the commit of everything it wrote; if it raises, nothing was written.

        `on_commit` is called in the writing thread between the commit and the next job, also when the caller was
        cancelled meanwhile: it is the place to update what mirrors the database. Raises what `work` raises, and
        StoreUnavailable.
        """
        job = _Job(work, on_commit, Future())
        with self._wake:
            if self._closing:
                raise StoreUnavailable("The database is closed because the service is stopping.")
            self._jobs.append(job)
            self._wake.notify()
        result: T = await asyncio.wrap_future(job.outcome)
        return result

    async def flush(self) -> None:
        """Returns when every row appended before is stored. Raises StoreUnavailable if that is not possible now."""
        await self.run(lambda _: None)
        if self._problem is not None:
            raise self._problem

    async def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, then end the thread. Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join, timeout_s)
        if self._thread.is_alive():
            _log.error("The database did not finish writing within %g s; the last rows may be lost.", timeout_s)
        elif self._rows:
            _log.error("%d rows could not be written before the end: %s", len(self._rows), self._problem)

    # --- the thread -------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._is_due():
                    self._wake.wait(None if self._due_s is None else max(0.0, self._due_s - time.monotonic()))
                job = self._jobs.popleft() if self._jobs else None
                closing = self._closing
            self._write_rows()
            if job is not None:
                self._run_job(job)
            elif closing:
                return

    def _is_due(self) -> bool:
        if self._jobs or self._closing:
            return True
        if self._due_s is None:
            return False
        # While there is a problem a full batch must not cause attempts without pause.
        return time.monotonic() >= self._due_s or (len(self._rows) >= BATCH_ROWS and self._problem is None)

    def _run_job(self, job: _Job) -> None:
        if not job.outcome.set_running_or_notify_cancel():
            return
        try:
            result = self._commit(job.work)
            if job.on_commit is not None:
                job.on_commit(result)
        except BaseException as exc:  # It belongs to whoever waits for the job.
            job.outcome.set_exception(exc)
        else:
            job.outcome.set_result(result)

    def _commit(self, work: Callable[[Connection], T]) -> T:
        with our_errors(self._database.path), self._database.writing.begin() as connection:
            return work(connection)

    def _write_rows(self) -> None:
        """Write all waiting rows, a batch a transaction, until done or until the database refuses."""
        limit = BATCH_ROWS
        while batch := self._take_batch(limit):
            try:
                self._commit(partial(_store, batch))
            except StoreUnavailable as exc:
                self._keep(batch)
                self._delay(exc)
                return
            except Exception:
                if len(batch) == 1:
                    _log.exception("A row cannot be stored and is left out: %r", batch[0][1])
                    limit = BATCH_ROWS
                else:
                    self._keep(batch)
                    # One row spoils it; alone, it is found.
                    limit = 1
        self._settle()

    def _take_batch(self, limit: int) -> list[_Row]:
        with self._wake:
            return [self._rows.popleft() for _ in range(min(limit, len(self._rows)))]

    def _keep(self, batch: Sequence[_Row]) -> None:
        with self._wake:
            self._rows.extendleft(reversed(batch))
            self._trim()

    def _trim(self) -> None:
        while len(self._rows) > MAX_WAITING_ROWS:
            self._rows.popleft()
            self._dropped += 1

    def _delay(self, problem: StoreUnavailable) -> None:
        with self._wake:
            self._due_s = time.monotonic() + RETRY_S
            is_new = self._problem is None
            self._problem = problem
        if is_new:
            _log.error("%s Up to %d log lines and measurements wait in memory.", problem, MAX_WAITING_ROWS)

    def _settle(self) -> None:
        with self._wake:
            # Rows may have come since the last batch was found empty.
            self._due_s = time.monotonic() + FLUSH_S if self._rows else None
            was_broken, self._problem = self._problem is not None, None
            dropped, self._dropped = self._dropped, 0
        if was_broken or dropped:
            _log.warning("The database is written again; %d log lines and measurements were lost.", dropped)


def _store(rows: Sequence[_Row], connection: Connection) -> None:
    by_sink: dict[Sink[Any], list[Any]] = {}
    for sink, value in rows:
        by_sink.setdefault(sink, []).append(value)
    for sink, values in by_sink.items():
        sink(connection, values)
