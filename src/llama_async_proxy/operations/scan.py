"""Finds models in directories. Plain blocking functions: their callers run them in a thread."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

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
from llama_async_proxy.gguf.reader import GgufError, Header, ends_in_zeros, has_magic, read_header
from llama_async_proxy.records.models import BrokenFile, Model, ModelFile

_NOTHING_KNOWN: Mapping[str, Model] = MappingProxyType({})


class ScanResult(Struct, frozen=True):
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
    scan = _Scan(known, walk.links)
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


MAX_DEPTH = 12
"""Directories below a root that a scan goes down."""
MAX_DIRECTORIES = 20_000
MAX_FILES = 20_000
_DOWNLOADING = (".aria2", ".part", ".partial", ".crdownload", ".download", ".incomplete", ".!qB")
"""Suffixes of the files that download programs (aria2, browsers, hub clients, qBittorrent) keep beside a file that they
are filling."""


class _Walk(Struct):
    """Collects the files below directories that may be models. Directories and files are visited once, by real path.

    The walk has bounds, for a link may lead anywhere: MAX_DEPTH, MAX_DIRECTORIES and MAX_FILES; a link to a directory
    that holds the root itself, such as /, is not followed, nor does a walk below a link change the file system. What is
    left out is reported.
    """

    recursive: bool
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    broken: list[BrokenFile] = field(default_factory=list)
    links: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Paths of links by the path of the file that they lead to."""
    _plain: dict[str, FileEntry] = field(default_factory=dict)
    _linked: dict[str, FileEntry] = field(default_factory=dict)
    _visited: set[str] = field(default_factory=set)
    _is_full: bool = False

    def root(self, root: Path) -> None:
        pending = [_Step(str(root), "", 0, None)]
        real_root = os.path.realpath(root)
        while pending and not self._is_full:
            step = pending.pop()
            steps = (self._follow(step, path, real_root) for path in self._directory(step))
            pending += [following for following in steps if following is not None]

    def files(self) -> list[FileEntry]:
        """In the order of their paths. A link to a file that is here itself is left out."""
        entries = {**self._linked, **self._plain}
        return sorted(entries.values())

    def _follow(self, step: _Step, path: str, root: str) -> _Step | None:
        """The step into a directory; None when it lies beyond the bounds, which is reported."""
        if step.depth >= MAX_DEPTH:
            self._report(path, f"this directory lies more than {MAX_DEPTH} directories deep and is not looked into")
            return None
        device = step.device
        if Path(path).is_symlink():
            real = os.path.realpath(path)
            if real != root and os.path.commonpath((real, root)) == real:
                self._report(path, f"this link leads to {real}, which holds the models directory, and is not followed")
                return None
            device = _device(real)
        elif device is not None and _device(path) != device:
            self._report(path, "this directory is on another file system than the link that leads here, and left out")
            return None
        return _Step(path, f"{step.below_root}{Path(path).name}/", step.depth + 1, device)

    def _directory(self, step: _Step) -> list[str]:
        """Takes the files of one directory; the directories in it."""
        real = os.path.realpath(step.path)
        if real in self._visited or self._is_beyond(step.path):
            return []
        self._visited.add(real)
        try:
            with os.scandir(real) as entries:
                return [entry.path for entry in entries if self._entry(entry, step.below_root)]
        except OSError as exc:
            self._report(step.path, f"this directory {_cause(exc)}")
            return []

    def _is_beyond(self, path: str) -> bool:
        if len(self._visited) >= MAX_DIRECTORIES or len(self._plain) + len(self._linked) >= MAX_FILES:
            self._is_full = True
            bounds = f"{MAX_DIRECTORIES:,} directories and {MAX_FILES:,} model files"
            self._report(path, f"the scan ended here, for it looks at {bounds} at most")
        return self._is_full

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
            self._linked.setdefault(os.path.realpath(entry.path), found)
            self.links[found.path].append(entry.path)
        else:
            self._plain[entry.path] = found

    def _report(self, path: str, reason: str) -> None:
        self.broken.append(BrokenFile(_shown(path), reason))


class _Step(NamedTuple):
    """A directory that the walk goes to."""

    path: str
    below_root: str
    """The same as seen from the root, with a slash at its end."""
    depth: int
    device: int | None
    """File system of the link that the walk followed last; None where it has followed none."""


def _device(path: str) -> int | None:
    try:
        return Path(path).stat().st_dev
    except OSError:
        return None


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
    def __init__(self, known: Mapping[str, Model], links: Mapping[str, Sequence[str]]) -> None:
        self._known = known
        self._links = {path: tuple(sorted(found)) for path, found in links.items() if [path] != list(found)}
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
            for directory in self._directories(candidate.path):
                self._projectors[directory].append(projector)
        elif is_model(headers[0]):
            self._found.append(_model_file(candidate, headers))

    def result(self, broken: list[BrokenFile]) -> ScanResult:
        """What was found, with each model's projector; a known model whose projector changed counts as changed."""
        mmproj = self._companions()
        found = [
            replace(file, mmproj_path=mmproj.get(file.path), links=self._links.get(file.path, ()))
            for file in self._found
        ]
        unchanged = []
        for model in self._unchanged:
            links = self._links.get(model.path, ())
            if (model.mmproj_path, model.links) == (mmproj.get(model.path), links):
                unchanged.append(model)
            else:
                found.append(_file_of(model, mmproj.get(model.path), links))
        found.sort(key=lambda file: file.path)
        everything_broken = sorted([*broken, *self._broken], key=lambda file: file.path)
        return ScanResult(tuple(found), tuple(unchanged), tuple(everything_broken))

    def _directories(self, path: str) -> set[str]:
        """The directories that a file lies in, by its own name or by that of a link."""
        return {str(Path(place).parent) for place in (path, *self._links.get(path, ()))}

    def _companions(self) -> dict[str, str]:
        models: defaultdict[str, list[Companioned]] = defaultdict(list)
        everything: list[ModelFile | Model] = [*self._found, *self._unchanged]
        for model in everything:
            # A projector may lie beside a link to the model, as in a folder of links into a download cache.
            for directory in self._directories(model.path):
                models[directory].append(_companioned(model))
        chosen: dict[str, str] = {}
        for directory, projectors in self._projectors.items():
            chosen |= companions(models[directory], projectors)
        return chosen


def _companioned(model: ModelFile | Model) -> Companioned:
    return Companioned(model.path, model.facts.embedding_length)


def _file_of(model: Model, mmproj_path: str | None, links: tuple[str, ...]) -> ModelFile:
    return ModelFile(model.path, model.size_bytes, model.mtime_ns, model.facts, model.shards, mmproj_path, links)


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
    if is_model(headers[0]):
        for file, header in zip(candidate.files, headers, strict=True):
            _check_written(Path(file.path), header)
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


def _check_written(path: Path, header: Header) -> None:
    """Raises GgufError for a file that a download program has made in full size and not filled yet, OSError."""
    for suffix in _DOWNLOADING:
        if path.with_name(path.name + suffix).exists():
            raise GgufError(f"is still being downloaded: {path.name + suffix} lies beside it")
    if ends_in_zeros(path, header):
        raise GgufError("is incomplete: its end holds zeros where weights should be; download it again")


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
