"""Programs that run models: argv, environment and directory of llama-server and of custom commands."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from llama_async_proxy.engines import parent_guard
from llama_async_proxy.engines.arguments import command_line
from llama_async_proxy.engines.custom_command import fill_placeholders
from llama_async_proxy.engines.discovery import Launcher
from llama_async_proxy.engines.environment import (
    API_KEY_VARIABLE,
    LOG_ENVIRONMENT,
    child_environment,
    router_environment,
)
from llama_async_proxy.engines.program_trust import advice, safe_directory, untrusted
from llama_async_proxy.errors import LoadFailed
from llama_async_proxy.records.runtime import CustomCommand, Endpoint, LaunchSpec


class Program(Struct, frozen=True):
    """A program to run as a child process."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """The whole environment of the child."""
    health_path: str = "/health"
    stop: tuple[str, ...] = ()
    """Command that stops the program; empty to send llama-server's exit command."""
    directory: str | None = None


def llama_program(launcher: Launcher, spec: LaunchSpec, endpoint: Endpoint, ours: Mapping[str, str]) -> Program:
    """llama-server, or the built-in worker, for `spec`. `ours` is the environment to pass on.

    Raises InvalidInput for an invalid option, LoadFailed for a program that other users can change.
    """
    key = {API_KEY_VARIABLE: endpoint.api_key} if endpoint.api_key is not None else {}
    environment = {**child_environment(ours), **LOG_ENVIRONMENT, **key}
    program = Program((*launcher.argv, *command_line(spec, endpoint)), environment, directory=safe_directory())
    if launcher.binary is not None:
        _check_trust(launcher.binary)
    return program


def custom_program(command: CustomCommand, spec: LaunchSpec, endpoint: Endpoint, ours: Mapping[str, str]) -> Program:
    """The model's own command with its placeholders filled in. Raises LoadFailed when its files are missing."""
    environment = {
        **ours,
        **{name: fill_placeholders(text, spec, endpoint) for name, text in command.environment.items()},
    }
    if command.directory is not None and not Path(command.directory).is_dir():
        raise LoadFailed(f"The command's directory {command.directory} does not exist")
    if command.directory is not None:
        _check_trust(command.directory)

    def argv(template: tuple[str, ...]) -> tuple[str, ...]:
        program, *rest = (fill_placeholders(argument, spec, endpoint) for argument in template)
        place = str(Path(command.directory or ".", program).absolute()) if "/" in program else program
        found = shutil.which(place, path=environment.get("PATH"))
        if found is None:
            raise LoadFailed(f"The command's program {program!r} is not on PATH, or is no program")
        _check_trust(found)
        return (found, *rest)

    return Program(
        guarded_argv(argv(command.start)),
        environment,
        command.health_path,
        argv(command.stop) if command.stop else (),
        command.directory,
    )


def router_program(argv: tuple[str, ...], ours: Mapping[str, str]) -> Program:
    """A router, whose models' processes end with the service, too. `ours` is the environment to pass on."""
    return Program(guarded_argv(argv), router_environment(ours), directory=safe_directory())


def guarded_argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    """`argv` through the parent-death guard, so that the program and its descendants end with the service.

    Only Linux has the guard; elsewhere `argv` is returned unchanged.
    """
    if sys.platform != "linux":
        return argv
    return (sys.executable, "-I", "-S", str(Path(parent_guard.__file__)), "--family", *argv)


def _check_trust(path: str) -> None:
    """Raise LoadFailed for a path that other users can change: that may have happened since the engine started."""
    if reason := untrusted(Path(path)):
        raise LoadFailed(f"{path} is not run, because {reason}. {advice(Path(path))}")
