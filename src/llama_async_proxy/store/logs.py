"""Table of log lines, limited by age and number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select

from llama_async_proxy.records.logs import LogLevel, LogLine
from llama_async_proxy.store.database import Database, storable
from llama_async_proxy.store.schema import logs
from llama_async_proxy.store.writer import Writer

KEPT_MS = 30 * 24 * 3_600_000

_SEVERITIES = {LogLevel.DEBUG: 0, LogLevel.INFO: 1, LogLevel.WARN: 2, LogLevel.ERROR: 3}
_LEVELS = {severity: level for level, severity in _SEVERITIES.items()}


class LogTable:
    """Log lines of the last KEPT_MS, at most `max_rows()` of them."""

    def __init__(self, database: Database, writer: Writer, max_rows: Callable[[], int]) -> None:
        self._database = database
        self._writer = writer
        self._max_rows = max_rows

    def append(self, line: LogLine) -> None:
        """Store a line soon. Never fails. May be called in any thread."""
        self._writer.append(self._store, line)

    async def query(
        self,
        *,
        at_least: LogLevel = LogLevel.DEBUG,
        source: str | None = None,
        since_ms: int | None = None,
        limit: int = 100,
    ) -> tuple[LogLine, ...]:
        """The newest `limit` lines of at least this severity, newest first. Raises StoreUnavailable."""
        query = select(logs).order_by(logs.c.id.desc()).limit(limit)
        if at_least is not LogLevel.DEBUG:
            # With a list SQLite takes the newest rows from the index; for a comparison it would read all rows.
            query = query.where(logs.c.level.in_(s for s in _LEVELS if s >= _SEVERITIES[at_least]))
        if source is not None:
            query = query.where(logs.c.source == source)
        if since_ms is not None:
            query = query.where(logs.c.timestamp_ms >= since_ms)
        return await self._database.read(lambda connection: tuple(map(_line, connection.execute(query))))

    async def clear(self) -> int:
        """Delete all lines, including pending ones, and return their number. Raises StoreUnavailable."""
        return await self._writer.run(lambda connection: connection.execute(delete(logs)).rowcount)

    def _store(self, connection: Connection, lines: Sequence[LogLine]) -> None:
        connection.execute(insert(logs), [_to_row(line) for line in lines])
        # Ids grow by one, so the newest id gives the number of rows without counting.
        newest_id = select(func.max(logs.c.id)).scalar_subquery()
        newest_ms = max(line.timestamp_ms for line in lines)
        connection.execute(
            delete(logs).where(
                or_(logs.c.id <= newest_id - self._max_rows(), logs.c.timestamp_ms < newest_ms - KEPT_MS)
            )
        )


def _to_row(line: LogLine) -> dict[str, Any]:
    return {
        "timestamp_ms": line.timestamp_ms,
        "level": _SEVERITIES[line.level],
        "source": storable(line.source),
        "message": storable(line.message),
    }


def _line(row: Row[Any]) -> LogLine:
    return LogLine(row.timestamp_ms, _LEVELS[row.level], row.source, row.message, row.id)
