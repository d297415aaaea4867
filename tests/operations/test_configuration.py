from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llama_async_proxy.errors import InvalidInput, PermissionDenied, StoreUnavailable
from llama_async_proxy.events import EventBus, SettingsChanged
from llama_async_proxy.operations.configuration import Configuration, flatten
from llama_async_proxy.settings import resolve


def configuration(directory: Path, bus: EventBus | None = None, **given: Any) -> Configuration:
    command_line = {"data_dir": str(directory), **given}
    settings = resolve(command_line=command_line, environment={}, file={}, default_data_dir=directory)
    return Configuration(settings, bus or EventBus())


async def test_an_update_is_written_told_and_in_force(tmp_path: Path) -> None:
    bus = EventBus()
    config = configuration(tmp_path, bus)
    live = config.getter()
    with bus.subscribe(SettingsChanged) as events:
        change = await config.update({"maxModels": 2, "ctx_size": 4096})
        assert await anext(aiter(events)) == SettingsChanged(("max_models", "ctx_size"))
    assert (live().max_models, live().ctx_size) == (2, 4096)
    assert json.loads(config.settings.config_path.read_text()) == {"maxModels": 2, "ctx_size": 4096}
    assert not change.restart_required
    assert config.started_with.max_models == 4


async def test_unknown_keys_of_the_file_are_kept(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    config.settings.config_path.write_text('{"mine": {"own": 1}, "llama": {"other": true}}')
    await config.update({"llama.modelsDir": "/models"})
    written = json.loads(config.settings.config_path.read_text())
    assert written["mine"] == {"own": 1}
    assert written["llama"]["other"] is True
    assert written["basePath"] == "/models"


async def test_a_bad_value_changes_nothing(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    with pytest.raises(InvalidInput, match="port"):
        await config.update({"maxModels": 2, "server.port": 0})
    assert config.settings.max_models == 4
    assert not config.settings.config_path.exists()


async def test_what_the_start_outranks_and_what_needs_a_restart_is_said(tmp_path: Path) -> None:
    config = configuration(tmp_path, port=4000)
    change = await config.update({"server.port": 5000})
    assert change.restart_required
    assert change.overridden == ("port",)
    assert (await config.update({"maxModels": 2})).overridden == ()


async def test_a_path_that_does_not_exist_is_saved_with_a_warning(tmp_path: Path) -> None:
    change = await configuration(tmp_path).update({"basePath": "/not/there/yet", "serverPath": "/nor/this"})
    assert [warning.split(":")[0] for warning in change.warnings] == ["basePath", "serverPath"]


async def test_a_file_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    config = configuration(tmp_path / "taken")
    with pytest.raises((PermissionDenied, StoreUnavailable), match="taken"):
        await config.update({"maxModels": 2})
    assert config.settings.max_models == 4


def test_a_tree_of_settings_becomes_dotted_keys() -> None:
    tree = {"server": {"port": 1}, "llama": {"modelsDir": "/m"}, "threads": 2}
    assert flatten(tree) == {"server.port": 1, "llama.modelsDir": "/m", "threads": 2}


@pytest.mark.parametrize("tree", [{"server": {"nonsense": 1}}, {"nonsense": 1}, {"server": 3}])
def test_what_is_no_setting_is_named(tree: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="is not a setting"):
        flatten(tree)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("server.insecureNoAuth", True),
        ("server.allowedHosts", ["evil.example"]),
        ("server.allowedOrigins", ["http://evil.example"]),
        ("llama.customCommands", True),
    ],
)
async def test_what_protects_the_service_is_not_changed_by_who_is_connected(
    tmp_path: Path, key: str, value: object
) -> None:
    config = configuration(tmp_path)
    before = config.settings
    with pytest.raises(PermissionDenied, match="by hand"):
        await config.update({key: value, "maxModels": 2})
    assert config.settings == before
