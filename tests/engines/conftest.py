from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from support.rig import Rig, children_of_this_process


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    """Started engine with the fake llama-server. Checks that no child process outlives the test."""
    before = children_of_this_process()
    async with Rig().running() as running:
        yield running
    assert children_of_this_process() <= before
