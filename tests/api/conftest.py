"""A module that sets LOOP_FACTORIES has each of its asynchronous tests run on each of those loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

LoopFactories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> LoopFactories:
    factories: LoopFactories = getattr(
        getattr(item, "module", None), "LOOP_FACTORIES", {"asyncio": asyncio.new_event_loop}
    )
    return factories
