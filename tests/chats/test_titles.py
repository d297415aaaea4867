from __future__ import annotations

import pytest

from llama_async_proxy.chats import titles


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Hello", "Hello"),
        ("  two\n lines ", "two lines"),
        ("   ", titles.UNTITLED),
        ("How do I write a very long question about the many kinds of llamas there are?",
         "How do I write a very long question about the many kinds of…"),
        ("x" * 200, "x" * 60 + "…"),
    ],
)  # fmt: skip
def test_the_first_words_make_a_title(said: str, title: str) -> None:
    assert titles.from_words(said) == title


@pytest.mark.parametrize(
    ("answer", "title"),
    [
        ('"Kinds of llamas"', "Kinds of llamas"),
        ("\nTitle: **Llamas**\nmore", "Llamas"),
        ("", None),
        (' "" ', None),
        ("x" * 101, None),
    ],
)
def test_a_title_is_taken_from_a_models_answer_if_usable(answer: str, title: str | None) -> None:
    assert titles.from_model(answer) == title


def test_the_prompt_for_a_title_is_bounded() -> None:
    assert len(titles.title_prompt("x" * 10_000, "y")) < 2500
