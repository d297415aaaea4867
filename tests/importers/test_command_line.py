from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.importers.command_line import is_llama_server, parse


def test_flags_become_options_by_their_long_names() -> None:
    command = parse(
        shlex.split(
            "--host 127.0.0.1 --port 9 -m /m/a.gguf -c 8192 -ngl 99 -fa --jinja --no-mmap -ctk q8_0 --temp 0.7 "
            "--min-p .05 --seed -1 -np 2 --override-tensor a=CPU -ot b=CPU --tensor-split 3,1 --some-new-flag x"
        )
    )
    assert command.model == "/m/a.gguf"
    assert command.options == {
        "ctx-size": 8192, "n-gpu-layers": 99, "flash-attn": "on", "jinja": True, "no-mmap": True,
        "cache-type-k": "q8_0", "temp": 0.7, "min-p": 0.05, "seed": -1, "parallel": 2,
        "override-tensor": "a=CPU,b=CPU", "tensor-split": "3,1", "some-new-flag": "x",
    }  # fmt: skip
    assert command.problems == ()


def test_the_last_of_several_values_counts() -> None:
    assert parse(["-c", "1", "--ctx-size", "2"]).options == {"ctx-size": 2}


def test_aliases_are_names() -> None:
    assert parse(["-a", "one, two,", "--alias", "three"]).aliases == ("one", "two", "three")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-hf", "org/repo"], "-hf is not taken over: models are files of this machine; download it first"),
        (["--api-key", "sk-secret"], "--api-key is not taken over: only the service talks to the engine"),
        (["-xyz", "1"], "-xyz is not taken over: its long name is not known"),
        (["stray"], "'stray' is not taken over: it belongs to no flag"),
    ],
)
def test_an_unsupported_flag_is_named_without_its_value(arguments: list[str], problem: str) -> None:
    command = parse(arguments)
    assert command.problems[0].startswith(problem)
    assert (command.options, command.model) == ({}, None)
    assert "secret" not in str(command.problems)


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        ("llama-server", True),
        ("/opt/llama.cpp/build/bin/llama-server", True),
        ("/path/llama-server-ec9e0301", True),
        ("C:\\llama\\llama-server.exe", True),
        ("docker", False),
        ("vllm", False),
        ("/opt/llama-server/run.sh", False),
    ],
)
def test_llama_server_is_recognised_by_its_file_name(program: str, answer: bool) -> None:
    assert is_llama_server(program) is answer


@given(st.lists(st.text(max_size=6) | st.sampled_from(["-m", "-c", "--temp", "-", "--", "-1", "-a"]), max_size=12))
def test_any_arguments_are_parsed(arguments: list[str]) -> None:
    command = parse(arguments)
    assert not {"model", "alias", "port"} & command.options.keys()
