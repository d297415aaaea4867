from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from support.upstream import Upstream, make_settings


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream().serving() as running:
        yield running


@pytest.fixture
async def pool() -> AsyncIterator[ConnectionPool]:
    settings = make_settings()
    pool = ConnectionPool(lambda: settings)
    yield pool
    pool.close()
