from __future__ import annotations

import time

import pytest

from llama_async_proxy.monitor.requests import RequestMeter
from llama_async_proxy.records.machine import RequestCounters


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> RequestMeter:
    return RequestMeter(clock)


def test_a_service_without_traffic_has_no_average(meter: RequestMeter) -> None:
    assert meter.snapshot() == RequestCounters(total=0, active=0, errors=0, average_response_ms=None)


def test_request_is_active_until_it_is_finished(meter: RequestMeter) -> None:
    token = meter.start()
    assert (meter.snapshot().total, meter.snapshot().active) == (1, 1)
    meter.finish(token, 200)
    assert (meter.snapshot().total, meter.snapshot().active) == (1, 0)


def test_errors_are_server_faults_and_broken_streams(meter: RequestMeter) -> None:
    for status in (200, 404, 499):
        meter.finish(meter.start(), status)
    assert meter.snapshot().errors == 0
    meter.finish(meter.start(), 500)
    meter.finish(meter.start(), 503, broken=True)
    meter.finish(meter.start(), 200, broken=True)
    assert meter.snapshot().errors == 3


def test_average_is_over_requests_that_ended_in_the_last_minute(meter: RequestMeter, clock: Clock) -> None:
    slow, fast = meter.start(), meter.start()
    clock.now += 0.1
    meter.finish(fast, 200)
    clock.now += 0.2
    meter.finish(slow, 200)
    assert meter.snapshot().average_response_ms == pytest.approx(200)
    clock.now += 30
    late = meter.start()
    clock.now += 0.5
    meter.finish(late, 200)
    assert meter.snapshot().average_response_ms == pytest.approx(300)
    clock.now += 40
    assert meter.snapshot().average_response_ms == pytest.approx(500)
    clock.now += 60
    assert meter.snapshot().average_response_ms is None


def test_bucket_of_an_hour_ago_is_not_added_to(meter: RequestMeter, clock: Clock) -> None:
    token = meter.start()
    clock.now += 5
    meter.finish(token, 200)
    clock.now += 3600 - 5  # the same slot of the ring
    token = meter.start()
    clock.now += 1
    meter.finish(token, 200)
    assert meter.snapshot().average_response_ms == pytest.approx(1000)


def test_request_costs_microseconds() -> None:
    meter = RequestMeter()
    count = 20_000
    best_s = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(count):
            meter.finish(meter.start(), 200)
        best_s = min(best_s, time.perf_counter() - started)
    # Twice and a half the promise: the test machine may be shared.
    assert best_s / count < 5e-6
    assert meter.snapshot().total == 3 * count
