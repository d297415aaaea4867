"""Operations are declared where they are written, and the table is their sum."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

import llama_async_proxy.operations
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.models import GetModel, ListModels, ModelList, ModelView, get_model, list_models
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.operations.table import OPERATIONS, declared_in

ROOM = Path(str(llama_async_proxy.operations.__file__)).parent
NO_CONTEXT = cast("Context", None)


@operation("tests.double", Effect.READ)
async def double(_: Context, number: int) -> str:
    return str(2 * number)


def subject(name: str = __name__, **members: object) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module


async def test_an_operation_is_called_like_its_function() -> None:
    assert await double(NO_CONTEXT, 21) == "42"


def test_an_operation_takes_its_types_from_the_annotations() -> None:
    assert (double.input, double.output) == (int, str)
    assert (list_models.input, list_models.output) == (ListModels, ModelList)
    assert (get_model.input, get_model.output) == (GetModel, ModelView)


def test_the_table_refuses_two_operations_of_one_name() -> None:
    @operation("tests.double", Effect.READ)
    async def other(_: Context, number: int) -> int:
        return number

    with pytest.raises(ValueError, match=r"two operations are called 'tests\.double'"):
        declared_in((subject(double=double), subject(other=other)))


def test_an_operation_that_a_subject_imports_is_not_its_own() -> None:
    assert not declared_in((subject("another.module", double=double),))


def test_the_table_has_every_operation_that_is_declared() -> None:
    declared = {
        decorator.args[0].value
        for path in ROOM.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncFunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "operation"
        if isinstance(decorator.args[0], ast.Constant)
    }
    assert declared == OPERATIONS.keys()


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("models.list", Effect.READ),
        ("models.load", Effect.MANAGE),
        ("models.discover", Effect.MANAGE),
        ("chats.get", Effect.CHAT),
        ("chats.delete", Effect.CHAT),
        ("presets.save", Effect.MANAGE),
        ("config.update", Effect.ADMIN),
        ("logs.clear", Effect.ADMIN),
    ],
)
def test_an_operation_has_the_effect_that_access_checks(name: str, effect: Effect) -> None:
    assert OPERATIONS[name].effect is effect


def test_no_operation_that_changes_something_is_called_reading() -> None:
    changing = {"create", "update", "delete", "save", "clear", "load", "unload", "start", "stop", "cancel", "configure"}
    for name, found in OPERATIONS.items():
        if changing & set(name.split(".")[1].split("_")):
            assert found.effect is not Effect.READ, name
