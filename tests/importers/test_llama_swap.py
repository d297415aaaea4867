from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.importers import llama_swap
from llama_async_proxy.importers.plan import ImportPlan, PlannedModel
from llama_async_proxy.records.models import Variant

REALISTIC = """
healthCheckTimeout: 500
logLevel: info
startPort: 10001
globalTTL: 300
apiKeys: ["sk-secret"]
macros:
  server: >
    /opt/llama.cpp/llama-server-b6543
    --port ${PORT} --metrics
  ctx: 4096
  common: "--ctx-size ${ctx} -ngl 99"
  models: "${env.STORE}/gguf"
models:
  qwen3:
    name: Qwen 3
    description: thinks
    macros: {ctx: 16384}
    cmd: |
      # the newest build
      ${server} ${common} \\
      --model '${models}/Qwen 3.gguf'
      --jinja
    aliases: [gpt-4o-mini, {id: gpt-4o, unlisted: true}]
    filters:
      stripParams: "top_p"
      setParams: {temperature: 0.6, stop: ["###"]}
      setParamsByID:
        "${MODEL_ID}:fast": {chat_template_kwargs: {enable_thinking: false}, max_tokens: "${ctx}"}
    ttl: 60
  qwen3-creative:
    ttl: 60
    cmd: ${server} ${common} --ctx-size 16384 --jinja -m "${models}/Qwen 3.gguf" --temp 1.3
  embed:
    cmd: llama-server --port ${PORT} -m models/embed.gguf --embeddings
    env: ["CUDA_VISIBLE_DEVICES=0"]
    unlisted: true
  gone:
    cmd: llama-server --port ${PORT} -m /nowhere/gone.gguf
  downloaded:
    cmd: llama-server --port ${PORT} -hf org/repo
  speech:
    cmd: /opt/whisper/server --port ${PORT} --host 127.0.0.1 -m "{odd}"
    checkEndpoint: /ready
    cmdStop: kill ${PID}
  wrapped:
    cmd: run.sh --listen 127.0.0.1:${PORT} --file models/wrapped.gguf --name ${MODEL_ID}
    env: [A=1]
    cmdStop: docker stop x
  fixed:
    cmd: python serve.py --port 8000
    proxy: http://127.0.0.1:8000
groups:
  always:
    persistent: true
    swap: false
    members: [embed, nobody]
hooks: {on_startup: {preload: [qwen3]}}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("store/gguf/Qwen 3.gguf", "models/embed.gguf", "models/wrapped.gguf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "config.yaml").write_text(REALISTIC)
    return tmp_path


@pytest.fixture
def plan(place: Path) -> ImportPlan:
    return llama_swap.read(place / "config.yaml", {"STORE": str(place / "store")})


def model(plan: ImportPlan, name: str) -> PlannedModel:
    [found] = [model for model in plan.models if model.name == name]
    return found


def test_macros_comments_and_variables_are_resolved(plan: ImportPlan, place: Path) -> None:
    qwen = model(plan, "qwen3")
    assert qwen.path == str(place / "store/gguf/Qwen 3.gguf")
    assert qwen.options == {"ctx-size": 16384, "n-gpu-layers": 99, "jinja": True, "temp": 0.6, "idle-ttl": 60}
    assert (qwen.description, qwen.aliases) == ("Qwen 3 - thinks", ("gpt-4o-mini", "gpt-4o"))


def test_parameters_by_id_and_a_second_entry_of_one_file_are_variants(plan: ImportPlan) -> None:
    thinking = {"enable_thinking": False}
    assert model(plan, "qwen3").variants == (
        Variant(
            "qwen3:fast",
            {"temperature": 0.6, "stop": ["###"], "chat_template_kwargs": thinking, "max_tokens": 16384},
        ),
        Variant("qwen3-creative", {"temperature": 1.3}),
    )


def test_members_of_a_persistent_group_stay_loaded(plan: ImportPlan, place: Path) -> None:
    embed = model(plan, "embed")
    assert (embed.is_pinned, embed.path) == (True, str(place / "models/embed.gguf"))
    assert embed.options == {"embeddings": True}
    assert not model(plan, "qwen3").is_pinned


def test_another_server_becomes_a_custom_command(plan: ImportPlan, place: Path) -> None:
    assert model(plan, "speech").path == "command:speech"
    assert model(plan, "speech").options == {
        "command": "/opt/whisper/server --port '{port}' --host 127.0.0.1 -m '{odd}'",
        "command-health": "/ready",
    }
    assert model(plan, "wrapped").path == str(place / "models/wrapped.gguf")
    assert model(plan, "wrapped").options == {
        "command": "run.sh --listen '127.0.0.1:{port}' --file '{model}' --name wrapped",
        "command-environment": "A=1",
        "command-stop": "docker stop x",
    }


@pytest.mark.parametrize(
    "problem",
    [
        "models.qwen3.filters.stripParams: not taken over",
        "models.qwen3.filters: taken over as defaults",
        "models.qwen3.filters: stop is not taken over for qwen3 itself",
        "models.embed.unlisted: not taken over",
        "models.embed.env: not taken over: options say the same",
        "models.gone: not taken over: there is no file /nowhere/gone.gguf",
        "models.downloaded: not taken over: its cmd names no model file (-m) and -hf is not taken over",
        "models.speech.cmdStop: not taken over",
        "models.fixed: not taken over: its cmd is no llama-server and takes no ${PORT}",
        "globalTTL: not taken over: it is a setting; start the service with --idle-ttl 300",
        "groups.always: has members that are no models: nobody",
        'groups.always: not taken over: it is a setting; add to groups: {"always": {"models": ["embed", "nobody"]',
        "hooks: not taken over",
        "apiKeys: not taken over",
    ],
)
def test_an_unsupported_setting_is_reported(plan: ImportPlan, problem: str) -> None:
    assert any(said.startswith(problem) for said in plan.problems), plan.problems


def test_there_are_no_other_problems_and_no_secret_is_printed(plan: ImportPlan) -> None:
    assert len(plan.problems) == 14
    assert "sk-secret" not in str(plan.problems)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("models: {a: {cmd: '${nobody} x'}}", "there is no macro nobody"),
        ("models: {a: {cmd: 'x ${env.NOBODY}'}}", "there is no variable of the environment NOBODY"),
        ("macros: {a: '${b}', b: '${a}'}\nmodels: {m: {cmd: '${a}'}}", "macros contain one another without end"),
        (
            "macros: {a: '${b}${b}', b: '${a}${a}'}\nmodels: {m: {cmd: '" + "${a}" * 99 + "'}}",
            "macros contain one another without end",
        ),
        ('models: {a: {cmd: "llama-server \'open"}}', "its cmd cannot be split into arguments"),
        ("models: {a: {}}", "it has no cmd"),
        ("models: {a: [1]}", "it has no cmd"),
    ],
)
def test_an_unusable_model_is_reported_and_the_others_are_imported(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "ok.gguf").touch()
    text = text.replace("models: {", "models: {ok: {cmd: llama-server -m ok.gguf}, ")
    plan = llama_swap.parse_config(text.encode(), tmp_path, {})
    assert [model.name for model in plan.models] == ["ok"]
    assert reason in plan.problems[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"models: [", "is no YAML"),
        (b"\xff\xfe\xfa", "is no YAML"),
        (b"a: !!python/object/apply:os.system [true]", "is no YAML"),
        (b"", "holds no models"),
        (b"- models", "holds no models"),
        (b"models: {}", "holds no models"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        llama_swap.parse_config(text, tmp_path, {})


def test_a_file_that_cannot_be_read_or_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        llama_swap.read(tmp_path / "none.yaml", {})
    (tmp_path / "big.yaml").write_bytes(b"#" * (llama_swap.MAX_FILE_BYTES + 1))
    with pytest.raises(InvalidInput, match="more than 4 MiB"):
        llama_swap.read(tmp_path / "big.yaml", {})


@settings(derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(REALISTIC)), st.integers(0, 40), st.sampled_from(["", ": ", "[", "- ", "'", "\t", "${a}"]))
def test_a_damaged_file_is_a_plan_or_refused(place: Path, start: int, length: int, instead: str) -> None:
    damaged = REALISTIC[:start] + instead + REALISTIC[start + length :]
    with suppress(InvalidInput):
        llama_swap.parse_config(damaged.encode(), place, {"STORE": str(place / "store")})
