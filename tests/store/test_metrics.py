from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import Connection, func, select

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.records.machine import HistoryPoint, RequestCounters, Sample
from llama_async_proxy.store.database import Database
from llama_async_proxy.store.metrics import RAW_KEPT_MS, ROLLUPS_KEPT_MS, MetricsTable, history_query
from llama_async_proxy.store.schema import GAUGES, rollups, samples
from llama_async_proxy.store.writer import Writer
from store.builders import GIB, gpu, sample

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


@pytest.fixture
def metrics(database: Database, writer: Writer) -> MetricsTable:
    return MetricsTable(database, writer)


async def store(metrics: MetricsTable, writer: Writer, taken: Iterable[Sample]) -> None:
    for one in taken:
        metrics.append(one)
    await writer.flush()


# --- samples --------------------------------------------------------------------------------------


async def test_samples_come_back_whole_newest_first(metrics: MetricsTable, writer: Writer) -> None:
    plain = sample(1000, load_average=None)
    rich = sample(2000, gpus=(gpu(), gpu(index=1, usage_percent=50.5, memory_used_bytes=GIB)), response_ms=4.5)
    await store(metrics, writer, [plain, rich])
    assert await metrics.recent() == (rich, plain)


async def test_recent_is_bounded_by_number_and_by_both_times_inclusive(metrics: MetricsTable, writer: Writer) -> None:
    taken = [sample(ms) for ms in (1000, 2000, 3000, 4000)]
    await store(metrics, writer, taken)
    assert await metrics.recent(limit=2) == (taken[3], taken[2])
    assert await metrics.recent(start_ms=2000, end_ms=3000) == (taken[2], taken[1])
    assert await metrics.recent(start_ms=4001) == ()


# --- history --------------------------------------------------------------------------------------


async def test_a_point_is_the_mean_of_its_bucket(metrics: MetricsTable, writer: Writer) -> None:
    taken = [
        sample(60_000, cpu_percent=10.0, requests=3, response_ms=100.0, gpus=(gpu(usage_percent=30.0),)),
        sample(70_000, cpu_percent=40.0, requests=4, swap_used_bytes=3 * GIB // 2),
        sample(119_999, cpu_percent=70.0, requests=9, response_ms=300.0, gpus=(gpu(usage_percent=50.0),)),
        sample(120_000, cpu_percent=99.0, requests=9),
    ]
    await store(metrics, writer, taken)
    first, second = await metrics.history(0, 180_000, resolution_s=60)
    assert first == HistoryPoint(
        timestamp_ms=60_000,
        cpu_percent=40.0,
        memory_percent=25.0,
        disk_percent=25.0,
        swap_percent=25.0,
        gpu_percent=40.0,
        gpu_memory_used_bytes=None,
        gpu_memory_total_bytes=None,
        requests=9,
        response_ms=200.0,
    )
    assert (second.timestamp_ms, second.cpu_percent, second.requests, second.response_ms) == (120_000, 99.0, 0, None)


async def test_gpu_usage_is_averaged_and_memory_added_over_those_that_tell(
    metrics: MetricsTable, writer: Writer
) -> None:
    gpus = (
        gpu(usage_percent=20.0, memory_used_bytes=GIB, memory_total_bytes=24 * GIB),
        gpu(index=1, usage_percent=40.0, memory_used_bytes=3 * GIB, memory_total_bytes=24 * GIB),
        gpu(index=2),
    )
    await store(metrics, writer, [sample(0, gpus=gpus)])
    [point] = await metrics.history(0, MINUTE_MS, resolution_s=60)
    assert (point.gpu_percent, point.gpu_memory_used_bytes, point.gpu_memory_total_bytes) == (30.0, 4 * GIB, 48 * GIB)


async def test_requests_count_on_when_the_service_starts_anew(database: Database, writer: Writer) -> None:
    await store(MetricsTable(database, writer), writer, [sample(0, requests=5), sample(1000, requests=12)])
    restarted = MetricsTable(database, writer)
    await store(restarted, writer, [sample(2000, requests=3), sample(3000, requests=4)])
    [point] = await restarted.history(0, MINUTE_MS, resolution_s=60)
    assert point.requests == 12 + 4


async def test_buckets_begin_in_the_half_open_interval(metrics: MetricsTable, writer: Writer) -> None:
    await store(metrics, writer, [sample(minute * MINUTE_MS + 1) for minute in range(6)])
    points = await metrics.history(MINUTE_MS + 1, 4 * MINUTE_MS, resolution_s=60)
    assert [point.timestamp_ms for point in points] == [2 * MINUTE_MS, 3 * MINUTE_MS]


@pytest.mark.parametrize("resolution_s", [0, -60, 1, 59, 90])
async def test_other_than_whole_minutes_are_refused(metrics: MetricsTable, resolution_s: int) -> None:
    with pytest.raises(InvalidInput, match="whole number of minutes"):
        await metrics.history(0, HOUR_MS, resolution_s=resolution_s)


async def test_a_sample_counts_once_however_often_it_comes(
    metrics: MetricsTable, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    one = sample(1000, requests=2)
    await store(metrics, writer, [one, replace(one, cpu_percent=99.0)])
    await store(metrics, writer, [one])
    [point] = await metrics.history(0, MINUTE_MS, resolution_s=60)
    assert (point.cpu_percent, point.requests) == (25.0, 2)
    assert caplog.records == []


async def test_history_is_one_range_of_the_primary_key(database: Database) -> None:
    def plan(connection: Connection) -> list[str]:
        query = history_query(0, HOUR_MS, 900).compile(connection, compile_kwargs={"literal_binds": True})
        return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]

    assert "SEARCH rollups USING PRIMARY KEY (resolution_s=? AND start_ms>? AND start_ms<?)" in database.read_now(plan)


PERCENT = st.integers(0, 6400).map(lambda n: n / 64)  # sums of these are exact
TAKEN = st.lists(
    st.builds(
        sample,
        st.integers(0, RAW_KEPT_MS - 1),
        cpu_percent=PERCENT,
        memory_used_bytes=st.integers(0, 16).map(lambda n: n * GIB),
        gpus=st.lists(st.builds(gpu, usage_percent=st.none() | PERCENT), max_size=1).map(tuple),
        response_ms=st.none() | PERCENT,
    ),
    max_size=40,
    unique_by=lambda one: one.timestamp_ms,
)


def expected(taken: list[Sample], resolution_s: int) -> list[dict[str, Any]]:
    """The history of some samples, worked out from themselves alone."""
    width_ms = 1000 * resolution_s
    buckets: dict[int, list[Sample]] = {}
    for one in sorted(taken, key=lambda one: one.timestamp_ms):
        buckets.setdefault(one.timestamp_ms // width_ms * width_ms, []).append(one)
    return [
        {
            "timestamp_ms": start_ms,
            "cpu_percent": fmean(one.cpu_percent for one in inside),
            "memory_percent": fmean(one.memory_percent for one in inside),
            "gpu_percent": mean_of_known(g.usage_percent for one in inside for g in one.gpus),
            "response_ms": mean_of_known(one.requests.average_response_ms for one in inside),
            "requests": len(inside),
        }
        for start_ms, inside in buckets.items()
    ]


def mean_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file without rows; copying it is faster than making one."""
    path = tmp_path_factory.mktemp("empty") / "service.db"
    Database(path).close()
    return path


@settings(max_examples=30, deadline=None)
@given(taken=TAKEN, repeats=st.lists(st.integers(0, 39)), flush_after=st.sets(st.integers(0, 80)))
def test_any_samples_in_any_order_and_batches_make_the_same_history(
    empty: Path, taken: list[Sample], repeats: list[int], flush_after: set[int]
) -> None:
    # One request between each sample and the next; a repeated sample brings none.
    counted = [replace(one, requests=replace(one.requests, total=i + 1)) for i, one in enumerate(taken)]
    again = [replace(counted[i], requests=RequestCounters(total=len(counted))) for i in repeats if i < len(counted)]

    async def run(path: Path) -> None:
        database = Database(path)
        writer = Writer(database)
        metrics = MetricsTable(database, writer)
        for i, one in enumerate(counted + again):
            metrics.append(one)
            if i in flush_after:
                await writer.flush()
        await writer.flush()
        for resolution_s in (60, 300, 900, 3600, 86_400):
            points = await metrics.history(0, RAW_KEPT_MS, resolution_s=resolution_s)
            wanted = expected(counted, resolution_s)
            assert [
                {name: getattr(point, name) for name in w} for point, w in zip(points, wanted, strict=True)
            ] == wanted
        await writer.close()
        database.read_now(every_resolution_agrees)
        database.close()

    with TemporaryDirectory() as directory:
        asyncio.run(run(Path(shutil.copy(empty, directory))))


def every_resolution_agrees(connection: Connection) -> None:
    """Counts, sums, least and greatest values over all buckets are those of the samples, at each resolution."""
    picks = {"count": "sum", "sum": "sum", "min": "min", "max": "max"}
    columns = [getattr(func, pick)(rollups.c[f"{gauge}_{part}"]) for gauge in GAUGES for part, pick in picks.items()]
    totals = [
        tuple(connection.execute(select(*columns).where(rollups.c.resolution_s == resolution_s)).one())
        for resolution_s in ROLLUPS_KEPT_MS
    ]
    assert totals[0] == totals[1] == totals[2]
    least, greatest = connection.execute(select(func.min(samples.c.cpu_percent), func.max(samples.c.cpu_percent))).one()
    assert totals[0][2:4] == (least, greatest)


async def test_a_transaction_that_fails_counts_nothing(
    database: Database, writer: Writer, metrics: MetricsTable
) -> None:
    def overwhelm(connection: Connection, rows: object) -> None:
        connection.exec_driver_sql("INSERT INTO no_such_table VALUES (1)")

    metrics.append(sample(1000))
    writer.append(overwhelm, None)
    await writer.flush()
    [point] = await metrics.history(0, MINUTE_MS, resolution_s=60)
    assert point.requests == 0
    assert database.read_now(lambda c: c.scalar(select(rollups.c.cpu_percent_count))) == 1


# --- pruning --------------------------------------------------------------------------------------


async def test_each_resolution_is_kept_for_its_own_time(
    database: Database, metrics: MetricsTable, writer: Writer
) -> None:
    newest_ms = 400 * 24 * HOUR_MS
    ages_ms = [0, RAW_KEPT_MS, RAW_KEPT_MS + 1, *(age for kept in ROLLUPS_KEPT_MS.values() for age in (kept, kept + 1))]
    await store(metrics, writer, [sample(newest_ms - age_ms) for age_ms in ages_ms])
    oldest = select(rollups.c.resolution_s, func.min(rollups.c.start_ms)).group_by(rollups.c.resolution_s)
    kept = database.read_now(lambda connection: {row[0]: newest_ms - row[1] for row in connection.execute(oldest)})
    assert kept == ROLLUPS_KEPT_MS
    assert [newest_ms - one.timestamp_ms for one in await metrics.recent()] == [0, RAW_KEPT_MS]


async def test_samples_and_roll_ups_take_little_room(database: Database, metrics: MetricsTable, writer: Writer) -> None:
    gpus = (gpu(usage_percent=50.0, memory_used_bytes=GIB, memory_total_bytes=8 * GIB),)
    await store(metrics, writer, [sample(second * 10_000, gpus=gpus) for second in range(2160)])
    await writer.close()
    points = await metrics.history(0, RAW_KEPT_MS, resolution_s=60)
    assert len(points) == 360
    assert database.path.stat().st_size + database.path.with_name("service.db-wal").stat().st_size < 5_000_000
