"""The writer: the only thread that writes to the database.

Jobs run in a transaction each and are committed at once. Rows of streams (log lines, samples, requests) are collected
and committed together, because a commit costs ten times as much as a row.
"""

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
from llama_async_proxy.store.database import Database, translate_errors

T = TypeVar("T")

RowWriter: TypeAlias = Callable[[Connection, Sequence[T]], None]
"""Stores rows inside the caller's transaction. May be called again with the same rows after a rollback."""

_log = logging.getLogger(__name__)

FLUSH_S = 0.2
"""Longest time for which a row waits for others. Readers see streams with this delay."""
BATCH_ROWS = 2000
"""Largest batch. Larger ones cost no less per row, and delay the event loop."""
MAX_PENDING_ROWS = 20_000
"""Rows kept while the disk is full or the database locked, about 10 MB. Beyond it the oldest are dropped."""
RETRY_S = 1.0


_Row: TypeAlias = tuple[RowWriter[Any], Any]
"""A row and the function that stores it."""


class _Job(Struct, frozen=True):
    work: Callable[[Connection], Any]
    on_commit: Callable[[Any], None] | None
    outcome: Future[Any]


class Writer:
    """Queues rows and jobs for the writing thread.

    Rows and jobs are each written in the order in which they came. A job sees all rows that were appended before it.
    `append` may be called in any thread, the coroutines in any event loop.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wake = threading.Condition()
        # The condition guards the following attributes.
        self._rows: deque[_Row] = deque()
        self._jobs: deque[_Job] = deque()
        self._due_s: float | None = None
        self._closing = False
        self._dropped = 0
        self._problem: StoreUnavailable | None = None
        self._thread = threading.Thread(target=self._run_thread, name="store-write", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> StoreUnavailable | None:
        """Reason why rows cannot be written at present; None when they can."""
        return self._problem

    def append(self, write_rows: RowWriter[T], *rows: T) -> None:
        """Store `rows` soon, together with others. Never fails and never blocks; see MAX_PENDING_ROWS."""
        with self._wake:
            if self._closing or not rows:
                return
            before = len(self._rows)
            self._rows.extend(zip(repeat(write_rows), rows, strict=False))
            self._drop_excess()
            if self._due_s is None:
                self._due_s = time.monotonic() + FLUSH_S
                self._wake.notify()
            elif before < BATCH_ROWS <= len(self._rows):
                self._wake.notify()

    async def run(self, work: Callable[[Connection], T], on_commit: Callable[[T], None] | None = None) -> T:
        """Run `work` in a transaction and return its result after the commit. If it raises, nothing is written.

        `on_commit` runs in the writing thread between the commit and the next job, even if the caller was cancelled
        meanwhile: it can update copies of the data in memory. Raises StoreUnavailable, and all that `work` raises.
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
        """Wait until all rows appended before are stored. Raises StoreUnavailable if that is not possible now."""
        await self.run(lambda _: None)
        if self._problem is not None:
            raise self._problem

    async def close(self, timeout_s: float = 10.0) -> None:
        """Write all pending rows, then end the thread. Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join, timeout_s)
        if self._thread.is_alive():
            _log.error("The database did not finish writing within %g s; the last rows may be lost.", timeout_s)
        elif self._rows:
            _log.error("%d rows could not be written before the end: %s", len(self._rows), self._problem)

    # --- the thread -------------------------------------------------------------------------------

    def _run_thread(self) -> None:
        while True:
            with self._wake:
                while not self._is_due():
                    self._wake.wait(None if self._due_s is None else max(0.0, self._due_s - time.monotonic()))
                job = self._jobs.popleft() if self._jobs else None
                closing = self._closing
            self._write_pending_rows()
            if job is not None:
                self._run_job(job)
            elif closing:
                return

    def _is_due(self) -> bool:
        if self._jobs or self._closing:
            return True
        if self._due_s is None:
            return False
        # While there is a problem, a full batch must wait for the retry like any other.
        return time.monotonic() >= self._due_s or (len(self._rows) >= BATCH_ROWS and self._problem is None)

    def _run_job(self, job: _Job) -> None:
        if not job.outcome.set_running_or_notify_cancel():
            return
        try:
            result = self._commit(job.work)
            if job.on_commit is not None:
                job.on_commit(result)
        except BaseException as exc:  # The caller that waits for the job gets it.
            job.outcome.set_exception(exc)
        else:
            job.outcome.set_result(result)

    def _commit(self, work: Callable[[Connection], T]) -> T:
        with translate_errors(self._database.path), self._database.writing.begin() as connection:
            return work(connection)

    def _write_pending_rows(self) -> None:
        """Write all pending rows, each batch in a transaction, or stop when the database is unavailable."""
        limit = BATCH_ROWS
        while batch := self._take_batch(limit):
            try:
                self._commit(partial(_store_batch, batch))
            except StoreUnavailable as exc:
                self._put_back(batch)
                self._retry_later(exc)
                return
            except Exception:
                if len(batch) == 1:
                    _log.exception("A row cannot be stored and is left out: %r", batch[0][1])
                    limit = BATCH_ROWS
                else:
                    self._put_back(batch)
                    # One row is at fault; writing each alone finds it.
                    limit = 1
        self._clear_problem()

    def _take_batch(self, limit: int) -> list[_Row]:
        with self._wake:
            return [self._rows.popleft() for _ in range(min(limit, len(self._rows)))]

    def _put_back(self, batch: Sequence[_Row]) -> None:
        with self._wake:
            self._rows.extendleft(reversed(batch))
            self._drop_excess()

    def _drop_excess(self) -> None:
        while len(self._rows) > MAX_PENDING_ROWS:
            self._rows.popleft()
            self._dropped += 1

    def _retry_later(self, problem: StoreUnavailable) -> None:
        with self._wake:
            self._due_s = time.monotonic() + RETRY_S
            is_new = self._problem is None
            self._problem = problem
        if is_new:
            _log.error("%s Up to %d log lines and measurements wait in memory.", problem, MAX_PENDING_ROWS)

    def _clear_problem(self) -> None:
        with self._wake:
            # Rows may have been appended since the last batch was taken.
            self._due_s = time.monotonic() + FLUSH_S if self._rows else None
            was_broken, self._problem = self._problem is not None, None
            dropped, self._dropped = self._dropped, 0
        if was_broken or dropped:
            _log.warning("The database is written again; %d log lines and measurements were lost.", dropped)


def _store_batch(rows: Sequence[_Row], connection: Connection) -> None:
    by_writer: dict[RowWriter[Any], list[Any]] = {}
    for write_rows, row in rows:
        by_writer.setdefault(write_rows, []).append(row)
    for write_rows, values in by_writer.items():
        write_rows(connection, values)
