"""The SQLite file: opening it, bringing it up to date, and saying in words what is wrong with it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from llama_async_proxy.errors import InvalidInput, StoreUnavailable
from llama_async_proxy.store import migrations
from llama_async_proxy.store.schema import metadata

T = TypeVar("T")

_READERS = 4
"""Reads take milliseconds; more threads would only wait for the same disk."""
_SEARCHERS = 2
"""So that searches never hold up other reads."""
_STEPS_BETWEEN_LOOKS = 20_000
"""Of SQLite's virtual machine: about a millisecond."""
BUSY_TIMEOUT_S = 5.0
"""How long to wait for another program, such as a backup, that holds the file."""

_FULL = "The disk with the database {path} is full. Free some space."
_LOCKED = "The database {path} is locked by another program. Close what has it open and try again."
_ADVICE = {
    sqlite3.SQLITE_FULL: _FULL,
    # A full disk when SQLite makes room for the index of its write-ahead log.
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,
    sqlite3.SQLITE_READONLY: "The database {path} cannot be written. Make the file and its directory writable, or "
    "choose another directory with --data-dir.",
    sqlite3.SQLITE_CANTOPEN: "The database {path} cannot be opened. Make it a readable file in a writable directory, "
    "or choose another directory with --data-dir.",
    sqlite3.SQLITE_PERM: "The database {path} may not be accessed. Give this user access to it, or choose another "
    "directory with --data-dir.",
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_CORRUPT: "The database {path} is damaged. Put a backup in its place, or move it away to start with "
    "an empty one.",
    sqlite3.SQLITE_NOTADB: "The file {path} is no database, or is damaged. Put a backup in its place, or move it away "
    "to start with an empty one.",
    sqlite3.SQLITE_IOERR: "The disk failed while the database {path} was read or written. Check the disk and the "
    "system log.",
}
"""What is wrong and what to do, by SQLite's result code: the extended one, or the primary one in its low byte."""


@contextmanager
def our_errors(path: Path) -> Iterator[None]:
    """The one place where foreign errors become ours: StoreUnavailable when the database cannot work now, InvalidInput
    for a value no database can hold. Others, such as a broken constraint, are mistakes of ours and pass."""
    try:
        yield
    except DBAPIError as exc:
        code = getattr(exc.orig, "sqlite_errorcode", sqlite3.SQLITE_OK)
        advice = _ADVICE.get(code) or _ADVICE.get(code & 0xFF)
        if advice is None:
            raise
        raise StoreUnavailable(advice.format(path=path), details=str(exc.orig)) from exc
    except UnicodeEncodeError as exc:
        raise InvalidInput("", f"Text that is not valid Unicode cannot be stored: {exc.object[:80]!r}") from exc
    except OverflowError as exc:
        raise InvalidInput("", "A number of more than 64 bits cannot be stored.") from exc


def storable(text: str) -> str:
    """`text` with ? for what is not Unicode: children print, and clients send, anything."""
    return text if text.isascii() else text.encode(errors="replace").decode()


class Database:
    """An open, current database: one engine that writes, one that only reads."""

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Open `path`, creating or migrating it. Blocks. Raises StoreUnavailable."""
        self.path = path
        self.writing = _writing_engine(path, busy_timeout_s)
        self._reading = _engine(path, busy_timeout_s, _prepare_reading)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        self._searchers = ThreadPoolExecutor(_SEARCHERS, thread_name_prefix="store-search")
        try:
            with our_errors(path):
                self._bring_up_to_date()
        except BaseException:
            self.close()
            raise

    def _bring_up_to_date(self) -> None:
        with self.writing.connect() as connection:
            with connection.begin():
                revision = _revision(connection, self.path)
            # SQLite opens a file it cannot write for reading, and even begins a transaction.
            if not os.access(self.path, os.W_OK):
                raise StoreUnavailable(_ADVICE[sqlite3.SQLITE_READONLY].format(path=self.path))
            if revision == migrations.HEAD:
                return
            make_current = _create if revision is None else migrations.upgrade
            with connection.begin():
                make_current(connection)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """What `query` finds, run on a read-only connection in a thread. Raises StoreUnavailable."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, query)

    async def search(self, query: Callable[[Connection], T]) -> T:
        """As `read`, for what may take long: in threads of its own, and broken off when the caller is cancelled."""
        is_unwanted = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._searchers, self._search, query, is_unwanted)
        finally:
            is_unwanted.set()

    def _search(self, query: Callable[[Connection], T], is_unwanted: threading.Event) -> T:
        with self.reading() as connection:
            # Asked now and then; an interrupt from outside would be lost on a statement that is about to begin.
            raw = cast("sqlite3.Connection", connection.connection.dbapi_connection)
            raw.set_progress_handler(is_unwanted.is_set, _STEPS_BETWEEN_LOOKS)
            try:
                return query(connection)
            finally:
                raw.set_progress_handler(None, 0)

    def read_now(self, query: Callable[[Connection], T]) -> T:
        """The same in the calling thread, which blocks."""
        with self.reading() as connection:
            return query(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that only reads. Raises StoreUnavailable."""
        with our_errors(self.path), self._reading.connect() as connection:
            yield connection

    def close(self) -> None:
        """Blocks until running reads have ended."""
        self._readers.shutdown(cancel_futures=True)
        self._searchers.shutdown(cancel_futures=True)
        self._reading.dispose()
        # Last, because SQLite empties the write-ahead log when the last connection closes, and that one must write.
        self.writing.dispose()


def _revision(connection: Connection, path: Path) -> str | None:
    """The migration the file is at, None for an empty file. Raises StoreUnavailable for a file that is not ours."""
    tables = set(connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")))
    if not tables:
        return None
    revision: str | None = None
    if "alembic_version" in tables:
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is None:
        raise StoreUnavailable(
            f"The database {path} belongs to another program. Move it away, or choose another directory with "
            "--data-dir."
        )
    if revision not in migrations.REVISIONS:
        raise StoreUnavailable(
            f"The database {path} was written by a newer version of this program (revision {revision}, this one knows "
            f"{migrations.HEAD}). Install the newer version, or choose another directory with --data-dir."
        )
    return revision


def _create(connection: Connection) -> None:
    """Make of an empty file what `migrations.upgrade` would, without waiting for Alembic to load; a test compares."""
    metadata.create_all(connection, checkfirst=False)
    connection.exec_driver_sql(
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (migrations.HEAD,))


def examine_database(path: Path) -> str:
    """The state of an existing file in a few words, found without changing it, also while a service uses it.

    Reads the whole file. Raises StoreUnavailable when it is damaged, of a newer version or not ours.
    """
    engine = _engine(path, BUSY_TIMEOUT_S, _prepare_reading)
    try:
        with our_errors(path), engine.connect() as connection:
            revision = _revision(connection, path)
            problem = connection.scalar(text("PRAGMA quick_check(1)"))
    finally:
        engine.dispose()
    if problem != "ok":
        raise StoreUnavailable(_ADVICE[sqlite3.SQLITE_CORRUPT].format(path=path), details=str(problem))
    size = f"sound, {path.stat().st_size / 1e6:.1f} MB"
    return size if revision == migrations.HEAD else f"{size}, brought up to date by the next start"


def _writing_engine(path: Path, busy_timeout_s: float) -> Engine:
    engine = _engine(path, busy_timeout_s, _prepare_writing)
    # At once for writing: a transaction that turns from reading to writing can fail in its middle. Without isolation
    # level the sqlite3 module begins none itself, which would leave out statements that change the schema.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _engine(path: Path, busy_timeout_s: float, prepare: Callable[[sqlite3.Connection, object], None]) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"isolation_level": None, "timeout": busy_timeout_s},
        pool_size=_READERS,
    )
    event.listen(engine, "connect", prepare)
    return engine


def _prepare_writing(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # Our own death at any moment loses nothing; a power cut may take the last commits but damages nothing.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _prepare_reading(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA query_only = ON")
