from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from llama_async_proxy.engines import discovery
from llama_async_proxy.engines.discovery import Launcher, binary_launcher, embedded_launcher, find_launcher
from llama_async_proxy.engines.embedded import WHEEL_VERSION
from llama_async_proxy.errors import EngineMissing

GOOD = "#!/bin/sh\necho 'version: 1234 (abcdef)' >&2\necho 'built with cc' >&2\n"


def program(path: Path, text: str | bytes, mode: int = 0o755) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide every llama-server but those that a test creates."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(discovery, "COMMON_PLACES", ())


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "xllamacpp" else real(name))


def test_a_binary_is_run_once_for_its_version(tmp_path: Path) -> None:
    path = program(tmp_path / "llama-server", GOOD)
    launcher = find_launcher("workers", str(path))
    assert (launcher.kind, launcher.version, launcher.binary) == ("workers", "1234 (abcdef)", str(path))
    assert launcher.argv[-1] == str(path)


def test_path_is_searched_before_the_common_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path, common = tmp_path / "bin", tmp_path / "common"
    on_path.mkdir()
    common.mkdir()
    program(common / "llama-server", GOOD)
    monkeypatch.setattr(discovery, "COMMON_PLACES", (str(common),))
    assert find_launcher("auto", "").binary == str(common / "llama-server")
    program(on_path / "llama-server", GOOD)
    monkeypatch.setenv("PATH", str(on_path))
    assert find_launcher("auto", "").binary == str(on_path / "llama-server")


def test_a_broken_binary_found_by_search_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = tmp_path / "good"
    good.mkdir()
    program(tmp_path / "llama-server", "#!/bin/sh\nexit 3\n")
    program(good / "llama-server", GOOD)
    monkeypatch.setattr(discovery, "COMMON_PLACES", (str(tmp_path), str(good)))
    assert find_launcher("workers", "").binary == str(good / "llama-server")


def test_a_broken_binary_that_was_set_is_not_replaced_by_another_engine(tmp_path: Path) -> None:
    path = program(tmp_path / "llama-server", "#!/bin/sh\nexit 3\n")
    with pytest.raises(EngineMissing, match="failed with exit code 3"):
        find_launcher("auto", str(path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("#!/bin/sh\necho 'libggml.so: cannot open shared object file'\nexit 127\n", "exit code 127: libggml.so"),
        ("#!/bin/sh\necho hello\n", "is no llama-server: --version names none (hello)"),
        ("#!/bin/sh\n", "it printed nothing"),
        ("#!/bin/sh\nkill -SEGV $$\n", "killed by signal 11 (SIGSEGV)"),
        ("#!/bin/sh\nkill -ILL $$\n", "was built for another processor"),
        (b"\x7fELF\x02\x01\x01" + b"\0" * 100, "it is no program for this machine"),
        ("#!/nonexistent/interpreter\n", "the loader or interpreter it names is missing"),
    ],
)
def test_a_program_that_does_not_work_is_named_with_its_fault(tmp_path: Path, text: str | bytes, says: str) -> None:
    path = program(tmp_path / "llama-server", text)
    with pytest.raises(EngineMissing) as caught:
        binary_launcher(path)
    assert says in caught.value.message
    assert str(path) in caught.value.message
    assert "--llama-server" in caught.value.message


def test_a_program_that_hangs_is_killed_with_its_descendants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "VERSION_TIMEOUT_S", 0.2)
    path = program(tmp_path / "llama-server", "#!/bin/sh\nsleep 50 & sleep 50\n")
    with pytest.raises(EngineMissing, match=r"did not answer --version within 0\.2 s"):
        binary_launcher(path)


def test_a_path_that_is_no_program_is_named(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path / "absent", "No such file"),
        (tmp_path, "is not a file"),
        (program(tmp_path / "plain", GOOD, 0o644), "is not executable: run chmod +x"),
    ):
        with pytest.raises(EngineMissing) as caught:
            find_launcher("auto", str(path))
        assert str(path) in caught.value.message
        assert says in caught.value.message
        assert "--llama-server" in caught.value.message


def test_workers_without_a_binary_say_what_to_do() -> None:
    with pytest.raises(EngineMissing, match="No llama-server on PATH") as caught:
        find_launcher("workers", "")
    assert "--engine embedded" in caught.value.message


@pytest.mark.engine
def test_auto_falls_back_to_the_wheel_without_importing_it() -> None:
    launcher = find_launcher("auto", "")
    assert launcher == Launcher("embedded", (sys.executable, "-m", "llama_async_proxy.engines.embedded"), WHEEL_VERSION)
    # Use a fresh interpreter, because other tests may have imported the wheel already.
    program = "from llama_async_proxy.engines.discovery import find_launcher; find_launcher('embedded', '')"
    loaded = f"{program}; import sys; print('xllamacpp' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True) == "False\n"


@pytest.mark.usefixtures("no_wheel")
def test_a_machine_without_wheel_and_binary_says_what_to_do() -> None:
    for engine in ("auto", "embedded"):
        with pytest.raises(EngineMissing, match="no xllamacpp wheel is installed") as caught:
            find_launcher(engine, "")
        assert "pip install" in caught.value.message


@pytest.mark.engine
def test_a_wheel_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2030.1.1")
    with pytest.raises(EngineMissing, match=r"xllamacpp 2030\.1\.1 is installed, but only"):
        embedded_launcher()


@pytest.mark.engine
def test_the_real_binary_is_recognised(llama_server: Path) -> None:
    launcher = binary_launcher(llama_server)
    assert launcher.version
    assert launcher.binary == str(llama_server)


SINGLE = """#!/bin/sh
[ "$1" = serve ] || { echo "unknown command $1" >&2; exit 1; }
shift
[ "$1" = --version ] && { echo 'version: 77 (fedcba)' >&2; exit 0; }
echo "--help of serve"
"""


def test_the_single_binary_of_newer_installers_is_found_and_run_as_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path / "llama", SINGLE)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    launcher = find_launcher("auto", "")
    assert (launcher.kind, launcher.version, launcher.binary) == ("workers", "77 (fedcba)", str(path))
    assert launcher.argv[-2:] == (str(path), "serve")
    assert discovery.help_text(str(path)) == "--help of serve\n"


def test_llama_server_is_taken_before_the_single_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "llama", SINGLE)
    program(tmp_path / "llama-server", GOOD)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert find_launcher("auto", "").binary == str(tmp_path / "llama-server")


def test_another_program_of_that_name_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "llama", "#!/bin/sh\necho 'llama: a zoo'\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert find_launcher("auto", "").kind == "embedded"
