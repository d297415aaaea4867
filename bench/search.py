"""How long does a search take among a million messages?

Builds a corpus of N messages (10 to 70 words of a vocabulary in which, as in speech, few words are very common) in a
database of the service's own, then searches it by the service's own code, and prints the median and the 95th percentile
of each kind of search. Usage: python bench/search.py [N] [DATABASE], which is kept and used again where it exists.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import insert

from llama_async_proxy.store.database import Database
from llama_async_proxy.store.schema import conversations, messages
from llama_async_proxy.store.search import Query, SearchIndex

PER_CONVERSATION = 20
BATCH = 20_000
ROUNDS = 15
VOCABULARY = 60_000


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(scratch) / "search.db"
        is_new = not path.exists()
        database = Database(path)
        words = vocabulary()
        if is_new:
            began_s = time.perf_counter()
            build(database, words, count)
            print(f"built in {time.perf_counter() - began_s:.0f} s, {path.stat().st_size / 1e6:.0f} MB")
        asyncio.run(measure(SearchIndex(database), words))
        database.close()


def vocabulary() -> list[str]:
    """Pronounceable words, the most common first."""
    choices = random.Random(1)
    syllables = [c + v for c in "bcdfghklmnprstvwz" for v in "aeiou"]
    found = dict.fromkeys("".join(choices.choices(syllables, k=choices.randint(2, 4))) for _ in range(2 * VOCABULARY))
    return list(found)[:VOCABULARY]


def build(database: Database, words: list[str], count: int) -> None:
    choices = random.Random(2)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    for start in range(0, count, BATCH):
        with database.writing.begin() as connection:
            chats = range(start // PER_CONVERSATION, min(count, start + BATCH) // PER_CONVERSATION)
            connection.execute(insert(conversations), [conversation(n, words) for n in chats])
            connection.execute(insert(messages), list(batch(start, min(count, start + BATCH), words, weights, choices)))


def conversation(number: int, words: list[str]) -> dict[str, object]:
    return {
        "id": number + 1, "title": f"{words[number % 5000]} {words[-number % 5000]}", "has_automatic_title": True,
        "model": "m", "sampling": {}, "is_pinned": False, "is_archived": False, "is_unspaced": False,
        "created_at_ms": number, "updated_at_ms": number,
    }  # fmt: skip


def batch(
    start: int, end: int, words: list[str], weights: list[float], choices: random.Random
) -> Iterator[dict[str, object]]:
    for number in range(start, end):
        said = choices.choices(words, cum_weights=weights, k=choices.randint(10, 70))
        is_first = number % PER_CONVERSATION == 0
        yield {
            "id": number + 1, "conversation_id": number // PER_CONVERSATION + 1, "content": " ".join(said),
            "parent_id": None if is_first else number, "role": ("user", "assistant")[number % 2],
            "status": "complete", "is_active": True, "is_unspaced": False, "created_at_ms": number,
        }  # fmt: skip


async def measure(index: SearchIndex, words: list[str]) -> None:
    kinds = {
        "rare word": 20_000, "medium word": 1_500, "common word": 10,
    }  # fmt: skip
    print(f"{'':34}{'hits':>6}{'p50 ms':>9}{'p95 ms':>9}")
    for name, rank in kinds.items():
        await report(index, f"ranked, {name}", [Query(words[rank + n], 20) for n in range(ROUNDS)])
    two = [Query(f"{words[300 + n]} {words[900 + n]}", 20) for n in range(ROUNDS)]
    await report(index, "ranked, two words", two)
    for name, rank in kinds.items():
        queries = [Query(words[rank + n], 20, newest_first=True) for n in range(ROUNDS)]
        await report(index, f"newest first, {name}", queries)
    for length in (2, 3, 4):
        queries = [Query(words[50 + n][:length], 20, newest_first=True, is_typing=True) for n in range(ROUNDS)]
        await report(index, f"newest first, {length} letters typed", queries)


async def report(index: SearchIndex, name: str, queries: list[Query]) -> None:
    times_ms = []
    hits = 0
    await index.find(queries[0])  # the first touch reads from the disk
    for query in queries:
        began_s = time.perf_counter()
        hits += len(await index.find(query))
        times_ms.append(1000 * (time.perf_counter() - began_s))
    p95 = statistics.quantiles(times_ms, n=20)[-1]
    print(f"{name:34}{hits / len(queries):6.0f}{statistics.median(times_ms):9.1f}{p95:9.1f}", flush=True)


main()
