"""The environment variables of children."""

from __future__ import annotations

import pytest

from llama_async_proxy.engines.environment import API_KEY_VARIABLE, child_environment, passed_environment

SECRETS = ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "CUDA_REGISTRY_TOKEN", "DATABASE_URL")
READ_BY_LLAMA_CPP = (
    "LLAMA_ARG_CTX_SIZE",
    "LLAMA_ARG_MODELS_DIR",
    "LLAMA_CACHE",
    "AIP_HTTP_PORT",
    "AIP_MODE",
    "HF_HOME",
)


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"]
)
def test_a_child_gets_the_variables_for_libraries_gpu_and_home(name: str) -> None:
    assert passed_environment({name: "x"}) == {name: "x"}


@pytest.mark.parametrize("name", [*SECRETS, *READ_BY_LLAMA_CPP, "LLAMA_ASYNC_PROXY_PORT", "EDITOR"])
def test_a_child_gets_neither_secrets_nor_llama_cpps_variables(name: str) -> None:
    assert passed_environment({name: "x"}) == {}


def test_the_settings_may_name_more_variables() -> None:
    ours = {"HF_TOKEN": "x", "HF_HOME": "y", "ACME_A": "1", "ACME_B": "2", "ACM": "3"}
    assert passed_environment(ours, ("HF_TOKEN", "ACME_*")) == {"HF_TOKEN": "x", "ACME_A": "1", "ACME_B": "2"}


def test_a_model_reports_its_state_and_answers_no_web_page() -> None:
    environment = child_environment({"PATH": "/bin", API_KEY_VARIABLE: "x"})
    assert (environment["LLAMA_SERVER_ROUTER_PORT"], environment["PATH"]) == ("1", "/bin")
    assert environment["LLAMA_ARG_CORS_ORIGINS"] == "http://127.0.0.1"
    assert API_KEY_VARIABLE not in environment, "each process gets a key of its own"


def test_origins_from_the_settings_replace_the_default() -> None:
    named = passed_environment({"LLAMA_ARG_CORS_ORIGINS": "*"}, ("LLAMA_ARG_CORS_ORIGINS",))
    assert child_environment(named)["LLAMA_ARG_CORS_ORIGINS"] == "*"
