"""What does a request or a token cost on its way through us?

The same requests go straight to a mock engine and through the service, in turn, so that both see the same machine.
Reported are medians over the rounds; "added" is proxied minus direct. The goal: a token is at most 1 ms later (p50).

    bench/proxy_overhead.py           the real service, the mock started by it as its engine's child
    bench/proxy_overhead.py --door    the inference door alone, on the ASGI route and with the switch: what that saves
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import load
from support.models import write_chat
from support.service import RunningService, clean_environment, free_port

HERE = Path(__file__).parent
ROUNDS = 5
LIMIT_MS = 1.0
"""What a token may be delayed by us, p50."""


@dataclass(frozen=True)
class Stand:
    """The ports to compare, and the process between them."""

    direct: int
    proxied: int
    service: psutil.Process


@contextlib.contextmanager
def process(*command: str) -> Iterator[psutil.Process]:
    child = subprocess.Popen(command, env=clean_environment())
    try:
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(10)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError):
            asyncio.run(load.answers(port, "mock", clients=1, each=1))
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody answers on port {port}")
        time.sleep(0.05)


@contextlib.contextmanager
def doors_alone() -> Iterator[tuple[Stand, Stand]]:
    """The ASGI route, and the same with the switch in front of it."""
    engine, asgi, switch = free_port(), free_port(), free_port()
    mock = (sys.executable, str(HERE / "support/mock_engine.py"), "--port", str(engine))
    door = (sys.executable, str(HERE / "support/door_alone.py"))
    with (
        process(*mock),
        process(*door, str(asgi), str(engine), "asgi") as slow,
        process(*door, str(switch), str(engine)) as fast,
    ):
        for port in (engine, asgi, switch):
            wait_for(port)
        yield Stand(engine, asgi, slow), Stand(engine, switch, fast)


@contextlib.contextmanager
def whole_service() -> Iterator[Stand]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        binary = directory / "llama-server"
        mock = str(HERE / "support/mock_engine.py")
        binary.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({mock!r}, run_name='__main__')\n")
        binary.chmod(0o755)
        (directory / "models").mkdir()
        write_chat(directory / "models/mock.gguf")
        with RunningService(directory, "--llama-server", str(binary)) as service:
            service.wait_for_models(1)
            wait_for(service.port)  # which loads the model
            [engine] = [
                c.laddr.port for child in service.children() for c in child.net_connections() if c.status == "LISTEN"
            ]
            yield Stand(engine, service.port, psutil.Process(service.process.pid))


def cpu_s(of: psutil.Process) -> float:
    times = of.cpu_times()
    return float(times.user + times.system)


def measured(port: int, service: psutil.Process) -> dict[str, float]:
    """Milliseconds as clients of `port` see them, and CPU microseconds of the service's process."""
    values: dict[str, float] = {}
    lone = asyncio.run(load.answers(port, "mock", clients=1, each=400))
    values["answer, one client, p50 ms"] = 1e3 * statistics.median(lone.answers)
    firsts = asyncio.run(load.streams(port, "mock", clients=1, each=150, events=1, interval_ms=2))
    values["first token, one client, p50 ms"] = 1e3 * statistics.median(firsts.first)
    calm = asyncio.run(load.streams(port, "mock", clients=4, each=1, events=150, interval_ms=10))
    values["token, 4 streams, p50 ms"] = 1e3 * statistics.median(calm.events)
    before = cpu_s(service)
    crowd = asyncio.run(load.streams(port, "mock", clients=32, each=1, events=400, interval_ms=10))
    values["token, 32 streams, p50 ms"] = 1e3 * statistics.median(crowd.events)
    values["service CPU per token, 32 streams, µs"] = 1e6 * (cpu_s(service) - before) / len(crowd.events)
    before = cpu_s(service)
    busy = asyncio.run(load.answers(port, "mock", clients=32, each=150))
    values["service CPU per answer, 32 clients, µs"] = 1e6 * (cpu_s(service) - before) / len(busy.answers)
    return values


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--door", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    uvloop.install()
    if arguments.door:
        return compare_doors(arguments.rounds)
    direct: list[dict[str, float]] = []
    proxied: list[dict[str, float]] = []
    with whole_service() as stand:
        for _ in range(arguments.rounds):
            direct.append(measured(stand.direct, stand.service))
            proxied.append(measured(stand.proxied, stand.service))
        memory = stand.service.memory_info().rss / 2**20
    return report(direct, proxied, memory)


def compare_doors(rounds: int) -> int:
    asgi: list[dict[str, float]] = []
    switch: list[dict[str, float]] = []
    with doors_alone() as (slow, fast):
        for _ in range(rounds):
            asgi.append(measured(slow.proxied, slow.service))
            switch.append(measured(fast.proxied, fast.service))
    print("| measure | ASGI route | with the switch | ratio |\n|---|---|---|---|")
    for name in switch[0]:
        before, after = (statistics.median(values[name] for values in each) for each in (asgi, switch))
        print(f"| {name} | {before:.3f} | {after:.3f} | {before / after:.1f} |")
    return 0


def report(direct: list[dict[str, float]], proxied: list[dict[str, float]], memory_mib: float) -> int:
    print(f"{psutil.cpu_count()} cores, Python {sys.version.split()[0]}, medians of {len(direct)} rounds\n")
    print("| measure | direct | proxied | added | ratio |")
    print("|---|---|---|---|---|")
    worst_ms = 0.0
    for name in proxied[0]:
        through = statistics.median(values[name] for values in proxied)
        if "CPU" in name:
            print(f"| {name} | | {through:.1f} | | |")
            continue
        straight = statistics.median(values[name] for values in direct)
        added = statistics.median(p[name] - d[name] for p, d in zip(proxied, direct, strict=True))
        print(f"| {name} | {straight:.3f} | {through:.3f} | {added:.3f} | {through / straight:.1f} |")
        if name.startswith("token"):
            worst_ms = max(worst_ms, added)
    print(f"| service memory afterwards, MiB | | {memory_mib:.0f} | | |")
    verdict = "within" if worst_ms < LIMIT_MS else "OVER"
    print(f"\nA token is {worst_ms:.3f} ms later at p50: {verdict} the limit of {LIMIT_MS:g} ms.")
    return 0 if worst_ms < LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
