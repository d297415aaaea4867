"""The built-in worker as a program: it must behave like llama-server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.service import clean_environment

EMBEDDED = (sys.executable, "-m", "llama_async_proxy.engines.embedded")


def run(*command: str, prelude: str = "") -> subprocess.CompletedProcess[str]:
    if prelude:
        main = "import sys; from llama_async_proxy.engines import embedded; sys.exit(embedded.main(sys.argv[1:]))"
        command = (sys.executable, "-c", f"{prelude}\n{main}", *command[len(EMBEDDED) :])
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=clean_environment(), check=False)


@pytest.mark.engine
@pytest.mark.parametrize(
    "arguments",
    [["--no-such-option"], ["-m", "x.gguf", "-c", "abc"], ["--ctx-size"]],
    ids=lambda arguments: " ".join(arguments),
)
def test_bad_arguments_are_answered_like_llama_server(llama_server: Path, arguments: list[str]) -> None:
    ours, theirs = run(*EMBEDDED, *arguments), run(str(llama_server), *arguments)
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert ours.returncode == 1


@pytest.mark.engine
def test_the_worker_has_the_options_of_llama_server(llama_server: Path) -> None:
    def options(text: str) -> set[str]:
        return {word.strip(",") for word in text.split() if word.startswith("--") and word.strip(",-")}

    ours, theirs = run(*EMBEDDED, "--help"), run(str(llama_server), "--help")
    assert ours.returncode == theirs.returncode == 0
    assert options(theirs.stdout) <= options(ours.stdout)


@pytest.mark.engine
def test_version_is_printed_like_llama_server() -> None:
    result = run(*EMBEDDED, "--version")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.startswith("version: ")


@pytest.mark.engine
def test_the_worker_needs_a_model() -> None:
    result = run(*EMBEDDED, "--port", "1")
    assert result.returncode == 1
    assert "error: --model is required" in result.stderr


@pytest.mark.engine
def test_another_version_of_the_wheel_is_refused() -> None:
    result = run(*EMBEDDED, "-m", "x.gguf", prelude="import xllamacpp; xllamacpp.__version__ = '2030.1.1'")
    assert result.returncode == 1
    assert "error: xllamacpp 2030.1.1 is installed, but only" in result.stderr


def test_a_wheel_that_cannot_be_loaded_is_named() -> None:
    result = run(*EMBEDDED, "-m", "x.gguf", prelude="import sys; sys.modules['xllamacpp'] = None")
    assert result.returncode == 1
    assert "error: the xllamacpp wheel cannot be loaded on this machine" in result.stderr


def test_the_worker_imports_only_the_parent_guard_of_the_package() -> None:
    program = "import sys, llama_async_proxy.engines.embedded; print(*sys.modules)"
    # Coverage measurement, if on, would start in the child and add its own imports.
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", program]
    modules = set(subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.split())
    assert {m for m in modules if m.startswith("llama_async_proxy.")} == {
        "llama_async_proxy.engines",
        "llama_async_proxy.engines.embedded",
        "llama_async_proxy.engines.parent_guard",
    }
    assert not modules & {"asyncio", "importlib.metadata", "json"}
