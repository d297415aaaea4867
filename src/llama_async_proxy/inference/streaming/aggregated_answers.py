"""How the answer of each generating route is put together from its stream. Pure.

A field that is not named here would be missing in the answer: the engine is asked plainly then, and a field that a
build does not send is left out. Older builds of llama-server (before b6122) and ik_llama.cpp send no
"system_fingerprint", and usage within the event that finishes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from llama_async_proxy.inference.streaming.aggregator import (
    CannotAggregate,
    GrowingText,
    SizeLimit,
    StreamAggregator,
    UnknownStream,
)

_Raw: TypeAlias = msgspec.Raw | msgspec.UnsetType
_Object: TypeAlias = dict[str, msgspec.Raw]
"""Values as the engine wrote them, keys in its order."""
_UNSET = msgspec.UNSET
_encode = msgspec.json.encode

_CUT_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""llama-server shows it for a character whose last tokens were not generated, but not in a stream."""


def begin_aggregation(path: str) -> StreamAggregator:
    """For an answer of this route. Raises KeyError for a route that does not generate."""
    return _BY_PATH[path]()


class _Known(msgspec.Struct, forbid_unknown_fields=True):
    """An object all of whose fields are used, or may be left out."""


# --- /v1/chat/completions ---------------------------------------------------------------------------------------------


class _Function(_Known):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(_Known):
    index: int
    id: str | None = None
    type: str | None = None
    function: _Function | None = None


class _ChatDelta(_Known):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None
    refusal: None = None
    function_call: None = None
    reasoning: None = None


class _ChatChoice(_Known):
    delta: _ChatDelta | None = None
    index: int = 0
    finish_reason: str | None = None
    logprobs: None = None


class _ChatEvent(_Known):
    choices: list[_ChatChoice]
    created: _Raw = _UNSET
    model: _Raw = _UNSET
    system_fingerprint: _Raw = _UNSET
    object: _Raw = _UNSET
    usage: _Raw = _UNSET
    id: _Raw = _UNSET
    timings: _Raw = _UNSET
    prompt_progress: _Raw = _UNSET


class _ToolInProgress:
    def __init__(self, limit: SizeLimit) -> None:
        self.id = ""
        self.name = ""
        self.arguments = GrowingText(limit)

    def take(self, call: _ToolCall) -> None:
        """Raises UnknownStream when another call has the same index."""
        if self.id and call.id not in (None, "", self.id):
            raise UnknownStream
        self.id = call.id or self.id
        if call.function is not None:
            self.name = call.function.name or self.name
            self.arguments.add(call.function.arguments)

    def call(self) -> dict[str, object]:
        function = {"name": self.name, "arguments": self.arguments.json()}
        call: dict[str, object] = {"type": "function", "function": function}
        return {**call, "id": self.id} if self.id else call


class _ChatAnswer(StreamAggregator):
    def __init__(self) -> None:
        super().__init__()
        self._content = GrowingText(self._limit)
        self._reasoning = GrowingText(self._limit)
        self._tools: dict[int, _ToolInProgress] = {}
        self._finish_reason: str | None = None
        self._has_usage = False
        """The event after the last choice has come."""
        self._told: dict[str, msgspec.Raw] = {}
        """The last value of each field that tells of the whole answer."""

    def _take(self, data: bytes) -> None:
        event = _CHAT_EVENT.decode(data)
        finish_reason = self._take_choices(event.choices)
        if finish_reason is not None or not event.choices or event.usage is not _UNSET or not self._told:
            _tell(self._told, event)
        self._finish_reason = finish_reason or self._finish_reason
        self._has_usage = self._has_usage or (not event.choices and event.usage is not _UNSET)

    def _take_choices(self, choices: list[_ChatChoice]) -> str | None:
        if not choices:
            return None
        if len(choices) > 1 or choices[0].index:
            raise UnknownStream
        delta = choices[0].delta
        if delta is not None:
            self._content.add(delta.content)
            self._reasoning.add(delta.reasoning_content)
            for call in delta.tool_calls or ():
                if call.index not in self._tools:
                    self._tools[call.index] = _ToolInProgress(self._limit)
                self._tools[call.index].take(call)
        return choices[0].finish_reason

    def _object(self) -> object:
        if self._finish_reason is None and not self._has_usage:
            raise KeyError("finish_reason")
        if self._content.is_empty and self._reasoning.is_empty and not self._tools:
            raise CannotAggregate  # parsing left nothing: the engine shows its answer unparsed then
        choice = {"finish_reason": self._finish_reason, "index": 0, "message": self._message()}
        told = {**self._told, "object": "chat.completion"}
        names = ("created", "model", "system_fingerprint", "object", "usage", "id", "timings")
        return {"choices": [choice], **{name: told[name] for name in names if name in told}}

    def _message(self) -> dict[str, object]:
        message: dict[str, object] = {"role": "assistant", "content": self._content.json()}
        if not self._reasoning.is_empty:
            message["reasoning_content"] = self._reasoning.json()
        if self._tools:
            message["tool_calls"] = [tool.call() for tool in self._tools.values()]
        return message


def _tell(told: dict[str, msgspec.Raw], event: _ChatEvent | _TextEvent) -> None:
    for name in ("created", "model", "system_fingerprint", "usage", "id", "timings"):
        value: _Raw = getattr(event, name)
        if isinstance(value, msgspec.Raw) and bytes(value) != b"null":
            told[name] = value.copy()


# --- /v1/completions and /completion ----------------------------------------------------------------------------------


class _TextTimings(msgspec.Struct, frozen=True):
    predicted_n: int | None = None


class _CompletionTokens(msgspec.Struct):
    completion_tokens: int | None = None


class _TextChoice(_Known):
    text: str
    index: int = 0
    logprobs: None = None
    finish_reason: str | None = None


class _TextEvent(_Known):
    choices: list[_TextChoice]
    created: _Raw = _UNSET
    model: _Raw = _UNSET
    system_fingerprint: _Raw = _UNSET
    object: _Raw = _UNSET
    usage: _Raw = _UNSET
    id: _Raw = _UNSET
    timings: _Raw = _UNSET
    prompt_progress: _Raw = _UNSET


class _TextAnswer(StreamAggregator):
    def __init__(self) -> None:
        super().__init__()
        self._text = GrowingText(self._limit)
        self._said_tokens: int | None = None
        """Tokens of which something was said, where the engine tells."""
        self._last = b""
        self._told: dict[str, msgspec.Raw] = {}

    def _as_stream(self) -> bytes:
        return super()._as_stream() + b',"timings_per_token":true'

    def _take(self, data: bytes) -> None:
        event = _TEXT_EVENT.decode(data)
        if event.usage is not _UNSET or not event.choices:
            _tell(self._told, event)
        if not event.choices:
            return
        if len(event.choices) > 1 or event.choices[0].index:
            raise UnknownStream
        self._text.add(event.choices[0].text)
        if event.choices[0].finish_reason is not None:
            self._last = data
        elif isinstance(event.timings, msgspec.Raw):
            self._said_tokens = _TEXT_TIMINGS.decode(event.timings).predicted_n

    def _object(self) -> object:
        last = _OBJECT.decode(self._last)
        [choice] = _OBJECTS.decode(last["choices"])
        last.update(self._told)
        if self._text.is_empty:
            raise CannotAggregate
        tokens = _COMPLETION_TOKENS.decode(last["usage"]).completion_tokens if "usage" in last else None
        if None not in (tokens, self._said_tokens) and (tokens or 0) > (self._said_tokens or 0):
            self._text.add(_CUT_CHARACTER)
        choice["text"] = self._text.json()
        last["choices"] = _raw([choice])
        return last


class _NativeEvent(msgspec.Struct):
    content: str
    stop: bool = False
    tokens_predicted: int | None = None
    index: int = 0
    completion_probabilities: list[None] = []


class _NativeAnswer(StreamAggregator):
    def __init__(self) -> None:
        super().__init__()
        self._text = GrowingText(self._limit)
        self._tokens: int | None = 0
        """Tokens of which something was said, where the engine tells."""
        self._last = b""

    def _take(self, data: bytes) -> None:
        event = _NATIVE_EVENT.decode(data)
        if event.index:
            raise UnknownStream
        self._text.add(event.content)
        if event.stop:
            self._last = data
            self._is_done = True
            if (
                event.tokens_predicted is not None
                and self._tokens is not None
                and event.tokens_predicted > self._tokens
            ):
                self._text.add(_CUT_CHARACTER)
        self._tokens = event.tokens_predicted

    def _object(self) -> object:
        last = _OBJECT.decode(self._last)
        if self._text.is_empty:
            raise CannotAggregate
        if "generation_settings" in last:
            settings = _OBJECT.decode(last["generation_settings"])
            if "stream" in settings:
                settings["stream"] = msgspec.Raw(b"false")
            last["generation_settings"] = _raw(settings)
        last["content"] = self._text.json()
        return last


# --- /v1/responses ----------------------------------------------------------------------------------------------------


class _ResponsesEvent(msgspec.Struct):
    type: str
    response: _Raw = _UNSET


_RESPONSE_FIELDS = ("completed_at", "created_at", "id", "model", "object", "output", "status", "usage")


class _ResponsesAnswer(StreamAggregator):
    def __init__(self) -> None:
        super().__init__()
        self._response = b""

    def _take(self, data: bytes) -> None:
        event = _RESPONSES_EVENT.decode(data)
        if event.type in ("response.completed", "response.incomplete"):
            self._is_done = True
            self._response = b"" if event.response is _UNSET else bytes(event.response)

    def _object(self) -> object:
        response = _OBJECT.decode(self._response)
        if not response.keys() <= set(_RESPONSE_FIELDS):
            raise UnknownStream
        output = [_item(item) for item in _OBJECTS.decode(response["output"])]
        if not output:
            raise CannotAggregate
        if "created_at" in response:
            response.setdefault("completed_at", response["created_at"])
        told = {**response, "output": output}
        return {name: told[name] for name in _RESPONSE_FIELDS if name in told}


def _item(item: _Object) -> _Object:
    kind = bytes(item["type"])
    if kind == b'"reasoning"':
        return {**item, "status": _raw("completed")}
    if kind == b'"message"':
        return {key: item[key] for key in ("content", "id", "role", "status", "type") if key in item}
    return item


# --- /v1/messages -----------------------------------------------------------------------------------------------------


class _BlockDelta(_Known):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    signature: str = ""


class _Block(_Known):
    type: str
    id: str = ""
    name: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    input: _Raw = _UNSET


class _MessageEvent(msgspec.Struct):
    type: str
    index: int = 0
    message: _Object = {}
    content_block: _Block | None = None
    delta: msgspec.Raw = msgspec.Raw(b"{}")
    usage: _Object = {}


class _BlockInProgress:
    def __init__(self, block: _Block, limit: SizeLimit) -> None:
        """Raises UnknownStream for a block that the answer could not show."""
        has_input = isinstance(block.input, msgspec.Raw) and bytes(block.input) not in (b"{}", b"null")
        if block.type not in ("thinking", "text", "tool_use") or has_input:
            raise UnknownStream
        self.block = block
        self.signature = block.signature
        self.text = GrowingText(limit)
        self.text.add(block.text or block.thinking)

    def take(self, delta: _BlockDelta) -> None:
        self.text.add(delta.text or delta.thinking or delta.partial_json)
        self.signature += delta.signature

    def content(self) -> dict[str, object]:
        text = self.text.json()
        match self.block.type:
            case "thinking":
                return {"type": "thinking", "thinking": text, "signature": self.signature}
            case "text":
                return {"type": "text", "text": text}
            case _:
                return {"type": "tool_use", "id": self.block.id, "name": self.block.name, "input": _input(text)}


_BLOCK_ORDER = {"thinking": 0, "text": 1}


class _MessagesAnswer(StreamAggregator):
    def __init__(self) -> None:
        super().__init__()
        self._message: _Object | None = None
        self._end: _MessageEvent | None = None
        self._blocks: dict[int, _BlockInProgress] = {}

    def _take(self, data: bytes) -> None:
        event = _MESSAGE_EVENT.decode(data)
        if self._message is None and event.type not in ("message_start", "ping"):
            raise CannotAggregate  # llama-server does so when the first character takes several tokens
        match event.type:
            case "message_start":
                self._message = event.message
            case "content_block_start" if event.content_block is not None:
                self._blocks[event.index] = _BlockInProgress(event.content_block, self._limit)
            case "content_block_delta":
                self._blocks[event.index].take(_BLOCK_DELTA.decode(event.delta))
            case "message_delta":
                self._end = event
            case "message_stop":
                self._is_done = True

    def _object(self) -> object:
        if self._message is None or self._end is None:
            raise KeyError("message_delta")
        if not self._blocks:
            raise CannotAggregate
        blocks = sorted(self._blocks.values(), key=lambda block: _BLOCK_ORDER.get(block.block.type, 2))
        usage = {**_OBJECT.decode(self._message.get("usage", _EMPTY)), **self._end.usage}
        return {
            **self._message,
            "content": [block.content() for block in blocks],
            **_OBJECT.decode(self._end.delta),
            **({"usage": usage} if usage else {}),
        }


def _input(arguments: msgspec.Raw) -> msgspec.Raw:
    """A tool's arguments, a JSON string, as they are; an empty object when they are not JSON."""
    try:
        return msgspec.json.decode(msgspec.json.decode(arguments, type=str), type=msgspec.Raw)
    except msgspec.DecodeError:
        return _EMPTY


# --- decoders ---------------------------------------------------------------------------------------------------------


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))


_EMPTY = msgspec.Raw(b"{}")
_OBJECT = msgspec.json.Decoder(_Object)
_OBJECTS = msgspec.json.Decoder(list[_Object])
_CHAT_EVENT = msgspec.json.Decoder(_ChatEvent)
_TEXT_EVENT = msgspec.json.Decoder(_TextEvent)
_TEXT_TIMINGS = msgspec.json.Decoder(_TextTimings)
_NATIVE_EVENT = msgspec.json.Decoder(_NativeEvent)
_RESPONSES_EVENT = msgspec.json.Decoder(_ResponsesEvent)
_MESSAGE_EVENT = msgspec.json.Decoder(_MessageEvent)
_BLOCK_DELTA = msgspec.json.Decoder(_BlockDelta)
_COMPLETION_TOKENS = msgspec.json.Decoder(_CompletionTokens)

_BY_PATH: Mapping[str, Callable[[], StreamAggregator]] = {
    "/v1/chat/completions": _ChatAnswer,
    "/chat/completions": _ChatAnswer,
    "/v1/completions": _TextAnswer,
    "/completions": _NativeAnswer,
    "/completion": _NativeAnswer,
    "/infill": _NativeAnswer,
    "/v1/responses": _ResponsesAnswer,
    "/responses": _ResponsesAnswer,
    "/v1/messages": _MessagesAnswer,
}
