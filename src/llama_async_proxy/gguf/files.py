"""Which files make a model, told by their names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import PurePath
from typing import NamedTuple

from msgspec import Struct

from llama_async_proxy.records.models import BrokenFile

MODEL_SUFFIXES = (".gguf", ".bin")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<of>\d{5})\.gguf", re.IGNORECASE | re.DOTALL)
_NAMED_MISSING = 3


class Shard(NamedTuple):
    """A name such as `big-00002-of-00003.gguf`."""

    stem: str
    number: int
    """From 1."""
    of: int


class FileEntry(NamedTuple):
    path: str
    size_bytes: int
    mtime_ns: int

    @property
    def name(self) -> str:
        return PurePath(self.path).name


class Candidate(Struct, frozen=True):
    """The files of what may be a model: one, or all shards in order."""

    files: tuple[FileEntry, ...]

    @property
    def path(self) -> str:
        return self.files[0].path

    @property
    def directory(self) -> str:
        return str(PurePath(self.path).parent)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def mtime_ns(self) -> int:
        return max(file.mtime_ns for file in self.files)

    @property
    def is_split(self) -> bool:
        return len(self.files) > 1


def is_candidate(name: str) -> bool:
    """True for the name of a file that may be a model. Hidden files are none: tools keep their leftovers there."""
    return name.lower().endswith(MODEL_SUFFIXES) and not name.startswith(".")


def shard_of(name: str) -> Shard | None:
    """What the name says of a split file; None for the name of a whole one."""
    match = _SHARD.fullmatch(name)
    if match is None:
        return None
    number, of = int(match["number"]), int(match["of"])
    return Shard(match["stem"], number, of) if 1 <= number <= of else None


def model_stem(name: str) -> str:
    """The name without suffix and shard number: what people call the model."""
    shard = shard_of(name)
    return shard.stem if shard else PurePath(name).stem


def group(files: Iterable[FileEntry]) -> tuple[list[Candidate], list[BrokenFile]]:
    """Puts the shards of each split model together. Those that lack some are broken."""
    candidates: list[Candidate] = []
    broken: list[BrokenFile] = []
    split: dict[tuple[str, str, int], dict[int, FileEntry]] = {}
    for file in files:
        shard = shard_of(file.name)
        if shard is None:
            candidates.append(Candidate((file,)))
        else:
            split.setdefault((str(PurePath(file.path).parent), shard.stem, shard.of), {})[shard.number] = file
    for (_, stem, count), found in split.items():
        if len(found) == count:
            candidates.append(Candidate(tuple(found[number] for number in range(1, count + 1))))
        else:
            broken.append(BrokenFile(found[min(found)].path, _missing(stem, count, found)))
    return candidates, broken


def _missing(stem: str, count: int, found: Iterable[int]) -> str:
    present = set(found)
    absent = count - len(present)
    lacking = islice((number for number in range(1, count + 1) if number not in present), _NAMED_MISSING)
    names = [f"{stem}-{number:05}-of-{count:05}.gguf" for number in lacking]
    more = f" and {absent - len(names)} more" if absent > len(names) else ""
    verb = "is" if absent == 1 else "are"
    return f"is split into {count} files of which {absent} {verb} missing: {', '.join(names)}{more}"


# --- multimodal projectors ----------------------------------------------------------------------


class Projector(NamedTuple):
    path: str
    embedding_length: int | None
    """Elements of the embeddings it makes; None when its header does not say."""


class Companioned(NamedTuple):
    """A model that may belong to a projector of its directory."""

    path: str
    embedding_length: int | None


# Words in a projector's name that do not say which model it is for.
_PRECISION = re.compile(r"(?<![a-z0-9])(?:bf16|fp?16|fp?32|i?q\d[a-z0-9_]*)(?![a-z0-9])")
_GENERIC = frozenset({"mmproj", "model", "vision", "audio", "clip", "encoder", "projector", "gguf"})


def companions(models: Sequence[Companioned], projectors: Sequence[Projector]) -> dict[str, str]:
    """The projector of each model of one directory that has one, by the model's path.

    A projector belongs to a model whose name has all its words ("mmproj-gemma-3-4b-it-f16" to
    "gemma-3-4b-it-Q4_K_M") and whose embeddings are as long as those it makes; the most specific one wins, then F16.
    A length that contradicts the model's excludes the projector, for the engine would refuse to load both.
    """
    chosen: dict[str, str] = {}
    for model in models:
        lengths = (None, model.embedding_length)
        words = _words(model.path)
        fitting = [
            projector
            for projector in projectors
            if _words(projector.path) <= words and projector.embedding_length in lengths
        ]
        if fitting:
            chosen[model.path] = max(fitting, key=_preference).path
    return chosen


def _preference(projector: Projector) -> tuple[int, bool, str]:
    name = PurePath(projector.path).stem.lower()
    return len(_words(projector.path)), re.search(r"(?<![a-z])fp?16", name) is not None, name


def _words(path: str) -> frozenset[str]:
    name = _PRECISION.sub(" ", model_stem(PurePath(path).name).lower())
    return frozenset(re.findall(r"[a-z0-9]+", name)) - _GENERIC
