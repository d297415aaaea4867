"""Modes of the data directory, on a real file system."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from pathlib import Path

import pytest

from llama_async_proxy.store.private_files import make_private
from llama_async_proxy.store.store import Store

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def made_by_hand(tmp_path: Path) -> Path:
    """Older data directory that all users can read."""
    directory = tmp_path / "data"
    for path in (directory, *(directory / name for name in ("logs", "presets", "presets/.versions", "models"))):
        path.mkdir(mode=0o755)
        path.chmod(0o755)
    for name in (
        "service.db",
        "service.db-wal",
        "logs/app.log",
        "presets/a.ini",
        "presets/.versions/1",
        "models/m.gguf",
    ):
        (directory / name).write_bytes(b"")
        (directory / name).chmod(0o644)
    return directory


def test_the_services_files_become_private(made_by_hand: Path) -> None:
    assert make_private(made_by_hand) == ()
    for path in (made_by_hand, *made_by_hand.rglob("*")):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_other_files_keep_their_modes(made_by_hand: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "shared.gguf"
    elsewhere.write_bytes(b"")
    elsewhere.chmod(0o644)
    (made_by_hand / "models" / "soft.gguf").symlink_to(elsewhere)
    (made_by_hand / "models" / "hard.gguf").hardlink_to(elsewhere)
    (made_by_hand / "letter.txt").write_text("mine")
    (made_by_hand / "letter.txt").chmod(0o644)
    make_private(made_by_hand)
    assert mode(elsewhere) == mode(made_by_hand / "letter.txt") == 0o644


def test_a_shared_directory_keeps_its_mode_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o1777)
        [problem] = make_private(directory)
        assert mode(directory) == 0o1777
        assert "choose a --data-dir" in problem


def test_a_path_that_stays_accessible_is_reported(made_by_hand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, wanted: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)  # as for a file of another user; root may change any
    problems = make_private(made_by_hand)
    assert any(str(made_by_hand / "service.db") in problem and "not permitted" in problem for problem in problems)
    assert problems[-1].startswith("... and ")


async def test_a_store_in_an_open_directory_warns_of_nothing_and_is_private(
    made_by_hand: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (made_by_hand / "service.db-wal").unlink()
    with caplog.at_level(logging.WARNING):
        async with Store.open(made_by_hand / "service.db", log_max_rows=lambda: 100):
            files = {path.name: mode(path) for path in made_by_hand.glob("service.*")}
    assert set(files.values()) == {0o600}
    assert not caplog.records
