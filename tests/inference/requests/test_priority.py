from __future__ import annotations

import pytest

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.inference.requests.priority import priority_of


@pytest.mark.parametrize(("value", "priority"), [(b"0", 0), (b"9", 9), (b"-9", -9), (b"+3", 3)])
def test_the_header_sets_the_priority(value: bytes, priority: int) -> None:
    assert priority_of([(b"host", b"a"), (b"x-priority", value)]) == priority


def test_a_request_without_the_header_has_priority_0() -> None:
    assert priority_of([(b"host", b"a")]) == 0


@pytest.mark.parametrize("value", [b"", b"10", b"high", b"1.5", b"--1", b"\xff"])
def test_a_priority_out_of_bounds_names_the_header(value: bytes) -> None:
    with pytest.raises(InvalidInput, match="X-Priority: must be a whole number from -9 to 9"):
        priority_of([(b"x-priority", value)])
