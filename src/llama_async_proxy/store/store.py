"""The store: opens and closes the database and all of its tables together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

from sqlalchemy import select

from llama_async_proxy.errors import StoreUnavailable
from llama_async_proxy.store.atomic import clear_unfinished
from llama_async_proxy.store.chats import ChatTable
from llama_async_proxy.store.database import Database
from llama_async_proxy.store.logs import LogTable
from llama_async_proxy.store.metrics import MetricsTable
from llama_async_proxy.store.models import ModelTable
from llama_async_proxy.store.preferences import PreferenceTable
from llama_async_proxy.store.presets import PresetFiles
from llama_async_proxy.store.private_files import make_private
from llama_async_proxy.store.requests import RequestTable
from llama_async_proxy.store.schema import settings
from llama_async_proxy.store.search import SearchIndex
from llama_async_proxy.store.service_lock import service_lock
from llama_async_proxy.store.turns import TurnTable
from llama_async_proxy.store.writer import Writer

_CATCH_UP_S = 0.5
"""Longest wait for pending writes before reading. With a locked file they may take seconds."""


logger = logging.getLogger(__name__)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Store:
    """All tables and files. Made by `Store.open`."""

    def __init__(self, database: Database, writer: Writer, log_max_rows: Callable[[], int]) -> None:
        self._database = database
        self._writer = writer
        self.models = ModelTable(database, writer, _now_ms)
        self.preferences = PreferenceTable(database, writer, _now_ms)
        self.presets = PresetFiles(database.path.parent / "presets", _now_ms)
        self.metrics = MetricsTable(database, writer)
        self.logs = LogTable(database, writer, log_max_rows)
        self.requests = RequestTable(database, writer)
        self.chats = ChatTable(database, writer, _now_ms)
        self.turns = TurnTable(database, writer, _now_ms)
        self.search = SearchIndex(database)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, *, log_max_rows: Callable[[], int]) -> AsyncIterator[Store]:
        """Open the database file `path`, and hold its directory exclusively until the end of the block.

        Creates both when missing, and migrates an older file. Blocks, because the service cannot work without it.
        `log_max_rows` is called before each write of log lines. Raises StoreUnavailable with advice when another
        service holds the directory, the file is damaged or of a newer version, or the disk is full or not writable.
        """
        with ExitStack() as stack:
            database = _open(path, stack)
            writer = Writer(database)
            try:
                yield cls(database, writer, log_max_rows)
            finally:
                await writer.close()

    async def flush(self) -> None:
        """Wait until all rows appended before are stored. Raises StoreUnavailable."""
        await self._writer.flush()

    async def catch_up(self) -> None:
        """Wait until all rows appended before are stored, for a short time only."""
        if self._writer.problem is None:
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(_CATCH_UP_S):
                    await self._writer.flush()

    async def check(self) -> None:
        """Raise StoreUnavailable when the database cannot be read, or when the last write failed."""
        await self._database.read(lambda connection: connection.execute(select(settings.c.key).limit(1)).all())
        if self._writer.problem is not None:
            raise self._writer.problem


def _open(path: Path, stack: ExitStack) -> Database:
    """Open the database. `stack` closes it and releases its directory."""
    directory = path.parent
    try:
        # Chats and logs are private.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreUnavailable(
            f"Cannot create the data directory {directory}: {exc.strerror or exc}. Choose another with --data-dir."
        ) from exc
    stack.enter_context(service_lock(directory))
    if removed := clear_unfinished(directory):
        logger.info("Unfinished files of a process that was killed were removed: %d", removed)
    for problem in make_private(directory):
        logger.warning("%s", problem)
    database = Database(path)
    stack.callback(database.close)
    return database
