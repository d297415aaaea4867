from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_async_proxy.errors import NotFound, PermissionDenied
from llama_async_proxy.monitor.logfiles import ENGINE_LOG, SERVICE_LOG, LogFiles
from llama_async_proxy.monitor.logtext import format_line, parse_line
from llama_async_proxy.records.logs import LogLevel, LogLine

DAY_S = 86_400


def line(message: str, source: str = "service") -> LogLine:
    return LogLine(1_769_903_999_123, LogLevel.INFO, source, message)


LINE_BYTES = len(format_line(line("0000"))) + 1


@pytest.fixture
def files(tmp_path: Path) -> Iterator[LogFiles]:
    files = LogFiles(tmp_path / "logs", max_bytes=1 << 20, max_files=3)
    yield files
    files.close()


def open_handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def messages(path: Path) -> list[str]:
    return [parsed.message for text in path.read_text().splitlines() if (parsed := parse_line(text))]


def rotated(directory: Path, stem: str = "service") -> list[Path]:
    return sorted(path for path in directory.glob(f"{stem}-2*.log"))


def test_models_have_a_log_of_their_own(files: LogFiles, tmp_path: Path) -> None:
    files.append([line("ours"), line("theirs", "model:tiny"), line("ours too")])
    assert messages(tmp_path / "logs" / SERVICE_LOG) == ["ours", "ours too"]
    assert messages(tmp_path / "logs" / ENGINE_LOG) == ["theirs"]


def test_full_file_is_rotated_and_no_line_is_lost(files: LogFiles, tmp_path: Path) -> None:
    files.max_bytes = 10 * LINE_BYTES
    files.append([line(f"{n:04}") for n in range(35)])
    paths = [*rotated(tmp_path / "logs"), tmp_path / "logs" / SERVICE_LOG]
    assert [len(messages(path)) for path in paths] == [10, 10, 10, 5]
    assert [text for path in paths for text in messages(path)] == [f"{n:04}" for n in range(35)]


def test_only_the_newest_rotated_files_are_kept(files: LogFiles, tmp_path: Path) -> None:
    files.max_bytes = LINE_BYTES
    files.append([line(f"{n:04}") for n in range(10)])
    kept = [*rotated(tmp_path / "logs"), tmp_path / "logs" / SERVICE_LOG]
    assert [messages(path) for path in kept] == [["0006"], ["0007"], ["0008"], ["0009"]]
    files.max_files = 0
    files.append([line("last")])
    assert rotated(tmp_path / "logs") == []


def test_rotation_of_one_log_spares_the_other(files: LogFiles, tmp_path: Path) -> None:
    files.max_bytes = LINE_BYTES
    files.append([line(f"{n:04}", "model:a") for n in range(3)])
    files.max_files = 1
    files.append([line(f"{n:04}") for n in range(5)])
    assert len(rotated(tmp_path / "logs", "llama-server")) == 2
    assert len(rotated(tmp_path / "logs")) == 1


def test_file_of_yesterday_is_rotated(files: LogFiles, tmp_path: Path) -> None:
    files.append([line("old")])
    files.close()
    yesterday = time.time() - DAY_S
    os.utime(tmp_path / "logs" / SERVICE_LOG, (yesterday, yesterday))
    files.append([line("new")])
    [old] = rotated(tmp_path / "logs")
    assert messages(old) == ["old"]
    assert messages(tmp_path / "logs" / SERVICE_LOG) == ["new"]


def test_line_longer_than_a_file_is_written_nevertheless(files: LogFiles, tmp_path: Path) -> None:
    files.max_bytes = 10
    files.append([line("long" * 100)])
    assert messages(tmp_path / "logs" / SERVICE_LOG) == ["long" * 100]


def test_torn_line_of_a_killed_service_does_not_swallow_the_next(files: LogFiles, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / SERVICE_LOG).write_text("2026-01-31T23:59:59.1")
    files.append([line("whole")])
    assert messages(tmp_path / "logs" / SERVICE_LOG) == ["whole"]


def test_deleted_file_is_made_anew(files: LogFiles, tmp_path: Path) -> None:
    files.append([line("one")])
    (tmp_path / "logs" / SERVICE_LOG).unlink()
    files.append([line("two")])
    assert messages(tmp_path / "logs" / SERVICE_LOG) == ["two"]


def test_directory_that_cannot_be_made_is_an_os_error_and_later_works(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    files = LogFiles(tmp_path / "logs", max_bytes=1000, max_files=1)
    with pytest.raises(OSError, match="exists"):
        files.append([line("lost")])
    (tmp_path / "logs").unlink()
    files.append([line("written")])
    files.close()
    assert messages(tmp_path / "logs" / SERVICE_LOG) == ["written"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to stand for a full disk")
def test_full_disk_is_an_os_error_and_leaves_no_handle_open(files: LogFiles, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / SERVICE_LOG).symlink_to("/dev/full")
    handles = open_handles()
    with pytest.raises(OSError) as caught:
        files.append([line("lost")])
    assert caught.value.errno == errno.ENOSPC
    assert open_handles() == handles


# --- listing, reading, clearing ---------------------------------------------------------------------


def test_listing_has_our_files_only(files: LogFiles, tmp_path: Path) -> None:
    files.append([line("x"), line("y", "model:a")])
    logs = tmp_path / "logs"
    for name in ("notes.txt", "service.log.bak", "service-evil.log", "other.log"):
        (logs / name).write_text("secret")
    (logs / "service-20260131-235959-000001.log").symlink_to(tmp_path)
    (logs / "service-20260131-235959-000002.log").mkdir()
    (logs / "service-20260131-235959-000003.log").write_text("old")
    listed = files.list_files()
    assert [file.name for file in listed] == [ENGINE_LOG, "service-20260131-235959-000003.log", SERVICE_LOG]
    assert [file.size_bytes for file in listed][1] == 3
    assert abs(listed[0].modified_at_ms - time.time() * 1000) < 60_000


def test_missing_directory_lists_nothing(tmp_path: Path) -> None:
    assert LogFiles(tmp_path / "none", 1, 1).list_files() == ()


def test_reading_gives_the_whole_of_a_small_file(files: LogFiles) -> None:
    files.append([line("one"), line("two\nlines")])
    text = files.read_file(SERVICE_LOG)
    assert not text.truncated
    assert [parse_line(part) for part in text.text.splitlines()] == [line("one"), line("two\nlines")]


def test_reading_a_big_file_gives_its_last_whole_lines(files: LogFiles) -> None:
    files.append([line(f"{n:04}") for n in range(100)])
    text = files.read_file(SERVICE_LOG, max_bytes=5 * LINE_BYTES + 3)
    assert text.truncated
    assert [parse_line(part) for part in text.text.splitlines()] == [line(f"{n:04}") for n in range(95, 100)]


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "..", ".", "", "a\\b", "service.log\0.txt", "sub/service.log", "C:service.log"]
)
def test_path_tricks_are_denied(files: LogFiles, name: str) -> None:
    with pytest.raises(PermissionDenied, match="not the name of a log file"):
        files.read_file(name)


@pytest.mark.parametrize("name", ["other.log", "service.log", "service.db"])
def test_name_that_was_not_listed_is_not_found(files: LogFiles, tmp_path: Path, name: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "service.db").touch()
    with pytest.raises(NotFound, match=name):
        files.read_file(name)


def test_link_in_the_log_directory_is_not_followed(files: LogFiles, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / SERVICE_LOG).symlink_to(secret)
    with pytest.raises(NotFound):
        files.read_file(SERVICE_LOG)
    assert files.clear_files() == 0
    assert secret.read_text() == "secret"


def test_clearing_empties_the_file_in_use_without_unlinking_it(files: LogFiles, tmp_path: Path) -> None:
    files.max_bytes = 2 * LINE_BYTES
    files.append([line(f"{n:04}") for n in range(5)])
    path = tmp_path / "logs" / SERVICE_LOG
    inode = path.stat().st_ino
    assert files.clear_files() == 3
    assert [file.name for file in files.list_files()] == [SERVICE_LOG]
    assert (path.stat().st_ino, path.stat().st_size) == (inode, 0)
    files.append([line("0000"), line("0001")])
    assert messages(path) == ["0000", "0001"]
    assert rotated(tmp_path / "logs") == [], "the size is counted from the start again"


def test_clearing_before_anything_was_logged_clears_nothing(files: LogFiles) -> None:
    assert files.clear_files() == 0


def test_writer_and_clearer_do_not_disturb_each_other(files: LogFiles, tmp_path: Path) -> None:
    files.max_bytes = 20 * LINE_BYTES
    done = threading.Event()

    def clear() -> None:
        while not done.is_set():
            files.clear_files()

    clearer = threading.Thread(target=clear)
    clearer.start()
    for n in range(300):
        files.append([line(f"{n:04}")] * 3)
    done.set()
    clearer.join()
    files.clear_files()
    files.append([line("last")])
    assert messages(tmp_path / "logs" / SERVICE_LOG) == ["last"]
