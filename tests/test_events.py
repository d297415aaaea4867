from __future__ import annotations

import asyncio

from llama_async_proxy.events import EventBus, ScanFinished, ScanProgressed, SettingsChanged


async def test_a_subscriber_sees_its_types_in_order() -> None:
    bus = EventBus()
    with bus.subscribe(ScanProgressed, ScanFinished) as events:
        bus.publish(ScanProgressed(1, 2))
        bus.publish(SettingsChanged(("port",)))
        bus.publish(ScanFinished(1, 0, 1, 0))
        stream = aiter(events)
        assert [await anext(stream), await anext(stream)] == [ScanProgressed(1, 2), ScanFinished(1, 0, 1, 0)]


async def test_a_slow_subscriber_loses_the_oldest_and_knows_how_many() -> None:
    bus = EventBus()
    with bus.subscribe(ScanProgressed, limit=2) as slow, bus.subscribe(ScanProgressed) as fast:
        for done in range(5):
            bus.publish(ScanProgressed(done, 5))
        assert slow.dropped == 3
        assert fast.dropped == 0
        assert await anext(aiter(slow)) == ScanProgressed(3, 5)
        assert await anext(aiter(fast)) == ScanProgressed(0, 5)


async def test_a_waiting_subscriber_is_woken() -> None:
    bus = EventBus()
    with bus.subscribe(ScanProgressed) as events:
        waiting = asyncio.ensure_future(anext(aiter(events)))
        await asyncio.sleep(0)
        bus.publish(ScanProgressed(1, 1))
        assert await asyncio.wait_for(waiting, 30) == ScanProgressed(1, 1)


async def test_nothing_reaches_a_subscription_that_ended() -> None:
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
