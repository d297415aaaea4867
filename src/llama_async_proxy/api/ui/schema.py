"""Messages of the web UI's namespace. frontend/src/live/protocol.gen.ts is generated from this file: run `make docs`.

A record travels with the field names that it has in the service; a summary below leaves fields out and keeps the names
of the others. Units are part of a name (`_ms`, `_bytes`, `_percent`); null means "not known".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from llama_async_proxy import __version__
from llama_async_proxy.operations.engine import EngineView
from llama_async_proxy.operations.models import ModelView
from llama_async_proxy.records.chats import Conversation, Message
from llama_async_proxy.records.engine import EngineStatus
from llama_async_proxy.records.machine import Sample
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.requests import LiveRequest, RequestRecord
from llama_async_proxy.records.runtime import LoadProgress, ModelStatus, QueueState
from llama_async_proxy.settings import Settings

# --- models -----------------------------------------------------------------------------------------------------------


class ModelSummary(Struct):
    """A row of the model list: a model and its process, without the header's metadata and the process's address."""

    id: int
    slug: str
    name: str
    path: str
    kind: ModelKind
    architecture: str
    parameter_count: int | None
    quantization: str | None
    size_bytes: int
    context_length: int | None
    is_favorite: bool
    sees_images: bool
    status: ModelStatus
    queue: QueueState | None
    progress: LoadProgress | None
    error: str | None
    log_tail: tuple[str, ...]
    loaded_at_ms: int | None
    load_duration_ms: int | None
    context_size: int | None
    slots: int | None
    rss_bytes: int | None
    pid: int | None
    restarts: int
    last_used_at_ms: int | None


class ModelsSnapshot(Struct):
    models: list[ModelSummary]


class ModelUpsert(Struct, tag_field="kind", tag="upsert"):
    model: ModelSummary


class ModelRemove(Struct, tag_field="kind", tag="remove"):
    id: int


# --- machine, engine, requests ----------------------------------------------------------------------------------------


class MetricsSnapshot(Struct):
    samples: list[Sample]


class EngineSummary(Struct):
    status: EngineStatus
    kind: str
    binary: str | None
    version: str | None
    error: str | None
    started_at_ms: int | None
    service_version: str
    models_dir: str
    url: str


class EngineSnapshot(Struct):
    engine: EngineSummary


class RequestsSnapshot(Struct):
    records: list[RequestRecord]


class LiveSnapshot(Struct):
    live: list[LiveRequest]


# --- conversations ----------------------------------------------------------------------------------------------------


class ConversationsSnapshot(Struct):
    """Ids of the conversations in which an answer is being generated; the list itself is what chats.list gives."""

    answering: list[int]


class ConversationUpsert(Struct, tag_field="kind", tag="upsert"):
    conversation: Conversation


class ConversationRemove(Struct, tag_field="kind", tag="remove"):
    id: int


class ConversationAnswering(Struct, tag_field="kind", tag="answering"):
    """An answer has begun or ended in a conversation."""

    id: int
    is_answering: bool


class AnswerSnapshot(Struct):
    """The answer that is being generated, with the text that is not stored yet; chats.get gives the stored messages."""

    answer: Message | None


class MessageUpsert(Struct, tag_field="kind", tag="message"):
    message: Message


class MessageGrow(Struct, tag_field="kind", tag="grow"):
    """More text of a message; `content_at` and `reasoning_at` are the lengths, in characters, that it had before."""

    id: int
    content: str
    reasoning: str
    content_at: int
    reasoning_at: int


class MessageRemove(Struct, tag_field="kind", tag="remove_message"):
    id: int


class AnswerFailure(Struct, tag_field="kind", tag="failure"):
    """The reason why an answer is incomplete or missing."""

    code: str
    message: str


class BranchesChanged(Struct, tag_field="kind", tag="branches"):
    """Another branch is active: the reader asks for the messages again."""


# --- topics and calls -------------------------------------------------------------------------------------------------


class CallError(Struct):
    code: str
    message: str
    field: str | UnsetType = UNSET
    """Name of the input field that is at fault."""
    details: str | UnsetType = UNSET


class TopicTypes(NamedTuple):
    data: object
    """Type of a snapshot's data."""
    item: object
    """Type of one item of a delta."""


ConversationItem: TypeAlias = ConversationUpsert | ConversationRemove
TOPICS: Mapping[str, TopicTypes] = {
    "models": TopicTypes(ModelsSnapshot, ModelUpsert | ModelRemove),
    "metrics": TopicTypes(MetricsSnapshot, Sample),
    "engine": TopicTypes(EngineSnapshot, EngineSummary),
    "requests": TopicTypes(RequestsSnapshot, RequestRecord),
    # Each item is the whole list, newest first.
    "live": TopicTypes(LiveSnapshot, list[LiveRequest]),
    "chats": TopicTypes(ConversationsSnapshot, ConversationItem | ConversationAnswering),
    "chat:ID": TopicTypes(
        AnswerSnapshot,
        ConversationItem | MessageUpsert | MessageGrow | MessageRemove | AnswerFailure | BranchesChanged,
    ),
}
"""Every topic that a page can join. ID stands for the number of a conversation."""


def model_summary(view: ModelView) -> ModelSummary:
    model, runtime = view.model, view.runtime
    return ModelSummary(
        id=model.id,
        slug=model.slug,
        name=model.name,
        path=model.path,
        kind=model.facts.kind,
        architecture=model.family or model.facts.architecture,
        parameter_count=model.facts.parameter_count,
        quantization=model.quantization or model.facts.quantization,
        size_bytes=model.size_bytes,
        context_length=model.facts.context_length,
        is_favorite=model.is_favorite,
        sees_images=model.mmproj_path is not None,
        status=runtime.status,
        queue=runtime.queue,
        progress=runtime.progress,
        error=runtime.error,
        log_tail=runtime.log_tail,
        loaded_at_ms=runtime.loaded_at_ms,
        load_duration_ms=runtime.load_duration_ms,
        context_size=runtime.context_size,
        slots=runtime.slots,
        rss_bytes=runtime.rss_bytes,
        pid=runtime.pid,
        restarts=runtime.restarts,
        last_used_at_ms=model.last_used_at_ms,
    )


def engine_summary(view: EngineView, settings: Settings) -> EngineSummary:
    state = view.state
    return EngineSummary(
        status=state.status,
        kind=state.kind,
        binary=state.binary,
        version=state.version,
        error=state.error,
        started_at_ms=state.started_at_ms,
        service_version=__version__,
        models_dir=str(settings.models_dir),
        url=view.url,
    )


def rendered_request(record: RequestRecord) -> object:
    """An object with the record's field names; msgspec makes an array of a named tuple."""
    return record._asdict()
