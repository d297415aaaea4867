"""Who may set a command, and what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from api.harness import ServiceHarness, house
from llama_async_proxy.errors import InvalidInput, PermissionDenied
from llama_async_proxy.operations.config import UpdateConfig, update_config
from llama_async_proxy.operations.models import (
    CleanUpModels,
    CreateModels,
    LoadModel,
    ModelView,
    NewModel,
    UpdateModel,
    clean_up_models,
    create_models,
    load_model,
    update_model,
)
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.settings import BY_NAME

COMMAND: dict[str, OptionValue] = {"command": "no-such-program {port}"}


@pytest_asyncio.fixture(params=[True])
async def inner(request: pytest.FixtureRequest, tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files, custom_commands=request.param) as running:
        yield running


forbidden = pytest.mark.parametrize("inner", [False], indirect=True)


async def create(inner: ServiceHarness, name: str | None = "Polly", **options: OptionValue) -> ModelView:
    new = NewModel(None, name=name, options=options or COMMAND)
    [view] = (await create_models(inner.context, CreateModels((new,)))).models
    return view


async def test_a_model_needs_no_file_when_it_has_a_command(inner: ServiceHarness) -> None:
    model = (await create(inner)).model
    assert (model.slug, model.name, model.path, model.has_file) == ("Polly", "Polly", "command:Polly", False)
    spec = inner.context.planner.spec(model)
    assert spec.command is not None
    assert not spec.options.keys() & COMMAND.keys()
    assert (await clean_up_models(inner.context, CleanUpModels())).deleted == ()


@pytest.mark.parametrize("seconds", [-1, True, "soon", float("nan")])
async def test_an_idle_time_is_seconds(inner: ServiceHarness, seconds: OptionValue) -> None:
    with pytest.raises(InvalidInput, match="idle-ttl: must be seconds"):
        await update_model(inner.context, UpdateModel("chat", options={"idle-ttl": seconds}))
    with pytest.raises(InvalidInput, match="idle-ttl: must be seconds"):
        await create_models(
            inner.context, CreateModels((NewModel(None, "P", options={**COMMAND, "idle-ttl": seconds}),))
        )
    assert (await update_model(inner.context, UpdateModel("chat", options={"idle-ttl": 60}))).model.options


async def test_a_model_with_a_file_may_have_a_command_too(inner: ServiceHarness) -> None:
    view = await update_model(inner.context, UpdateModel("chat", options={"command": "serve {port} {model}"}))
    command = inner.context.planner.spec(view.model).command
    assert command is not None
    assert command.start == ("serve", "{port}", "{model}")


async def test_a_model_without_a_file_keeps_its_command(inner: ServiceHarness) -> None:
    await create(inner)
    with pytest.raises(InvalidInput, match=r"options\.command: is required: the model has no file"):
        await update_model(inner.context, UpdateModel("polly", options={}))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        (None, COMMAND, r"models\[0\]\.name: is required"),
        ("Polly", {"ctx-size": 1}, r"models\[0\]\.path: is required, unless options\.command"),
        ("Polly", {"command": "serve"}, r"options\.command: must tell the program its port"),
        ("Polly", {"command": "serve {port} {model}"}, "this model has none"),
    ],
)
async def test_a_bad_model_is_refused(inner: ServiceHarness, name: str | None, options: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        await create(inner, name, **options)
    assert len(inner.context.store.models.all()) == 4


async def test_one_load_cannot_bring_a_command(inner: ServiceHarness) -> None:
    with pytest.raises(InvalidInput, match=r"options\.command: is set by the engine and cannot be chosen"):
        await load_model(inner.context, LoadModel("chat", COMMAND))


@forbidden
async def test_without_the_setting_no_command_is_taken(inner: ServiceHarness) -> None:
    with pytest.raises(PermissionDenied, match="--custom-commands"):
        await create(inner)
    with pytest.raises(PermissionDenied, match="--custom-commands"):
        await update_model(inner.context, UpdateModel("chat", options=COMMAND))
    await update_model(inner.context, UpdateModel("chat", options={"ctx-size": 512}))


@forbidden
async def test_without_the_setting_no_stored_command_is_run_but_it_stays(inner: ServiceHarness) -> None:
    store = inner.context.store.models
    model = inner.context.names.index.resolve("chat")
    assert model is not None
    await store.update(model.id, options=COMMAND)
    with pytest.raises(PermissionDenied, match="--custom-commands"):
        await load_model(inner.context, LoadModel("chat"))
    await update_model(inner.context, UpdateModel("chat", options={**COMMAND, "ctx-size": 512}))


@forbidden
async def test_nobody_who_is_connected_can_turn_the_setting_on(inner: ServiceHarness) -> None:
    key = BY_NAME["custom_commands"].file_key
    with pytest.raises(PermissionDenied, match="only on the command line"):
        await update_config(inner.context, UpdateConfig({"llama": {"customCommands": True}}))
    await update_config(inner.context, UpdateConfig({"llama": {"customCommands": False}, "maxModels": 2}))
    assert key.rpartition(".")[2] not in inner.context.configuration.settings.config_path.read_text()
