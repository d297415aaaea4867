from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from llama_async_proxy.errors import InvalidInput, PermissionDenied, StoreUnavailable
from llama_async_proxy.store import config_file
from store.faults import fill, immutable, tiny_disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llama-server-config.json"


def test_a_missing_file_is_an_empty_configuration(path: Path) -> None:
    assert config_file.read(path) == {}


def test_reads_utf8_with_or_without_byte_order_mark(path: Path) -> None:
    path.write_bytes('\ufeff{"basePath": "/modèles"}'.encode())
    assert config_file.read(path) == {"basePath": "/modèles"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"port": 8134,\n  "host" "localhost"}', "line 2, column 10"),
        (b"", "line 1, column 1"),
        (b"[1, 2]", "must hold a JSON object"),
        (b'{"port": NaN}', "NaN is not JSON"),
        (b'{"host": "\xff"}', "byte 10 is not UTF-8"),
        (b"[" * 200_000, "is not usable JSON"),
    ],
)
def test_broken_content_is_refused_with_file_place_and_advice(path: Path, content: bytes, problem: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=problem) as raised:
        config_file.read(path)
    assert raised.value.field == str(path)
    assert raised.value.message.endswith(".")


def test_a_directory_in_the_files_place_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreUnavailable, match="Cannot read the configuration file") as raised:
        config_file.read(path)
    assert str(path) in raised.value.message


def test_merge_keeps_unknown_keys_and_the_order(path: Path) -> None:
    path.write_text('{"zeta": 1, "server": {"port": 1, "mine": [1, 2]}, "alpha": null}')
    config_file.merge_write(path, {"server.port": 4000, "server.host": "::1", "llama.engine": "auto"})
    assert path.read_text() == (
        json.dumps(
            {
                "zeta": 1,
                "server": {"port": 4000, "mine": [1, 2], "host": "::1"},
                "alpha": None,
                "llama": {"engine": "auto"},
            },
            indent=2,
        )
        + "\n"
    )


def test_merge_makes_the_file_and_its_directory_readable_by_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.json"
    config_file.merge_write(path, {"server.allowedHosts": ("müller.example",)})
    assert config_file.read(path) == {"server": {"allowedHosts": ["müller.example"]}}
    assert "müller" in path.read_text(encoding="utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_merge_keeps_the_files_mode(path: Path) -> None:
    path.write_text("{}")
    path.chmod(0o640)
    config_file.merge_write(path, {"port": 1})
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_merge_writes_through_a_link(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.json"
    target.write_text("{}")
    path.symlink_to(target)
    config_file.merge_write(path, {"port": 1})
    assert path.is_symlink()
    assert json.loads(target.read_text()) == {"port": 1}


def test_merge_refuses_to_lead_a_key_through_a_value(path: Path) -> None:
    path.write_text('{"server": "here"}')
    with pytest.raises(InvalidInput, match=r"server\.port.*'server'.*is not an object"):
        config_file.merge_write(path, {"port": 1, "server.port": 4000})
    assert path.read_text() == '{"server": "here"}'


@pytest.mark.parametrize("value", ["\ud800", float("inf")])
def test_merge_refuses_what_json_cannot_hold(path: Path, value: object) -> None:
    path.write_text("{}")
    with pytest.raises(InvalidInput, match="serverPath"):
        config_file.merge_write(path, {"serverPath": value})
    assert path.read_text() == "{}"


def test_merge_leaves_a_broken_file_alone(path: Path) -> None:
    path.write_text("{broken")
    with pytest.raises(InvalidInput, match="line 1"):
        config_file.merge_write(path, {"port": 1})
    assert path.read_text() == "{broken"


def test_a_file_in_the_directorys_place_is_named(tmp_path: Path) -> None:
    # Root may write anywhere; this fails for everybody.
    (tmp_path / "data").write_text("")
    path = tmp_path / "data" / "config.json"
    with pytest.raises(StoreUnavailable, match="--data-dir") as raised:
        config_file.merge_write(path, {"port": 1})
    assert str(path) in raised.value.message


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not stop this user")
def test_a_read_only_directory_is_named(path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionDenied, match="writable") as raised:
            config_file.merge_write(path, {"port": 1})
    finally:
        path.parent.chmod(0o700)
    assert str(path) in raised.value.message


def test_an_immutable_file_is_named_and_keeps_its_content(path: Path) -> None:
    path.write_text("{}")
    with immutable(path), pytest.raises(PermissionDenied, match="--data-dir") as raised:
        config_file.merge_write(path, {"port": 1})
    assert str(path) in raised.value.message
    assert path.read_text() == "{}"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        path = disk / "config.json"
        path.write_text('{"port": 1}')
        fill(disk)
        with pytest.raises(StoreUnavailable, match="Free some space"):
            config_file.merge_write(path, {"serverPath": "/" + "x" * 100_000})
        assert path.read_text() == '{"port": 1}'
        assert sorted(p.name for p in disk.iterdir()) == ["ballast", "config.json"]
