"""Finds models in directories. Plain blocking functions: their callers run them in a thread."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

from llama_async_proxy.gguf.facts import is_model, is_projector, model_facts, projection_length
from llama_async_proxy.gguf.files import (
    Candidate,
    Companioned,
    FileEntry,
    Projector,
    Shard,
    companions,
    group,
    is_candidate,
    shard_of,
)
from llama_async_proxy.gguf.reader import GgufError, Header, has_magic, read_header
from llama_async_proxy.records.models import BrokenFile, Model, ModelFile

_NOTHING_KNOWN: Mapping[str, Model] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ScanResult:
    found: tuple[ModelFile, ...]
    """New models, and known ones whose files changed."""
    unchanged: tuple[Model, ...]
    """Known models whose files are as they were; their headers were not read."""
    broken: tuple[BrokenFile, ...]


def _no_progress(_done: int, _total: int) -> None:
    pass


def scan_directories(
    roots: Iterable[Path],
    *,
    known: Mapping[str, Model] = _NOTHING_KNOWN,
    progress: Callable[[int, int], None] = _no_progress,
    recursive: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> ScanResult:
    """Every model below the roots, once.

    `known` are models by path, as an earlier scan found them. `progress` hears how many files of how many were
    looked at, about a hundred times. `include` (empty: all) and `exclude` are shell patterns of file names or of
    paths below the root. Nothing that is wrong with a file or a directory is raised: it is in `broken`.
    """
    walk = _Walk(recursive, tuple(include), tuple(exclude))
    for root in roots:
        walk.root(root)
    candidates, incomplete = group(walk.files())
    scan = _Scan(known)
    step = max(1, len(candidates) // 100)
    for done, candidate in enumerate(candidates):
        if done % step == 0:
            progress(done, len(candidates))
        scan.look_at(candidate)
    progress(len(candidates), len(candidates))
    return scan.result([*walk.broken, *incomplete])


def read_model_file(path: Path) -> ModelFile:
    """One model by the path of its file, or of any of its shards, with the projector that lies beside it.

    Raises GgufError when it is no usable model, OSError when it cannot be read.
    """
    candidate = _with_siblings(_file_entry(Path(os.path.realpath(path.parent), path.name)))
    headers = _headers(candidate)
    if is_projector(headers[0]):
        raise GgufError("is a multimodal projector, which is loaded beside a model and not by itself")
    if not is_model(headers[0]):
        raise GgufError("accompanies a model (an adapter or the like) and is none itself")
    file = _model_file(candidate, headers)
    beside = companions([_companioned(file)], list(_projectors_beside(Path(file.path))))
    return replace(file, mmproj_path=beside.get(file.path))


# --- the walk -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Walk:
    """Collects the files below directories that may be models. Directories and files are visited once, by real path."""

    recursive: bool
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    broken: list[BrokenFile] = field(default_factory=list)
    _plain: dict[str, FileEntry] = field(default_factory=dict)
    _links: dict[str, FileEntry] = field(default_factory=dict)
    _visited: set[str] = field(default_factory=set)

    def root(self, root: Path) -> None:
        pending = [(str(root), "")]
        while pending:
            directory, below_root = pending.pop()
            pending += [(path, f"{below_root}{Path(path).name}/") for path in self._directory(directory, below_root)]

    def files(self) -> list[FileEntry]:
        """In the order of their paths. A link to a file that is here itself is left out."""
        entries = {**self._links, **self._plain}
        return sorted(entries.values())

    def _directory(self, directory: str, below_root: str) -> list[str]:
        """Takes the files of one directory; the directories in it."""
        real = os.path.realpath(directory)
        if real in self._visited:
            return []
        self._visited.add(real)
        try:
            with os.scandir(real) as entries:
                return [entry.path for entry in entries if self._entry(entry, below_root)]
        except OSError as exc:
            self._report(directory, f"this directory {_cause(exc)}")
            return []

    def _entry(self, entry: os.DirEntry[str], below_root: str) -> bool:
        """True for a directory to walk into."""
        if entry.name.startswith("."):
            return False
        if _is_directory(entry):
            return self.recursive
        if is_candidate(entry.name) and self._wanted(entry.name, below_root):
            try:
                self._file(entry)
            except GgufError as exc:
                self._report(entry.path, str(exc))
            except OSError as exc:
                self._report(entry.path, _cause(exc))
        return False

    def _wanted(self, name: str, below_root: str) -> bool:
        def matches(pattern: str) -> bool:
            return fnmatchcase(name, pattern) or fnmatchcase(below_root + name, pattern)

        return (not self.include or any(map(matches, self.include))) and not any(map(matches, self.exclude))

    def _file(self, entry: os.DirEntry[str]) -> None:
        if _shown(entry.path) != entry.path:
            raise GgufError("has a path that is not valid UTF-8; rename it")
        found = _file_entry(Path(entry.path))
        if entry.is_symlink():
            self._links.setdefault(os.path.realpath(entry.path), found)
        else:
            self._plain[entry.path] = found

    def _report(self, path: str, reason: str) -> None:
        self.broken.append(BrokenFile(_shown(path), reason))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads to itself; as a file it is looked at next.
        return False


def _shown(path: str) -> str:
    """The path with what cannot be text replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def _file_entry(path: Path) -> FileEntry:
    """The file at a path whose directory is a real one. Raises OSError, GgufError."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise GgufError("is not a regular file")
    return FileEntry(str(stable_path(path)), status.st_size, status.st_mtime_ns)


def stable_path(path: Path) -> Path:
    """The file's real path, unless only the link's name says what it is.

    Download caches keep content under a hash and link to it; and the engine finds shards by the name of the first.
    """
    real = path.resolve()
    return path if shard_of(path.name) or not is_candidate(real.name) else real


# --- the headers --------------------------------------------------------------------------------


class _Scan:
    def __init__(self, known: Mapping[str, Model]) -> None:
        self._known = known
        self._found: list[ModelFile] = []
        self._unchanged: list[Model] = []
        self._projectors: defaultdict[str, list[Projector]] = defaultdict(list)
        self._broken: list[BrokenFile] = []

    def look_at(self, candidate: Candidate) -> None:
        model = self._known.get(candidate.path)
        if model and (model.size_bytes, model.mtime_ns) == (candidate.size_bytes, candidate.mtime_ns):
            self._unchanged.append(model)
            return
        try:
            self._read(candidate)
        except GgufError as exc:
            self._broken.append(BrokenFile(candidate.path, str(exc)))
        except OSError as exc:
            self._broken.append(BrokenFile(candidate.path, _cause(exc)))

    def _read(self, candidate: Candidate) -> None:
        # Many programs call their data .bin; only one that begins as GGUF claims to be a model.
        if candidate.path.lower().endswith(".bin") and not has_magic(Path(candidate.path)):
            return
        headers = _headers(candidate)
        if is_projector(headers[0]):
            projector = Projector(candidate.path, projection_length(headers[0]))
            self._projectors[candidate.directory].append(projector)
        elif is_model(headers[0]):
            self._found.append(_model_file(candidate, headers))

    def result(self, broken: list[BrokenFile]) -> ScanResult:
        """What was found, with each model's projector; a known model whose projector changed counts as changed."""
        mmproj = self._companions()
        found = [replace(file, mmproj_path=mmproj.get(file.path)) for file in self._found]
        unchanged = []
        for model in self._unchanged:
            if model.mmproj_path == mmproj.get(model.path):
                unchanged.append(model)
            else:
                found.append(_file_of(model, mmproj.get(model.path)))
        found.sort(key=lambda file: file.path)
        everything_broken = sorted([*broken, *self._broken], key=lambda file: file.path)
        return ScanResult(tuple(found), tuple(unchanged), tuple(everything_broken))

    def _companions(self) -> dict[str, str]:
        models: defaultdict[str, list[Companioned]] = defaultdict(list)
        everything: list[ModelFile | Model] = [*self._found, *self._unchanged]
        for model in everything:
            models[str(Path(model.path).parent)].append(_companioned(model))
        chosen: dict[str, str] = {}
        for directory, projectors in self._projectors.items():
            chosen |= companions(models[directory], projectors)
        return chosen


def _companioned(model: ModelFile | Model) -> Companioned:
    return Companioned(model.path, model.facts.embedding_length)


def _file_of(model: Model, mmproj_path: str | None) -> ModelFile:
    return ModelFile(model.path, model.size_bytes, model.mtime_ns, model.facts, model.shards, mmproj_path)


def _headers(candidate: Candidate) -> list[Header]:
    """The header of each file. Raises GgufError when one is damaged or they make no whole model, OSError."""
    headers = []
    for file in candidate.files:
        try:
            header = read_header(Path(file.path))
            _check_whole(header)
        except GgufError as exc:
            if candidate.is_split:
                raise GgufError(f"{file.name} {exc}") from exc
            raise
        headers.append(header)
    if not headers[0].architecture:
        raise GgufError("names no architecture, so no engine can run it")
    if not any(header.tensor_count for header in headers) and is_model(headers[0]):
        raise GgufError("holds no tensors, only a vocabulary")
    parts = headers[0].integer("split.count") or 1
    if parts > 1 and not candidate.is_split:
        raise GgufError(f"is one of {parts} files of a split model, but its name does not say which")
    return headers


def _check_whole(header: Header) -> None:
    if header.file_size < header.needed_size:
        percent = 100 * header.file_size // header.needed_size
        raise GgufError(
            f"is incomplete: {header.file_size:,} of {header.needed_size:,} bytes ({percent} %); download it again"
        )


def _model_file(candidate: Candidate, headers: Sequence[Header]) -> ModelFile:
    return ModelFile(
        path=candidate.path,
        size_bytes=candidate.size_bytes,
        mtime_ns=candidate.mtime_ns,
        facts=model_facts(*headers),
        shards=tuple(file.path for file in candidate.files) if candidate.is_split else (),
    )


def _with_siblings(file: FileEntry) -> Candidate:
    """The file, or all shards of the model that it is one of. Raises GgufError when some are missing, OSError."""
    shard = shard_of(file.name)
    if shard is None:
        return Candidate((file,))
    directory = Path(file.path).parent
    shards = [entry for entry in directory.iterdir() if _are_together(shard, shard_of(entry.name))]
    candidates, incomplete = group(map(_file_entry, shards))
    if incomplete:
        raise GgufError(incomplete[0].reason)
    return candidates[0]


def _are_together(shard: Shard, other: Shard | None) -> bool:
    return other is not None and (shard.stem, shard.of) == (other.stem, other.of)


def _projectors_beside(path: Path) -> Iterator[Projector]:
    for beside in sorted(path.parent.iterdir()):
        if "mmproj" in beside.name.lower() and is_candidate(beside.name):
            try:
                header = read_header(beside)
            except (GgufError, OSError):
                continue  # The model itself is fine; a scan reports the other file.
            if is_projector(header):
                yield Projector(str(beside), projection_length(header))


def _cause(exc: OSError) -> str:
    if isinstance(exc, FileNotFoundError):
        return "vanished while it was looked at, or is a link to nothing"
    return f"cannot be read: {exc.strerror or exc}"
