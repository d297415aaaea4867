from __future__ import annotations

import msgspec.structs
import pytest

from llama_async_proxy.chats.prompt import defaults, merged, newest, request_body, without_oldest
from llama_async_proxy.records.chats import Attachment, Image, Message, MessageStatus, Role, Sampling
from support.upstream import make_settings


def thread(*contents: str) -> list[Message]:
    """Messages with alternating roles, the user first."""
    roles = (Role.USER, Role.ASSISTANT)
    return [
        Message(n, 1, n - 1 or None, roles[(n - 1) % 2], text, None, None, MessageStatus.COMPLETE, True, 0)
        for n, text in enumerate(contents, 1)
    ]


def sent(*contents: str, limit: int = 0, system: str = "") -> list[tuple[str, str]]:
    body = request_body(system, newest(thread(*contents), limit), {}, Sampling())
    messages = body["messages"]
    assert isinstance(messages, list)
    return [(message["role"], message["content"]) for message in messages]


def test_the_system_prompt_comes_first() -> None:
    assert sent("a", system="Be kind.") == [("system", "Be kind."), ("user", "a")]


@pytest.mark.parametrize(("limit", "first"), [(0, "a"), (5, "a"), (4, "c"), (3, "c"), (2, "e"), (1, "e")])
def test_only_the_newest_messages_are_sent_and_the_user_begins(limit: int, first: str) -> None:
    assert sent("a", "b", "c", "d", "e", limit=limit)[0] == ("user", first)


def test_roles_alternate_where_answers_are_missing() -> None:
    assert sent("a", "", "b") == [("user", "a\n\nb")]


@pytest.mark.parametrize(("share", "first"), [(1.0, "3"), (0.8, "3"), (0.5, "5"), (0.2, "5"), (0.1, "5")])
def test_the_oldest_messages_are_dropped_and_the_last_never(share: float, first: str) -> None:
    """Of several messages at least the first is always dropped."""
    messages = without_oldest(thread("1" * 10, "2" * 10, "3" * 10, "4" * 10, "5" * 10), share)
    assert messages[0].content[0] == first
    assert messages[-1].content[0] == "5"


def test_a_single_message_is_never_dropped() -> None:
    assert without_oldest(thread("a"), 0.01) == thread("a")


def test_options_have_the_engines_names_and_only_what_is_set_is_sent() -> None:
    sampling = Sampling(temperature=0.0, num_predict=5, stop=("x",), context_history_limit=3)
    body = request_body("", thread("a"), {}, sampling)
    assert body == {
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0.0,
        "max_tokens": 5,
        "stop": ("x",),
    }


def test_images_are_sent_as_data_urls() -> None:
    [message] = thread("")
    message = msgspec.structs.replace(message, attachments=(Attachment(1, "image/png", "", 3),))
    body = request_body("", [message], {1: (Image("image/png", b"abc"),)}, Sampling())
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,YWJj"}}]
    assert body["messages"] == [{"role": "user", "content": parts}]


def test_a_conversations_own_options_outrank_the_settings() -> None:
    settings = make_settings(chat_temperature=0.7, chat_top_k=40, chat_stop=("end",))
    found = merged(Sampling(temperature=0.0), defaults(settings))
    assert (found.temperature, found.top_k, found.stop, found.top_p) == (0.0, 40, ("end",), None)
