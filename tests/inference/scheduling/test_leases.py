from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from llama_async_proxy.errors import ServiceError
from llama_async_proxy.inference.scheduling.leases import Lease, Leases
from llama_async_proxy.records.runtime import Endpoint
from support.upstream import make_model

AT = Endpoint("127.0.0.1", 1)


class Request:
    """Holds a lease on a model; ends when it is revoked, unless it ignores that."""

    def __init__(self, leases: Leases, model_id: int = 1, *, granted: bool = True, stubborn: bool = False) -> None:
        self.revoked: ServiceError | None = None
        self.lease = Lease(make_model(model_id, f"m{model_id}"), self._revoke)
        self._leases, self._ignores_revocation = leases, stubborn
        leases.requests.add(self.lease)
        leases.hold(self.lease)
        if granted:
            self.lease.grant(AT)

    def _revoke(self, reason: ServiceError) -> None:
        self.revoked = reason
        if not self._ignores_revocation:
            self.end()

    def end(self) -> bool:
        return self._leases.end(self.lease)


async def started(waiting: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Task of the coroutine, once it waits."""
    task = asyncio.create_task(waiting)
    await settle()
    return task


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_leases_are_counted_by_model_until_they_end() -> None:
    leases = Leases()
    first, second, other = Request(leases), Request(leases), Request(leases, 2)
    leases.hold(first.lease)
    assert (leases.count(1), leases.count(2), leases.count(3), list(leases)) == (2, 1, 0, [1, 2])
    assert first.end()
    assert not first.end()
    assert (leases.count(1), 1 in leases) == (1, True)
    assert second.end()
    assert (leases.count(1), 1 in leases, leases.requests) == (0, False, {other.lease})


def test_the_end_of_a_queued_request_changes_nothing_for_its_model() -> None:
    leases = Leases()
    running, waiting = Request(leases), Lease(make_model(1))
    leases.requests.add(waiting)
    assert not leases.end(waiting)
    assert (leases.count(1), leases.requests) == (1, {running.lease})


def test_a_model_was_last_used_when_its_first_request_began_or_its_latest_ended() -> None:
    leases = Leases()
    before_s = time.monotonic()
    request = Request(leases)
    began_s = leases.last_used_s(1, 0.0)
    request.end()
    assert before_s <= began_s <= leases.last_used_s(1, 0.0) <= time.monotonic()
    assert leases.last_used_s(2, 5.0) == leases.last_used_s(2, 6.0) == 5.0, "it was not used since it was seen"
    leases.forget_use(2)
    assert leases.last_used_s(2, 7.0) == 7.0


async def test_draining_waits_for_the_last_request() -> None:
    leases = Leases()
    requests = [Request(leases), Request(leases, 2)]
    draining = await started(leases.drain(60.0, lambda: False))
    requests[0].end()
    await settle()
    assert not draining.done()
    requests[1].end()
    await draining


async def test_draining_ends_after_its_time_or_when_forced() -> None:
    leases = Leases()
    request = Request(leases)
    async with asyncio.timeout(30):
        await leases.drain(0.01, lambda: False)
        await leases.drain(60.0, lambda: True)
    assert leases.requests == {request.lease}


async def test_a_model_is_drained_once_its_own_requests_have_ended() -> None:
    leases = Leases()
    request, other = Request(leases), Request(leases, 2)
    draining = await started(leases.drain_model(1, 60.0))
    assert not draining.done()
    request.end()
    await draining
    assert (request.revoked, other.revoked) == (None, None)


async def test_running_requests_are_revoked_after_the_drain_time_and_requests_waiting_for_the_load_are_not() -> None:
    leases = Leases()
    running, loading = Request(leases), Request(leases, granted=False)
    await leases.drain_model(1, 0.01)
    assert str(running.revoked) == "Model 'm1' was unloaded."
    assert loading.revoked is None
    assert leases.count(1) == 1


async def test_a_request_that_ignores_its_revocation_does_not_block_a_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_async_proxy.inference.scheduling.leases._REVOKE_GRACE_S", 0.01)
    leases = Leases()
    stubborn = Request(leases, stubborn=True)
    async with asyncio.timeout(30):
        await leases.drain_model(1, 0.0)
    assert stubborn.revoked is not None


def test_revoking_all_reaches_every_request_and_no_explicit_load() -> None:
    leases = Leases()
    load = Lease(make_model(1))
    leases.hold(load)
    requests = [Request(leases), Request(leases, 2, granted=False)]
    leases.revoke_all("Enough.")
    assert [str(request.revoked) for request in requests] == ["Enough."] * 2
    assert (leases.requests, leases.count(1)) == (set(), 1)
