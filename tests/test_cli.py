from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_async_proxy import cli
from support.service import clean_environment, free_port


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv("LLAMA_ASYNC_PROXY_DATA_DIR", str(tmp_path / "data"))


def test_help_names_every_command_and_the_first_steps(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("serve", "models", "demo", "doctor", "http://127.0.0.1:3000"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["serve", "--port", "99999"], "--port: must be between 1 and 65535"),
        (["serve", "--port", "http"], "--port: must be a number"),
        (["serve", "--engine", "vllm"], "--engine: must be one of"),
        (["serve", "--host", "0.0.0.0"], "--insecure-no-auth"),
        (["models", "list", "--url", "ftp://somewhere"], "--url"),
    ],
)
def test_what_was_asked_wrongly_is_named_and_ends_with_2(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert named in capsys.readouterr().err


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LLAMA_ASYNC_PROXY_MAX_MODELS", "many")
    assert cli.main(["serve"]) == 2
    assert "LLAMA_ASYNC_PROXY_MAX_MODELS" in capsys.readouterr().err


def test_without_a_service_the_models_command_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "list", "--port", str(free_port())]) == 1
    assert "llama-async-proxy serve" in capsys.readouterr().err


SWAP = """
models:
  tiny:
    cmd: llama-server --port ${PORT} -m tiny.gguf -c 512
    filters: {setParamsByID: {"tiny:bold": {temperature: 1.5}}}
    aliases: [gpt-4o]
  gone: {cmd: "llama-server -m gone.gguf"}
groups: {g: {persistent: true, members: [tiny]}}
"""


def test_a_dry_run_of_an_import_shows_all_of_it_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.gguf").touch()
    (tmp_path / "swap.yaml").write_text(SWAP)
    assert cli.main(["import", "llama-swap", str(tmp_path / "swap.yaml"), "--dry-run"]) == 3
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        f"tiny: {tmp_path}/tiny.gguf",
        "    also called gpt-4o",
        "    --ctx-size 512",
        "    variant tiny:bold: temperature=1.5",
        "    stays loaded",
    ]
    assert "models.gone: not taken over" in shown.err


def test_an_import_of_which_nothing_is_left_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "swap.yaml").write_text(SWAP)
    assert cli.main(["import", "llama-swap", str(tmp_path / "swap.yaml"), "--dry-run"]) == 1
    assert "nothing was taken over" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["llama-swap", "ollama", "lm-studio"])
def test_an_import_from_nowhere_names_the_place(
    tmp_path: Path, program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "nowhere"
    assert cli.main(["import", program, str(place), "--dry-run"]) == 2
    assert str(place) in capsys.readouterr().err


def test_an_import_without_a_service_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "publisher/model").mkdir(parents=True)
    (tmp_path / "publisher/model/m.gguf").touch()
    assert cli.main(["import", "lm-studio", str(tmp_path), "--port", str(free_port())]) == 1
    assert "llama-async-proxy serve" in capsys.readouterr().err


def test_the_usual_place_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    folder = tmp_path / ".lmstudio/models/publisher/model"
    folder.mkdir(parents=True)
    (folder / "m.gguf").touch()
    assert cli.main(["import", "lm-studio", "--dry-run"]) == 0
    assert str(folder / "m.gguf") in capsys.readouterr().out


def test_demo_writes_into_the_models_directory_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "data/models/demo.gguf"
    assert cli.main(["demo"]) == 0
    assert written.is_file()
    before = written.stat().st_mtime_ns
    assert cli.main(["demo", "--if-empty"]) == 0
    assert written.stat().st_mtime_ns == before
    assert cli.main(["demo"]) == 2
    assert "--force" in capsys.readouterr().err
    assert cli.main(["demo", "--force"]) == 0
    assert written.stat().st_mtime_ns > before


def test_demo_leaves_a_directory_with_models_alone(tmp_path: Path) -> None:
    models = tmp_path / "mine/deep"
    models.mkdir(parents=True)
    (models / "real.gguf").write_bytes(b"GGUF")
    assert cli.main(["demo", "--if-empty", "--models-dir", str(tmp_path / "mine")]) == 0
    assert [p.name for p in (tmp_path / "mine").rglob("*.gguf")] == ["real.gguf"]


def test_demo_names_a_place_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", str(tmp_path / "file/demo.gguf")]) == 1
    assert str(tmp_path / "file/demo.gguf") in capsys.readouterr().err


def test_doctor_tells_problems_by_its_status_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "no-such-llama-server")
    arguments = ["doctor", "--port", str(free_port()), "--engine", "workers", "--llama-server", missing]
    assert cli.main(arguments) == 1
    text = capsys.readouterr().out
    assert "FAIL  engine" in text
    assert missing in text
    assert "max_models" in text
    assert cli.main([*arguments, "--json"]) == 0
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["engine"]["level"] == "problem"
    assert findings["port"]["level"] == "ok"
    assert findings["database"]["level"] == "ok"
    assert findings["models"]["advice"]
    assert not (tmp_path / "data").exists(), "an examination changes nothing"


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    command = [sys.executable, "-u", "-m", "llama_async_proxy", "doctor", "--engine", "embedded"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
