from __future__ import annotations

import json
from typing import Any

import pytest

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.inference.requests.names import NameIndex
from llama_async_proxy.inference.requests.routes import find
from llama_async_proxy.inference.requests.variants import with_defaults
from llama_async_proxy.records.models import Variant
from support.upstream import make_model

CREATIVE = Variant("creative", {"temperature": 1.2, "chat_template_kwargs": {"enable_thinking": False}}, "Be bold.")
HELLO = [{"role": "user", "content": "hello"}]


def sent(body: dict[str, Any] | str, path: str = "/v1/chat/completions", variant: Variant = CREATIVE) -> dict[str, Any]:
    route = find("POST", path)
    assert route is not None
    raw = body if isinstance(body, str) else json.dumps(body)
    answer: dict[str, Any] = json.loads(with_defaults(variant, route, raw.encode()))
    return answer


def test_parameters_left_out_get_the_defaults() -> None:
    assert sent({"model": "creative", "messages": HELLO}) == {
        "model": "creative",
        "messages": [{"role": "system", "content": "Be bold."}, *HELLO],
        "temperature": 1.2,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_the_clients_parameters_stay() -> None:
    own = {"temperature": 0, "chat_template_kwargs": {"x": 1}, "messages": [{"role": "system", "content": "mine"}]}
    assert sent(own) == own


def test_a_null_counts_as_left_out() -> None:
    assert sent({"messages": HELLO, "temperature": None})["temperature"] == 1.2


def test_the_clients_values_keep_their_bytes() -> None:
    route = find("POST", "/completion")
    assert route is not None
    body = b'{"prompt": "\\u00e9",  "n_probs":1.50e1}'
    defaults = with_defaults(Variant("v", {"top_k": 1}), route, body)
    assert defaults == b'{"prompt":"\\u00e9","n_probs":1.50e1,"top_k":1}'


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict", "max_output_tokens"])
def test_a_limit_of_length_counts_under_each_of_its_names(name: str) -> None:
    assert sent({"prompt": "a", name: 5}, "/v1/completions", Variant("v", {"max_tokens": 9})) == {
        "prompt": "a",
        name: 5,
    }


@pytest.mark.parametrize(("path", "key"), [("/v1/messages", "system"), ("/v1/responses", "instructions")])
def test_the_system_prompt_is_placed_as_its_api_has_it(path: str, key: str) -> None:
    assert sent({"messages": HELLO}, path)[key] == "Be bold."
    assert sent({"messages": HELLO, key: "mine"}, path)[key] == "mine"
    assert sent({"messages": HELLO}, path)["messages"] == HELLO


def test_a_developers_message_is_a_system_prompt() -> None:
    messages = [{"role": "developer", "content": "mine"}]
    assert sent({"messages": messages})["messages"] == messages


@pytest.mark.parametrize("messages", ["text", 7, None, [1], {}])
def test_invalid_messages_are_left_to_the_engine(messages: Any) -> None:
    assert sent({"messages": messages})["messages"] == messages


def test_a_completion_has_no_system_prompt() -> None:
    assert sent({"prompt": "Once"}, "/v1/completions", Variant("v", {}, "Be bold.")) == {"prompt": "Once"}


def test_a_form_and_a_query_pass_unchanged() -> None:
    for method, path in (("POST", "/v1/audio/transcriptions"), ("GET", "/props")):
        route = find(method, path)
        assert route is not None
        assert with_defaults(CREATIVE, route, b"--x\r\n") == b"--x\r\n"


@pytest.mark.parametrize("body", [b"[1]", b"{", b'{"\xff": 1}'])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    route = find("POST", "/v1/chat/completions")
    assert route is not None
    with pytest.raises(InvalidInput, match="body: is not a JSON object"):
        with_defaults(CREATIVE, route, body)


def test_a_variant_resolves_to_its_model_and_is_told_apart() -> None:
    model = make_model(1, "tiny", aliases=("gpt-4o",), variants=(CREATIVE,))
    index = NameIndex((model, make_model(2, "creative-writer")))
    assert index.resolve("Creative") is model
    assert index.variant("CREATIVE") is CREATIVE
    assert [index.variant(name) for name in ("tiny", "gpt-4o", "nobody", None)] == [None] * 4
    assert index.similar("creativ")[0] == "tiny"
