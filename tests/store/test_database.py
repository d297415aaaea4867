from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import IntegrityError

from llama_async_proxy.errors import InvalidInput, StoreUnavailable
from llama_async_proxy.store import migrations
from llama_async_proxy.store.database import Database, examine_database, translate_errors
from llama_async_proxy.store.schema import settings
from llama_async_proxy.store.writer import Writer
from store.faults import fill, immutable, tiny_disk


def test_opens_for_readers_beside_a_writer_with_foreign_keys(database: Database) -> None:
    with database.writing.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
        assert connection.scalar(text("PRAGMA synchronous")) == 1
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == migrations.HEAD


async def test_reading_connections_cannot_write(database: Database) -> None:
    with pytest.raises(StoreUnavailable):
        await database.read(lambda connection: connection.execute(settings.delete()))


async def test_readers_see_what_was_committed_while_another_transaction_writes(database: Database) -> None:
    row = {"key": "theme", "value": "dark", "updated_at_ms": 1}
    query = select(settings.c.value)
    with database.writing.connect() as connection:
        transaction = connection.begin()
        connection.execute(settings.insert(), row)
        assert await database.read(lambda reader: reader.scalars(query).all()) == []
        transaction.commit()
    assert await database.read(lambda reader: reader.scalars(query).all()) == ["dark"]


async def test_reads_run_side_by_side(database: Database) -> None:
    together = threading.Barrier(4, timeout=30)

    def query(connection: Connection) -> int:
        together.wait()
        return int(connection.scalar(text("SELECT 42")) or 0)

    assert await asyncio.gather(*(database.read(query) for _ in range(4))) == [42] * 4


@pytest.mark.parametrize("content", [b"not a database, but long enough to be taken for one" * 20, b"\0" * 4096])
def test_a_file_that_is_no_database_is_left_alone_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "service.db"
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"is no database, or is damaged\. Put a backup") as raised:
        Database(path)
    assert str(path) in raised.value.message
    assert path.read_bytes() == content


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    Database(path).close()
    damage(path)
    with pytest.raises(StoreUnavailable, match=r"is damaged\. Put a backup") as raised:
        Database(path)
    assert str(path) in raised.value.message


def damage(path: Path) -> None:
    """Overwrite the page that lists all tables, but for the file's header."""
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (url)")
    other.close()
    with pytest.raises(StoreUnavailable, match="belongs to another program"):
        Database(path)
    with pytest.raises(StoreUnavailable, match="belongs to another program"):
        examine_database(path)


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    Database(path).close()
    newer = sqlite3.connect(path)
    newer.execute("UPDATE alembic_version SET version_num = '9999'")
    newer.commit()
    newer.close()
    with pytest.raises(StoreUnavailable, match=r"newer version .*revision 9999.*Install the newer version"):
        Database(path)


def test_a_database_that_another_program_locks_is_named(database: Database) -> None:
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="is locked by another program"):
        Database(database.path, busy_timeout_s=0.01)
    other.execute("ROLLBACK")
    other.close()
    Database(database.path, busy_timeout_s=0.01).close()


def test_a_directory_in_the_files_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"cannot be opened.*--data-dir") as raised:
        Database(tmp_path)
    assert str(tmp_path) in raised.value.message


def test_a_read_only_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    Database(path).close()
    with immutable(path), pytest.raises(StoreUnavailable, match=r"cannot be (written|opened)\. Make .*--data-dir"):
        Database(path)
    Database(path).close()


def test_a_read_only_directory_is_named(tmp_path: Path) -> None:
    with immutable(tmp_path), pytest.raises(StoreUnavailable, match=r"cannot be (written|opened)\. Make .*--data-dir"):
        Database(tmp_path / "service.db")


def test_a_full_disk_is_named_and_an_empty_start_works_once_there_is_room(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        ballast = fill(disk)
        with pytest.raises(StoreUnavailable, match=r"is full\. Free some space"):
            Database(disk / "service.db")
        ballast.unlink()
        Database(disk / "service.db").close()
        assert examine_database(disk / "service.db").startswith("sound")


def test_a_disk_that_fills_up_later_is_named(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        Database(disk / "service.db").close()
        fill(disk)
        with pytest.raises(StoreUnavailable, match=r"is full\. Free some space"):
            Database(disk / "service.db")


@pytest.mark.parametrize(("value", "problem"), [("\ud800", "not valid Unicode"), (1 << 64, "more than 64 bits")])
async def test_values_that_no_database_can_hold_are_invalid_input(writer: Writer, value: object, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        await writer.run(lambda connection: connection.execute(text("SELECT :value"), {"value": value}))


def test_errors_of_the_program_are_not_translated(database: Database) -> None:
    row = {"key": "twice", "value": 1, "updated_at_ms": 1}
    with pytest.raises(IntegrityError), translate_errors(database.path), database.writing.begin() as connection:
        connection.execute(settings.insert(), [row, row])


def test_examines_a_database_in_use(database: Database) -> None:
    assert examine_database(database.path).startswith("sound, 0.")


def test_examining_finds_damage_that_opening_misses(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    Database(path).close()
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(StoreUnavailable, match="is damaged"):
        examine_database(path)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors the Linux way")
async def test_open_and_close_leave_no_descriptor_and_no_thread(tmp_path: Path) -> None:
    async def once() -> None:
        database = Database(tmp_path / "service.db")
        writer = Writer(database)
        await writer.run(lambda connection: connection.execute(settings.delete()))
        await database.read(lambda connection: connection.scalar(select(settings.c.key)))
        await writer.close()
        database.close()

    await once()
    descriptors, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(50):
        await once()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert threading.active_count() == threads
