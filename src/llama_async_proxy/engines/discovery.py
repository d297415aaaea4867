"""Discovery of a program that can run models: a llama-server binary, or the built-in worker on the xllamacpp wheel.

Functions block, because they run `llama-server --version`: call them in a thread. This process loads no native code.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.engines import parent_guard
from llama_async_proxy.engines.embedded import WHEEL_VERSION
from llama_async_proxy.engines.environment import passed_environment
from llama_async_proxy.engines.process import describe_exit
from llama_async_proxy.engines.program_trust import advice, safe_directory, untrusted
from llama_async_proxy.errors import EngineMissing

BINARY_NAME = "llama-server"
SINGLE_BINARY_NAME = "llama"
"""The single program that llama.cpp's newer installers bring; `llama serve` takes the options of llama-server."""
COMMON_PLACES = (
    "/usr/local/bin",
    "/usr/bin",
    "/opt/homebrew/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "/opt/llama.cpp/bin",
    "/opt/llama.cpp/build/bin",
    "~/.local/bin",
    "~/llama.cpp/build/bin",
    "~/src/llama.cpp/build/bin",
)
VERSION_TIMEOUT_S = 10.0
"""Limit for `--version`. A first run from a slow disk, with GPU libraries to load, takes seconds."""
SETTING_HINT = "Set --llama-server (serverPath) to a llama-server program, or to nothing to use the built-in engine"
WHEEL_HINT = f"install llama-server (--llama-server PATH) or run pip install xllamacpp=={WHEEL_VERSION}"


class Launcher(Struct, frozen=True):
    """Command that starts a model's process."""

    kind: str
    """`workers` for a llama-server binary, `embedded` for the built-in worker."""
    argv: tuple[str, ...]
    """Program and first arguments; llama-server's own arguments follow."""
    version: str
    binary: str | None = None
    """Path of the llama-server binary."""
    skipped: tuple[str, ...] = ()
    """Reasons why better-placed programs were skipped, one sentence each."""


def find_launcher(engine: str, llama_server: str) -> Launcher:
    """Launcher for the settings `engine` (`auto`, `workers` or `embedded`) and `llama_server` (a path or empty).

    Raises EngineMissing with the problem and the remedy.
    """
    if engine == "embedded":
        return embedded_launcher()
    if llama_server:
        return binary_launcher(Path(llama_server))
    problems: list[str] = []
    for path in _candidates():
        try:
            return replace(binary_launcher(path), skipped=tuple(problems))
        except EngineMissing as exc:
            problems.append(exc.message)
    if engine == "auto":
        try:
            return replace(embedded_launcher(), skipped=tuple(problems))
        except EngineMissing as exc:
            problems.append(exc.message)
    else:
        problems.append(f"No {BINARY_NAME} on PATH or in the usual places. {SETTING_HINT} (--engine embedded)")
    raise EngineMissing(problems[0], details="\n".join(problems))


def embedded_launcher() -> Launcher:
    """Launcher of the built-in worker. Raises EngineMissing when its wheel is absent or of another version."""
    if importlib.util.find_spec("xllamacpp") is None:
        machine = f"{platform.system()} {platform.machine()}"
        raise EngineMissing(f"No {BINARY_NAME} was found and no xllamacpp wheel is installed ({machine}): {WHEEL_HINT}")
    version = importlib.metadata.version("xllamacpp")
    if version != WHEEL_VERSION:
        raise EngineMissing(
            f"xllamacpp {version} is installed, but only {WHEEL_VERSION} is known to work: {WHEEL_HINT}"
        )
    return Launcher("embedded", (sys.executable, "-m", "llama_async_proxy.engines.embedded"), version)


def binary_launcher(path: Path) -> Launcher:
    """Launcher of the llama-server at `path`, which is run once for its version. Raises EngineMissing."""
    _check_file(path)
    version = _version(path)
    argv = server_command(path)
    if sys.platform == "linux":
        argv = (sys.executable, "-I", "-S", str(Path(parent_guard.__file__)), "--family", *argv)
    return Launcher("workers", argv, version, str(path))


def server_command(path: Path | str) -> tuple[str, ...]:
    """The program and the argument, if any, that make it a server."""
    name = Path(path).name
    return (str(path), "serve") if name.removesuffix(".exe") == SINGLE_BINARY_NAME else (str(path),)


def found_binaries() -> tuple[Path, ...]:
    """Files that `find_launcher` tries by itself, best first. They have not been run and may be unusable."""
    return tuple(_candidates())


def _candidates() -> Iterator[Path]:
    """Existing files named llama-server, PATH first, without duplicates."""
    seen: set[Path] = set()
    for name in (BINARY_NAME, SINGLE_BINARY_NAME):
        on_path = shutil.which(name)
        places = (Path(place).expanduser() / name for place in COMMON_PLACES)
        for path in (Path(on_path).absolute(), *places) if on_path else places:
            if path.is_file() and path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise EngineMissing(f"{path}: {exc.strerror}. {SETTING_HINT}") from exc
    if not stat.S_ISREG(mode):
        raise EngineMissing(f"{path} is not a file. {SETTING_HINT}")
    if not os.access(path, os.X_OK):
        raise EngineMissing(f"{path} is not executable: run chmod +x {path}, or {SETTING_HINT}")
    _check_trust(path)


def _check_trust(path: Path) -> None:
    if reason := untrusted(path):
        raise EngineMissing(f"{path} is not run, because {reason}. {advice(path)}")


def _version(path: Path) -> str:
    code, output = _run_version(path)
    if code is None:
        raise EngineMissing(f"{path} did not answer --version within {VERSION_TIMEOUT_S:g} s. {SETTING_HINT}")
    if code == -signal.SIGILL:
        raise EngineMissing(f"{path} was built for another processor ({describe_exit(code)}). {SETTING_HINT}")
    found = re.search(r"^version:\s*(.+?)\s*$", output, re.MULTILINE)
    if code == 0 and found:
        return found[1]
    first_line = next((line.strip() for line in output.splitlines() if line.strip()), "it printed nothing")
    if code != 0:
        raise EngineMissing(f"{path} --version failed with {describe_exit(code)}: {first_line[:300]}. {SETTING_HINT}")
    raise EngineMissing(f"{path} is no {BINARY_NAME}: --version names none ({first_line[:300]}). {SETTING_HINT}")


def help_text(binary: str | None) -> str:
    """Output of `--help` of the llama-server at `binary`, or of the built-in worker. Raises EngineMissing."""
    if binary:
        _check_trust(Path(binary))
    command = server_command(binary) if binary else (sys.executable, "-m", "llama_async_proxy.engines.embedded")
    code, output = _output([*command, "--help"], stderr=subprocess.DEVNULL)
    if code != 0:
        outcome = "did not end in time" if code is None else f"failed with {describe_exit(code)}"
        raise EngineMissing(f"{binary or 'The built-in engine'} --help {outcome}. {SETTING_HINT}")
    return output


def _run_version(path: Path) -> tuple[int | None, str]:
    """Exit code and output of `--version`. The code is None when the program took too long."""
    return _output([*server_command(path), "--version"], stderr=subprocess.STDOUT)


def _output(command: list[str], *, stderr: int) -> tuple[int | None, str]:
    try:
        process = subprocess.Popen(  # noqa: S603 - the user has chosen the program
            command,
            env=passed_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            cwd=safe_directory(),
        )
    except OSError as exc:
        raise EngineMissing(f"{command[0]} cannot be run: {_reason(exc)}. {SETTING_HINT}") from exc
    with process:
        try:
            output, _ = process.communicate(timeout=VERSION_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # Kill the whole group, because a descendant may hold the pipe open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return None, ""
    return process.returncode, output.decode(errors="replace")


def _reason(exc: OSError) -> str:
    if exc.errno == errno.ENOEXEC:
        return f"it is no program for this machine ({platform.machine()})"
    if exc.errno == errno.ENOENT:  # The file itself was found a moment ago.
        return "the loader or interpreter it names is missing, so it was built for another system"
    return exc.strerror or str(exc)
