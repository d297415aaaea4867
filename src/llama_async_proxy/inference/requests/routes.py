"""The inference routes, and the place of the model's name in a request to each. Pure.

The table follows llama-server (llama.cpp b11434, tools/server/server.cpp), so that clients of llama-server, OpenAI and
Anthropic find the routes they expect. The service itself answers two of its routes, as they concern all models:
`/v1/models`, and `/metrics` without a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import NamedTuple
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.inference.requests.error_formats import ApiFormat
from llama_async_proxy.inference.streaming import aggregator, prompt_progress
from llama_async_proxy.records.models import Model, ModelKind

Headers = Iterable[tuple[bytes, bytes]]
"""(name in lower case, value) as received."""


_IMAGE_SIGNS = (b'"image_url"', b'"input_image"', b'"type":"image"', b'"type": "image"')


RECORDED_STATUS = "llama_async_proxy.recorded_status"
"""Key of an ASGI scope: status of the request's record. A stream that ends with an error has begun with status 200."""


class ModelIn(Enum):
    """Place of the model's name in a request."""

    BODY = auto()
    QUERY = auto()
    FORM = auto()


class InferenceRoute(Struct, frozen=True):
    """One route of the table."""

    method: str
    path: str
    model_in: ModelIn = ModelIn.BODY
    api_format: ApiFormat = ApiFormat.OPENAI
    streams: bool = False
    """The response is a stream of server-sent events if the body has `"stream": true`."""

    @property
    def kind(self) -> ModelKind | None:
        """The kind of model that answers here; None where any does."""
        if self.path.endswith(("/embeddings", "/embedding")):
            return ModelKind.EMBEDDING
        if self.path.endswith(("/rerank", "/reranking")):
            return ModelKind.RERANK
        return ModelKind.CHAT if self.streams else None

    def default_kind(self, body: bytes) -> str:
        """The KIND of the setting `default_model.KIND` that a request asks for; a chat with images asks for vision."""
        kind = self.kind or ModelKind.CHAT
        has_image = kind is ModelKind.CHAT and any(sign in body for sign in _IMAGE_SIGNS)
        return "vision" if has_image else kind.value


def _generating(*paths: str) -> tuple[InferenceRoute, ...]:
    return tuple(InferenceRoute("POST", path, streams=True) for path in paths)


def _computing(*paths: str) -> tuple[InferenceRoute, ...]:
    return tuple(InferenceRoute("POST", path) for path in paths)


def _inspecting(*paths: str) -> tuple[InferenceRoute, ...]:
    return tuple(InferenceRoute("GET", path, ModelIn.QUERY) for path in paths)


ROUTES: tuple[InferenceRoute, ...] = (
    # OpenAI, with the spellings llama-server knows.
    *_generating("/v1/chat/completions", "/chat/completions", "/v1/completions", "/completions"),
    InferenceRoute("POST", "/v1/responses", api_format=ApiFormat.RESPONSES, streams=True),
    InferenceRoute("POST", "/responses", api_format=ApiFormat.RESPONSES, streams=True),
    *_computing("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens", "/v1/chat/completions/control"),
    *_computing("/v1/responses/input_tokens", "/responses/input_tokens"),
    *_computing("/v1/embeddings", "/embeddings"),
    InferenceRoute("POST", "/v1/audio/transcriptions", ModelIn.FORM),
    InferenceRoute("POST", "/audio/transcriptions", ModelIn.FORM),
    # Jina's rerank, which llama-server serves under four names.
    *_computing("/v1/rerank", "/rerank", "/v1/reranking", "/reranking"),
    # Anthropic.
    InferenceRoute("POST", "/v1/messages", api_format=ApiFormat.ANTHROPIC, streams=True),
    InferenceRoute("POST", "/v1/messages/count_tokens", api_format=ApiFormat.ANTHROPIC),
    # llama-server's native routes.
    *_generating("/completion", "/infill"),
    *_computing("/embedding", "/tokenize", "/detokenize", "/apply-template", "/v1/systemone"),
    *_inspecting("/props", "/slots", "/lora-adapters", "/metrics"),
    InferenceRoute("POST", "/lora-adapters", ModelIn.QUERY),  # its body is an array
)

PATHS: frozenset[str] = frozenset(route.path for route in ROUTES)
_BY_METHOD_AND_PATH: Mapping[tuple[str, str], InferenceRoute] = {(route.method, route.path): route for route in ROUTES}


def find(method: str, path: str) -> InferenceRoute | None:
    """The route of a request, or None. HEAD is allowed wherever GET is."""
    return _BY_METHOD_AND_PATH.get(("GET" if method == "HEAD" else method, path))


def methods(path: str) -> tuple[str, ...]:
    """Methods of `path`, for an Allow header."""
    return tuple(route.method for route in ROUTES if route.path == path)


class RoutingParameters(NamedTuple):
    """The parameters of a request that decide its treatment. `model` is None when the request names none."""

    model: str | None
    stream: bool = False
    aggregates: bool = False
    """The JSON response can be aggregated from a stream."""
    filters_progress: bool = False
    """The prompt is long: the engine is asked for progress events, which are filtered out of the stream."""


class _ModelField(msgspec.Struct):
    model: str | int | None = None


class _Generation(aggregator.GenerationParameters):
    model: str | int | None = None
    stream: msgspec.Raw = msgspec.Raw(b"false")
    """Raw JSON: the engine decides about types other than boolean."""


_MODEL_FIELD = msgspec.json.Decoder(_ModelField)
_GENERATION = msgspec.json.Decoder(_Generation)
_NO_STREAM = (b"false", b"null")


def routing_parameters(route: InferenceRoute, query: bytes, headers: Headers, body: bytes) -> RoutingParameters:
    """The parameters of a request. Raises InvalidInput for a body that does not fit the route."""
    if route.model_in is ModelIn.QUERY:
        return RoutingParameters(model_in_query(query))
    if route.model_in is ModelIn.FORM:
        return RoutingParameters(_model_in_form(headers, body))
    try:
        if not route.streams:
            return RoutingParameters(_given(_MODEL_FIELD.decode(body).model))
        asked = _GENERATION.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidInput("body", f"{error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("body", f"is not valid JSON: {error}") from None
    model, stream = _given(asked.model), bytes(asked.stream)
    if stream == b"true":
        is_long = route.api_format is not ApiFormat.ANTHROPIC and len(body) > prompt_progress.LONG_PROMPT_BYTES
        hides = is_long and asked.allow_progress_filter and not prompt_progress.ends_with_assistant_message(body)
        return RoutingParameters(model, stream=True, filters_progress=hides)
    aggregates = stream in _NO_STREAM and asked.allow_aggregation and not _continues_an_answer(body)
    return RoutingParameters(model, aggregates=aggregates)


def _continues_an_answer(body: bytes) -> bool:
    """True if the answer may begin with the chat's last message, which a stream does not repeat."""
    has_assistant = b"assistant" in body or b"\\u" in body
    return has_assistant and prompt_progress.ends_with_assistant_message(body)


def check_kind(route: InferenceRoute, model: Model) -> None:
    """Raises InvalidInput when the model's header says that it cannot generate text, which the route asks for.

    The other way round the engine decides: a chat model makes embeddings when its options say so.
    """
    if route.streams and model.facts.kind is not ModelKind.CHAT and not model.has_command:
        made_for = "reranking" if model.facts.kind is ModelKind.RERANK else "embeddings"
        raise InvalidInput("model", f"{model.slug!r} is a model for {made_for} and generates no text")


def forbids_loading(method: str, query: bytes, headers: Headers) -> bool:
    """True if the request must not load its model.

    Clients of llama-server's router ask for this with `autoload=false`. A GET that may come from a page of another site
    is treated the same: over plain HTTP to an address other than loopback, browsers send neither Origin nor Sec-Fetch
    headers, and any page could choose the model that is loaded.
    """
    if method in ("GET", "HEAD") and may_be_a_foreign_page(headers):
        return True
    if b"autoload" not in query:
        return False
    return parse_qs(query.decode("utf-8", "replace")).get("autoload", [""])[-1] in ("false", "0")


def may_be_a_foreign_page(headers: Headers) -> bool:
    """True for a browser (each names itself `Mozilla/...`) that does not declare a page of this service."""
    named = dict(headers)
    site = named.get(b"sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    return named.get(b"user-agent", b"").startswith(b"Mozilla/")


def model_in_query(query: bytes) -> str | None:
    """The value of `model` in a query string."""
    if b"model" not in query:
        return None
    values = parse_qs(query.decode("utf-8", "replace")).get("model", [None])
    return _given(values[-1])


def _given(name: str | int | None) -> str | None:
    """The name without surrounding blanks; None for a blank one."""
    text = "" if name is None else str(name).strip()
    return text or None


_BOUNDARY = re.compile(rb'boundary="?([^";,\s]{1,200})', re.IGNORECASE)
_FIELD_NAME = re.compile(rb'content-disposition:[^\r\n]*;\s*name="?model"?\s*(?:;|\r?\n|$)', re.IGNORECASE)
_MAX_PART_HEAD = 8192


def _model_in_form(headers: Headers, body: bytes) -> str | None:
    content_type = next((value for name, value in headers if name == b"content-type"), b"")
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise InvalidInput("content-type", "must be multipart/form-data with a boundary")
    delimiter = b"--" + boundary[1]
    start = body.find(delimiter)
    while start >= 0:
        # Only the heads of parts are read: the file may be many MiB and is not copied.
        head_end = body.find(b"\r\n\r\n", start, start + _MAX_PART_HEAD)
        part_end = body.find(b"\r\n" + delimiter, start + len(delimiter))
        if 0 <= head_end < part_end and _FIELD_NAME.search(body[start:head_end]):
            return _given(body[head_end + 4 : part_end].decode("utf-8", "replace"))
        start = part_end + 2 if part_end >= 0 else -1
    return None
