"""Names for conversations that a person did not name. Pure."""

from __future__ import annotations

UNTITLED = "New chat"
MAX_TITLE_LENGTH = 100
_WORDS_LENGTH = 60
_ASKING = (
    "Write a title of at most six words for this conversation, in its language. Answer with the title alone, without "
    "quotes.\n\n{text}"
)
_MAX_ASKED_ABOUT = 2000
MAX_TITLE_TOKENS = 24


def from_words(text: str) -> str:
    """The first words of what was said first."""
    line = " ".join(text.split())
    if len(line) <= _WORDS_LENGTH:
        return line or UNTITLED
    whole_words = line[:_WORDS_LENGTH].rpartition(" ")[0]
    return (whole_words or line[:_WORDS_LENGTH]).rstrip(" ,.;:-") + "…"


def asking(said: str, answered: str) -> str:
    """What a model is asked for a better one."""
    return _ASKING.format(text=f"{said}\n\n{answered}"[:_MAX_ASKED_ABOUT])


def from_model(answer: str) -> str | None:
    """The title in what a model answered; None when there is none."""
    line = next((line for line in answer.splitlines() if line.strip()), "")
    title = line.removeprefix("Title:").strip(" \t\"'*#“”„`")
    return title if 0 < len(title) <= MAX_TITLE_LENGTH else None
