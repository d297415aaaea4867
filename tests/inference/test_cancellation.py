from __future__ import annotations

import asyncio

import pytest

from llama_async_proxy.inference.cancellation import CancelScope, ended


class Reason(Exception):
    pass


async def forever() -> Exception:
    await asyncio.Event().wait()
    return Reason("never")


async def test_the_block_raises_what_the_watch_returns() -> None:
    async def watch() -> Exception:
        await asyncio.sleep(0)
        return Reason("seen")

    with pytest.raises(Reason, match="seen"):
        async with CancelScope(watch):
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_first_reason_counts() -> None:
    async def work() -> None:
        async with CancelScope(forever) as scope:
            scope.cancel(Reason("first"))
            scope.cancel(Reason("second"))
            await asyncio.Event().wait()

    with pytest.raises(Reason, match="first"):
        await work()


async def test_a_shielded_block_is_not_cancelled() -> None:
    async with CancelScope(forever) as scope:
        scope.shield()
        scope.cancel(Reason("late"))
        await asyncio.sleep(0)


async def test_errors_of_the_block_pass_and_the_watch_ends() -> None:
    before = len(asyncio.all_tasks())
    with pytest.raises(ZeroDivisionError):
        async with CancelScope(forever):
            raise ZeroDivisionError
    assert len(asyncio.all_tasks()) == before


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def work() -> None:
        async with CancelScope(forever):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_beside_a_reason_wins() -> None:
    async def work() -> None:
        async with CancelScope(forever) as scope:
            asyncio.get_running_loop().call_soon(scope.cancel, Reason("ours"))
            asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_ended_waits_for_the_task() -> None:
    cleaned = False

    async def slow_to_end() -> None:
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned = True

    task = asyncio.create_task(slow_to_end())
    await asyncio.sleep(0)
    await ended(task)
    assert cleaned
