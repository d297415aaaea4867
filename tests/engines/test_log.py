from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.engines.log import (
    TAIL_LINES,
    EngineLogReader,
    StateLine,
    parse_log_line,
    parse_memory_line,
    parse_state_line,
)
from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.records.runtime import MemoryUse


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ("0.00.004.536 I srv    load_model: loading model 'a'", LogLevel.INFO, "srv load_model: loading model 'a'"),
        ("12.34.567.890 W srv  llama_server: careful", LogLevel.WARN, "srv llama_server: careful"),
        ("0.00.004.684 E gguf_init: invalid magic", LogLevel.ERROR, "gguf_init: invalid magic"),
        ("0.00.000.001 D x: y", LogLevel.DEBUG, "x: y"),
        ("0.00.000.001 T x: y", LogLevel.DEBUG, "x: y"),
        ("\x1b[31m0.00.000.001 E x: y\x1b[0m", LogLevel.ERROR, "x: y"),
        ("error: invalid argument: --foo", LogLevel.ERROR, "error: invalid argument: --foo"),
        ("/src/ggml.c:12: GGML_ASSERT(a) failed", LogLevel.ERROR, "/src/ggml.c:12: GGML_ASSERT(a) failed"),
        ("terminate called after throwing an instance", LogLevel.ERROR, "terminate called after throwing an instance"),
        ("warning: old flag", LogLevel.WARN, "warning: old flag"),
        ("just text  ", LogLevel.INFO, "just text"),
        ("", LogLevel.INFO, ""),
    ],
)
def test_a_log_line_gives_level_and_message(line: str, level: LogLevel, message: str) -> None:
    assert parse_log_line(line) == (level, message)


def test_a_line_of_json_gives_level_and_message() -> None:
    line = '{"type":"log","time":7095,"level":"error","msg":"srv    load_model: failed\\n"}'
    assert parse_log_line(line) == (LogLevel.ERROR, "srv load_model: failed")
    assert parse_log_line('{"type":"log","level":"cont","msg":"."}') == (LogLevel.INFO, ".")
    assert parse_log_line('{"half') == (LogLevel.INFO, '{"half')


def test_the_memory_breakdown_is_split_between_host_and_gpus() -> None:
    rows = [
        {"kind": "device", "name": "CUDA0", "self": 60, "model": 30, "context": 20, "compute": 10},
        {"kind": "host", "name": "Host", "self": 6, "model": 3, "context": 2, "compute": 1},
        {"kind": "buffer_type", "name": "CPU_REPACK", "self": 4, "model": 4, "context": 0, "compute": 0},
    ]
    line = {"type": "fit_memory_breakdown", "data": {"unit": "MiB", "rows": rows}}
    assert parse_memory_line(json.dumps(line)) == MemoryUse(10 << 20, 60 << 20)


@pytest.mark.parametrize(
    "line",
    [
        "text",
        "{",
        "[]",
        '{"type":"log","msg":"a"}',
        '{"type":"fit_memory_breakdown"}',
        '{"type":"fit_memory_breakdown","data":{"unit":"GiB","rows":[]}}',
        '{"type":"fit_memory_breakdown","data":{"unit":"MiB","rows":[1]}}',
    ],
)
def test_other_lines_have_no_memory_breakdown(line: str) -> None:
    assert parse_memory_line(line) is None


def log_of(*lines: str) -> EngineLogReader:
    reader = EngineLogReader()
    for line in lines:
        reader.add(*parse_log_line(line))
    return reader


def test_a_line_of_megabytes_explains_a_failure_in_short() -> None:
    reader = log_of("E " + "x" * 3_000_000)
    assert len(reader.failure) <= 2001
    assert all(len(line) <= 2001 for line in reader.tail)


def test_the_first_error_is_the_reason() -> None:
    reader = log_of(
        "0.00.000.001 I srv  llama_server: initializing ...",
        "0.00.000.002 E gguf_init_from_reader: invalid magic characters: 'not ', expected 'GGUF'",
        "0.00.000.003 E srv  llama_server: exiting due to model loading error",
    )
    assert reader.failure == "invalid magic characters: 'not ', expected 'GGUF'"
    assert reader.tail[0] == "srv llama_server: initializing ..."


def test_an_error_about_a_missing_gpu_is_the_reason_only_without_another_error() -> None:
    cuda = "0.00.000.001 E ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"
    assert log_of(cuda, "0.00.000.002 E srv    load_model: out of memory").failure == "out of memory"
    assert log_of(cuda).failure.startswith("failed to initialize CUDA")


def test_without_an_error_the_last_line_is_the_reason() -> None:
    assert log_of("one", "two").failure == "two"
    assert log_of().failure == "it printed nothing"


def test_the_last_error_of_a_process_is_found() -> None:
    request = "0.00.000.001 E srv    send_error: the request exceeds the context size"
    idle = "0.00.000.002 I srv  update_slots: all slots are idle"
    assert log_of(request, "/src/ggml.c:12: GGML_ASSERT(a) failed", idle).last_error.endswith("GGML_ASSERT(a) failed")
    assert log_of(request, *[idle] * TAIL_LINES).last_error == ""
    assert log_of().last_error == ""


def test_the_tail_is_bounded() -> None:
    reader = log_of(*(f"line {n}" for n in range(1000)))
    assert reader.tail == tuple(f"line {n}" for n in range(1000 - TAIL_LINES, 1000))


@pytest.mark.parametrize(
    "line",
    [
        "0.00.002.808 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 9872",
        "OSError: [Errno 98] Address already in use",
    ],
)
def test_a_taken_port_is_recognised(line: str) -> None:
    assert log_of(line).is_port_taken
    assert not log_of("0.00.000.001 E x: failed to load model").is_port_taken


# --- state lines ------------------------------------------------------------------------------------------


def state_line(**document: object) -> str:
    return "cmd_child_to_router:state:" + json.dumps(document)


def test_state_lines() -> None:
    loading = state_line(state="loading", payload={"stages": ["text_model"], "current": "text_model", "value": 0.25})
    assert parse_state_line(loading) == StateLine("loading", "text_model", 0.25)
    assert parse_state_line(state_line(state="ready", payload={"id": "x"})) == StateLine("ready")
    assert parse_state_line(state_line(state="sleeping")) == StateLine("sleeping")
    assert parse_state_line(state_line(state="loading", payload={"value": 7})) == StateLine("loading", None, 1.0)


@pytest.mark.parametrize(
    "rest", ["", "{", "[]", '"x"', "null", "{}", '{"state":"loading","payload":3}', '{"state":"a","payload":[1]}']
)
def test_a_malformed_state_line_is_none(rest: str) -> None:
    assert parse_state_line(f"cmd_child_to_router:state:{rest}") is None


@given(st.text())
def test_parsers_of_output_never_fail(text: str) -> None:
    parse_log_line(text)
    parse_state_line("cmd_child_to_router:state:" + text)
    parse_state_line(text)
