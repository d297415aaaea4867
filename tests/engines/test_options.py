from __future__ import annotations

import json
import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.engines.options import (
    RESERVED,
    TAIL_LINES,
    EngineLogReader,
    StateLine,
    arguments,
    check_options,
    parse_log_line,
    parse_memory_line,
    parse_state_line,
)
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec, MemoryUse

ENDPOINT = Endpoint("127.0.0.1", 4321)
OWN = ["--host", "127.0.0.1", "--port", "4321", "--model", "/m/a b.gguf", "--alias", "a-b"]


def tail_of(
    options: dict[str, OptionValue], kind: ModelKind = ModelKind.CHAT, mmproj_path: str | None = None
) -> list[str]:
    """The arguments after those every model gets."""
    spec = LaunchSpec(1, "a-b", "/m/a b.gguf", kind, options, mmproj_path)
    whole = arguments(spec, ENDPOINT)
    assert whole[: len(OWN)] == OWN
    return whole[len(OWN) :]


# --- the command line -------------------------------------------------------------------------------------


def test_values_become_items_of_their_own() -> None:
    options: dict[str, OptionValue] = {"ctx-size": 4096, "temp": 0.7, "top-k": 40.0, "chat-template": "{{ 'a b' }}"}
    expected = ["--ctx-size", "4096", "--temp", "0.7", "--top-k", "40", "--chat-template", "{{ 'a b' }}"]
    assert tail_of(options) == ["--metrics", *expected]


def test_switches_have_a_negative_form() -> None:
    options: dict[str, OptionValue] = {"kv-unified": True, "warmup": False, "no-mmproj": False}
    assert tail_of(options) == ["--metrics", "--kv-unified", "--no-warmup", "--mmproj"]


@pytest.mark.parametrize(("kind", "flag"), [(ModelKind.EMBEDDING, "--embeddings"), (ModelKind.RERANK, "--reranking")])
def test_the_kind_brings_its_flag(kind: ModelKind, flag: str) -> None:
    assert tail_of({}, kind) == ["--metrics", flag]


@pytest.mark.parametrize("key", ["embeddings", "embedding"])
def test_a_caller_overrides_what_the_kind_brings_under_either_name(key: str) -> None:
    assert tail_of({key: False, "metrics": False}, ModelKind.EMBEDDING) == []
    assert tail_of({key: True}, ModelKind.EMBEDDING) == ["--metrics", "--embeddings"]


def test_a_companion_projector_is_passed_unless_another_is_chosen() -> None:
    assert tail_of({}, mmproj_path="/m/mmproj.gguf") == ["--metrics", "--mmproj", "/m/mmproj.gguf"]
    assert tail_of({"mmproj": "/m/other.gguf"}, mmproj_path="/m/mmproj.gguf")[-1] == "/m/other.gguf"
    assert tail_of({"mmproj": False}, mmproj_path="/m/mmproj.gguf") == ["--metrics", "--no-mmproj"]


@pytest.mark.parametrize("key", ["", "-c", "--ctx-size", "Ctx", "ctx size", "a=b", "ctx_size", "x;y", "a\n", "é"])
def test_a_key_that_is_no_option_name_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match="long option name") as caught:
        check_options({key: 1})
    assert caught.value.field == f"options.{key}"


@pytest.mark.parametrize("key", ["host", "port", "model", "alias", "api-key", "models-dir", "help", "log-jsonl"])
def test_the_engines_own_options_are_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match="set by the engine"):
        check_options({key: "x"})


@pytest.mark.parametrize("value", [math.nan, math.inf, "a\0b", "--host", "-m", "-ngl"])
def test_a_value_that_would_be_read_otherwise_is_refused(value: OptionValue) -> None:
    with pytest.raises(InvalidInput, match=r"options\.metrics"):
        check_options({"metrics": value})


@pytest.mark.parametrize("value", [[1], None, {"a": 1}])
def test_a_value_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="must be text, a number"):
        check_options({"temp": value})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", ["-1", "-0.5", "- a list", "", "ünï", "a --host b", "$(reboot)"])
def test_values_that_merely_look_odd_pass_unchanged(value: str) -> None:
    assert tail_of({"grammar": value})[-1] == value


@given(
    st.dictionaries(
        st.one_of(st.text(string.ascii_lowercase + "-"), st.sampled_from(sorted(RESERVED))),
        st.one_of(st.booleans(), st.integers(), st.floats(), st.text(), st.just("--host")),
    )
)
def test_no_options_can_bring_in_a_reserved_flag(options: dict[str, OptionValue]) -> None:
    try:
        items = tail_of(options)
    except InvalidInput:
        return
    assert not {item.removeprefix("--") for item in items if item.startswith("--")} & RESERVED


# --- the log ----------------------------------------------------------------------------------------------


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


def test_the_memory_the_engine_counts_is_split_between_host_and_gpus() -> None:
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
def test_other_lines_count_no_memory(line: str) -> None:
    assert parse_memory_line(line) is None


def digest_of(*lines: str) -> EngineLogReader:
    digest = EngineLogReader()
    for line in lines:
        digest.add(*parse_log_line(line))
    return digest


def test_the_first_error_is_the_reason() -> None:
    digest = digest_of(
        "0.00.000.001 I srv  llama_server: initializing ...",
        "0.00.000.002 E gguf_init_from_reader: invalid magic characters: 'not ', expected 'GGUF'",
        "0.00.000.003 E srv  llama_server: exiting due to model loading error",
    )
    assert digest.failure == "invalid magic characters: 'not ', expected 'GGUF'"
    assert digest.tail[0] == "srv llama_server: initializing ..."


def test_the_complaint_about_a_missing_gpu_is_not_the_reason_when_there_is_another() -> None:
    cuda = "0.00.000.001 E ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"
    assert digest_of(cuda, "0.00.000.002 E srv    load_model: out of memory").failure == "out of memory"
    assert digest_of(cuda).failure.startswith("failed to initialize CUDA")


def test_without_an_error_the_last_line_is_the_reason() -> None:
    assert digest_of("one", "two").failure == "two"
    assert digest_of().failure == "it printed nothing"


def test_last_words_are_the_last_error() -> None:
    request = "0.00.000.001 E srv    send_error: the request exceeds the context size"
    idle = "0.00.000.002 I srv  update_slots: all slots are idle"
    assert digest_of(request, "/src/ggml.c:12: GGML_ASSERT(a) failed", idle).last_words.endswith(
        "GGML_ASSERT(a) failed"
    )
    assert digest_of(request, *[idle] * TAIL_LINES).last_words == ""
    assert digest_of().last_words == ""


def test_the_tail_is_bounded() -> None:
    digest = digest_of(*(f"line {n}" for n in range(1000)))
    assert digest.tail == tuple(f"line {n}" for n in range(1000 - TAIL_LINES, 1000))


@pytest.mark.parametrize(
    "line",
    [
        "0.00.002.808 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 9872",
        "OSError: [Errno 98] Address already in use",
    ],
)
def test_a_taken_port_is_recognised(line: str) -> None:
    assert digest_of(line).is_port_taken
    assert not digest_of("0.00.000.001 E x: failed to load model").is_port_taken


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
