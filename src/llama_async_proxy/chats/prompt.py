"""The prompt of a conversation: which messages the model gets, and the body of its request. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence

from msgspec.structs import fields

from llama_async_proxy.records.chats import Image, Message, Role, Sampling
from llama_async_proxy.settings import Settings

_NAMES = {"num_predict": "max_tokens"}
"""Names of options that the engine calls otherwise."""
_NOT_SENT = {"context_history_limit"}
Part = dict[str, object]


def defaults(settings: Settings) -> Sampling:
    """Sampling from the settings, in which -1 means unset."""

    def given(value: float) -> float | None:
        return None if value < 0 else value

    def whole(value: int) -> int | None:
        return None if value < 0 else value

    return Sampling(
        temperature=given(settings.chat_temperature),
        top_p=given(settings.chat_top_p),
        top_k=whole(settings.chat_top_k),
        min_p=given(settings.chat_min_p),
        num_predict=whole(settings.chat_num_predict),
        repeat_penalty=given(settings.chat_repeat_penalty),
        stop=settings.chat_stop or None,
        context_history_limit=settings.chat_history_limit,
    )


def merged(own: Sampling, defaults: Sampling) -> Sampling:
    """`own`, with unset values taken from `defaults`."""
    values = {field.name: getattr(own, field.name) for field in fields(Sampling)}
    return Sampling(**{name: getattr(defaults, name) if v is None else v for name, v in values.items()})


def request_body(
    system_prompt: str, thread: Sequence[Message], images: Mapping[int, Sequence[Image]], sampling: Sampling
) -> dict[str, object]:
    """Body of a chat completion with all messages of `thread`, without the model. `images` are by message id."""
    options = {
        _NAMES.get(field.name, field.name): getattr(sampling, field.name)
        for field in fields(Sampling)
        if field.name not in _NOT_SENT and getattr(sampling, field.name) is not None
    }
    system: list[Part] = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return {"messages": [*system, *_turns(thread, images)], **options}


def newest(thread: Sequence[Message], limit: int) -> Sequence[Message]:
    """The newest messages that are not empty, at most `limit` of them (0 means all)."""
    said = [message for message in thread if message.content.strip() or message.attachments]
    return _from_first_user(said[-limit:] if limit else said)


def without_oldest(messages: Sequence[Message], share: float) -> Sequence[Message]:
    """The newest messages, with at most `share` of the characters.

    The last message is always kept. Of several messages at least one is dropped.
    """
    left = share * sum(len(message.content) for message in messages)
    first = len(messages) - 1
    left -= len(messages[first].content)
    while first > 1 and (left := left - len(messages[first - 1].content)) >= 0:
        first -= 1
    return _from_first_user(messages[first:])


def _from_first_user(messages: Sequence[Message]) -> Sequence[Message]:
    """Drop leading answers, because many chat templates require that the user begins."""
    not_answers = (index for index, message in enumerate(messages) if message.role is not Role.ASSISTANT)
    return messages[next(not_answers, len(messages)) :]


def _turns(thread: Sequence[Message], images: Mapping[int, Sequence[Image]]) -> list[Part]:
    """Messages with alternating roles, as chat templates require. Neighbours of one role are joined."""
    groups: list[list[Message]] = []
    for message in thread:
        if groups and groups[-1][0].role is message.role:
            groups[-1].append(message)
        else:
            groups.append([message])
    return [{"role": group[0].role.value, "content": _content(group, images)} for group in groups]


def _content(group: Sequence[Message], images: Mapping[int, Sequence[Image]]) -> str | list[Part]:
    text = "\n\n".join(message.content for message in group if message.content)
    attached = [image for message in group for image in images.get(message.id, ())]
    if not attached:
        return text
    parts: list[Part] = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in attached]
    return [*parts, {"type": "text", "text": text}] if text else parts


def data_url(image: Image) -> str:
    return f"data:{image.media_type};base64,{b64encode(image.data).decode()}"
