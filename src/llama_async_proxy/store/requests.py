"""Table of inference requests, with one row for each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Row, and_, delete, func, or_, select

from llama_async_proxy.records.requests import RequestRecord
from llama_async_proxy.store.database import Database, storable
from llama_async_proxy.store.schema import requests
from llama_async_proxy.store.writer import Writer

MAX_ROWS = 200_000
"""Largest number of rows, about 40 MB."""

_ROWS_PER_STATEMENT = 50
"""Rows in one statement: about 850 values, below SQLite's limit of 32766 (SQLITE_MAX_VARIABLE_NUMBER)."""
_ABSENT = -1
"""Value bound in place of None. No column has it as a real value."""
_NAMES = RequestRecord._fields
_COLUMNS = [requests.c[name] for name in _NAMES]


class RequestTotals(Struct, frozen=True):
    """Sums over the stored requests of one model."""

    model: str
    requests: int
    errors: int
    """Number of answers with status 400 and above or broken off."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class DayTotals(Struct, frozen=True):
    """Sums over the stored requests of one model in one day."""

    day: str
    """ISO date, UTC."""
    model: str
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    total_ms: float
    generation_ms: float
    """Time for generating `timed_tokens`."""
    timed_tokens: int
    """Tokens of the answers whose rate is known."""


class RequestTable:
    """The newest MAX_ROWS requests."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    def append(self, records: Sequence[RequestRecord]) -> None:
        """Store records soon. Never fails. May be called in any thread."""
        self._writer.append(_store, *records)

    async def recent(self, *, limit: int = 100, model: str | None = None) -> tuple[RequestRecord, ...]:
        """The newest `limit` requests by arrival, newest first. Raises StoreUnavailable."""
        query = select(*_COLUMNS).order_by(requests.c.arrived_at_ms.desc(), requests.c.row_id.desc()).limit(limit)
        if model is not None:
            query = query.where(requests.c.model == model)
        return await self._database.read(lambda connection: tuple(map(_record, connection.execute(query))))

    async def totals(self, *, since_ms: int = 0) -> tuple[RequestTotals, ...]:
        """By model, the busiest first, of requests that arrived at or after `since_ms`. Raises StoreUnavailable."""
        c = requests.c
        number = func.count()
        query = (
            select(
                c.model,
                number.label("requests"),
                number.filter(or_(c.status >= 400, c.error.is_not(None))).label("errors"),
                *(func.coalesce(func.sum(c[name]), 0).label(name) for name in _TOKENS),
            )
            .where(c.arrived_at_ms >= since_ms)
            .group_by(c.model)
            .order_by(number.desc(), c.model)
        )
        return await self._database.read(
            lambda connection: tuple(RequestTotals(**row._mapping) for row in connection.execute(query))
        )

    async def by_day(self, *, since_ms: int) -> tuple[DayTotals, ...]:
        """Totals of requests since then, by day (newest first) and model (busiest first). Raises StoreUnavailable."""
        c = requests.c
        number = func.count()
        day = func.date(c.arrived_at_ms / 1000, "unixepoch").label("day")
        is_timed = and_(c.tokens_per_second > 0, c.completion_tokens.is_not(None))
        generation_ms = 1000.0 * c.completion_tokens / c.tokens_per_second
        query = (
            select(
                day,
                c.model,
                number.label("requests"),
                number.filter(or_(c.status >= 400, c.error.is_not(None))).label("errors"),
                *(func.coalesce(func.sum(c[name]), 0).label(name) for name in _TOKENS),
                func.sum(c.total_ms).label("total_ms"),
                func.coalesce(func.sum(generation_ms).filter(is_timed), 0.0).label("generation_ms"),
                func.coalesce(func.sum(c.completion_tokens).filter(is_timed), 0).label("timed_tokens"),
            )
            .where(c.arrived_at_ms >= since_ms)
            .group_by(day, c.model)
            .order_by(day.desc(), number.desc(), c.model)
        )
        return await self._database.read(
            lambda connection: tuple(DayTotals(**row._mapping) for row in connection.execute(query))
        )


_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")


def _store(connection: Connection, records: Sequence[RequestRecord]) -> None:
    # With the driver's own parameters a row costs half as much as with SQLAlchemy's. Many rows in a statement cost even
    # less, because each statement releases the interpreter lock once and then has to wait for it.
    rows = [_storable(record) for record in records]
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        some = rows[start : start + _ROWS_PER_STATEMENT]
        connection.exec_driver_sql(_insertion(len(some)), _bound(some))
    newest_id = select(func.max(requests.c.row_id)).scalar_subquery()
    connection.execute(delete(requests).where(requests.c.row_id <= newest_id - MAX_ROWS))


def _bound(rows: Sequence[RequestRecord]) -> tuple[object, ...]:
    """Values of all rows, without None, True and False: Python 3.11's sqlite3 module searches an adapter for each of
    these, which takes half as long as the rest of a row."""
    return tuple([_ABSENT if v is None else 1 if v is True else 0 if v is False else v for row in rows for v in row])


@cache
def _insertion(rows: int) -> str:
    """Statement that inserts this number of rows, in the driver's own style."""
    row = f"({', '.join(f'nullif(?, {_ABSENT})' if requests.c[name].nullable else '?' for name in _NAMES)})"
    return f"INSERT INTO {requests.name} ({', '.join(_NAMES)}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - all names are from the schema


def _storable(record: RequestRecord) -> RequestRecord:
    # Only these two fields can contain text from a client.
    if record.error is None and record.model.isascii():
        return record
    return record._replace(model=storable(record.model), error=record.error and storable(record.error))


def _record(row: Row[Any]) -> RequestRecord:
    return RequestRecord(**row._mapping)
