"""What does a token cost on its way through us, when 1, 32, 256 and 1,000 answers are streamed at once?

CPU is that of the proxy's processes; an event's delay counts from the moment the engine wrote it to the moment the
client has it; memory is what the streams add.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.native import LoadRun
from support.rivals import Rival, stand
from support.tables import conditions, medians, table

CPU = "CPU per token, µs"
CROWDS = {1: 5, 32: 10, 256: 50, 1000: 100}
"""Streams at once -> milliseconds between two tokens of each."""
TOKENS = 100
"""Of a stream. Each costs a new connection to the engine, which the tokens share."""


def measure(rival: Rival, *, streams: int) -> dict[str, float]:
    interval_ms = CROWDS[streams]
    before_s, before_mib = rival.cpu_s(), rival.rss_mib()
    run = LoadRun(
        rival.port,
        clients=streams,
        seconds=0.1 if streams > 100 else 3.0,  # of many one each, of few one after the other
        stream=1,
        events=TOKENS,
        interval_us=1000 * interval_ms,
    )
    peak_mib = _peak(rival, run)
    seen = run.result()
    return {
        CPU: 1e6 * (rival.cpu_s() - before_s) / seen["events"],
        "first chunk p50 ms": seen["first_p50"] / 1e3,
        "event p50 ms": seen["event_p50"] / 1e3,
        "event p99 ms": seen["event_p99"] / 1e3,
        "failed": seen["failed"],
        "memory added, MiB": max(0.0, peak_mib - before_mib),
    }


def _peak(rival: Rival, run: LoadRun) -> float:
    peak = rival.rss_mib()
    while not run.ended_within(0.2):
        peak = max(peak, rival.rss_mib())
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, nargs="*", default=list(CROWDS), choices=list(CROWDS))
    arguments = parser.parse_args()
    with stand() as rivals:
        print(conditions(arguments.rounds))
        for streams in arguments.streams:
            with_rival = functools.partial(measure, streams=streams)
            rows = medians(arguments.rounds, lambda name: with_rival(rivals[name]), rivals)  # noqa: B023 - used at once
            print(f"\n{streams} streams, a token each {CROWDS[streams]} ms:\n")
            print(table(rows, first="through", ratio_to="nginx", of=CPU), flush=True)


if __name__ == "__main__":
    main()
