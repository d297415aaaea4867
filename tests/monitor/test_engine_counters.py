from __future__ import annotations

from llama_async_proxy.errors import UpstreamFailed
from llama_async_proxy.monitor.engine_counters import EngineCounters, EngineCounts, parse_metrics
from llama_async_proxy.records.runtime import Endpoint

FIRST, SECOND = Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2)


def page(tokens: int, deferred: int) -> bytes:
    return (
        "# HELP llamacpp:tokens_predicted_total Number of generation tokens processed.\n"
        "# TYPE llamacpp:tokens_predicted_total counter\n"
        f"llamacpp:tokens_predicted_total {tokens}\n"
        f"llamacpp:requests_deferred {deferred}\n"
    ).encode()


class Engine:
    """Pages by process; the clock goes as told."""

    def __init__(self) -> None:
        self.pages: dict[Endpoint, bytes] = {}
        self.now_s = 100.0

    async def fetch(self, endpoint: Endpoint, path: str, _limit_s: float) -> bytes:
        if path != "/metrics" or endpoint not in self.pages:
            raise UpstreamFailed("gone")
        return self.pages[endpoint]


async def test_a_rate_is_the_difference_of_two_readings_over_all_processes() -> None:
    engine = Engine()
    counters = EngineCounters(engine.fetch, lambda: engine.now_s)
    engine.pages = {FIRST: page(100, 1), SECOND: page(50, 2)}
    assert await counters.read([FIRST, SECOND]) == EngineCounts(None, 3)
    engine.pages = {FIRST: page(140, 0), SECOND: page(60, 0)}
    engine.now_s += 10
    assert await counters.read([FIRST, SECOND]) == EngineCounts(5.0, 0)


async def test_what_nobody_tells_is_unknown_and_a_new_process_counts_from_zero() -> None:
    engine = Engine()
    counters = EngineCounters(engine.fetch, lambda: engine.now_s)
    assert await counters.read([]) == await counters.read([FIRST]) == EngineCounts(None, None)
    engine.pages = {FIRST: page(100, 0)}
    await counters.read([FIRST])
    engine.pages = {FIRST: page(3, 0)}
    engine.now_s += 1
    assert (await counters.read([FIRST])).tokens_per_second is None


def test_lines_that_are_no_plain_value_are_left_out() -> None:
    assert parse_metrics('# x 1\na 1.5\nb{le="1"} 2\nc nothing\n\nd\n') == {"a": 1.5}
