from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from llama_async_proxy.errors import InvalidInput, PermissionDenied
from llama_async_proxy.operations.option_policy import OptionPolicy
from llama_async_proxy.presets.ini import Document
from llama_async_proxy.presets.validation import ProblemKind
from llama_async_proxy.records.models import Model, ModelFacts, ModelKind, ModelOrigin
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.settings import resolve
from support.engine_help import CATALOGUE

GGUF = b"GGUF\x03\0\0\0"


def policy(directory: Path, models: Iterable[Model] = ()) -> OptionPolicy:
    given = {"models_dir": str(directory / "models"), "data_dir": str(directory / "data")}
    settings = resolve(command_line=given, environment={}, file={}, default_data_dir=directory)
    return OptionPolicy(lambda: settings, lambda: tuple(models))


def model(path: Path) -> Model:
    facts = ModelFacts(architecture="llama", kind=ModelKind.CHAT)
    return Model(1, "m", "M", str(path), ModelOrigin.SCANNED, facts, size_bytes=1, mtime_ns=1)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "models" / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "models" / "a.gguf").write_bytes(GGUF)
    (tmp_path / "models" / "sub" / "b.gguf").write_bytes(GGUF)
    (tmp_path / "models" / "text.gguf").write_text("secret")
    (tmp_path / "elsewhere" / "c.gguf").write_bytes(GGUF)
    (tmp_path / "models" / "out.gguf").symlink_to(tmp_path / "elsewhere" / "c.gguf")
    os.mkfifo(tmp_path / "models" / "pipe.gguf")
    return tmp_path


def refusal(of: OptionPolicy, key: str, value: OptionValue, beside: tuple[str, ...] = ()) -> str:
    try:
        of.check({key: value}, CATALOGUE, beside=beside)
    except PermissionDenied as exc:
        return exc.message
    return ""


def test_a_gguf_file_in_the_models_directory_may_be_read(files: Path) -> None:
    models = files / "models"
    assert refusal(policy(files), "mmproj", str(models / "a.gguf")) == ""
    assert refusal(policy(files), "lora", f"{models}/a.gguf,{models}/sub/b.gguf") == ""
    assert refusal(policy(files), "lora-scaled", f"{models}/a.gguf:0.5") == ""
    assert refusal(policy(files), "mm", str(models / "a.gguf")) == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/etc/passwd", "GGUF"),
        ("{}/models/text.gguf", "GGUF"),
        ("{}/models/none.gguf", "GGUF"),
        ("{}/models/pipe.gguf", "GGUF"),
        ("{}/models/sub", "GGUF"),
        ("{}/models/sub/../../elsewhere/c.gguf", "models directory"),
        ("{}/models/out.gguf", "models directory"),
        ("{}/elsewhere/c.gguf", "models directory"),
        ("models/a.gguf", "absolute"),
        ("file:///etc/passwd", "absolute"),
    ],
)
def test_no_other_file_may_be_read(files: Path, path: str, why: str) -> None:
    for key, value in (("mmproj", path), ("lora", f"{files}/models/a.gguf,{path}")):
        message = refusal(policy(files), key, value.format(files))
        assert why in message
        assert message.startswith(f"options.{key} ")


def test_a_file_beside_a_registered_model_may_be_read(files: Path) -> None:
    path = str(files / "elsewhere" / "c.gguf")
    assert refusal(policy(files, [model(files / "elsewhere" / "m.gguf")]), "mmproj", path) == ""
    assert refusal(policy(files), "mmproj", path, (str(files / "elsewhere" / "new.gguf"),)) == ""
    other = model(files / "models" / "a.gguf")
    assert refusal(policy(files, [other]), "mmproj", path) != ""


def test_the_refusal_names_the_option_the_reason_and_the_way_by_hand(tmp_path: Path) -> None:
    message = refusal(policy(tmp_path), "log-file", "/tmp/x")
    assert message.startswith("options.log-file may not be set over the network, because it reads or writes files")
    assert "--option log-file=/tmp/x" in message
    assert str(tmp_path / "data" / "llama-server-config.json") in message
    assert str(tmp_path / "data" / "presets") in message


def test_what_the_service_sets_itself_cannot_be_chosen_by_anybody(tmp_path: Path) -> None:
    for key in ("host", "LLAMA_ARG_HOST", "model", "command", "api-key"):
        with pytest.raises(InvalidInput, match="is set by the engine"):
            policy(tmp_path).check({key: "x"}, CATALOGUE)


def lines(of: OptionPolicy, new: str, old: str | None = None) -> list[tuple[str, str, int]]:
    before = None if old is None else Document.parse(old)
    found = list(of.preset_problems(Document.parse(new), before, CATALOGUE))
    assert {problem.kind for problem in found} <= {ProblemKind.OWNER}
    return [(problem.section, problem.key, problem.line) for problem in found]


def test_lines_of_a_preset_are_named(tmp_path: Path) -> None:
    text = "version = 1\n[*]\nc = 1\nLLAMA_ARG_LOG_FILE = /x\n[group:g]\nag = true\n[m]\ngroup = g\nmodel = /m.gguf\n"
    assert lines(policy(tmp_path), text + "mm = /p\n") == [
        ("*", "LLAMA_ARG_LOG_FILE", 4),
        ("group:g", "ag", 6),
        ("m", "mm", 10),
    ]


def test_what_the_file_on_disk_says_already_may_stay_as_it_is(tmp_path: Path) -> None:
    old = "[*]\nlog-file = /x\n"
    of = policy(tmp_path)
    assert lines(of, "; a note\n[*]\nc = 1\nlog-file = /x\n", old) == []
    assert lines(of, "[*]\nlog-file = /y\n", old) == [("*", "log-file", 2)]
    assert lines(of, "[*]\nLLAMA_ARG_LOG_FILE = /x\n", old) == [("*", "LLAMA_ARG_LOG_FILE", 2)]
    assert lines(of, "[m]\nlog-file = /x\n", old) == [("m", "log-file", 2)]


def test_a_line_that_a_later_section_hides_is_not_there(tmp_path: Path) -> None:
    hidden = "[*]\nlog-file = /x\n[*]\nc = 1\n"
    assert lines(policy(tmp_path), hidden) == []
    assert lines(policy(tmp_path), "[*]\nlog-file = /x\n", hidden) == [("*", "log-file", 2)]


def test_a_refused_preset_names_every_line(tmp_path: Path) -> None:
    document = Document.parse("[*]\nlog-file = /x\nag = true\n")
    with pytest.raises(PermissionDenied) as caught:
        policy(tmp_path).check_preset("mine", document, None, CATALOGUE)
    assert caught.value.message.startswith("mine: line 2, column 1: [*] log-file may not be set over the network")
    assert "line 3" in (caught.value.details or "")
