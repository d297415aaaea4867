from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest

from llama_async_proxy.engines import discovery
from llama_async_proxy.engines.discovery import binary_launcher, find_launcher, help_text
from llama_async_proxy.engines.instance import process_start
from llama_async_proxy.engines.program import custom_program
from llama_async_proxy.engines.program_trust import safe_directory, untrusted
from llama_async_proxy.errors import EngineMissing, LoadFailed
from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.records.runtime import CustomCommand, Endpoint
from support.rig import FAKE_LAUNCHER, fake_spec

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
STRANGER = 54321


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Program that records its runs."""
    directory = tmp_path / "bin"
    directory.mkdir(mode=0o755)
    path = directory / "llama-server"
    path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\necho 'version: 1 (abc)'\n")
    path.chmod(0o755)
    return path


def test_a_program_of_our_own_is_trusted(program: Path) -> None:
    assert untrusted(program) is None
    assert binary_launcher(program).version == "1 (abc)"


@pytest.mark.parametrize("mode", [0o757, 0o777])
def test_a_program_writable_by_all_is_not_run(program: Path, mode: int) -> None:
    program.chmod(mode)
    with pytest.raises(EngineMissing, match=r"every user of this machine can write to .*llama-server.*chmod go-w"):
        find_launcher("auto", str(program))
    with pytest.raises(EngineMissing, match="every user"):
        help_text(str(program))
    assert not (program.parents[1] / "ran").exists()


def test_a_program_in_a_directory_writable_by_all_is_not_run(program: Path) -> None:
    program.parent.chmod(0o777)
    with pytest.raises(EngineMissing, match=f"can write to {program.parent}\\b"):
        binary_launcher(program)
    program.parent.chmod(0o1777)  # like /tmp: nobody can replace what is ours
    assert binary_launcher(program).version == "1 (abc)"


def test_a_skipped_program_is_named(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the message, the built-in engine would silently run models that are expected on the GPU."""
    program.chmod(0o777)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(discovery, "COMMON_PLACES", ())
    [reason] = find_launcher("auto", "").skipped
    assert f"{program} is not run, because every user" in reason


@as_root
@pytest.mark.parametrize("what", ["program", "directory", "link"])
def test_a_program_of_another_user_is_not_run(program: Path, tmp_path: Path, what: str) -> None:
    link = tmp_path / "link"
    link.symlink_to(program)
    assert untrusted(link) is None
    os.chown({"program": program, "directory": program.parent, "link": link}[what], STRANGER, -1, follow_symlinks=False)
    with pytest.raises(EngineMissing, match=f"belongs to another user .{STRANGER}."):
        binary_launcher(link)


def test_a_link_to_an_untrusted_program_is_not_run(program: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(program)
    program.parent.chmod(0o777)
    assert "can write to" in (untrusted(link) or "")


@as_root
def test_a_private_group_may_write(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program.chmod(0o775)
    assert untrusted(program) is None, "root's own group"
    os.chown(program, -1, STRANGER)
    assert f"the group {STRANGER} can write to" in (untrusted(program) or "")
    found = {"name": "root", "members": ["root"]}
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((found["name"], "x", gid, found["members"])))
    assert untrusted(program) is None, "a private group"
    found["members"] = ["root", "alice"]
    assert "the group root can write to" in (untrusted(program) or "")
    found.update(name="users", members=[])
    assert "the group users can write to" in (untrusted(program) or "")


async def test_a_program_changed_since_the_start_is_not_run(program: Path) -> None:
    launcher = binary_launcher(program)
    program.parent.chmod(0o777)

    class InstanceListener:
        def on_log(self, level: LogLevel, message: str) -> None: ...
        def on_state(self, state: object) -> None: ...
        def on_memory(self, memory: object) -> None: ...

    with pytest.raises(LoadFailed, match="is not run, because every user"):
        await process_start(launcher, {})(fake_spec(), InstanceListener())


def test_a_custom_command_is_checked_in_the_same_way(program: Path) -> None:
    def prepared(directory: Path | None = None) -> object:
        command = CustomCommand(
            (str(program), "{port}"), "/health", (), {}, None if directory is None else str(directory)
        )
        return custom_program(command, fake_spec(), Endpoint("127.0.0.1", 1), {})

    assert prepared(program.parent)
    program.parent.chmod(0o777)
    with pytest.raises(LoadFailed, match="every user of this machine can write to"):
        prepared()


def test_the_tests_fake_llama_server_is_trusted() -> None:
    assert FAKE_LAUNCHER.binary is not None
    assert untrusted(Path(FAKE_LAUNCHER.binary)) is None


def test_the_engine_does_not_run_where_others_could_leave_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert safe_directory() is None
    tmp_path.chmod(0o1777)
    assert safe_directory() == "/"
