"""Values that llama.cpp does not take, and values that nobody means."""

from __future__ import annotations

import pytest

from llama_async_proxy.presets.option_limits import is_passed, limit_fault
from llama_async_proxy.presets.validation import check_text
from llama_async_proxy.records.options import OptionValue
from support.engine_help import CATALOGUE


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ctx-size = -99", "must be 0 to"),
        ("c = -5", "must be 0 to"),
        ("np = 0", "must be 1 to 256"),
    ],
)
def test_a_value_that_would_kill_each_load_is_an_error_of_its_line(line: str, says: str) -> None:
    [error] = check_text(f"[m]\n{line}\n", CATALOGUE).errors
    assert says in error.message
    assert error.line == 2


@pytest.mark.parametrize("line", ["ctx-size = -1", "threads = -1", "n-gpu-layers = -1"])
def test_minus_one_is_valid_everywhere(line: str) -> None:
    assert not check_text(f"[m]\n{line}\n", CATALOGUE).errors


@pytest.mark.parametrize("line", ["temp = 99", "temp = -3"])
def test_a_value_that_nobody_means_is_a_warning(line: str) -> None:
    verdict = check_text(f"[m]\n{line}\n", CATALOGUE)
    assert not verdict.errors
    assert "is usually" in verdict.warnings[0].message


@pytest.mark.parametrize(
    ("value", "passed"), [(-1, False), (-1.0, False), ("-1", False), (0, True), (True, True), ("x", True)]
)
def test_minus_one_is_not_passed(value: OptionValue, passed: bool) -> None:
    assert is_passed(value) is passed


def test_words_and_unknown_options_have_no_limits() -> None:
    assert limit_fault("ctx-size", "auto") is None
    assert limit_fault("no-such-option", -99) is None
