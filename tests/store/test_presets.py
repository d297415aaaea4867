from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from llama_async_proxy.errors import Conflict, InvalidInput, NotFound, PresetInvalid, PresetNotFound, StoreUnavailable
from llama_async_proxy.store.presets import MAX_VERSIONS, PresetFiles


@pytest.fixture
def files(tmp_path: Path) -> PresetFiles:
    return PresetFiles(tmp_path / "presets", count(1000).__next__)


def put(files: PresetFiles, name: str, text: str) -> None:
    files.change(name, lambda _: text)


def test_without_presets_the_list_is_empty(files: PresetFiles) -> None:
    assert files.all() == ()
    assert files.versions("a") == ()
    with pytest.raises(PresetNotFound, match="'a'"):
        files.read("a")


def test_presets_are_files_with_the_bytes_they_were_given(files: PresetFiles) -> None:
    files.create("b c", "[*]\r\n")
    files.create("a", "; ü\n")
    assert [(file.name, file.size_bytes) for file in files.all()] == [("a", 5), ("b c", 5)]
    assert (files.directory / "b c.ini").read_bytes() == b"[*]\r\n"
    assert files.read("b c") == "[*]\r\n"
    assert files.get("a").path == str(files.directory / "a.ini")


def test_two_names_that_differ_in_case_only_are_one(files: PresetFiles) -> None:
    files.create("Code", "")
    with pytest.raises(Conflict, match="'Code'"):
        files.create("code", "")
    with pytest.raises(Conflict):
        put(files, "code", "x")
    with pytest.raises(PresetNotFound) as caught:
        files.read("CODE")
    assert caught.value.similar == ("Code",)


def test_earlier_texts_are_kept_newest_first_and_at_most_ten(files: PresetFiles) -> None:
    for number in range(MAX_VERSIONS + 3):
        put(files, "a", f"; {number}\n")
    versions = files.versions("a")
    assert len(versions) == MAX_VERSIONS
    assert [files.read_version("a", version.id) for version in versions] == [f"; {n}\n" for n in range(11, 1, -1)]
    assert len({version.id for version in versions}) == MAX_VERSIONS


def test_versions_of_one_moment_get_different_ids(tmp_path: Path) -> None:
    files = PresetFiles(tmp_path, lambda: 5)
    for text in ("1", "2", "3"):
        put(files, "a", text)
    assert [version.id for version in files.versions("a")] == [6, 5]


def test_writing_the_same_text_makes_no_version(files: PresetFiles) -> None:
    put(files, "a", "x")
    put(files, "a", "x")
    assert files.versions("a") == ()


def test_a_change_that_raises_changes_nothing(files: PresetFiles) -> None:
    put(files, "a", "x")

    def refuse(_: str | None) -> str:
        raise PresetInvalid("a", ("no",))

    for name in ("a", "new"):
        with pytest.raises(PresetInvalid):
            files.change(name, refuse)
    assert (files.read("a"), files.versions("a"), len(files.all())) == ("x", (), 1)


def test_a_deleted_preset_can_be_restored(files: PresetFiles) -> None:
    put(files, "a", "x")
    files.delete("a")
    assert files.all() == ()
    assert files.read_version("a", files.versions("a")[0].id) == "x"
    with pytest.raises(PresetNotFound):
        files.delete("a")


def test_a_renamed_preset_keeps_its_versions(files: PresetFiles) -> None:
    put(files, "a", "1")
    put(files, "a", "2")
    put(files, "other", "")
    with pytest.raises(Conflict):
        files.rename("a", "OTHER")
    files.rename("a", "A")
    files.rename("A", "b")
    assert (files.read("b"), [files.read_version("b", v.id) for v in files.versions("b")]) == ("2", ["1"])
    with pytest.raises(PresetNotFound):
        files.rename("a", "c")


def test_an_unknown_version_is_not_found(files: PresetFiles) -> None:
    put(files, "a", "x")
    with pytest.raises(NotFound, match="no version 7"):
        files.read_version("a", 7)


def test_a_file_that_is_no_text_is_named(files: PresetFiles) -> None:
    put(files, "a", "x")
    (files.directory / "a.ini").write_bytes(b"[*]\n\xff")
    with pytest.raises(PresetInvalid, match="byte 4 of"):
        files.read("a")
    (files.directory / "a.ini").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(InvalidInput, match="no preset"):
        files.read("a")


def test_text_that_no_file_can_hold_is_refused(files: PresetFiles) -> None:
    with pytest.raises(InvalidInput, match="UTF-8"):
        put(files, "a", "\ud800")
    assert files.all() == ()


def test_hidden_files_and_directories_are_no_presets(files: PresetFiles) -> None:
    put(files, "a", "x")
    (files.directory / ".hidden.ini").touch()
    (files.directory / "dir.ini").mkdir()
    (files.directory / "note.txt").touch()
    assert [file.name for file in files.all()] == ["a"]


def failing(error: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    return fail


def test_a_full_disk_leaves_the_old_file_and_no_rest(files: PresetFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    put(files, "a", "old")
    monkeypatch.setattr(os, "fsync", failing(28))
    with pytest.raises(StoreUnavailable, match="Free some space"):
        put(files, "a", "new")
    assert files.read("a") == "old"
    assert [path.name for path in files.directory.rglob("*") if path.is_file()] == ["a.ini"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_stays_a_link(files: PresetFiles, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.ini"
    target.write_text("old")
    files.directory.mkdir()
    (files.directory / "a.ini").symlink_to(target)
    put(files, "a", "new")
    assert (target.read_text(), (files.directory / "a.ini").is_symlink()) == ("new", True)
