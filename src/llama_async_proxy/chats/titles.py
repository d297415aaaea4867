"""Automatic titles of conversations. Pure."""

from __future__ import annotations

UNTITLED = "New chat"
MAX_TITLE_LENGTH = 100
_WORDS_LENGTH = 60
_PROMPT = (
    "Write a title of at most six words for this conversation, in its language. Answer with the title alone, without "
    "quotes.\n\n{text}"
)
_MAX_PROMPT_TEXT = 2000
MAX_TITLE_TOKENS = 24


def from_words(text: str) -> str:
    """Title from the first words of the first message."""
    line = " ".join(text.split())
    if len(line) <= _WORDS_LENGTH:
        return line or UNTITLED
    whole_words = line[:_WORDS_LENGTH].rpartition(" ")[0]
    return (whole_words or line[:_WORDS_LENGTH]).rstrip(" ,.;:-") + "…"


def title_prompt(message: str, answer: str) -> str:
    """Prompt that asks a model for a title of the first message and its answer."""
    return _PROMPT.format(text=f"{message}\n\n{answer}"[:_MAX_PROMPT_TEXT])


def from_model(answer: str) -> str | None:
    """Title in the answer of a model; None when it has no usable one."""
    line = next((line for line in answer.splitlines() if line.strip()), "")
    title = line.removeprefix("Title:").strip(" \t\"'*#“”„`")
    return title if 0 < len(title) <= MAX_TITLE_LENGTH else None
