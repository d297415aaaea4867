"""Table of the machine's samples, and their roll-ups.

A sample and its share in every roll-up are written in one transaction. They therefore always agree, and a crash leaves
no roll-up to be completed. A roll-up keeps sums and counts instead of means, because those of small buckets add up
exactly to those of a large one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, fields
from sqlalchemy import Connection, Row, case, delete, func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert_into

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.records.machine import GpuSample, HistoryPoint, RequestCounters, Sample
from llama_async_proxy.store.database import Database
from llama_async_proxy.store.schema import GAUGES, rollups, samples
from llama_async_proxy.store.writer import Writer

_HOUR_MS = 3_600_000
RAW_KEPT_MS = 24 * _HOUR_MS
ROLLUPS_KEPT_MS = {60: 7 * 24 * _HOUR_MS, 300: 30 * 24 * _HOUR_MS, 3600: 366 * 24 * _HOUR_MS}
"""Time for which roll-ups are kept, by the seconds that one covers."""

_PLAIN = [
    field.name for field in fields(Sample) if field.name in samples.c and field.name not in ("gpus", "load_average")
]
"""Fields stored in a column of the same name. Values that matter only at the moment have no column."""


class _Measurement(Struct, frozen=True):
    sample: Sample
    requests: int
    """Number of requests that began since the previous sample."""


class MetricsTable:
    """Keeps samples for a day and roll-ups for up to a year, counted back from the newest sample."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer
        self._requests_total = 0

    def append(self, sample: Sample) -> None:
        """Store a sample soon. Never fails. Must be called in the order of the samples; of two in one millisecond the
        first counts."""
        self._writer.append(_store, _Measurement(sample, self._new_requests(sample.requests.total)))

    def _new_requests(self, total: int) -> int:
        before, self._requests_total = self._requests_total, total
        return total - before if total >= before else total

    async def recent(
        self, *, limit: int = 100, start_ms: int | None = None, end_ms: int | None = None
    ) -> tuple[Sample, ...]:
        """The newest `limit` samples between two times (inclusive), newest first. Raises StoreUnavailable."""
        query = select(samples).order_by(samples.c.timestamp_ms.desc()).limit(limit)
        if start_ms is not None:
            query = query.where(samples.c.timestamp_ms >= start_ms)
        if end_ms is not None:
            query = query.where(samples.c.timestamp_ms <= end_ms)
        return await self._database.read(lambda connection: tuple(map(_from_row, connection.execute(query))))

    async def history(self, start_ms: int, end_ms: int, *, resolution_s: int) -> tuple[HistoryPoint, ...]:
        """Buckets of `resolution_s` seconds (a multiple of 60) that begin in [start_ms, end_ms), oldest first.

        The newest one may still be incomplete; buckets without samples are absent. Raises InvalidInput,
        StoreUnavailable.
        """
        query = history_query(start_ms, end_ms, resolution_s)
        return await self._database.read(lambda connection: tuple(map(_point, connection.execute(query))))


# --- writing --------------------------------------------------------------------------------------


def _store(connection: Connection, measurements: Sequence[_Measurement]) -> None:
    new = _unseen(connection, measurements)
    if new:
        connection.execute(insert(samples), [_to_row(m.sample) for m in new])
        connection.execute(_MERGE, [_share(m, resolution_s) for m in new for resolution_s in ROLLUPS_KEPT_MS])
        _prune(connection, max(m.sample.timestamp_ms for m in new))


def _unseen(connection: Connection, measurements: Sequence[_Measurement]) -> list[_Measurement]:
    """Measurements that are not stored yet, because a sample that comes twice must not count twice."""
    by_time: dict[int, _Measurement] = {}
    for measurement in measurements:
        by_time.setdefault(measurement.sample.timestamp_ms, measurement)
    seen = connection.scalars(select(samples.c.timestamp_ms).where(samples.c.timestamp_ms.in_(by_time)))
    for timestamp_ms in seen:
        del by_time[timestamp_ms]
    return list(by_time.values())


def _prune(connection: Connection, newest_ms: int) -> None:
    connection.execute(delete(samples).where(samples.c.timestamp_ms < newest_ms - RAW_KEPT_MS))
    for resolution_s, kept_ms in ROLLUPS_KEPT_MS.items():
        old = (rollups.c.resolution_s == resolution_s) & (rollups.c.start_ms < newest_ms - kept_ms)
        connection.execute(delete(rollups).where(old))


def _to_row(sample: Sample) -> dict[str, Any]:
    return {name: getattr(sample, name) for name in _PLAIN} | {
        "load_average": sample.load_average,
        "gpus": [asdict(gpu) for gpu in sample.gpus],
        "requests_total": sample.requests.total,
        "requests_active": sample.requests.active,
        "requests_errors": sample.requests.errors,
        "response_ms": sample.requests.average_response_ms,
    }


def _share(measurement: _Measurement, resolution_s: int) -> dict[str, Any]:
    """Roll-up of one sample, to be merged into the one of its bucket."""
    timestamp_ms = measurement.sample.timestamp_ms
    row: dict[str, Any] = {
        "resolution_s": resolution_s,
        "start_ms": timestamp_ms - timestamp_ms % (1000 * resolution_s),
        "requests": measurement.requests,
    }
    for name, value in _gauges(measurement.sample).items():
        row |= {f"{name}_count": int(value is not None), f"{name}_sum": value or 0.0}
        row |= {f"{name}_min": value, f"{name}_max": value}
    return row


def _gauges(sample: Sample) -> dict[str, float | None]:
    usages = [gpu.usage_percent for gpu in sample.gpus if gpu.usage_percent is not None]
    used = [gpu.memory_used_bytes for gpu in sample.gpus if gpu.memory_used_bytes is not None]
    total = [gpu.memory_total_bytes for gpu in sample.gpus if gpu.memory_total_bytes is not None]
    return {
        "cpu_percent": sample.cpu_percent,
        "memory_percent": sample.memory_percent,
        "disk_percent": sample.disk_percent,
        "swap_percent": sample.swap_percent,
        "gpu_percent": sum(usages) / len(usages) if usages else None,
        "gpu_memory_used_bytes": sum(used) if used else None,
        "gpu_memory_total_bytes": sum(total) if total else None,
        "response_ms": sample.requests.average_response_ms,
    }


def _merge_statement() -> Any:
    statement = upsert_into(rollups)
    old, new = rollups.c, statement.excluded
    merged: dict[str, Any] = {"requests": old.requests + new.requests}
    for gauge in GAUGES:
        for name in (f"{gauge}_count", f"{gauge}_sum"):
            merged[name] = old[name] + new[name]
        # SQLite's min() and max() of several values are NULL when one of the values is (sqlite.org/lang_corefunc.html).
        for name, pick in ((f"{gauge}_min", func.min), (f"{gauge}_max", func.max)):
            merged[name] = pick(func.coalesce(old[name], new[name]), func.coalesce(new[name], old[name]))
    return statement.on_conflict_do_update(index_elements=["resolution_s", "start_ms"], set_=merged)


_MERGE = _merge_statement()


# --- reading --------------------------------------------------------------------------------------


def history_query(start_ms: int, end_ms: int, resolution_s: int) -> Any:
    stored_s = max((s for s in ROLLUPS_KEPT_MS if resolution_s > 0 and resolution_s % s == 0), default=None)
    if stored_s is None:
        raise InvalidInput("resolution", f"must be a whole number of minutes, not {resolution_s} seconds")
    width_ms = 1000 * resolution_s
    first_ms = -(-start_ms // width_ms) * width_ms
    last_ms = -(-end_ms // width_ms) * width_ms
    bucket = rollups.c.start_ms - rollups.c.start_ms % width_ms
    return (
        select(bucket.label("timestamp_ms"), func.sum(rollups.c.requests).label("requests"), *map(_mean, GAUGES))
        .where(rollups.c.resolution_s == stored_s, rollups.c.start_ms >= first_ms, rollups.c.start_ms < last_ms)
        .group_by(bucket)
        .order_by(bucket)
    )


def _mean(gauge: str) -> Any:
    count = func.sum(rollups.c[f"{gauge}_count"])
    return case((count > 0, func.sum(rollups.c[f"{gauge}_sum"]) / count)).label(gauge)


def _point(row: Row[Any]) -> HistoryPoint:
    values = dict(row._mapping)
    for name in ("gpu_memory_used_bytes", "gpu_memory_total_bytes"):
        values[name] = None if values[name] is None else round(values[name])
    return HistoryPoint(**values)


def _from_row(row: Row[Any]) -> Sample:
    return Sample(
        **{name: getattr(row, name) for name in _PLAIN},
        load_average=None if row.load_average is None else tuple(row.load_average),
        gpus=tuple(GpuSample(**gpu) for gpu in row.gpus),
        requests=RequestCounters(row.requests_total, row.requests_active, row.requests_errors, row.response_ms),
    )
