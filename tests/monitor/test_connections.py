from __future__ import annotations

from llama_async_proxy.monitor.connections import ConnectionMeter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_client_counts_once_until_it_leaves() -> None:
    meter = ConnectionMeter(Clock())
    meter.connected("a")
    meter.connected("a")
    meter.connected("b")
    assert meter.clients == 2
    meter.disconnected("a")
    meter.disconnected("never came")
    assert meter.clients == 1


def test_messages_per_second_is_the_mean_of_the_last_ten_seconds() -> None:
    clock = Clock()
    meter = ConnectionMeter(clock)
    for _ in range(30):
        meter.message()
    assert meter.messages_per_second == 3.0
    clock.now += 5
    for _ in range(20):
        meter.message()
    assert meter.messages_per_second == 5.0
    clock.now += 6
    assert meter.messages_per_second == 2.0
    clock.now += 60
    assert meter.messages_per_second == 0.0
