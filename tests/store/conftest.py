"""A real database for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from llama_async_proxy.store.database import Database
from llama_async_proxy.store.store import Store
from llama_async_proxy.store.writer import Writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Path of a database file that does not exist yet."""
    return tmp_path / "data" / "service.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    path.parent.mkdir()
    database = Database(path, busy_timeout_s=0.05)
    yield database
    database.close()


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    writer = Writer(database)
    yield writer
    await writer.close()


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with Store.open(path, log_max_rows=lambda: 1000) as store:
        yield store
