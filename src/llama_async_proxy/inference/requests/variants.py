"""Variants of a model: defaults for parameters that a request leaves out. Pure.

A parameter that is null counts as left out, as it does for the engine. The client's values stay as their own bytes.
"""

from __future__ import annotations

import msgspec

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.inference.requests.error_formats import ApiFormat
from llama_async_proxy.inference.requests.routes import InferenceRoute, ModelIn
from llama_async_proxy.records.models import Variant

RESERVED_PARAMETERS = frozenset({"model", "messages", "prompt", "input", "stream"})
"""Parameters that a variant cannot have: they belong to the single request."""
_LENGTH_LIMITS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"})
"""Names of one parameter in the different APIs."""
_PROMPT_KEYS = {ApiFormat.ANTHROPIC: "system", ApiFormat.RESPONSES: "instructions"}


class _ChatMessage(msgspec.Struct):
    role: str | None = None


_BODY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MESSAGES = msgspec.json.Decoder(list[_ChatMessage])
_RAW_MESSAGES = msgspec.json.Decoder(list[msgspec.Raw])


def with_defaults(variant: Variant, route: InferenceRoute, body: bytes) -> bytes:
    """`body` with the variant's parameters and system prompt where the client gave none. Only bodies in JSON change.

    Raises InvalidInput for a body that is no JSON object.
    """
    if route.model_in is not ModelIn.BODY:
        return body
    try:
        given = _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("body", f"is not a JSON object: {error}") from None
    for name, value in variant.parameters.items():
        if not _has(given, name):
            given[name] = _raw(value)
    if variant.system_prompt:
        _instruct(given, route.api_format, variant.system_prompt)
    return msgspec.json.encode(given)


def _has(given: dict[str, msgspec.Raw], name: str) -> bool:
    names = _LENGTH_LIMITS if name in _LENGTH_LIMITS else {name}
    return any(bytes(given.get(known, b"null")) != b"null" for known in names)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _instruct(given: dict[str, msgspec.Raw], api_format: ApiFormat, prompt: str) -> None:
    """Add `prompt` as the system prompt of this API, unless the client has one. Completions have none."""
    if key := _PROMPT_KEYS.get(api_format):
        if not _has(given, key):
            given[key] = _raw(prompt)
        return
    try:
        messages = _MESSAGES.decode(given.get("messages", b"null"))
    except msgspec.ValidationError:
        return  # no messages, or invalid ones that the engine will refuse
    if not any(message.role in ("system", "developer") for message in messages):
        given["messages"] = _raw([{"role": "system", "content": prompt}, *_RAW_MESSAGES.decode(given["messages"])])
