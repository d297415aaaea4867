from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_async_proxy.client import get_default_config, load_config, save_config, validate_config


def test_a_missing_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path / "none.json") == get_default_config()


def test_what_is_saved_is_loaded_and_other_keys_stay(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "llama-server-config.json"
    save_config(get_default_config(), path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "server": {"port": 4000}}))
    save_config({**get_default_config(), "ctx_size": 4096}, path)
    assert load_config(path)["ctx_size"] == 4096
    assert json.loads(path.read_text())["server"] == {"port": 4000}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_each_wrong_value_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    wrong = {"port": 70000, "basePath": "models", "host": None, "threads": True}
    found = validate_config(wrong)
    assert not found["valid"]
    assert [error.partition(":")[0] for error in found["errors"]] == list(wrong)
    path = tmp_path / "config.json"
    with pytest.raises(ValueError, match="port"):
        save_config({**get_default_config(), "port": 0}, path)
    assert not path.exists()


def test_a_part_can_be_valid() -> None:
    assert validate_config({"port": 1, "serverPath": ""}) == {"valid": True, "errors": []}


def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    for text in ("[]", "{", '{"port": "8134"}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError):
            load_config(tmp_path / "config.json")
