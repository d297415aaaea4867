"""How far is the foretold memory of a load from llama.cpp's own count?

Prints a table: for each model the deviations of the total over contexts, slots, cache types and batches, in percent,
with flash attention and without; negative when too little is foretold. Exit status 1 when a limit is missed.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from llama_async_proxy.gguf.memory import FlashAttention, LoadSettings, estimate
from llama_async_proxy.gguf.reader import read_header
from llama_async_proxy.gguf.shape import model_shape

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.ghosts import SHAPES, Ghost, write_shape
from support.oracle import arguments, count

CONTEXTS = (4096, 8192, 32768, 131072)
SLOTS: tuple[tuple[int | None, bool | None], ...] = ((1, None), (4, None), (8, True), (None, None))
CACHES: tuple[tuple[str, FlashAttention, int], ...] = (
    ("f16", "auto", 512),
    ("q8_0", "auto", 512),
    ("q4_0", "on", 512),
    ("f16", "auto", 2048),
    ("f16", "off", 512),
)
MOST_MEAN, MOST_UNDER, MOST_UNDER_WITHOUT_FLASH = 0.5, 1.0, 3.0


class Deviations(NamedTuple):
    """Percent of the total."""

    flash: list[float]
    plain: list[float]

    @property
    def within_limits(self) -> bool:
        mean = average([*self.flash, *self.plain])
        return mean <= MOST_MEAN and min(self.flash) >= -MOST_UNDER and min(self.plain) >= -MOST_UNDER_WITHOUT_FLASH


def main() -> int:
    print(f"{'':16}  {'with flash attention':>27}  {'without':>27}")
    print(f"{'model':16}" + 2 * f"  {'mean':>9}{'under':>9}{'over':>9}")
    everything = Deviations([], [])
    with tempfile.TemporaryDirectory(prefix="memory-estimate-") as directory:
        for name, ghost in SHAPES.items():
            found = compare(Path(directory, f"{name}.gguf"), ghost)
            row(name, found)
            everything.flash.extend(found.flash)
            everything.plain.extend(found.plain)
    row("all", everything)
    return 0 if everything.within_limits else 1


def compare(path: Path, ghost: Ghost) -> Deviations:
    shape = model_shape(read_header(write_shape(path, ghost)))
    loads = [
        LoadSettings(context, slots, unified, 2048, batch, cache, cache, flash)
        for context, (slots, unified), (cache, flash, batch) in itertools.product(CONTEXTS, SLOTS, CACHES)
    ]
    found = Deviations([], [])
    for load, counted in zip(loads, count([arguments(path, load) for load in loads]), strict=True):
        deviation = 100 * (estimate(shape, load).total_bytes / counted.total_bytes - 1)
        (found.plain if load.flash_attention == "off" else found.flash).append(deviation)
    return found


def average(deviations: Sequence[float]) -> float:
    return sum(map(abs, deviations)) / len(deviations)


def row(name: str, found: Deviations) -> None:
    columns = (f"  {average(values):9.2f}{min(values):9.2f}{max(values):9.2f}" for values in found)
    print(f"{name:16}" + "".join(columns))


if __name__ == "__main__":
    sys.exit(main())
