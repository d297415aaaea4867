from __future__ import annotations

import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.engines.arguments import RESERVED, check_options, command_line
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec

ENDPOINT = Endpoint("127.0.0.1", 4321)
OWN = ["--host", "127.0.0.1", "--port", "4321", "--model", "/m/a b.gguf", "--alias", "a-b"]


def tail_of(
    options: dict[str, OptionValue], kind: ModelKind = ModelKind.CHAT, mmproj_path: str | None = None
) -> list[str]:
    """Arguments after those that every model gets."""
    spec = LaunchSpec(1, "a-b", "/m/a b.gguf", kind, options, mmproj_path)
    whole = command_line(spec, ENDPOINT)
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
def test_a_caller_overrides_the_kinds_flag_under_either_name(key: str) -> None:
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
def test_a_value_that_llama_server_would_misread_is_refused(value: OptionValue) -> None:
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
