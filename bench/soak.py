"""Does anything stay behind? 1,000 streams without a pause and 200 clients that vanish at random, for five minutes.

What the service holds is counted before and after: descriptors, connections to the engine, running requests, and
resident memory (which a minute of the same has brought to its working size). Exit status 1 when something was left.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.native import LoadRun
from support.rivals import Rival, stand

STREAMS, VANISHING = 1000, 200
WARM_UP_S = 60.0
SETTLE_S = 12.0
"""Idle connections are closed after less."""
GROWTH_MIB = 5.0


def traffic(port: int, seconds: float) -> list[dict[str, float]]:
    steady = LoadRun(port, clients=STREAMS, seconds=seconds, stream=1, events=50, interval_us=100_000)
    fickle = LoadRun(port, clients=VANISHING, seconds=seconds, stream=1, events=50, interval_us=20_000, vanish_ms=1000)
    hasty = LoadRun(port, clients=8, seconds=seconds, vanish_ms=5)
    return [steady.result(), fickle.result(), hasty.result()]


def held(service: Rival, engine: Rival) -> dict[str, float]:
    """Once it has come to rest."""
    time.sleep(SETTLE_S)
    with urllib.request.urlopen(f"http://127.0.0.1:{engine.port}/stats") as answer:
        stats = json.load(answer)
    [process] = service.processes
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/api/status") as answer:
        running = json.load(answer)["data"]["performance"]["requests_active"]
    connections = sum(c.status == psutil.CONN_ESTABLISHED for c in process.net_connections())
    return {
        "descriptors": process.num_fds(),
        "connections": connections,
        "streams in the engine": stats["streams"],
        "requests running, this one among them": running,
        "memory, MiB": round(service.rss_mib(), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    arguments = parser.parse_args()
    with stand(rivals=()) as parts:
        service, engine = parts["service"], parts["direct"]
        traffic(service.port, WARM_UP_S)
        before = held(service, engine)
        steady, fickle, hasty = traffic(service.port, arguments.seconds)
        after = held(service, engine)
    vanished = fickle["vanished"] + hasty["vanished"]
    failed = steady["failed"] + fickle["failed"] + hasty["failed"]
    print(f"{steady['answers']:.0f} streams read to their end, {vanished:.0f} clients vanished, {failed:.0f} failed\n")
    print("| held | before | after |\n|---|---|---|")
    for name, value in before.items():
        print(f"| {name} | {value} | {after[name]} |")
    exact = [name for name in before if name != "memory, MiB"]
    grown = after["memory, MiB"] - before["memory, MiB"]
    clean = all(before[name] == after[name] for name in exact) and grown <= GROWTH_MIB and not failed
    print("\nNothing was left behind." if clean else "\nSOMETHING WAS LEFT BEHIND.")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
