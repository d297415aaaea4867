"""How fast are headers read, and directories of models scanned?

Prints a table: one header of 150,000 tokens through our reader and through the `gguf` package's, then 200 such files
scanned for the first time and again. Exit status 1 when a limit is missed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec.structs

from gguf import GGUFReader
from llama_async_proxy.gguf.reader import read_header
from llama_async_proxy.operations.scan import scan_directories
from llama_async_proxy.records.models import Model, ModelFile, ModelOrigin

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.models import GHOSTS, write_ghost

FILES = 200
TOKENS = 150_000
LEAST_RATIO = 100
MOST_COLD_S = 10.0
MOST_UNCHANGED_S = 0.5


def main() -> int:
    directory = Path(tempfile.mkdtemp(prefix="gguf-scan-"))
    try:
        ok = [compare_readers(directory), scan(directory)]
    finally:
        shutil.rmtree(directory)
    return 0 if all(ok) else 1


def compare_readers(directory: Path) -> bool:
    path = write_ghost(directory / "one.gguf", vocab=TOKENS)
    ours = best(5, lambda: read_header(path))
    theirs = best(1, lambda: GGUFReader(path))
    path.unlink()
    row(
        f"header of {TOKENS:,} tokens and merges", ours, f"{theirs / ours:.0f}x faster than GGUFReader ({theirs:.2f} s)"
    )
    return theirs / ours >= LEAST_RATIO


def scan(directory: Path) -> bool:
    originals = [write_ghost(directory / f"{arch}.gguf", arch=arch, vocab=TOKENS) for arch in GHOSTS]
    for number in range(len(originals), FILES):
        copy_sparse(originals[number % len(originals)], directory / f"model-{number:03}.gguf")
    started = time.perf_counter()
    found = scan_directories([directory]).found
    cold = time.perf_counter() - started
    known = {file.path: as_model(number, file) for number, file in enumerate(found)}
    unchanged = best(3, lambda: scan_directories([directory], known=known))
    row(f"scan of {len(found)} new models", cold, f"limit {MOST_COLD_S:g} s")
    row(f"scan of {len(known)} unchanged models", unchanged, f"limit {MOST_UNCHANGED_S:g} s")
    return len(found) == FILES and cold < MOST_COLD_S and unchanged < MOST_UNCHANGED_S


def copy_sparse(source: Path, target: Path) -> None:
    """Header and hole: the copy of a ghost takes as little disk."""
    header = read_header(source)
    with source.open("rb") as reader, target.open("wb") as writer:
        writer.write(reader.read(header.data_offset))
        writer.truncate(header.file_size)


def as_model(number: int, file: ModelFile) -> Model:
    name = Path(file.path).stem
    shared = {f.name: getattr(file, f.name) for f in msgspec.structs.fields(file)}
    return Model(id=number, slug=name, name=name, origin=ModelOrigin.SCANNED, **shared)


def best(rounds: int, action: Callable[[], object]) -> float:
    """Seconds of the fastest of some rounds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


def row(what: str, seconds: float, remark: str) -> None:
    print(f"{what:44} {seconds:9.4f} s   {remark}")


if __name__ == "__main__":
    sys.exit(main())
