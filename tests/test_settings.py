from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.settings import (
    BY_FILE_KEY,
    BY_NAME,
    ENV_PREFIX,
    SETTINGS,
    Settings,
    Source,
    check,
    data_dir_of,
    is_loopback,
    parse,
    resolve,
    updated,
)


def resolved(
    command_line: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    file: dict[str, Any] | None = None,
) -> Settings:
    return resolve(
        command_line=command_line or {}, environment=environment or {}, file=file or {}, default_data_dir=Path("/data")
    )


def test_every_setting_is_a_field_and_every_field_a_setting() -> None:
    fields = {f.name for f in dataclasses.fields(Settings)} - {"sources"}
    assert fields == set(BY_NAME)


def test_names_keys_and_flags_are_unambiguous() -> None:
    keys = [key for s in SETTINGS for key in (s.file_key, *s.aliases)]
    flags = [s.flag for s in SETTINGS if s.flag]
    assert len(keys) == len(set(keys)) == len(BY_FILE_KEY)
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_every_default_is_valid(setting: Any) -> None:
    assert check(setting, setting.default) == setting.default


def test_command_line_beats_environment_beats_file_beats_default() -> None:
    file = {"server": {"port": 1111}}
    environment = {ENV_PREFIX + "PORT": "2222"}
    assert (resolved().port, resolved().sources["port"]) == (3000, Source.DEFAULT)
    assert (resolved(file=file).port, resolved(file=file).sources["port"]) == (1111, Source.FILE)
    with_environment = resolved(environment=environment, file=file)
    assert (with_environment.port, with_environment.sources["port"]) == (2222, Source.ENVIRONMENT)
    with_all = resolved({"port": 3333}, environment, file)
    assert (with_all.port, with_all.sources["port"]) == (3333, Source.COMMAND_LINE)


def test_plain_port_variable_works_and_the_prefixed_one_wins() -> None:
    assert resolved(environment={"PORT": "8080"}).port == 8080
    assert resolved(environment={"PORT": "8080", ENV_PREFIX + "PORT": "9090"}).port == 9090


def test_empty_variable_counts_as_unset() -> None:
    assert resolved(environment={"PORT": ""}).sources["port"] is Source.DEFAULT


@pytest.mark.parametrize("key", ["basePath", "baseModelsPath"])
def test_one_setting_has_many_names_in_the_file(key: str) -> None:
    assert resolved(file={key: "/m"}).models_dir == Path("/m")
    assert resolved(file={"llama": {"modelsDir": "/m"}}).models_dir == Path("/m")


def test_places_follow_the_data_directory() -> None:
    settings = resolved({"data_dir": "/elsewhere"})
    assert settings.models_dir == Path("/elsewhere/models")
    assert settings.database_path == Path("/elsewhere/service.db")
    assert settings.config_path == Path("/elsewhere/llama-server-config.json")
    assert {settings.logs_dir.parent, settings.presets_dir.parent} == {Path("/elsewhere")}
    assert resolved().data_dir == Path("/data")


def test_data_directory_is_known_before_the_file_is_read() -> None:
    assert data_dir_of({}, {ENV_PREFIX + "DATA_DIR": "/from-env"}, Path("/default")) == Path("/from-env")
    assert data_dir_of({"data_dir": "/cli"}, {ENV_PREFIX + "DATA_DIR": "/env"}, Path("/default")) == Path("/cli")
    assert data_dir_of({}, {}, Path("/default")) == Path("/default")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("insecure_no_auth", "yes", True),
        ("insecure_no_auth", "0", False),
        ("allowed_hosts", "a.example, b.example,", ("a.example", "b.example")),
        ("threads", "-1", -1),
        ("idle_ttl_s", "1.5", 1.5),
        ("engine", "embedded", "embedded"),
    ],
)
def test_text_becomes_the_settings_type(name: str, text: str, value: object) -> None:
    assert parse(BY_NAME[name], text, name) == value


def test_a_relative_path_on_the_command_line_is_made_absolute() -> None:
    assert parse(BY_NAME["models_dir"], "some/where", "--models-dir") == str(Path.cwd() / "some/where")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 0),
        ("port", 70000),
        ("port", "3000"),
        ("port", True),
        ("port", 1.5),
        ("port", float("nan")),
        ("insecure_no_auth", "true"),
        ("engine", "vllm"),
        ("models_dir", "relative/path"),
        ("models_dir", "/nul\0byte"),
        ("llama_server", None),
        ("allowed_hosts", "a"),
        ("allowed_hosts", [1]),
        ("ctx_size", -2),
    ],
)
def test_a_bad_value_names_the_field_as_it_was_spelled(name: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^some\.key: ") as caught:
        check(BY_NAME[name], value, "some.key")
    assert caught.value.field == "some.key"


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(InvalidInput, match="PORT: must be a number, not 'http'"):
        resolved(environment={"PORT": "http"})
    with pytest.raises(InvalidInput, match=r"server\.port: must be between 1 and 65535"):
        resolved(file={"server": {"port": 65536}})


def test_an_update_changes_only_what_it_names() -> None:
    before = resolved(file={"ctx_size": 4096})
    after = updated(before, {"maxModels": 2, "llama.modelsDir": "/m"})
    assert (after.max_models, after.models_dir, after.ctx_size) == (2, Path("/m"), 4096)
    assert after.sources["max_models"] is Source.RUNTIME
    assert before.max_models == 4


def test_one_bad_field_refuses_the_whole_update() -> None:
    with pytest.raises(InvalidInput, match="threads"):
        updated(resolved(), {"maxModels": 2, "threads": "many"})
    with pytest.raises(InvalidInput, match="nonsense: is not a setting"):
        updated(resolved(), {"nonsense": 1})


def test_clearing_the_models_directory_returns_to_the_default() -> None:
    settings = resolved(file={"basePath": "/m"})
    assert updated(settings, {"basePath": ""}).models_dir == Path("/data/models")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False),
     ("192.168.1.5", False), ("::", False), ("example.org", False)],
)  # fmt: skip
def test_only_loopback_counts_as_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("groups", "field"),
    [
        ([], "groups"),
        ({"big": ["a"]}, "groups.big"),
        ({"big": {"models": []}}, "groups.big.models"),
        ({"big": {"models": ["a"], "together": "no"}}, "groups.big.together"),
        ({"big": {"models": ["a"], "apart": True}}, "groups.big"),
    ],
)
def test_a_bad_group_names_what_is_wrong_with_it(groups: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check(BY_NAME["groups"], groups)
    assert caught.value.field == field


def test_groups_are_read_from_json_in_the_environment() -> None:
    given = parse(BY_NAME["groups"], '{"big": {"models": ["a", "b"]}}', "GROUPS")
    assert given == {"big": {"models": ["a", "b"], "together": False}}
    with pytest.raises(InvalidInput, match="GROUPS: must be JSON"):
        parse(BY_NAME["groups"], "{", "GROUPS")
