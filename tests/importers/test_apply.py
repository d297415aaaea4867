"""Applying plans through the REST interface of a real service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api.harness import ServiceHarness, house
from llama_async_proxy.cli.service_call import call_service
from llama_async_proxy.importers.apply import Outcome, apply, registered_models
from llama_async_proxy.importers.plan import PlannedModel
from llama_async_proxy.records.models import Variant
from support.models import write_chat

BOLD = Variant("new-bold", {"temperature": 1.5}, "Be bold.")


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files) as at:
        yield at


async def done(at: ServiceHarness, planned: PlannedModel) -> Outcome:
    def work() -> Outcome:
        call = partial(call_service, at.url)
        return apply(planned, registered_models(call), call)

    return await asyncio.to_thread(work)


async def stored(at: ServiceHarness, name: str) -> Any:
    status, answer = await at.call("GET", f"/api/models/{name}")
    assert status == 200
    return answer["data"]


async def test_a_new_file_is_registered_with_all_planned_fields(at: ServiceHarness, tmp_path: Path) -> None:
    blob = write_chat(tmp_path / "sha256-0123")
    planned = PlannedModel(
        str(blob), "New:1b", "described", {"ctx-size": 512, "jinja": True}, ("gpt-4o",), (BOLD,), is_pinned=True
    )
    assert await done(at, planned) == Outcome("New:1b", "new, as New-1b")
    model = await stored(at, "new:1b")
    assert (model["path"], model["description"], model["isPinned"]) == (str(blob), "described", True)
    assert (model["options"], model["aliases"]) == ({"ctx-size": 512, "jinja": True}, ["gpt-4o"])
    assert model["variants"] == [
        {"name": "new-bold", "parameters": {"temperature": 1.5}, "systemPrompt": "Be bold."}
    ]  # fmt: skip


async def test_a_registered_file_gets_new_names_and_keeps_fields_set_by_users(at: ServiceHarness) -> None:
    await at.call("PATCH", "/api/models/chat", {"options": {"threads": 2}, "aliases": ["mine"]})
    path = (await stored(at, "chat"))["path"]
    planned = PlannedModel(path, "theirs", options={"threads": 8, "ctx-size": 512}, aliases=("MINE",), variants=(BOLD,))
    assert await done(at, planned) == Outcome("theirs", "known, as chat")
    once = await stored(at, "chat")
    assert (once["options"], once["aliases"]) == ({"threads": 2, "ctx-size": 512}, ["mine", "theirs"])
    assert await done(at, planned) == Outcome("theirs", "known, as chat")
    assert await stored(at, "chat") == once


async def test_a_file_that_is_no_model_is_refused_with_the_services_message(at: ServiceHarness, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no model")
    outcome = await done(at, PlannedModel(str(tmp_path / "bad.gguf"), "bad"))
    assert (outcome.done, outcome.is_registered) == ("not taken over", False)
    assert outcome.problem is not None
    assert "is not a usable GGUF file" in outcome.problem


async def test_a_name_of_another_model_does_not_undo_the_rest(at: ServiceHarness, tmp_path: Path) -> None:
    blob = write_chat(tmp_path / "other.gguf")
    outcome = await done(at, PlannedModel(str(blob), "other", variants=(Variant("chat"),)))
    assert (outcome.done, outcome.is_registered) == ("new, as other, incomplete", True)
    assert outcome.problem is not None
    assert "has the name 'chat' already" in outcome.problem


async def test_a_custom_command_needs_the_services_permission(at: ServiceHarness) -> None:
    planned = PlannedModel("command:speech", "speech", options={"command": "serve --port {port}"})
    outcome = await done(at, planned)
    assert (outcome.done, outcome.is_registered) == ("not taken over", False)
    assert outcome.problem is not None
    assert "--custom-commands" in outcome.problem


async def test_a_custom_command_that_is_allowed_becomes_a_model_without_a_file(
    tmp_path: Path, model_files: Path
) -> None:
    async with house(tmp_path, model_files, custom_commands=True) as at:
        planned = PlannedModel("command:speech", "speech", options={"command": "serve --port {port}"})
        assert await done(at, planned) == Outcome("speech", "new, as speech")
        assert await done(at, planned) == Outcome("speech", "known, as speech")
        assert (await stored(at, "speech"))["options"] == {"command": "serve --port {port}"}
