"""Stream aggregation: the JSON response of a generation, built from the engine's stream of it. Pure.

llama-server notices a closed connection when it writes. While it generates a response that is not streamed it writes
nothing, and it looks at the connection only when no request at all has had a result for a second (llama.cpp b11434,
tools/server/server-context.cpp). So the service asks it for a stream and builds the response it would have sent: the
same JSON value, keys in the same order, apart from ids and times.

`GenerationParameters` names the parameters whose results a stream gives differently; such requests are not aggregated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeAlias

import msgspec
from msgspec import Struct

from llama_async_proxy.errors import UpstreamFailed

_Raw: TypeAlias = msgspec.Raw | msgspec.UnsetType
_Object: TypeAlias = dict[str, msgspec.Raw]
"""Values as the engine wrote them, keys in the engine's order."""
_UNSET = msgspec.UNSET
_encode = msgspec.json.encode

_FOLD_BYTES = 64 * 1024
"""Bytes that are collected before their events are decoded: many together cost less than one by one."""
_AS_STREAM = b'"stream":true,"stream_options":{"include_usage":true},"return_progress":true'
"""Fields added to a request. Progress events make the engine write, and so notice a closed connection, while it still
reads a long prompt."""
_PROGRESS = b'"prompt_progress":{'
"""Start of the field in an event. Text of the model cannot contain it: inside a JSON string quotes are escaped."""
_CUT_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""The engine writes this for a character whose last tokens were not generated; a stream does not have it."""


class CannotAggregate(Exception):
    """The stream does not determine the response: the request must be sent again as the client wrote it."""


class GenerationParameters(msgspec.Struct):
    """Parameters that prevent aggregation, unless they have a value that changes nothing."""

    stream_options: _Raw = _UNSET
    return_progress: _Raw = _UNSET
    verbose: _Raw = _UNSET
    n: _Raw = _UNSET
    n_cmpl: _Raw = _UNSET
    """`n` and `n_cmpl` ask for several choices."""
    prompt: _Raw = _UNSET
    """`prompt` may be a list of several prompts."""
    logprobs: _Raw = _UNSET
    n_probs: _Raw = _UNSET
    """A stream also has the probabilities of a stop word, and lacks those of tokens without text of their own."""
    return_tokens: _Raw = _UNSET
    """A stream lacks the first tokens of a character that takes several."""
    n_indent: _Raw = _UNSET
    """`n_indent` removes text that a stream has sent already."""
    response_fields: _Raw = _UNSET
    reasoning_format: _Raw = _UNSET
    """"deepseek-legacy" means something else in streams."""
    echo: _Raw = _UNSET

    @property
    def allow_aggregation(self) -> bool:
        return all(self._is_harmless(name) for name in GenerationParameters.__struct_fields__)

    @property
    def allow_progress_filter(self) -> bool:
        """Progress events can be asked for and filtered out of a stream of this response."""
        return all(self._is_harmless(name) for name in ("return_progress", "n", "n_cmpl", "prompt"))

    def _is_harmless(self, name: str) -> bool:
        value: _Raw = getattr(self, name)
        if value is _UNSET or (name == "prompt" and bytes(value)[:1] == b'"'):
            return True
        return bytes(value) in _HARMLESS.get(name, _OFF)


_OFF = (b"null", b"false", b"0")
_ONE = (b"null", b"1")
_HARMLESS: Mapping[str, tuple[bytes, ...]] = {"n": _ONE, "n_cmpl": _ONE, "prompt": (), "reasoning_format": ()}


class AggregatedAnswer(Struct, frozen=True):
    """The response that a stream was aggregated to."""

    status: int
    body: bytes


def begin_aggregation(path: str) -> StreamAggregator:
    """An aggregator for a response of the route `path`. Raises KeyError for a route that does not generate."""
    return _BY_PATH[path]()


class StreamAggregator(ABC):
    """Builds one response: `feed` takes the bytes of the stream without chunk framing, `answer` gives the result."""

    _first_event: ClassVar[bytes] = b""
    """Beginning of the first event, without which the others cannot be aggregated."""
    _also_asked: ClassVar[bytes] = b""

    def __init__(self) -> None:
        self.is_generating = False
        """The engine has read the prompt and sent the first event of the response."""
        self._unread: list[bytes] = []
        self._size = 0
        self._error: _Object | None = None

    def as_stream(self, body: bytes) -> bytes:
        """The JSON object `body` as a request for the stream. Of two equal keys the engine takes the last."""
        content = body.rstrip()[:-1]
        comma = b"" if content.rstrip().endswith(b"{") else b","
        return b"%b%b%b%b}" % (content, comma, _AS_STREAM, self._also_asked)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream. Raises CannotAggregate, as early as possible."""
        if not self.is_generating:
            is_before = _PROGRESS in data or data.startswith(b":")
            if is_before and not (self._first_event and self._first_event in data):
                return self._keep(data)
            if self._first_event not in data:
                raise CannotAggregate
            self.is_generating = True
        return self._keep(data)

    def answer(self) -> AggregatedAnswer:
        """The whole response. Raises CannotAggregate, and UpstreamFailed when the stream ended early."""
        self._fold(whole=True)
        if self._error is not None:
            return self._error_answer(self._error)
        try:
            return AggregatedAnswer(200, _encode(self._object()))
        except (KeyError, ValueError, msgspec.DecodeError):
            raise UpstreamFailed("The model's process ended its answer before it was complete.") from None

    # --- for each kind of response ------------------------------------------------------------------------------------

    @abstractmethod
    def _take(self, data: bytes) -> None:
        """Read the data of one event."""

    @abstractmethod
    def _object(self) -> object:
        """The response. Raises KeyError for a part that has not come."""

    # --- events -------------------------------------------------------------------------------------------------------

    def _keep(self, data: bytes) -> None:
        self._unread.append(data)
        self._size += len(data)
        if self._size >= _FOLD_BYTES:
            self._fold(whole=False)

    def _fold(self, *, whole: bool) -> None:
        *events, rest = b"".join(self._unread).split(b"\n\n")
        if whole:
            events.append(rest)
            rest = b""
        for event in events:
            start = event.find(b"data: ")
            if start >= 0 and (data := event[start + 6 :]) != b"[DONE]":
                self._read(event, data)
        self._unread = [rest]
        self._size = len(rest)

    def _read(self, event: bytes, data: bytes) -> None:
        try:
            if data.startswith(b'{"error":'):
                self._error = _OBJECT.decode(_OBJECT.decode(data)["error"])
            elif event.startswith(b"event: error\n"):
                self._error = _OBJECT.decode(data)
            else:
                self._take(data)
        except (KeyError, IndexError, msgspec.DecodeError):
            raise CannotAggregate from None

    def _error_answer(self, error: _Object) -> AggregatedAnswer:
        code = bytes(error.get("code", msgspec.Raw(b"500")))
        message = bytes(error.get("message", msgspec.Raw()))
        if b"Invalid diff" in message:
            # The engine's parser of partial responses gave up (common/chat.cpp); its parser of whole ones may not.
            raise CannotAggregate
        return AggregatedAnswer(int(code) if code.isdigit() else 500, _encode({"error": error}))


# --- /v1/chat/completions ---------------------------------------------------------------------------------------------


class _Function(msgspec.Struct):
    name: str = ""
    arguments: str = ""


class _ToolCall(msgspec.Struct):
    index: int = 0
    id: str = ""
    function: _Function | None = None


class _ChatDelta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] = []


class _ChatChoice(msgspec.Struct):
    delta: _ChatDelta
    index: int = 0
    finish_reason: str | None = None


class _ChatEvent(msgspec.Struct):
    choices: list[_ChatChoice]


class _CompletionUsage(msgspec.Struct):
    completion_tokens: int = 0


class _ToolInProgress:
    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class _ChatAnswer(StreamAggregator):
    def __init__(self) -> None:
        super().__init__()
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._tools: dict[int, _ToolInProgress] = {}
        self._choice = _ChatChoice(_ChatDelta())
        self._last = b""

    def _take(self, data: bytes) -> None:
        event = _CHAT_EVENT.decode(data)
        if not event.choices:
            self._last = data
            return
        self._choice = event.choices[0]
        delta = self._choice.delta
        if delta.content:
            self._content.append(delta.content)
        if delta.reasoning_content:
            self._reasoning.append(delta.reasoning_content)
        for call in delta.tool_calls:
            self._call(call)

    def _call(self, call: _ToolCall) -> None:
        tool = self._tools.setdefault(call.index, _ToolInProgress())
        tool.id = call.id or tool.id
        if call.function is not None:
            tool.name = call.function.name or tool.name
            tool.arguments.append(call.function.arguments)

    def _object(self) -> object:
        last = _OBJECT.decode(self._last)
        message = self._message()
        if len(message) == 2 and not message["content"]:
            _require_empty(_COMPLETION_USAGE.decode(last["usage"]).completion_tokens)
        choice = {"finish_reason": self._choice.finish_reason, "index": self._choice.index, "message": message}
        return {
            "choices": [choice],
            "created": last["created"],
            "model": last["model"],
            "system_fingerprint": last["system_fingerprint"],
            "object": "chat.completion",
            "usage": last["usage"],
            "id": last["id"],
            "timings": last["timings"],
        }

    def _message(self) -> dict[str, object]:
        message: dict[str, object] = {"role": "assistant", "content": "".join(self._content)}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._tools:
            message["tool_calls"] = [_tool_call(tool) for tool in self._tools.values()]
        return message


def _tool_call(tool: _ToolInProgress) -> dict[str, object]:
    function = {"name": tool.name, "arguments": "".join(tool.arguments)}
    call: dict[str, object] = {"type": "function", "function": function}
    if tool.id:
        call["id"] = tool.id
    return call


def _require_empty(tokens: int) -> None:
    """Raise CannotAggregate for a response without text that has `tokens`: the engine returns its unparsed text, which
    a stream does not have."""
    if tokens > 1:
        raise CannotAggregate


# --- /v1/completions and /completion ----------------------------------------------------------------------------------


class _TextTimings(msgspec.Struct, frozen=True):
    predicted_n: int = 0


class _TextChoice(msgspec.Struct):
    text: str
    finish_reason: str | None


class _TextEvent(msgspec.Struct):
    choices: list[_TextChoice]
    timings: _TextTimings = _TextTimings()


class _TextAnswer(StreamAggregator):
    _also_asked = b',"timings_per_token":true'

    def __init__(self) -> None:
        super().__init__()
        self._text: list[str] = []
        self._tokens = 0
        """Number of tokens whose text the stream has sent."""
        self._last = b""

    def _take(self, data: bytes) -> None:
        event = _TEXT_EVENT.decode(data)
        self._text.append(event.choices[0].text)
        if event.choices[0].finish_reason is None:
            self._tokens = event.timings.predicted_n
        else:
            self._last = data

    def _object(self) -> object:
        last = _OBJECT.decode(self._last)
        if _COMPLETION_USAGE.decode(last["usage"]).completion_tokens > self._tokens:
            self._text.append(_CUT_CHARACTER)
        [choice] = _OBJECTS.decode(last["choices"])
        choice["text"] = _raw("".join(self._text))
        last["choices"] = _raw([choice])
        return last


class _NativeEvent(msgspec.Struct):
    content: str
    tokens_predicted: int
    stop: bool


class _NativeAnswer(StreamAggregator):
    def __init__(self) -> None:
        super().__init__()
        self._text: list[str] = []
        self._tokens = 0
        """Number of tokens whose text the stream has sent."""
        self._last = b""

    def _take(self, data: bytes) -> None:
        event = _NATIVE_EVENT.decode(data)
        self._text.append(event.content)
        if event.stop:
            self._last = data
            if event.tokens_predicted > self._tokens:
                self._text.append(_CUT_CHARACTER)
        self._tokens = event.tokens_predicted

    def _object(self) -> object:
        last = _OBJECT.decode(self._last)
        settings = _OBJECT.decode(last["generation_settings"])
        settings["stream"] = msgspec.Raw(b"false")
        last["generation_settings"] = _raw(settings)
        last["content"] = _raw("".join(self._text))
        return last


# --- /v1/responses ----------------------------------------------------------------------------------------------------


class _Completed(msgspec.Struct):
    response: _Object


class _OutputUsage(msgspec.Struct):
    output_tokens: int = 0


class _ResponsesAnswer(StreamAggregator):
    def __init__(self) -> None:
        super().__init__()
        self._last = b""

    def _take(self, data: bytes) -> None:
        self._last = data

    def _object(self) -> object:
        response = _COMPLETED.decode(self._last).response
        output = [_item(item) for item in _OBJECTS.decode(response["output"])]
        if not output:
            _require_empty(_OUTPUT_USAGE.decode(response["usage"]).output_tokens)
        return {
            "completed_at": response["created_at"],
            "created_at": response["created_at"],
            "id": response["id"],
            "model": response["model"],
            "object": response["object"],
            "output": output,
            "status": response["status"],
            "usage": response["usage"],
        }


def _item(item: _Object) -> _Object:
    kind = bytes(item["type"])
    if kind == b'"reasoning"':
        return {**item, "status": _raw("completed")}
    if kind == b'"message"':
        return {key: item[key] for key in ("content", "id", "role", "status", "type")}
    return item


# --- /v1/messages -----------------------------------------------------------------------------------------------------


class _BlockDelta(msgspec.Struct):
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class _Block(msgspec.Struct):
    type: str
    id: str = ""
    name: str = ""


class _MessageEvent(msgspec.Struct):
    type: str
    index: int = 0
    message: _Object = {}
    content_block: _Block | None = None
    delta: msgspec.Raw = msgspec.Raw(b"{}")
    usage: _Object = {}


class _BlockInProgress:
    def __init__(self, block: _Block) -> None:
        self.block = block
        self.parts: list[str] = []

    def content(self) -> dict[str, object]:
        text = "".join(self.parts)
        match self.block.type:
            case "thinking":
                return {"type": "thinking", "thinking": text, "signature": ""}
            case "text":
                return {"type": "text", "text": text}
            case _:
                return {"type": "tool_use", "id": self.block.id, "name": self.block.name, "input": _input(text)}


_BLOCK_ORDER = {"thinking": 0, "text": 1}


class _MessagesAnswer(StreamAggregator):
    _first_event = b"event: message_start\n"

    def __init__(self) -> None:
        super().__init__()
        self._message: _Object = {}
        self._end: _MessageEvent | None = None
        self._blocks: dict[int, _BlockInProgress] = {}

    def _take(self, data: bytes) -> None:
        event = _MESSAGE_EVENT.decode(data)
        match event.type:
            case "message_start":
                self._message = event.message
            case "content_block_start" if event.content_block is not None:
                block = self._blocks.setdefault(event.index, _BlockInProgress(event.content_block))
                block.block = event.content_block
            case "content_block_delta":
                delta = _BLOCK_DELTA.decode(event.delta)
                self._blocks[event.index].parts.append(delta.text or delta.thinking or delta.partial_json)
            case "message_delta":
                self._end = event

    def _object(self) -> object:
        if self._end is None:
            raise KeyError("message_delta")
        blocks = sorted(self._blocks.values(), key=lambda block: _BLOCK_ORDER.get(block.block.type, 2))
        usage = {**_OBJECT.decode(self._message["usage"]), **self._end.usage}
        if not blocks:
            _require_empty(int(bytes(usage["output_tokens"])))
        return {
            **self._message,
            "content": [block.content() for block in blocks],
            **_OBJECT.decode(self._end.delta),
            "usage": usage,
        }


def _input(arguments: str) -> msgspec.Raw:
    """The arguments of a tool call as they are; an empty object when they are not JSON."""
    try:
        return msgspec.json.decode(arguments, type=msgspec.Raw)
    except msgspec.DecodeError:
        return msgspec.Raw(b"{}")


# --- decoders ---------------------------------------------------------------------------------------------------------


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))


_OBJECT = msgspec.json.Decoder(_Object)
_OBJECTS = msgspec.json.Decoder(list[_Object])
_CHAT_EVENT = msgspec.json.Decoder(_ChatEvent)
_TEXT_EVENT = msgspec.json.Decoder(_TextEvent)
_NATIVE_EVENT = msgspec.json.Decoder(_NativeEvent)
_COMPLETED = msgspec.json.Decoder(_Completed)
_MESSAGE_EVENT = msgspec.json.Decoder(_MessageEvent)
_BLOCK_DELTA = msgspec.json.Decoder(_BlockDelta)
_COMPLETION_USAGE = msgspec.json.Decoder(_CompletionUsage)
_OUTPUT_USAGE = msgspec.json.Decoder(_OutputUsage)

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
