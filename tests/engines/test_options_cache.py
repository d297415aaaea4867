from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_async_proxy.engines.discovery import embedded_launcher, help_text
from llama_async_proxy.engines.help import parse_help
from llama_async_proxy.engines.options_cache import EngineOptionsCache
from llama_async_proxy.errors import EngineMissing, EngineStopped
from llama_async_proxy.records.engine import EngineState, EngineStatus
from llama_async_proxy.records.options import EngineOption, OptionType
from support.engine_help import HELP


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Program that prints the help and counts its runs."""
    path = tmp_path / "llama-server"
    (tmp_path / "help.txt").write_text(HELP)
    path.write_text(f"#!/bin/sh\necho x >> {tmp_path}/runs\ncat {tmp_path}/help.txt\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def running(program: Path) -> Callable[[], EngineState]:
    return lambda: EngineState(EngineStatus.RUNNING, "workers", str(program), "1")


def runs(program: Path) -> int:
    return len((program.parent / "runs").read_text().split())


async def test_a_program_runs_once_even_over_restarts(program: Path, tmp_path: Path) -> None:
    catalogue = EngineOptionsCache(running(program), tmp_path / "kept")
    first = await catalogue.get()
    assert first.options == parse_help(HELP)
    assert (first.binary, first.version) == (str(program), "1")
    assert await catalogue.get() is first
    again = await EngineOptionsCache(running(program), tmp_path / "kept").get()
    assert again == first
    assert runs(program) == 1


async def test_a_changed_program_runs_again(program: Path, tmp_path: Path) -> None:
    catalogue = EngineOptionsCache(running(program), tmp_path / "kept")
    first = await catalogue.get()
    program.write_text(program.read_text().replace("cat ", "echo '--extra N   an extra'; cat "))
    later = program.stat().st_mtime_ns + 1_000_000_000
    os.utime(program, ns=(later, later))
    second = await catalogue.get()
    assert second is not first
    assert runs(program) == 2


async def test_a_damaged_cache_file_is_rewritten_and_an_unwritable_directory_is_no_error(
    program: Path, tmp_path: Path
) -> None:
    await EngineOptionsCache(running(program), tmp_path / "kept").get()
    for file in (tmp_path / "kept").iterdir():
        file.write_bytes(b"\xff")
    assert (await EngineOptionsCache(running(program), tmp_path / "kept").get()).options == parse_help(HELP)
    (tmp_path / "file").touch()
    assert (await EngineOptionsCache(running(program), tmp_path / "file").get()).options == parse_help(HELP)


async def test_only_the_last_few_programs_are_kept(program: Path, tmp_path: Path) -> None:
    for number in range(12):
        os.utime(program, ns=(number * 10**9, number * 10**9))
        await EngineOptionsCache(running(program), tmp_path / "kept").get()
    assert len(list((tmp_path / "kept").iterdir())) == 8


async def test_without_a_program_the_error_gives_the_reason(tmp_path: Path) -> None:
    def catalogue(state: EngineState) -> EngineOptionsCache:
        return EngineOptionsCache(lambda: state, tmp_path / "kept")

    with pytest.raises(EngineMissing, match="none here"):
        await catalogue(EngineState(EngineStatus.ERROR, "workers", error="none here")).get()
    with pytest.raises(EngineStopped):
        await catalogue(EngineState(EngineStatus.IDLE, "workers")).get()
    with pytest.raises(EngineMissing, match="No such file"):
        await catalogue(EngineState(EngineStatus.RUNNING, "workers", str(tmp_path / "gone"), "1")).get()


@pytest.mark.parametrize(("script", "words"), [("exit 3", "exit code 3|status 3|failed"), ("echo hello", "no options")])
async def test_a_program_without_options_is_no_engine(program: Path, tmp_path: Path, script: str, words: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(EngineMissing, match=words):
        await EngineOptionsCache(running(program), tmp_path / "kept").get()


# --- real programs --------------------------------------------------------------------------------


def known(text: str) -> dict[str, EngineOption]:
    return {option.name: option for option in parse_help(text)}


def check_real(options: dict[str, EngineOption]) -> None:
    assert len(options) > 200
    for name, type_ in (
        ("ctx-size", OptionType.INTEGER),
        ("temp", OptionType.FLOAT),
        ("rope-freq-base", OptionType.FLOAT),
        ("flash-attn", OptionType.ENUM),
        ("cache-type-k", OptionType.ENUM),
        ("kv-offload", OptionType.BOOL),
        ("mmproj", OptionType.PATH),
    ):
        assert options[name].type is type_, name
    assert all(option.names and option.description for option in options.values())
    assert options["kv-offload"].negatives == ("nkvo", "no-kv-offload")


@pytest.mark.engine
def test_every_option_of_the_real_llama_server_is_read(llama_server: Path) -> None:
    text = help_text(str(llama_server))
    options = known(text)
    check_real(options)
    listed = [
        line for line in text.splitlines() if line.startswith("-") and not line.startswith("-----") and line != "--"
    ]
    assert len([option for option in options.values() if not option.is_preset_only]) == len(listed)


@pytest.mark.engine
def test_every_option_of_the_built_in_engine_is_read() -> None:
    try:
        embedded_launcher()
    except EngineMissing as exc:
        pytest.skip(exc.message)
    check_real(known(help_text(None)))
