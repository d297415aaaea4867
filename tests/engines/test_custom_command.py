"""Models with a custom command: parsing the template, and running its program."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from llama_async_proxy.engines import parent_guard
from llama_async_proxy.engines.custom_command import fill_placeholders, parse_command
from llama_async_proxy.errors import DeadlineExceeded, InvalidInput, LoadFailed
from llama_async_proxy.records.engine import EngineEventType
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import CustomCommand, Endpoint, LaunchSpec, ModelRuntime, ModelStatus
from support.rig import Rig, is_alive

PARROT = f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__).parents[1] / 'support' / 'parrot.py'))}"
START = f"{PARROT} {{port}} {{alias}}"


def parsed(**options: OptionValue) -> CustomCommand:
    """Command in options, whose names are written with _ in place of -."""
    command = parse_command({key.replace("_", "-"): value for key, value in options.items()}, has_file=True)
    assert command is not None
    return command


# --- the template -------------------------------------------------------------------------------------


def test_only_placeholders_are_replaced_within_arguments() -> None:
    command = parsed(command='serve --listen=127.0.0.1:{port} "{model}" --extra \'{"a": 1}\' $HOME ; rm')
    endpoint = Endpoint("127.0.0.1", 4321)
    spec = LaunchSpec(1, "a b", "/models/my model.gguf", ModelKind.CHAT)
    assert [fill_placeholders(argument, spec, endpoint) for argument in command.start] == [
        *("serve", "--listen=127.0.0.1:4321", "/models/my model.gguf", "--extra", '{"a": 1}', "$HOME", ";", "rm"),
    ]


def test_placeholders_in_replaced_values_are_not_replaced() -> None:
    spec = LaunchSpec(1, "{port}", "/m", ModelKind.CHAT)
    assert fill_placeholders("{alias}-{port}", spec, Endpoint("127.0.0.1", 1)) == "{port}-1"


def test_the_environment_is_parsed_into_names_and_values() -> None:
    command = parsed(command="serve", command_environment="PORT={port} GREETING='good day' EMPTY=")
    assert command.environment == {"PORT": "{port}", "GREETING": "good day", "EMPTY": ""}


def test_options_without_a_command_give_none() -> None:
    assert parse_command({"ctx-size": 5}, has_file=True) is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"command": "serve"}, r"options.command: must tell the program its port: put \{port\}"),
        ({"command": ""}, "options.command: must name a program"),
        ({"command": "serve '{port}"}, "options.command: cannot be split into arguments: No closing quotation"),
        ({"command": "serve {prot}"}, r"unknown placeholder \{prot\}; there are \{port\}, \{model\}, \{alias\}"),
        ({"command": 5}, "options.command: must be text, not 5"),
        ({"command": "serve {port}\0"}, "NUL"),
        ({"command-stop": "stop"}, "options.command-stop: is of no use without options.command"),
        ({"command": "serve {port}", "command-stop": "{pid}"}, "options.command-stop: holds the unknown placeholder"),
        ({"command": "serve {port}", "command-health": "ready"}, "options.command-health: must be the path of a URL"),
        ({"command": "serve {port}", "command-health": "/a b"}, "options.command-health: must be the path of a URL"),
        ({"command": "serve {port}", "command-environment": "PORT"}, "must be words such as NAME=value, not 'PORT'"),
        ({"command": "serve {port}", "command-directory": "a"}, "command-directory: must be an absolute path"),
    ],
)
def test_a_bad_command_is_refused_with_the_option_and_the_reason(options: Mapping[str, OptionValue], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        parse_command(options, has_file=True)


def test_a_model_placeholder_needs_a_file() -> None:
    with pytest.raises(InvalidInput, match=r"holds \{model\}, the path of a file, but this model has none"):
        parse_command({"command": "serve {port} {model}"}, has_file=False)


# --- running it ---------------------------------------------------------------------------------------


def spec(**options: OptionValue) -> LaunchSpec:
    command = parsed(**{"command": START, "command_health": "/ready", **options})
    return LaunchSpec(1, "poll", "command:poll", ModelKind.CHAT, load_timeout_s=30.0, command=command)


def ask(runtime: ModelRuntime, path: str, body: object = None) -> dict[str, object]:
    assert runtime.endpoint is not None
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{runtime.endpoint.port}{path}", data, timeout=10) as answer:
        document: dict[str, object] = json.load(answer)
    return document


def printed(rig: Rig, pattern: str) -> int:
    """Number in a line that the program has printed."""
    return next(int(found[1]) for line in rig.lines if (found := re.search(pattern, line.message)))


async def test_a_custom_server_loads_answers_and_unloads(rig: Rig) -> None:
    runtime = await rig.engine.load(spec())
    answer = ask(runtime, "/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]})
    assert answer["model"] == "poll"
    assert runtime.pid == printed(rig, r"parrot: pid (\d+)")
    assert (runtime.rss_bytes or 0) > 1 << 20
    assert {line.source for line in rig.lines} == {"model:poll"}
    await rig.engine.unload(1)
    assert rig.engine.runtime(1).status is ModelStatus.UNLOADED
    assert not is_alive(runtime.pid or 0)


async def test_a_custom_server_is_ready_when_its_health_path_answers(rig: Rig, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    load = asyncio.create_task(rig.engine.load(spec(command_environment=f"PARROT_GATE={gate}")))
    await rig.until(lambda r: any("parrot: pid" in line.message for line in r.lines))
    assert rig.engine.runtime(1).status is ModelStatus.LOADING
    gate.touch()
    assert (await load).status is ModelStatus.READY


async def test_a_custom_command_runs_in_its_directory(rig: Rig, tmp_path: Path) -> None:
    runtime = await rig.engine.load(spec(command_directory=str(tmp_path)))
    assert ask(runtime, "/ready") == {"directory": str(tmp_path.resolve())}


async def test_a_relative_program_is_searched_in_the_commands_directory(rig: Rig, tmp_path: Path) -> None:
    script = tmp_path / "serve.sh"
    script.write_text(f'#!/bin/sh\nexec {PARROT} "$@"\n')
    script.chmod(0o755)
    runtime = await rig.engine.load(spec(command="./serve.sh {port}", command_directory=str(tmp_path)))
    assert ask(runtime, "/ready") == {"directory": str(tmp_path.resolve())}


async def test_the_stop_command_runs_first(rig: Rig) -> None:
    script = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/quit')"
    await rig.engine.load(spec(command_stop=f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}"))
    await rig.engine.unload(1)
    await rig.until(lambda r: any("parrot: goodbye" in line.message for line in r.lines))


async def test_a_program_ends_even_if_its_stop_command_fails(rig: Rig) -> None:
    runtime = await rig.engine.load(spec(command_stop="false"))
    await rig.engine.unload(1)
    assert not is_alive(runtime.pid or 0)


async def test_a_stop_command_that_hangs_is_killed(rig: Rig) -> None:
    hanging = f"{shlex.quote(sys.executable)} -c 'import time; time.sleep(3600)'"
    runtime = await rig.engine.load(replace(spec(command_stop=hanging), stop_timeout_s=0.2))
    async with asyncio.timeout(25):
        await rig.engine.unload(1)
    assert not is_alive(runtime.pid or 0)
    assert any("stop command did not end it within 0.2 s" in line.message for line in rig.lines)


async def test_a_custom_server_that_is_never_healthy_is_ended_with_an_error(rig: Rig) -> None:
    never = replace(spec(command_health="/never"), load_timeout_s=1.0)
    with pytest.raises(DeadlineExceeded, match="did not become ready within 1 s"):
        await rig.engine.load(never)
    assert rig.engine.runtime(1).status is ModelStatus.FAILED
    assert not is_alive(printed(rig, r"parrot: pid (\d+)"))


async def test_a_custom_server_restarts_after_kill_minus_9(rig: Rig) -> None:
    first = await rig.engine.load(spec())
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    await rig.until(lambda r: r.engine.runtime(1).status is ModelStatus.READY and r.engine.runtime(1).pid != first.pid)
    assert rig.engine_events() == [EngineEventType.STARTED, EngineEventType.CLOSED]


async def test_descendants_of_a_custom_server_end_with_it(rig: Rig) -> None:
    await rig.engine.load(spec(command_environment="PARROT_FAMILY=1"))
    helper = printed(rig, r"parrot: helper (\d+)")
    assert is_alive(helper)
    await rig.engine.unload(1)
    while is_alive(helper):  # It is no child of this process, so its end can only be polled.
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"command": "no-such-program {port}"}, "program 'no-such-program' is not on PATH"),
        ({"command": "/nonexistent/serve {port}"}, "program '/nonexistent/serve' is not on PATH"),
        ({"command": f"{PARROT} {{port}}x"}, "invalid literal for int"),
        ({"command_directory": "/nonexistent"}, "directory /nonexistent does not exist"),
    ],
)
async def test_a_custom_program_that_cannot_start_gives_the_reason(
    rig: Rig, options: Mapping[str, OptionValue], says: str
) -> None:
    with pytest.raises(LoadFailed, match=says):
        await rig.engine.load(spec(**options))
    assert rig.engine.runtime(1).status is ModelStatus.FAILED


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process to another")
def test_kill_minus_9_of_the_service_ends_the_program_and_its_descendants() -> None:
    """A script in place of the service starts the program and dies."""
    owner = f"""
import os, subprocess, sys, time
guard = [sys.executable, "-I", "-S", {parent_guard.__file__!r}, "--family", *{shlex.split(PARROT)!r}, "0"]
environment = {{**os.environ, "PARROT_FAMILY": "1", {parent_guard.PARENT_VARIABLE!r}: str(os.getpid())}}
process = subprocess.Popen(guard, env=environment, start_new_session=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids: list[int] = []
        try:
            while len(pids) < 2:
                pids.append(int(process.stdout.readline().split()[-1]))
            assert all(map(is_alive, pids))
            process.kill()
            assert process.stdout.read() == "", "the pipe closes once all of them have ended"
            while any(map(is_alive, pids)):  # A process closes its pipes a moment before it ends.
                time.sleep(0.01)
        finally:
            process.kill()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
