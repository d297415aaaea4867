from __future__ import annotations

import ast
import asyncio
import functools
from pathlib import Path
from typing import get_args

import pytest

from llama_async_proxy.events import Event, EventBus, ScanFinished, ScanProgressed, SettingsChanged

PACKAGE = Path(__file__).parents[1] / "src" / "llama_async_proxy"


async def test_a_subscriber_receives_its_types_in_order() -> None:
    bus = EventBus()
    with bus.subscribe(ScanProgressed, ScanFinished) as events:
        bus.publish(ScanProgressed(1, 2))
        bus.publish(SettingsChanged(("port",)))
        bus.publish(ScanFinished(1, 0, 1, 0))
        stream = aiter(events)
        assert [await anext(stream), await anext(stream)] == [ScanProgressed(1, 2), ScanFinished(1, 0, 1, 0)]


async def test_a_slow_subscriber_loses_the_oldest_events_and_counts_them() -> None:
    bus = EventBus()
    with bus.subscribe(ScanProgressed, limit=2) as slow, bus.subscribe(ScanProgressed) as fast:
        for done in range(5):
            bus.publish(ScanProgressed(done, 5))
        assert slow.dropped == 3
        assert fast.dropped == 0
        assert await anext(aiter(slow)) == ScanProgressed(3, 5)
        assert await anext(aiter(fast)) == ScanProgressed(0, 5)


async def test_an_event_wakes_a_waiting_subscriber() -> None:
    bus = EventBus()
    with bus.subscribe(ScanProgressed) as events:
        waiting = asyncio.ensure_future(anext(aiter(events)))
        await asyncio.sleep(0)
        bus.publish(ScanProgressed(1, 1))
        assert await asyncio.wait_for(waiting, 30) == ScanProgressed(1, 1)


async def test_an_ended_subscription_receives_no_event() -> None:
    bus = EventBus()
    with bus.subscribe(ScanProgressed) as events:
        pass
    bus.publish(ScanProgressed(1, 1))
    assert events.dropped == 0
    try:
        async with asyncio.timeout(0.01):
            await anext(aiter(events))
    except TimeoutError:
        return
    raise AssertionError("an event arrived after the subscription ended")


@pytest.mark.parametrize("event", get_args(Event), ids=lambda event: event.__name__)
def test_every_event_has_a_publisher_and_a_subscriber(event: type) -> None:
    built, received = _uses_of_events()
    assert event.__name__ in built, "no module publishes it"
    assert event.__name__ in received, "no module subscribes to it"


@functools.cache
def _uses_of_events() -> tuple[frozenset[str], frozenset[str]]:
    """Names that the package calls, and names that it passes on without calling them, as subscribers do."""
    called: set[str] = set()
    passed: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name == "events.py" and path.parent == PACKAGE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called |= {node.func.id} if isinstance(node.func, ast.Name) else set()
                passed |= {argument.id for argument in node.args if isinstance(argument, ast.Name)}
            elif isinstance(node, ast.Tuple):
                passed |= {item.id for item in node.elts if isinstance(item, ast.Name)}
    return frozenset(called), frozenset(passed)
