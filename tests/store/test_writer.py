from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text

from llama_async_proxy.errors import StoreUnavailable
from llama_async_proxy.store import writer as writer_module
from llama_async_proxy.store.database import Database
from llama_async_proxy.store.schema import logs
from llama_async_proxy.store.writer import BATCH_ROWS, Writer
from store.faults import fill, tiny_disk


def sink(connection: Connection, messages: Sequence[str]) -> None:
    rows = [{"timestamp_ms": 1, "level": 1, "source": "test", "message": message} for message in messages]
    connection.execute(insert(logs), rows)


def stored(database: Database) -> list[str]:
    return database.read_now(lambda connection: list(connection.scalars(select(logs.c.message).order_by(logs.c.id))))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_run_commits_before_it_returns(database: Database, writer: Writer) -> None:
    def add(connection: Connection) -> int:
        sink(connection, ["now"])
        return 7

    assert await writer.run(add) == 7
    assert stored(database) == ["now"]


async def test_a_failed_job_writes_nothing_and_raises_in_its_caller(database: Database, writer: Writer) -> None:
    def fail(connection: Connection) -> None:
        sink(connection, ["half"])
        raise LookupError("not this one")

    with pytest.raises(LookupError, match="not this one"):
        await writer.run(fail)
    assert stored(database) == []
    assert await writer.run(lambda _: "still there") == "still there"


async def test_on_commit_is_called_even_when_the_caller_was_cancelled(database: Database, writer: Writer) -> None:
    started, go_on, committed = threading.Event(), threading.Event(), threading.Event()

    def work(connection: Connection) -> str:
        started.set()
        go_on.wait(30)
        sink(connection, ["kept"])
        return "result"

    def on_commit(result: str) -> None:
        assert stored(database) == ["kept"], "after the commit"
        assert result == "result"
        committed.set()

    caller = asyncio.create_task(writer.run(work, on_commit))
    await asyncio.to_thread(started.wait)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    assert await asyncio.to_thread(committed.wait, 10)


async def test_a_job_cancelled_before_its_turn_is_not_run(database: Database, writer: Writer) -> None:
    go_on = threading.Event()
    first = asyncio.create_task(writer.run(lambda _: go_on.wait(30)))
    second = asyncio.create_task(writer.run(lambda connection: sink(connection, ["never"])))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    go_on.set()
    assert await first
    await writer.flush()
    assert stored(database) == []


async def test_appended_rows_are_stored_together_in_order_without_being_asked(
    database: Database, writer: Writer
) -> None:
    batches: list[int] = []

    def counting(connection: Connection, messages: Sequence[str]) -> None:
        batches.append(len(messages))
        sink(connection, messages)

    messages = [str(i) for i in range(100)]
    for message in messages:
        writer.append(counting, message)
    await until(lambda: bool(batches))
    await writer.flush()
    assert batches == [100]
    assert stored(database) == messages


async def test_a_full_batch_does_not_wait(database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_S", 60)
    for i in range(BATCH_ROWS):
        writer.append(sink, str(i))
    await until(lambda: len(stored(database)) == BATCH_ROWS)


async def test_a_job_finds_the_rows_appended_before_it(database: Database, writer: Writer) -> None:
    writer.append(sink, "first")
    await writer.run(lambda connection: sink(connection, ["second"]))
    writer.append(sink, "third")
    await writer.flush()
    assert stored(database) == ["first", "second", "third"]


async def test_many_threads_may_append(database: Database, writer: Writer) -> None:
    def produce(name: int) -> None:
        for i in range(500):
            writer.append(sink, f"{name}:{i}")

    await asyncio.gather(*(asyncio.to_thread(produce, name) for name in range(4)))
    await writer.flush()
    messages = stored(database)
    assert sorted(messages) == sorted(f"{name}:{i}" for name in range(4) for i in range(500))
    assert [m for m in messages if m.startswith("2:")] == [f"2:{i}" for i in range(500)]


async def test_closing_writes_all_appended_rows(database: Database) -> None:
    writer = Writer(database)
    for i in range(1300):
        writer.append(sink, str(i))
    await writer.close()
    await writer.close()
    assert len(stored(database)) == 1300
    with pytest.raises(StoreUnavailable, match="closed"):
        await writer.run(lambda _: None)
    writer.append(sink, "too late, and harmless")


async def test_closing_is_bounded(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer(database)
    go_on = threading.Event()
    job = asyncio.create_task(writer.run(lambda _: go_on.wait(30)))
    await asyncio.sleep(0)
    await writer.close(timeout_s=0.05)
    assert "did not finish writing within 0.05 s" in caplog.text
    go_on.set()
    await job
    await writer.close()


async def test_rows_that_no_database_can_hold_are_left_out(
    database: Database, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    for message in ["a", "b", "\udcff", "c", "d", "\udcfe", "e"]:
        writer.append(sink, message)
    await writer.flush()
    assert stored(database) == ["a", "b", "c", "d", "e"]
    assert caplog.text.count("cannot be stored and is left out") == 2


async def test_rows_wait_while_the_database_is_locked_and_are_stored_afterwards(
    database: Database, writer: Writer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_S", 0.02)
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for i in range(3):
        writer.append(sink, str(i))
    with pytest.raises(StoreUnavailable, match="locked by another program"):
        await writer.flush()
    await until(lambda: writer.problem is not None)
    other.execute("ROLLBACK")
    other.close()
    await until(lambda: writer.problem is None)
    assert stored(database) == ["0", "1", "2"]
    assert caplog.text.count("is locked by another program") == 1, "said once, not at each attempt"
    assert "written again; 0 log lines" in caplog.text


async def test_a_full_disk_drops_only_the_oldest_rows_beyond_the_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_S", 0.02)
    monkeypatch.setattr(writer_module, "MAX_PENDING_ROWS", 1000)
    with tiny_disk(tmp_path / "disk") as disk:
        database = Database(disk / "service.db")
        writer = Writer(database)
        await writer.run(lambda connection: sink(connection, ["before"]))
        ballast = fill(disk)
        for i in range(1200):
            writer.append(sink, f"{i} " + "x" * 200)
        with pytest.raises(StoreUnavailable, match="is full"):
            await writer.flush()
        assert stored(database) == ["before"]
        ballast.unlink()
        await until(lambda: writer.problem is None)
        await writer.close()
        kept = [int(message.split()[0]) for message in stored(database)[1:]]
        assert kept == list(range(200, 1200))
        assert "200 log lines and measurements were lost" in caplog.text
        database.close()


async def test_a_full_database_refuses_jobs_with_advice_and_recovers(database: Database, writer: Writer) -> None:
    def limit(pages: int) -> Callable[[Connection], object]:
        return lambda connection: connection.scalar(text(f"PRAGMA max_page_count = {pages}"))

    size = await writer.run(lambda connection: connection.scalar(text("PRAGMA page_count")))
    assert await writer.run(limit(size)) == size
    with pytest.raises(StoreUnavailable, match=r"is full\. Free some space"):
        await writer.run(lambda connection: sink(connection, ["x" * 100_000]))
    assert stored(database) == []
    await writer.run(limit(1_000_000))
    await writer.run(lambda connection: sink(connection, ["fits"]))
    assert stored(database) == ["fits"]


async def test_rows_that_cannot_be_written_at_the_end_are_counted(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = Writer(database)
    writer.append(sink, "lost")
    await writer.close()
    other.close()
    assert "1 rows could not be written before the end" in caplog.text


WRITE_FOREVER = """
import asyncio, sys
from pathlib import Path
from sqlalchemy import insert
from llama_async_proxy.store.database import Database
from llama_async_proxy.store.schema import logs
from llama_async_proxy.store.writer import Writer

def sink(connection, numbers):
    rows = [{"timestamp_ms": n, "level": 1, "source": "test", "message": "m" * 500} for n in numbers]
    connection.execute(insert(logs), rows)

async def main():
    writer = Writer(Database(Path(sys.argv[1])))
    for number in range(10**9):
        if number % 10 == 0:
            await writer.run(lambda connection: sink(connection, [number]))
            print(number, flush=True)
        else:
            writer.append(sink, number)

asyncio.run(main())
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_kill_9_in_mid_write_loses_nothing_committed_and_damages_nothing(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    writing = subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(path)], stdout=subprocess.PIPE, text=True)
    with writing:
        assert writing.stdout is not None
        confirmed = [int(writing.stdout.readline()) for _ in range(200)]
        writing.send_signal(signal.SIGKILL)
        confirmed += [int(number) for number in writing.stdout.read().split("\n")[:-1]]
    database = Database(path)
    try:
        assert database.read_now(lambda connection: connection.scalar(text("PRAGMA integrity_check"))) == "ok"
        numbers = database.read_now(lambda connection: connection.scalars(select(logs.c.timestamp_ms)).all())
    finally:
        database.close()
    # Rows come before the jobs behind them, so that what was confirmed is there without gaps.
    assert list(numbers)[: confirmed[-1] + 1] == list(range(confirmed[-1] + 1))


async def test_readers_never_wait_for_the_writer_nor_see_half_a_batch(database: Database, writer: Writer) -> None:
    done = False

    async def write() -> None:
        nonlocal done
        for i in range(30):
            await writer.run(lambda connection, i=i: sink(connection, [f"{i}:{n}" for n in range(50)]))  # type: ignore[misc]
        done = True

    async def read() -> int:
        reads = 0
        while not done:
            assert len(await asyncio.to_thread(stored, database)) % 50 == 0
            reads += 1
        return reads

    _, *reads = await asyncio.gather(write(), read(), read(), read())
    assert all(reads)


async def test_an_idle_writer_sleeps(writer: Writer) -> None:
    await writer.flush()
    before = time.thread_time_ns(), time.process_time_ns()
    await asyncio.sleep(0.3)
    others_ns = time.process_time_ns() - before[1] - (time.thread_time_ns() - before[0])
    assert others_ns < 20_000_000
