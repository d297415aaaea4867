from __future__ import annotations

import configparser
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from llama_async_proxy.engines.environment import router_environment
from llama_async_proxy.engines.log import StateLine
from llama_async_proxy.engines.remote_router import parse_url, read_api_key
from llama_async_proxy.engines.router_schema import (
    NotARouter,
    RouterModel,
    RouterModelEvent,
    Spawned,
    is_writable,
    parse_event,
    parse_exited,
    parse_models,
    parse_spawned,
    preset_ini,
    section,
    split_line,
    without_options,
)
from llama_async_proxy.errors import EngineMissing, InvalidInput
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import CustomCommand, Endpoint, LaunchSpec


def spec(path: str = "/m/a b.gguf", kind: ModelKind = ModelKind.CHAT, **options: OptionValue) -> LaunchSpec:
    return LaunchSpec(1, "a", path, kind, {key.replace("_", "-"): value for key, value in options.items()})


# --- the preset file ----------------------------------------------------------------------------------


def test_a_section_holds_path_kind_and_options() -> None:
    text = section(spec(kind=ModelKind.EMBEDDING, ctx_size=4096, temp=0.7, threads=2.0, mlock=True, mmap=False))
    assert text.splitlines() == [
        *("[a]", "model = /m/a b.gguf", "stop-timeout = 2", "metrics = true", "embeddings = true"),
        *("ctx-size = 4096", "temp = 0.7", "threads = 2", "mlock = true", "no-mmap = true"),
    ]


def test_a_models_own_stop_timeout_is_written() -> None:
    assert "stop-timeout = 30" in section(replace(spec(), stop_timeout_s=30.0)).splitlines()


def test_a_kind_that_was_turned_off_and_a_double_negative() -> None:
    lines = section(spec(kind=ModelKind.EMBEDDING, embeddings=False, no_warmup=False)).splitlines()
    assert "warmup = true" in lines
    assert not [line for line in lines if "embeddings" in line]


def test_the_file_can_be_read_by_an_ini_parser() -> None:
    text = preset_ini([spec(), LaunchSpec(2, "b", "/m/b.gguf", ModelKind.RERANK, mmproj_path="/m/p.gguf")])
    head, _, rest = text.partition("\n\n")
    assert head == "version = 1"
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(rest)
    assert parser["a"]["model"] == "/m/a b.gguf"
    assert dict(parser["b"]) == {
        "model": "/m/b.gguf",
        "stop-timeout": "2",
        "metrics": "true",
        "reranking": "true",
        "mmproj": "/m/p.gguf",
    }


@pytest.mark.parametrize("text", ["a;b", "a#b", "a\nb", "a\rb"])
def test_a_value_that_the_file_cannot_hold_is_named(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"options\.grammar: cannot be passed to the router"):
        section(spec(grammar=text))
    with pytest.raises(InvalidInput, match=r"model: cannot be passed to the router"):
        section(spec(path=f"/m/{text}.gguf"))
    assert not is_writable(spec(path=f"/m/{text}.gguf"))


def test_a_model_with_a_command_is_not_written() -> None:
    assert not is_writable(LaunchSpec(1, "a", "/m", ModelKind.CHAT, command=CustomCommand(("serve", "{port}"))))


def test_without_options_only_the_options_are_removed() -> None:
    assert section(without_options(spec(ctx_size=1))).splitlines()[1:] == [
        *("model = /m/a b.gguf", "stop-timeout = 2", "metrics = true"),
    ]


# --- list and events -------------------------------------------------------------------------------------


def listed(**status: object) -> dict[str, object]:
    return {"data": [{"id": "a", "aliases": ["b"], "status": {"value": "unloaded", **status}}]}


def test_the_list_has_state_file_and_exit_code() -> None:
    assert parse_models(listed(args=["x", "--model", "/m/a.gguf"], failed=True, exit_code=3)) == (
        RouterModel("a", "unloaded", 3, "/m/a.gguf", ("b",)),
    )
    assert parse_models(listed(args=["--model"], exit_code=3)) == (RouterModel("a", "unloaded", aliases=("b",)),)


@pytest.mark.parametrize("document", [{}, [], None, {"data": {}}, {"data": [{"id": "a"}]}, {"data": [5]}])
def test_an_answer_that_is_no_routers_list_is_refused(document: object) -> None:
    with pytest.raises(NotARouter):
        parse_models(document)


@pytest.mark.parametrize(
    ("data", "event"),
    [
        ({"status": "loading"}, RouterModelEvent("a", "loading")),
        ({"status": "unloaded", "exit_code": 1}, RouterModelEvent("a", "unloaded", 1)),
        (
            {"status": "loading", "progress": {"stages": ["text_model"], "current": "text_model", "value": 0.5}},
            RouterModelEvent("a", "loading", None, StateLine("loading", "text_model", 0.5)),
        ),
    ],
)
def test_events_under_both_names_are_parsed(data: object, event: RouterModelEvent) -> None:
    for name in ("model_status", "status_change"):
        assert parse_event(json.dumps({"model": "a", "event": name, "data": data})) == event


def test_a_reload_concerns_every_model() -> None:
    assert parse_event('{"model":"*","event":"models_reload"}') == RouterModelEvent("*", "models_reload")


@pytest.mark.parametrize(
    "data",
    ["", "x", "5", "[]", "{}", '{"model":"a","event":"download_progress","data":{"done":1}}', '{"model":"a","data":5}'],
)
def test_other_events_are_ignored(data: str) -> None:
    assert parse_event(data) is None


def test_lines_of_the_log_belong_to_their_process() -> None:
    assert split_line("[4321] 0.00.001.234 I srv x: y") == (4321, "0.00.001.234 I srv x: y")
    assert split_line("0.00.001.234 I srv x: y") == (None, "0.00.001.234 I srv x: y")
    assert parse_spawned("srv load: spawning server instance with name=a b on port 4321") == Spawned("a b", 4321)
    assert parse_exited("srv run: instance name=a b exited with status 1") == "a b"
    assert (parse_spawned("srv load: x"), parse_exited("srv load: x")) == (None, None)


# --- its address --------------------------------------------------------------------------------------


def test_an_address_is_host_and_port() -> None:
    assert parse_url("http://gpu.lan:8080/") == Endpoint("gpu.lan", 8080)
    assert parse_url("http://[::1]:9") == Endpoint("::1", 9)


@pytest.mark.parametrize("url", ["gpu:8080", "https://gpu:1", "http://", "http://a/b", "http://u:p@a", "http://a:x"])
def test_another_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"llama\.routerUrl"):
        parse_url(url)


def test_the_router_itself_does_not_get_the_childs_variable() -> None:
    assert router_environment({"HOME": "/h"}) == {"HOME": "/h", "LLAMA_ARG_CORS_ORIGINS": "http://127.0.0.1"}


# --- the API key of a remote router ------------------------------------------------------------------


def test_a_key_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sesame \nanother\n")
    assert read_api_key(file) == "sesame"


@pytest.mark.parametrize("content", [b"", b"\nkey", b"two words", b"\xff\xfe", b"a\x00b"])
def test_a_file_without_a_key_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(EngineMissing, match=str(file)):
        read_api_key(file)
    with pytest.raises(EngineMissing, match="cannot be read"):
        read_api_key(tmp_path / "none")
