"""Scans of real directories, with everything in them that people's disks have."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec.structs
import pytest

from llama_async_proxy.gguf.reader import GgufError
from llama_async_proxy.gguf.writer import TensorData, write_gguf
from llama_async_proxy.operations import scan as scan_module
from llama_async_proxy.operations.scan import ScanResult, read_model_file, scan_directories
from llama_async_proxy.records.models import Model, ModelFile, ModelKind, ModelOrigin
from support.models import split, write_chat, write_embedding, write_projector

NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Nothing in it but what the test puts there."""
    directory = tmp_path / "models"
    directory.mkdir()
    return directory


def scan(root: Path, **options: object) -> ScanResult:
    return scan_directories([root], **options)  # type: ignore[arg-type]


def found(result: ScanResult) -> list[str]:
    return [Path(file.path).name for file in result.found]


def reasons(result: ScanResult) -> dict[str, str]:
    return {Path(file.path).name: file.reason for file in result.broken}


def known(result: ScanResult) -> dict[str, Model]:
    """What was found, as if registered."""
    return {file.path: as_model(number, file) for number, file in enumerate(result.found, 1)}


def as_model(number: int, file: ModelFile) -> Model:
    name = Path(file.path).stem
    shared = {field.name: getattr(file, field.name) for field in msgspec.structs.fields(file)}
    return Model(id=number, slug=name, name=name, origin=ModelOrigin.SCANNED, **shared)


# --- what is found ----------------------------------------------------------------------------------------------------


def test_models_are_found_with_their_facts_wherever_they_lie(root: Path) -> None:
    (root / "deep" / "er").mkdir(parents=True)
    write_chat(root / "b.gguf", name="Bee")
    write_embedding(root / "deep" / "er" / "a.GGUF")
    result = scan(root)
    assert not result.broken
    assert not result.unchanged
    assert {Path(file.path).name: (file.facts.kind, file.facts.name) for file in result.found} == {
        "b.gguf": (ModelKind.CHAT, "Bee"),
        "a.GGUF": (ModelKind.EMBEDDING, "Tiny Embedding"),
    }
    status = (root / "b.gguf").stat()
    file = next(file for file in result.found if file.path == str(root / "b.gguf"))
    assert (file.size_bytes, file.mtime_ns, file.shards, file.mmproj_path) == (
        status.st_size,
        status.st_mtime_ns,
        (),
        None,
    )


def test_not_recursive_stays_in_the_directory(root: Path) -> None:
    (root / "sub").mkdir()
    write_chat(root / "sub" / "a.gguf")
    write_chat(root / "b.gguf")
    assert found(scan(root, recursive=False)) == ["b.gguf"]


def test_bin_files_are_models_only_with_the_magic(root: Path) -> None:
    write_chat(root / "a.bin")
    (root / "pytorch_model.bin").write_bytes(b"PK\x03\x04 something else")
    (root / "empty.bin").write_bytes(b"")
    result = scan(root)
    assert found(result) == ["a.bin"]
    assert not result.broken


def test_hidden_and_partial_files_are_left_alone(root: Path) -> None:
    for name in (".a.gguf", "a.gguf.part", "a.gguf.tmp", "README.md"):
        (root / name).write_bytes(b"x")
    (root / ".cache").mkdir()
    write_chat(root / ".cache" / "a.gguf")
    assert scan(root) == ScanResult((), (), ())


def test_adapters_are_neither_models_nor_broken(root: Path) -> None:
    metadata = {"general.architecture": "llama", "general.type": "adapter"}
    write_gguf(root / "lora.gguf", metadata, [TensorData("blk.0.attn_q.weight.lora_a", (8, 8), 0)])
    assert scan(root) == ScanResult((), (), ())


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({"include": ("*.gguf",)}, ["a.gguf", "b.gguf"]),
        ({"include": ("sub/*",)}, ["b.gguf", "c.bin"]),
        ({"exclude": ("b*",)}, ["a.gguf", "c.bin"]),
        ({"include": ("*.gguf",), "exclude": ("sub/*",)}, ["a.gguf"]),
    ],
)
def test_patterns_choose_by_name_and_by_path(
    root: Path, patterns: dict[str, tuple[str, ...]], expected: list[str]
) -> None:
    (root / "sub").mkdir()
    for name in ("a.gguf", "sub/b.gguf", "sub/c.bin"):
        write_chat(root / name)
    assert found(scan(root, **patterns)) == expected


def test_roots_that_overlap_give_each_model_once(root: Path) -> None:
    (root / "sub").mkdir()
    write_chat(root / "sub" / "a.gguf")
    write_chat(root / "b.gguf")
    result = scan_directories([root / "sub", root, root])
    assert sorted(found(result)) == ["a.gguf", "b.gguf"]


# --- split models -----------------------------------------------------------------------------------------------------


def test_a_split_model_is_one_model(root: Path) -> None:
    whole = read_model_file(write_chat(root / "big.gguf"))
    shards = split(root / "big.gguf", 3)
    [file] = scan(root).found
    assert file.path == str(shards[0])
    assert file.shards == tuple(map(str, shards))
    assert file.size_bytes == sum(shard.stat().st_size for shard in shards)
    assert file.facts.parameter_count == whole.facts.parameter_count


def test_a_split_model_that_lacks_a_shard_says_which(root: Path) -> None:
    write_chat(root / "big.gguf")
    split(root / "big.gguf", 3)[1].unlink()
    result = scan(root)
    assert not result.found
    assert reasons(result) == {
        "big-00001-of-00003.gguf": "is split into 3 files of which 1 is missing: big-00002-of-00003.gguf"
    }


def test_a_damaged_shard_is_named(root: Path) -> None:
    write_chat(root / "big.gguf")
    split(root / "big.gguf", 2)[1].write_bytes(b"junk")
    assert reasons(scan(root)) == {
        "big-00001-of-00002.gguf": "big-00002-of-00002.gguf is not a GGUF file: it begins with 6a 75 6e 6b"
    }


def test_a_renamed_shard_is_no_model(root: Path) -> None:
    write_chat(root / "big.gguf")
    first, second = split(root / "big.gguf")
    first.rename(root / "renamed.gguf")
    second.unlink()
    assert reasons(scan(root)) == {
        "renamed.gguf": "is one of 2 files of a split model, but its name does not say which"
    }


# --- companions -------------------------------------------------------------------------------------------------------


def test_a_projector_is_remembered_and_not_listed(root: Path) -> None:
    write_chat(root / "gemma-3-4b-Q4_K_M.gguf")
    write_projector(root / "mmproj-gemma-3-4b-f16.gguf")
    [file] = scan(root).found
    assert file.mmproj_path == str(root / "mmproj-gemma-3-4b-f16.gguf")


def test_a_projector_is_told_by_its_header_whatever_its_name(root: Path) -> None:
    write_chat(root / "gemma-Q4_K_M.gguf")
    write_projector(root / "gemma-vision.gguf")
    [file] = scan(root).found
    assert file.mmproj_path == str(root / "gemma-vision.gguf")


def test_a_projector_in_another_directory_is_not_taken(root: Path) -> None:
    (root / "other").mkdir()
    write_chat(root / "gemma.gguf")
    write_projector(root / "other" / "mmproj.gguf")
    [file] = scan(root).found
    assert file.mmproj_path is None


def test_a_projector_that_comes_or_goes_changes_the_model(root: Path) -> None:
    write_chat(root / "gemma.gguf")
    before = known(scan(root))
    write_projector(root / "mmproj.gguf")
    come = scan(root, known=before)
    assert [file.mmproj_path for file in come.found] == [str(root / "mmproj.gguf")]
    assert come.found[0].facts == before[str(root / "gemma.gguf")].facts
    assert not come.unchanged
    (root / "mmproj.gguf").unlink()
    assert [file.mmproj_path for file in scan(root, known=known(come)).found] == [None]


# --- what is known already --------------------------------------------------------------------------------------------


def test_unchanged_models_are_not_read_again(root: Path) -> None:
    write_chat(root / "a.gguf")
    write_chat(root / "b.gguf")
    split(root / "b.gguf")
    models = known(scan(root))
    for path in root.iterdir():
        status = path.stat()
        path.write_bytes(b"\0" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    result = scan(root, known=models)
    assert result.unchanged == tuple(models.values())
    assert not result.found
    assert not result.broken


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_changed_model_is_read_again(root: Path, change: str) -> None:
    path = write_chat(root / "a.gguf", name="Old")
    models = known(scan(root))
    before = path.stat()
    name = "New" if change == "time" else "A much longer name" * 9
    write_chat(path, name=name)
    os.utime(path, ns=(0, before.st_mtime_ns + (change == "time")))
    result = scan(root, known=models)
    assert [file.facts.name for file in result.found] == [name]
    assert not result.unchanged


def test_a_model_that_is_gone_is_simply_not_there(root: Path) -> None:
    models = known(scan(root))
    write_chat(root / "a.gguf")
    models = known(scan(root))
    (root / "a.gguf").unlink()
    assert scan(root, known=models) == ScanResult((), (), ())


# --- links ------------------------------------------------------------------------------------------------------------


def test_links_in_a_circle_end(root: Path) -> None:
    (root / "sub").mkdir()
    write_chat(root / "sub" / "a.gguf")
    (root / "sub" / "up").symlink_to(root, target_is_directory=True)
    (root / "self").symlink_to(root / "self")
    (root / "self.gguf").symlink_to(root / "self.gguf")
    result = scan(root)
    assert found(result) == ["a.gguf"]
    assert set(reasons(result)) == {"self.gguf"}


def test_a_link_and_its_file_are_one_model_under_the_files_path(root: Path, tmp_path: Path) -> None:
    write_chat(root / "z.gguf")
    (root / "a.gguf").symlink_to(root / "z.gguf")
    outside = write_chat(tmp_path / "outside.gguf")
    for name in ("x.gguf", "y.gguf"):
        (root / name).symlink_to(outside)
    assert [file.path for file in scan(root).found] == [str(root / "z.gguf"), str(outside)]


def test_linked_directories_are_walked_once(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_chat(elsewhere / "a.gguf")
    for name in ("one", "two"):
        (root / name).symlink_to(elsewhere, target_is_directory=True)
    assert [file.path for file in scan(root).found] == [str(elsewhere / "a.gguf")]


def test_links_into_a_download_cache_keep_their_names(root: Path) -> None:
    """Its content lies under hashes; the name of the link says what it is, and where the shards are."""
    (root / "blobs").mkdir()
    write_chat(root / "one.gguf")
    write_chat(root / "big.gguf")
    for number, path in enumerate([root / "one.gguf", *split(root / "big.gguf")]):
        path.rename(root / "blobs" / f"{number:064x}")
        path.symlink_to(root / "blobs" / f"{number:064x}")
    result = scan(root)
    assert not result.broken
    assert [file.path for file in result.found] == [str(root / "big-00001-of-00002.gguf"), str(root / "one.gguf")]
    assert result.found[0].shards == (str(root / "big-00001-of-00002.gguf"), str(root / "big-00002-of-00002.gguf"))


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_broken_files_are_told_with_the_reason_and_harm_nobody(root: Path) -> None:
    whole = write_chat(root / "good.gguf").read_bytes()
    (root / "text.gguf").write_text("not a model")
    (root / "empty.gguf").write_bytes(b"")
    (root / "header.gguf").write_bytes(whole[:900])
    (root / "download.gguf").write_bytes(whole[: len(whole) // 2])
    (root / "nowhere.gguf").symlink_to(root / "missing")
    os.mkfifo(root / "pipe.gguf")
    write_gguf(root / "vocabulary.gguf", {"general.architecture": "llama"}, [])
    write_gguf(root / "nameless.gguf", {"a": 1}, [TensorData("t", (8,), 0)])
    result = scan(root)
    assert found(result) == ["good.gguf"]
    assert list(reasons(result)) == sorted(reasons(result))
    assert reasons(result) == {
        "text.gguf": "is not a GGUF file: it begins with 6e 6f 74 20",
        "empty.gguf": "is empty",
        "header.gguf": "is truncated: the file ends within its header",
        "download.gguf": f"is incomplete: {len(whole) // 2:,} of {len(whole):,} bytes (50 %); download it again",
        "nowhere.gguf": "vanished while it was looked at, or is a link to nothing",
        "pipe.gguf": "is not a regular file",
        "vocabulary.gguf": "holds no tensors, only a vocabulary",
        "nameless.gguf": "names no architecture, so no engine can run it",
    }


def test_a_file_that_vanishes_during_the_scan_is_told(root: Path) -> None:
    write_chat(root / "a.gguf")
    write_chat(root / "b.gguf")

    def progress(done: int, _: int) -> None:
        if done == 0:
            (root / "b.gguf").unlink(missing_ok=True)

    result = scan(root, progress=progress)
    assert found(result) == ["a.gguf"]
    assert reasons(result) == {"b.gguf": "vanished while it was looked at, or is a link to nothing"}


@contextmanager
def without_root_rights() -> Iterator[None]:
    """Root may read everything, so it must be somebody else who looks."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)


def test_what_may_not_be_read_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        write_chat(root / "a.gguf").chmod(0)
        (root / "secret").mkdir(mode=0)
        with without_root_rights():
            result = scan(root)
        (root / "secret").chmod(0o700)
    assert reasons(result) == {
        "a.gguf": "cannot be read: Permission denied",
        "secret": "this directory cannot be read: Permission denied",
    }


def test_a_root_that_is_missing_is_told(root: Path) -> None:
    assert reasons(scan(root / "missing")) == {
        "missing": "this directory vanished while it was looked at, or is a link to nothing"
    }


def test_a_name_that_is_no_text_is_told(root: Path) -> None:
    name = os.fsdecode(b"caf\xe9.gguf")
    try:
        write_chat(root / name)
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    assert reasons(scan(root)) == {"caf\ufffd.gguf": "has a path that is not valid UTF-8; rename it"}


# --- progress ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7, 250])
def test_progress_goes_from_none_to_all_and_is_not_too_chatty(root: Path, count: int) -> None:
    for number in range(count):
        (root / f"{number}.gguf").write_bytes(b"x")
    calls: list[tuple[int, int]] = []
    scan(root, progress=lambda done, total: calls.append((done, total)))
    assert calls[0] == (0, count)
    assert calls[-1] == (count, count)
    assert calls == sorted(calls)
    assert len(calls) <= 130


# --- one file ---------------------------------------------------------------------------------------------------------


def test_one_file_reads_as_the_scan_does(root: Path) -> None:
    write_chat(root / "gemma.gguf")
    write_projector(root / "mmproj-gemma.gguf")
    (root / "sub").mkdir()
    write_chat(root / "sub" / "big.gguf")
    shards = split(root / "sub" / "big.gguf")
    files = scan(root).found
    assert read_model_file(root / "gemma.gguf") == files[0]
    assert [read_model_file(shard) for shard in shards] == [files[1]] * 2


def test_one_file_is_named_by_its_real_path(root: Path, tmp_path: Path) -> None:
    write_chat(root / "a.gguf")
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    (tmp_path / "b.gguf").symlink_to(root / "a.gguf")
    for path in (tmp_path / "link" / "a.gguf", tmp_path / "b.gguf", root / ".." / "models" / "a.gguf"):
        assert read_model_file(path).path == str(root / "a.gguf")


def make_projector(root: Path) -> Path:
    return write_projector(root / "m.gguf")


def make_adapter(root: Path) -> Path:
    metadata = {"general.architecture": "llama", "general.type": "adapter"}
    write_gguf(root / "m.gguf", metadata, [TensorData("t", (8,), 0)])
    return root / "m.gguf"


def make_lone_shard(root: Path) -> Path:
    write_chat(root / "m.gguf")
    first, second = split(root / "m.gguf")
    second.unlink()
    return first


def make_directory(root: Path) -> Path:
    return root


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_projector, "is a multimodal projector"),
        (make_adapter, "accompanies a model"),
        (make_lone_shard, "of which 1 is missing"),
        (make_directory, "is not a regular file"),
    ],
)
def test_one_file_that_is_no_model_says_why(root: Path, make: Callable[[Path], Path], reason: str) -> None:
    with pytest.raises(GgufError, match=reason):
        read_model_file(make(root))


def test_a_missing_file_is_an_os_error(root: Path) -> None:
    shutil.rmtree(root)
    with pytest.raises(FileNotFoundError):
        read_model_file(root / "m.gguf")


# --- bounds, links, downloads -----------------------------------------------------------------------


def test_a_link_to_what_holds_the_models_directory_is_said_and_not_followed(root: Path) -> None:
    write_chat(root / "a.gguf")
    write_chat(root.parent / "elsewhere.gguf")
    (root / "everything").symlink_to("/", target_is_directory=True)
    (root / "above").symlink_to(root.parent, target_is_directory=True)
    result = scan(root)
    assert found(result) == ["a.gguf"]
    assert {name: "holds the models directory" in reason for name, reason in reasons(result).items()} == {
        "everything": True,
        "above": True,
    }


def test_directories_too_deep_are_said_and_left_out(root: Path) -> None:
    deep = root.joinpath(*"abcdefghijklmnop")
    deep.mkdir(parents=True)
    write_chat(deep / "lost.gguf")
    [broken] = scan(root).broken
    assert "more than 12 directories deep" in broken.reason


@pytest.mark.parametrize("limit", ["MAX_DIRECTORIES", "MAX_FILES"])
def test_a_scan_ends_at_its_bounds_and_says_so(root: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(scan_module, limit, 3)
    for name in "abcde":
        (root / name).mkdir()
        write_chat(root / name / f"{name}.gguf")
    result = scan(root)
    assert 0 < len(result.found) <= 3
    assert sum("the scan ended here" in broken.reason for broken in result.broken) == 1


def test_a_projector_beside_a_link_belongs_to_the_links_model(root: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    original = write_chat(tmp_path / "disk" / "vision.gguf")
    (root / "folder").mkdir()
    (root / "folder" / "gemma.gguf").symlink_to(original)
    write_projector(root / "folder" / "mmproj-vision.gguf")
    [model] = scan(root).found
    assert (model.path, model.links) == (str(original), (str(root / "folder" / "gemma.gguf"),))
    assert model.mmproj_path == str(root / "folder" / "mmproj-vision.gguf")


@pytest.mark.parametrize("suffix", [".aria2", ".part", ".crdownload", ".incomplete"])
def test_a_file_that_is_still_being_downloaded_is_told(root: Path, suffix: str) -> None:
    write_chat(root / "a.gguf")
    (root / f"a.gguf{suffix}").write_bytes(b"state")
    assert reasons(scan(root)) == {"a.gguf": f"is still being downloaded: a.gguf{suffix} lies beside it"}


@pytest.mark.parametrize("written", [0.1, 0.5, 0.8])
def test_a_file_made_in_full_size_and_not_filled_is_told(root: Path, written: float) -> None:
    path = write_chat(root / "a.gguf")
    whole = path.read_bytes()
    kept = int(len(whole) * written)
    path.write_bytes(whole[:kept].ljust(len(whole), b"\0"))
    assert "holds zeros where weights should be" in reasons(scan(root))["a.gguf"]


@pytest.mark.parametrize("name", ["mmproj-F16.gguf", "mmproj-model.gguf"])
def test_a_projector_of_another_length_is_not_attached(root: Path, name: str) -> None:
    write_chat(root / "text.gguf")
    write_projector(root / name, projection=768)
    [model] = scan(root).found
    assert model.mmproj_path is None
