"""Records on the namespace of the web UI; the same types as in frontend/src/live/protocol.ts.

Sizes are bytes, times milliseconds since the epoch unless the name says otherwise; null always means "not known".
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from llama_async_proxy import __version__
from llama_async_proxy.operations.engine import EngineView
from llama_async_proxy.operations.models import ModelView
from llama_async_proxy.records.chats import Conversation, Message
from llama_async_proxy.records.machine import GpuSample, Sample
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.requests import RequestRecord
from llama_async_proxy.records.runtime import LoadProgress, ModelStatus, QueueState
from llama_async_proxy.settings import Settings


class UiProgress(Struct, rename="camel"):
    stage: str
    fraction: float
    started_at_ms: int


class UiQueue(Struct, rename="camel"):
    position: int
    requests: int
    reason: str
    since_ms: int


class UiModel(Struct, rename="camel"):
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
    queue: UiQueue | None
    progress: UiProgress | None
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


class Upsert(Struct):
    model: UiModel
    kind: Literal["upsert"] = "upsert"


class Remove(Struct):
    id: int
    kind: Literal["remove"] = "remove"


class UiGpu(Struct, rename="camel"):
    index: int
    name: str
    vendor: str
    usage: float | None
    memory_used: int | None
    memory_total: int | None
    temperature: float | None
    power: float | None


class UiSample(Struct, rename="camel"):
    t: int
    cpu: float
    memory_used: int
    memory_total: int
    swap_used: int
    swap_total: int
    disk_used: int
    disk_total: int
    gpus: list[UiGpu]
    models_loaded: int
    models_memory: int
    requests_total: int
    requests_active: int
    response_ms: float | None
    uptime_s: float


class UiEngine(Struct, rename="camel"):
    status: str
    kind: str
    binary: str | None
    version: str | None
    error: str | None
    started_at_ms: int | None
    service_version: str
    models_dir: str
    url: str


class UiRequest(Struct, rename="camel"):
    id: str
    t: int
    route: str
    model: str
    status: int
    streamed: bool
    first_token_ms: float | None
    total_ms: float
    prompt_tokens: int | None
    completion_tokens: int | None
    tokens_per_second: float | None
    error: str | None


class UiConversation(Struct, rename="camel"):
    id: int
    title: str
    model: str
    is_pinned: bool
    is_archived: bool
    created_at_ms: int
    updated_at_ms: int


class UiAttachment(Struct, rename="camel"):
    id: int
    media_type: str
    name: str
    size_bytes: int


class UiMessage(Struct, rename="camel"):
    id: int
    parent_id: int | None
    role: str
    content: str
    reasoning: str | None
    model: str | None
    status: str
    created_at_ms: int
    response_ms: float | None
    prompt_tokens: int | None
    tokens: int | None
    tokens_per_second: float | None
    attachments: list[UiAttachment]


class ChatUpsert(Struct):
    conversation: UiConversation
    kind: Literal["upsert"] = "upsert"


class ChatRemove(Struct):
    id: int
    kind: Literal["remove"] = "remove"


class Answering(Struct, rename="camel"):
    """An answer has begun or ended in a conversation."""

    id: int
    is_answering: bool
    kind: Literal["answering"] = "answering"


class MessageUpsert(Struct):
    message: UiMessage
    kind: Literal["message"] = "message"


class MessageGrow(Struct, rename="camel"):
    """Text that a message gained; `...At` are the lengths, in characters, that it had before."""

    id: int
    content: str
    reasoning: str
    content_at: int
    reasoning_at: int
    kind: Literal["grow"] = "grow"


class MessageRemove(Struct):
    id: int
    kind: Literal["removeMessage"] = "removeMessage"


class Failure(Struct):
    """The reason why an answer is incomplete or missing."""

    code: str
    message: str
    kind: Literal["failure"] = "failure"


class Branches(Struct):
    """Another branch is active: read the messages again."""

    kind: Literal["branches"] = "branches"


def ui_conversation(conversation: Conversation) -> UiConversation:
    return UiConversation(
        id=conversation.id,
        title=conversation.title,
        model=conversation.model,
        is_pinned=conversation.is_pinned,
        is_archived=conversation.is_archived,
        created_at_ms=conversation.created_at_ms,
        updated_at_ms=conversation.updated_at_ms,
    )


def ui_message(message: Message) -> UiMessage:
    return UiMessage(
        id=message.id,
        parent_id=message.parent_id,
        role=message.role,
        content=message.content,
        reasoning=message.reasoning,
        model=message.model,
        status=message.status,
        created_at_ms=message.created_at_ms,
        response_ms=message.response_ms,
        prompt_tokens=message.prompt_tokens,
        tokens=message.tokens,
        tokens_per_second=message.tokens_per_second,
        attachments=[UiAttachment(a.id, a.media_type, a.name, a.size_bytes) for a in message.attachments],
    )


def ui_model(view: ModelView) -> UiModel:
    model, runtime = view.model, view.runtime
    return UiModel(
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
        queue=_queue(runtime.queue),
        progress=_progress(runtime.progress),
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


def _queue(queue: QueueState | None) -> UiQueue | None:
    if queue is None:
        return None
    return UiQueue(queue.position, queue.requests, queue.reason, queue.since_ms)


def _progress(progress: LoadProgress | None) -> UiProgress | None:
    if progress is None:
        return None
    return UiProgress(progress.stage, progress.fraction, progress.started_at_ms)


def ui_sample(sample: Sample) -> UiSample:
    return UiSample(
        t=sample.timestamp_ms,
        cpu=sample.cpu_percent,
        memory_used=sample.memory_used_bytes,
        memory_total=sample.memory_total_bytes,
        swap_used=sample.swap_used_bytes,
        swap_total=sample.swap_total_bytes,
        disk_used=sample.disk_used_bytes,
        disk_total=sample.disk_total_bytes,
        gpus=[_gpu(gpu) for gpu in sample.gpus],
        models_loaded=sample.models_loaded,
        models_memory=sample.models_memory_bytes,
        requests_total=sample.requests.total,
        requests_active=sample.requests.active,
        response_ms=sample.requests.average_response_ms,
        uptime_s=sample.uptime_s,
    )


def _gpu(gpu: GpuSample) -> UiGpu:
    return UiGpu(
        index=gpu.index,
        name=gpu.name,
        vendor=gpu.vendor,
        usage=gpu.usage_percent,
        memory_used=gpu.memory_used_bytes,
        memory_total=gpu.memory_total_bytes,
        temperature=gpu.temperature_c,
        power=gpu.power_w,
    )


def ui_engine(view: EngineView, settings: Settings) -> UiEngine:
    state = view.state
    return UiEngine(
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


def ui_request(record: RequestRecord) -> UiRequest:
    return UiRequest(
        id=record.id,
        t=record.arrived_at_ms,
        route=record.route,
        model=record.model,
        status=record.status,
        streamed=record.streamed,
        first_token_ms=record.first_token_ms,
        total_ms=record.total_ms,
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        tokens_per_second=record.tokens_per_second,
        error=record.error,
    )
