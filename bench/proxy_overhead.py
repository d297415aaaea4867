"""What does a request cost on its way through us, and through others?

The same requests go straight to a mock engine, through the whole service with everything on, and through what else can
stand there: nginx and haproxy where they are installed, the usual ASGI proxy on aiohttp, and LiteLLM when asked
(`--litellm` installs it into .cache). Load and engine run on one core, what is measured on another.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.native import load
from support.rivals import OTHERS, Rival, stand
from support.tables import conditions, medians, table

CPU = "CPU per answer, 32 clients, µs"
TOKENS = 100


def busy(rival: Rival, seconds: float) -> dict[str, float]:
    """32 clients, each asking as soon as it has its answer."""
    before = rival.cpu_s()
    seen = load(rival.port, clients=32, seconds=seconds, path="/v1/embeddings")
    return {
        CPU: 1e6 * (rival.cpu_s() - before) / seen["answers"],
        "answers/s": seen["answers"] / seen["seconds"],
        "p99 ms": seen["total_p99"] / 1e3,
        "failed": seen["failed"],
    }


def lone(rival: Rival, seconds: float) -> dict[str, float]:
    """One client; then four readers of streams of two tokens, who think a while before each."""
    answers = load(rival.port, clients=1, seconds=seconds, path="/v1/embeddings")
    streams = load(rival.port, clients=4, seconds=seconds, stream=1, events=2, interval_us=5000, think_ms=20)
    return {
        "answer p50 ms": answers["total_p50"] / 1e3,
        "first chunk p50 ms": streams["first_p50"] / 1e3,
        "event p50 ms": streams["event_p50"] / 1e3,
    }


def generations(rival: Rival, seconds: float) -> dict[str, float]:
    """The same answer of 100 tokens, as a stream and in one piece."""
    costs = {}
    for name, is_stream in (("streamed", 1), ("in one piece", 0)):
        before = rival.cpu_s()
        seen = load(rival.port, clients=16, seconds=seconds, stream=is_stream, events=TOKENS, interval_us=5000)
        costs[f"CPU per answer {name}, µs"] = 1e6 * (rival.cpu_s() - before) / seen["answers"]
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="each measurement")
    parser.add_argument("--litellm", action="store_true", help="compare with LiteLLM, too")
    arguments = parser.parse_args()
    rounds, seconds = arguments.rounds, arguments.seconds
    others = (*OTHERS, "litellm") if arguments.litellm else OTHERS
    with stand(others) as rivals:
        print(conditions(rounds))
        many = medians(rounds, lambda name: busy(rivals[name], seconds), rivals)
        print("\nOne JSON answer, passed through:\n")
        print(table(many, first="through", ratio_to="nginx", of=CPU))
        few = medians(rounds, lambda name: lone(rivals[name], seconds), rivals)
        print("\nLow load:\n")
        print(table(few, first="through"))
        whole = medians(rounds, lambda name: generations(rivals[name], 2 * seconds), ["service"])
        print(f"\nA generation of {TOKENS} tokens:\n")
        print(table(whole, first="through"))


if __name__ == "__main__":
    main()
