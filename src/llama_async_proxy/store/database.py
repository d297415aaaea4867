"""The SQLite database: opening and migrating it, reading, and translating its errors."""

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
from llama_async_proxy.store import migrations, strict_json
from llama_async_proxy.store.schema import metadata

T = TypeVar("T")

_READERS = 4
"""Threads for reading. Reads take milliseconds, and more threads would only wait for the same disk."""
_SEARCHERS = 2
"""Threads of their own for searches, so that other reads need not wait for them."""
_STEPS_BETWEEN_CHECKS = 20_000
"""Steps of SQLite's virtual machine between two checks for cancellation: about a millisecond."""
BUSY_TIMEOUT_S = 5.0
"""Time to wait for another program, such as a backup, that has locked the file."""

_FULL = "The disk with the database {path} is full. Free some space."
_LOCKED = "The database {path} is locked by another program. Close what has it open and try again."
_ADVICE = {
    sqlite3.SQLITE_FULL: _FULL,
    # SQLite reports a full disk so when it extends the index of its write-ahead log.
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
"""Problem and advice by SQLite's result code: the extended one, or the primary one in its low byte."""


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Translate errors of SQLAlchemy and the driver. All statements run inside this context manager.

    Raises StoreUnavailable when the database cannot work now, InvalidInput for a value that it cannot hold. Other
    errors, such as a violated constraint, are bugs of this program and pass unchanged.
    """
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
    """`text` with ? in place of invalid Unicode, which children may print and clients may send."""
    return text if text.isascii() else text.encode(errors="replace").decode()


class Database:
    """An open, migrated database with one engine for writing and one for reading."""

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Open `path`, creating or migrating it. Blocks. Raises StoreUnavailable."""
        self.path = path
        self.writing = _writing_engine(path, busy_timeout_s)
        self._reading = _engine(path, busy_timeout_s, _prepare_reading)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        self._searchers = ThreadPoolExecutor(_SEARCHERS, thread_name_prefix="store-search")
        try:
            with translate_errors(path):
                self._migrate()
        except BaseException:
            self.close()
            raise

    def _migrate(self) -> None:
        with self.writing.connect() as connection:
            with connection.begin():
                revision = _revision(connection, self.path)
            # SQLite opens an unwritable file for reading, and even begins a transaction.
            if not os.access(self.path, os.W_OK):
                raise StoreUnavailable(_ADVICE[sqlite3.SQLITE_READONLY].format(path=self.path))
            if revision == migrations.HEAD:
                with connection.begin():
                    strict_json.heal(connection)
                return
            migrate = _create if revision is None else migrations.upgrade
            with connection.begin():
                migrate(connection)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run `query` on a read-only connection in a thread. Raises StoreUnavailable."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, query)

    async def search(self, query: Callable[[Connection], T]) -> T:
        """Run a query that may take long, in separate threads. It is interrupted when the caller is cancelled."""
        is_cancelled = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._searchers, self._search, query, is_cancelled)
        finally:
            is_cancelled.set()

    def _search(self, query: Callable[[Connection], T], is_cancelled: threading.Event) -> T:
        with self.reading() as connection:
            # SQLite calls the handler at intervals. An interrupt from outside has no effect before a statement begins.
            raw = cast("sqlite3.Connection", connection.connection.dbapi_connection)
            raw.set_progress_handler(is_cancelled.is_set, _STEPS_BETWEEN_CHECKS)
            try:
                return query(connection)
            finally:
                raw.set_progress_handler(None, 0)

    def read_now(self, query: Callable[[Connection], T]) -> T:
        """Run `query` in the calling thread, which blocks."""
        with self.reading() as connection:
            return query(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read-only connection. Raises StoreUnavailable."""
        with translate_errors(self.path), self._reading.connect() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections. Blocks until running reads have ended."""
        self._readers.shutdown(cancel_futures=True)
        self._searchers.shutdown(cancel_futures=True)
        self._reading.dispose()
        # The writing engine is last, because SQLite empties the write-ahead log when the last connection closes.
        self.writing.dispose()


def _revision(connection: Connection, path: Path) -> str | None:
    """Revision of the file; None for an empty one. Raises StoreUnavailable for a file of another program."""
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
    """Create the current schema in an empty file, without loading Alembic. A test compares it with the migrations."""
    metadata.create_all(connection, checkfirst=False)
    connection.exec_driver_sql(
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (migrations.HEAD,))


def examine_database(path: Path) -> str:
    """Describe the state of an existing file, without changing it. A running service does not disturb that.

    Reads the whole file. Raises StoreUnavailable when it is damaged, of a newer version or of another program.
    """
    engine = _engine(path, BUSY_TIMEOUT_S, _prepare_reading)
    try:
        with translate_errors(path), engine.connect() as connection:
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
    # BEGIN IMMEDIATE, because a transaction that turns from reading to writing can fail midway. Isolation level None
    # keeps the sqlite3 module from beginning transactions itself, from which it would leave out changes of the schema.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _engine(path: Path, busy_timeout_s: float, prepare: Callable[[sqlite3.Connection, object], None]) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"isolation_level": None, "timeout": busy_timeout_s},
        pool_size=_READERS,
        json_serializer=strict_json.dumps,
        json_deserializer=strict_json.loads,
    )
    event.listen(engine, "connect", prepare)
    return engine


def _prepare_writing(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # A crash of this process loses no commit; a power cut may lose the last ones but damages nothing (SQLite, pragma
    # synchronous).
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _prepare_reading(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA query_only = ON")
