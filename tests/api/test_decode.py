from __future__ import annotations

from typing import Annotated

import msgspec
import pytest

from llama_async_proxy.api.decode import decode
from llama_async_proxy.errors import InvalidInput


class Inner(msgspec.Struct):
    size: Annotated[int, msgspec.Meta(ge=0, le=10)]
    flag: bool = False


class Outer(msgspec.Struct):
    name: str
    inner: Inner | None = None
    many: list[Inner] = []
    options: dict[str, int] = {}


def test_what_fits_is_typed_and_unknown_fields_are_left_out() -> None:
    assert decode({"name": "a", "inner": {"size": 3}, "else": 1}, Outer) == Outer("a", Inner(3))


@pytest.mark.parametrize(
    ("payload", "field", "problem"),
    [
        ({}, "name", "is required"),
        ({"name": "a", "inner": {}}, "inner.size", "is required"),
        ({"name": "a", "many": [{"size": 1}, {}]}, "many[1].size", "is required"),
        ({"name": 1}, "name", "expected str, got int"),
        ({"name": "a", "inner": {"size": True}}, "inner.size", "expected int, got bool"),
        ({"name": "a", "inner": {"size": 11}}, "inner.size", "expected int <= 10"),
        ({"name": "a", "inner": {"size": 1, "flag": 1}}, "inner.flag", "expected bool, got int"),
        ({"name": b"a"}, "name", "expected str, got bytes"),
        ({"name": "a", "options": {"x": "y"}}, "options[...]", "expected int, got str"),
        ([], "payload", "expected object, got array"),
        (None, "payload", "expected object, got null"),
    ],
)
def test_what_does_not_fit_is_named(payload: object, field: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(payload, Outer)
    assert caught.value.field == field
    assert caught.value.message == f"{field}: {problem}"


def test_a_number_beyond_every_machine_is_bad_input() -> None:
    with pytest.raises(InvalidInput, match="inner"):
        decode({"name": "a", "inner": {"size": 10**400}}, Outer)
