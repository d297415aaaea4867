"""Every operation of the REST interface, typed. Made by clients/generate.py from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NotRequired, TypedDict

from llama_async_proxy.client.exchange import Request, path_of


class Amount(TypedDict):
    free: float
    total: float
    usagePercent: float
    used: float


class AnswerStopped(TypedDict):
    message: MessageInfo | None
    stopped: bool
    """An answer was being generated."""
    success: NotRequired[Literal[True]]


class ApplicationStatus(TypedDict):
    environment: str
    """Always production: there is but one way to run the service."""
    name: str
    start_time: str
    uptime: float
    version: str


class AttachmentInfo(TypedDict):
    id: int
    media_type: str
    name: str
    size: int
    """Bytes."""
    url: str


class BrokenModelFile(TypedDict):
    path: str
    reason: str


class CancelledData(TypedDict):
    cancelled: list[RunningRequest]
    """Several when clients gave them the same id."""


class Change(TypedDict):
    after: NotRequired[str | None]
    before: NotRequired[str | None]
    """Absent: it was not there."""
    key: str
    section: str


class ChangesBody(TypedDict):
    config: dict[str, str | int | float | bool | None]
    """Values by key; null removes one, what is absent stays."""


class ChatAnswer(TypedDict):
    conversation_id: int
    estimated_tokens: int
    message_id: int
    """Of the answer."""
    metrics: ChatMetrics
    model: str
    reasoning: str | None
    response: str
    response_time_ms: int
    status: Literal["complete", "generating", "stopped", "interrupted"]


class ChatBody(TypedDict):
    conversation_id: int
    images: NotRequired[list[ImageBody]]
    message: str
    model: str
    stream: NotRequired[bool]
    """Server-sent events instead of one JSON answer."""


class ChatMetrics(TypedDict):
    completion_tokens: int
    omitted_messages: int | None
    """Oldest messages that the model's context does not hold, so that it did not get them; null: not known
    any more."""
    prompt_tokens: int | None
    """null: the engine did not say."""
    tokens_per_second: float | None
    total_tokens: int


class CleanedUpModels(TypedDict):
    deleted: list[str]
    deletedCount: int


class ConfigAnswer(TypedDict):
    data: EngineConfig
    model_options: SamplingDefaults
    performance: Performance
    response_optimization: ResponseOptimization
    settings: Mapping[str, object]
    """Every setting, nested as in the configuration file."""
    success: NotRequired[Literal[True]]
    timeouts: Timeouts
    timestamp: NotRequired[str]


class ConfigBody(TypedDict):
    """Any part of the configuration file; what is absent keeps its value."""

    basePath: NotRequired[str]
    batch_size: NotRequired[int]
    ctx_size: NotRequired[int]
    gpu_layers: NotRequired[int]
    host: NotRequired[str]
    port: NotRequired[int]
    serverPath: NotRequired[str]
    threads: NotRequired[int]


class ConfigUpdatedAnswer(TypedDict):
    data: EngineConfig
    message: NotRequired[str | None]
    overridden: list[str]
    """Keys that the command line or the environment set at the next start."""
    restartRequired: bool
    success: NotRequired[Literal[True]]
    timestamp: NotRequired[str]
    warnings: list[str]


class ConversationAnswer(TypedDict):
    conversation: ConversationDetails
    messages: list[MessageInfo]
    stats: ConversationTotals


class ConversationChangesBody(TypedDict):
    """What is absent keeps its value. A system_prompt of null is the setting's; `options` replaces all of them."""

    archived: NotRequired[bool]
    model: NotRequired[str]
    options: NotRequired[SamplingOptions]
    pinned: NotRequired[bool]
    system_prompt: NotRequired[str | None]
    title: NotRequired[str]


class ConversationCreated(TypedDict):
    conversation_id: int


class ConversationDetails(TypedDict):
    answering: bool
    """An answer is being generated."""
    archived: bool
    created_at: str
    id: int
    model: str
    options: SamplingOptions
    pinned: bool
    system_prompt: str | None
    """null: the setting chat.systemPrompt."""
    title: str
    updated_at: str


class ConversationInfo(TypedDict):
    answering: bool
    """An answer is being generated."""
    archived: bool
    created_at: str
    id: int
    model: str
    pinned: bool
    title: str
    updated_at: str


class ConversationStats(TypedDict):
    by_role: list[RoleStats]
    summary: ConversationTotals


class ConversationTotals(TypedDict):
    assistant_messages: int
    avg_response_time: float | None
    """Milliseconds."""
    total_messages: int
    total_tokens: int


class ConversationUpdated(TypedDict):
    success: NotRequired[Literal[True]]
    title: str


class ConversationsAnswer(TypedDict):
    conversations: list[ConversationInfo]


class Cpu(TypedDict):
    cores: int
    loadAverage: list[float]
    """1, 5 and 15 minutes."""
    usage: float


class DayModelUsage(TypedDict):
    avg_response_time: float | None
    """Milliseconds."""
    cached_tokens: int
    completion_tokens: int
    day: str
    """ISO date, UTC."""
    errors: int
    model: str
    prompt_tokens: int
    requests: int
    tokens_per_second: float | None
    """While generating."""


class DayUsage(TypedDict):
    avg_response_time: float | None
    """Milliseconds."""
    cached_tokens: int
    completion_tokens: int
    day: str
    """ISO date, UTC."""
    errors: int
    prompt_tokens: int
    requests: int
    tokens_per_second: float | None
    """While generating."""


class Defaults(TypedDict):
    config: dict[str, str | int | float | bool]
    name: str


class Difference(TypedDict):
    changes: list[Change]
    text: str
    """As diff -u prints it."""


class DirectoryInfo(TypedDict):
    directory: str
    models: list[FileInfo]


class DiscoverBody(TypedDict):
    excludePatterns: NotRequired[list[str]]
    includePatterns: NotRequired[list[str]]
    paths: NotRequired[list[str]]
    """Absolute; none: the models directory."""
    recursive: NotRequired[bool]


class DiscoveredModels(TypedDict):
    discovered: list[FoundModel]
    failed: list[BrokenModelFile]
    scannedPaths: list[str]
    totalFound: int


class EditBody(TypedDict):
    message: str
    model: NotRequired[str | None]
    """null: the conversation's."""
    stream: NotRequired[bool]


class EndedRequest(TypedDict):
    arrivedAt: str
    cachedTokens: int | None
    client: str
    completionTokens: int | None
    error: str | None
    firstTokenMs: float | None
    id: str
    key: str | None
    """First eight digits of the SHA-256 of the API key it came with."""
    loadMs: float | None
    model: str
    promptTokens: int | None
    queuedMs: float | None
    route: str
    status: int
    """Of HTTP; 499 when the client left or the request was cancelled."""
    streamed: bool
    tokensPerSecond: float | None
    totalMs: float


class EngineConfig(TypedDict):
    """The engine's part of the configuration file; -1 leaves a number to the engine."""

    basePath: str
    """Directory of the GGUF files."""
    batch_size: int
    ctx_size: int
    gpu_layers: int
    host: str
    port: int
    serverPath: str
    """The llama-server binary; empty: found by itself."""
    threads: int


class EngineData(TypedDict):
    binary: NotRequired[str | None]
    error: NotRequired[str | None]
    host: str
    kind: str
    """How models are run: workers, embedded, router."""
    mode: NotRequired[Literal["router"]]
    port: int
    preset: NotRequired[str | None]
    """The one it runs with."""
    startedAt: NotRequired[str | None]
    status: Literal["idle", "running", "error"]
    url: str
    """Where inference is answered."""
    version: NotRequired[str | None]


class EngineHealth(TypedDict):
    error: NotRequired[str | None]
    host: str
    last_health_check: str
    models_loaded: int
    port: int
    status: Literal["healthy", "unhealthy"]


class EngineOptionsBody(TypedDict):
    """What is absent stays."""

    maxModels: NotRequired[int | None]
    options: NotRequired[dict[str, str | int | float | bool | None]]
    """By option; null removes one."""


FileFormat = Literal["json", "markdown"]


class FileInfo(TypedDict):
    contextSize: NotRequired[int | None]
    """Tokens that `estimatedVram` holds for."""
    estimatedVram: NotRequired[int | None]
    """The latter, loaded or not."""
    name: str
    path: str
    size: int
    vram: NotRequired[int | None]
    """Bytes it takes of GPU and main memory if it is loaded, else of the GPU with every layer there."""


Fit = Literal["yes", "after_evictions", "host_only", "tight", "no"]


class FoundModel(TypedDict):
    """A model file; registered or not."""

    contextSize: NotRequired[int | None]
    """Tokens."""
    description: NotRequired[str | None]
    family: str
    """Architecture."""
    format: NotRequired[Literal["gguf"]]
    name: str
    path: str
    quantization: NotRequired[str | None]
    size: int
    """Bytes, all shards together."""
    version: NotRequired[str | None]


class Gpu(TypedDict):
    id: int
    memory: NotRequired[Amount | None]
    name: str
    temperature: NotRequired[float | None]
    utilization: NotRequired[float | None]


class HealthData(TypedDict):
    services: ServicesHealth
    status: Literal["healthy", "unhealthy"] | Literal["starting"]
    """starting: the first scan for models has not ended."""
    system: SystemHealth
    timestamp: str


class HistoryData(TypedDict):
    metrics: list[HistoryEntry]
    period: Period
    summary: Summary


class HistoryEntry(TypedDict):
    cpu: float
    gpu: NotRequired[float | None]
    memory: float
    requests: int
    responseTime: float
    timestamp: str


class ImageBody(TypedDict):
    data: str
    """Base64."""
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
    name: NotRequired[str]


class ImportBody(TypedDict):
    content: str
    """The INI file's text."""
    name: str
    replace: NotRequired[bool]
    """Replace a preset of that name."""


class ImportedAnswer(TypedDict):
    conversations: list[ConversationInfo]
    count: int


class InheritedOptions(TypedDict):
    finalConfig: dict[str, str | int | float | bool]
    inheritancePath: list[str]
    sources: dict[str, str]
    """default, global, group or model, by the same keys."""


JsonValue = object


class LoadBody(TypedDict):
    force: NotRequired[bool]
    """Load it although it needs more memory than the machine has."""
    options: NotRequired[dict[str, str | int | float | bool]]
    """Engine options of this load, by long flag name."""


class LoggerBody(TypedDict):
    """Any part of it; what is absent keeps its value."""

    console: NotRequired[bool]
    file: NotRequired[bool]
    level: NotRequired[Literal["debug", "info", "warn", "error"]]
    maxFiles: NotRequired[int]


class LoggerData(TypedDict):
    console: bool
    file: bool
    level: str
    """Least severe level that is logged."""
    maxFiles: int
    """Rotated files that are kept of each log."""


class MachineMemory(TypedDict):
    """MiB."""

    gpu: NotRequired[float | None]
    """All GPUs together; absent without one."""
    host: float


class MemoryFootprint(TypedDict):
    """MiB."""

    compute: float
    context: float
    """Cached keys and values, and recurrent state."""
    total: float
    weights: float


class MessageInfo(TypedDict):
    active: bool
    """Part of the branch that is read and continued."""
    attachments: list[AttachmentInfo]
    content: str
    conversation_id: int
    estimated_tokens: int
    """The engine's count where it gave one."""
    id: int
    model: str | None
    parent_id: int | None
    reasoning: str | None
    response_time_ms: int | None
    role: Literal["system", "user", "assistant"]
    status: Literal["complete", "generating", "stopped", "interrupted"]
    timestamp: str
    tokens_per_second: float | None


class ModelChangesBody(TypedDict):
    """What is absent or null keeps its value."""

    aliases: NotRequired[list[str] | None]
    contextSize: NotRequired[int | None]
    description: NotRequired[str | None]
    family: NotRequired[str | None]
    isFavorite: NotRequired[bool | None]
    isPinned: NotRequired[bool | None]
    name: NotRequired[str | None]
    options: NotRequired[dict[str, str | int | float | bool] | None]
    quantization: NotRequired[str | None]
    variants: NotRequired[list[ModelVariant] | None]


class ModelCounts(TypedDict):
    failed: int
    loaded: int
    loading: int
    registered: int


class ModelMemory(TypedDict):
    allLayers: int
    alternatives: list[dict[str, str | int | float | bool]]
    """Engine options with which it would fit, each set enough by itself; empty when it fits."""
    contextPerSlot: int
    contextSize: int
    """Tokens of all slots together, as the engine rounds them."""
    counted: NotRequired[MachineMemory | None]
    """By the engine itself after the load, where it tells."""
    fits: Fit
    """after_evictions: once others were unloaded, which the service does by itself. host_only: not as
    asked, but without the GPU. tight: only in what is not free, the system may have to swap."""
    free: MachineMemory
    """Now, and what this model's process would give back."""
    gpu: MemoryFootprint
    gpuLayers: int
    """The output layer counts as one."""
    gpus: list[MemoryFootprint]
    """Each GPU, where there are several; else empty."""
    host: MemoryFootprint
    isRough: bool
    """The architecture is not modelled; the numbers may be off by some percent."""
    largestContext: NotRequired[int | None]
    """Tokens of all slots that fit; absent when none does."""
    measured: NotRequired[MachineMemory | None]
    """What the model's process takes; absent while none runs."""
    mostGpuLayers: NotRequired[int | None]
    """Absent without a GPU, or when the rest does not fit."""
    slots: int
    total: float
    """MiB, host and GPU."""
    withDraft: MachineMemory
    """The estimate, and what a draft model takes."""


class ModelUsage(TypedDict):
    avg_response_time: float | None
    """Milliseconds."""
    cached_tokens: int
    completion_tokens: int
    errors: int
    model: str
    prompt_tokens: int
    requests: int
    tokens_per_second: float | None
    """While generating."""


class ModelVariant(TypedDict):
    name: str
    parameters: NotRequired[dict[str, JsonValue]]
    """Keys of a request's body, for requests that do not have them."""
    systemPrompt: NotRequired[str | None]
    """For conversations that have none."""


class ModelsAnswer(TypedDict):
    """The same list twice: whole in `data`, and as file names beside it."""

    count: int
    data: ModelsData
    llamacpp_url: str
    models: list[str]
    success: NotRequired[Literal[True]]
    timestamp: NotRequired[str]


class ModelsData(TypedDict):
    count: int
    models: list[RegisteredModel]
    scanning: bool
    """The first scan since the start has not ended: models may be missing here."""


class ModelsUse(TypedDict):
    active: int
    memoryUsage: float
    total: int


class MonitoringData(TypedDict):
    cpu: Cpu
    disk: Amount
    """Bytes."""
    gpu: NotRequired[list[Gpu] | None]
    """Absent where there is none."""
    memory: Amount
    """MiB."""
    models: ModelsUse
    requests: RequestsUse
    timestamp: str
    uptime: float


class NewConversationBody(TypedDict):
    model: str
    options: NotRequired[SamplingOptions]
    system_prompt: NotRequired[str | None]
    title: str | None
    """null: named after what is said first."""


class NewModelBody(TypedDict):
    contextSize: NotRequired[int | None]
    description: NotRequired[str | None]
    family: NotRequired[str | None]
    name: NotRequired[str | None]
    options: NotRequired[dict[str, str | int | float | bool]]
    """Engine options, or the command that serves the model."""
    path: NotRequired[str | None]
    """Absolute path of a GGUF file; for a split model, of its first shard. Not needed with a command."""
    quantization: NotRequired[str | None]
    version: NotRequired[str | None]


class NewModelsBody(TypedDict):
    models: list[NewModelBody]


class NewNameBody(TypedDict):
    name: str


class NewPresetBody(TypedDict):
    description: NotRequired[str | None]
    name: str
    template: NotRequired[str | None]
    """Name of a template; absent: an empty preset."""


class OptionCatalogue(TypedDict):
    binary: NotRequired[str | None]
    groups: list[OptionGroupInfo]
    version: NotRequired[str | None]


class OptionGroupInfo(TypedDict):
    name: str
    options: list[OptionInfo]


class OptionInfo(TypedDict):
    aliases: list[str]
    choices: list[str]
    default: NotRequired[str | None]
    description: str
    env: list[str]
    isPresetOnly: bool
    """For presets, not for loads."""
    isRemoved: bool
    isReserved: bool
    """The service's own business; ignored in presets."""
    name: str
    negativeAliases: list[str]
    type: str


class OptionsOfEngine(TypedDict):
    maxModels: int
    options: dict[str, str | int | float | bool]


class OptionsOfModel(TypedDict):
    id: str
    options: list[SetOption]
    section: NotRequired[str | None]
    """Of the preset in force that speaks of the model."""


class Performance(TypedDict):
    context_history_limit: int
    """Newest messages of a conversation the model sees; 0: all."""
    num_thread: int
    use_mlock: NotRequired[bool | None]
    use_mmap: NotRequired[bool | None]


class PerformanceStatus(TypedDict):
    average_response_time: float
    """Milliseconds, over the last minute; 0 without requests."""
    error_rate: float
    requests_active: int
    requests_total: int


class Period(TypedDict):
    end: str
    resolution: str
    start: str


class PresetBody(TypedDict):
    """Either of the two."""

    config: NotRequired[dict[str, dict[str, str | int | float | bool]] | None]
    """Values by section and key. Comments in the file are kept."""
    content: NotRequired[str | None]


class PresetDetails(TypedDict):
    content: str
    """The INI file's text."""
    description: str
    errors: list[PresetProblem]
    file: str
    isActive: bool
    """The engine runs with it."""
    modifiedAt: str
    name: str
    path: str
    problem: NotRequired[str | None]
    """Why the file is no preset."""
    sections: dict[str, dict[str, str]]
    """Values as written, by section and key."""
    size: int
    title: str
    values: dict[str, dict[str, str | int | float | bool]]
    """What the sections say, typed."""
    warnings: list[PresetProblem]


class PresetFileText(TypedDict):
    content: str
    """The INI file's text."""
    file: str


class PresetInfo(TypedDict):
    description: str
    file: str
    isActive: bool
    """The engine runs with it."""
    modifiedAt: str
    name: str
    path: str
    problem: NotRequired[str | None]
    """Why the file is no preset."""
    sections: dict[str, dict[str, str]]
    """Values as written, by section and key."""
    size: int
    title: str


class PresetProblem(TypedDict):
    column: NotRequired[int | None]
    key: NotRequired[str | None]
    kind: NotRequired[ProblemKind]
    """invalid: the engine would refuse it. owner: only the machine's owner may say it, in the file."""
    line: NotRequired[int | None]
    message: str
    section: NotRequired[str | None]


class PresetRemoved(TypedDict):
    name: str


class PresetVerdict(TypedDict):
    errors: list[PresetProblem]
    valid: bool
    warnings: list[PresetProblem]


class Presets(TypedDict):
    active: NotRequired[str | None]
    presets: list[PresetInfo]
    problem: NotRequired[str | None]
    """Why the chosen preset is not in force."""


ProblemKind = Literal["invalid", "owner"]


class ProxyHealth(TypedDict):
    status: Literal["healthy", "unhealthy"]
    uptime: float
    version: str


class RegenerateBody(TypedDict):
    model: NotRequired[str | None]
    """null: the conversation's."""
    stream: NotRequired[bool]


class RegisteredModel(TypedDict):
    aliases: list[str]
    contextSize: NotRequired[int | None]
    """Tokens."""
    description: NotRequired[str | None]
    error: NotRequired[str | None]
    """Why the last load failed."""
    family: str
    """Architecture."""
    format: NotRequired[Literal["gguf"]]
    id: str
    isFavorite: bool
    isPinned: bool
    lastUsed: NotRequired[str | None]
    loadedAt: NotRequired[str | None]
    memoryUsage: NotRequired[float | None]
    """MiB, measured."""
    missing: bool
    """The last scan did not find its file; the model comes back with it."""
    name: str
    options: dict[str, str | int | float | bool]
    """Engine options of this model, by long flag name."""
    path: str
    quantization: NotRequired[str | None]
    size: int
    """Bytes, all shards together."""
    status: Literal["running", "loading", "stopped", "error", "discovered", "registered"]
    variants: list[ModelVariant]
    """Further names with defaults of their own, on the same process."""
    version: NotRequired[str | None]


class RegisteredModels(TypedDict):
    models: list[RegisteredModel]
    registered: int


class RemovedModel(TypedDict):
    modelId: str


RequestPhase = Literal["queued", "loading", "prompt", "generating"]


class Requests(TypedDict):
    live: list[RunningRequest]
    recent: list[EndedRequest]


class RequestsUse(TypedDict):
    active: int
    averageResponseTime: float
    errorRate: float
    total: int


class ResponseOptimization(TypedDict):
    keep_alive: str
    """How long an unused model stays loaded: '600s'; '-1' is for ever."""
    stream: bool
    """Whether /api/chat streams when it is not told to."""


class RoleStats(TypedDict):
    avg_length: float
    """Characters."""
    avg_response_time: float | None
    count: int
    role: Literal["system", "user", "assistant"]
    total_tokens: int


class RunningRequest(TypedDict):
    arrivedAt: str
    client: str
    elapsedMs: float
    id: str
    """Also in the answer's header X-Request-Id; the client's own if it sent one."""
    model: str
    queue: Waiting | None
    route: str
    status: RequestPhase
    tokens: int
    """Pieces of the answer so far: one for each token."""


class SamplingDefaults(TypedDict):
    """Of answers in conversations that say nothing else; null: the model's own default rules."""

    min_p: NotRequired[float | None]
    num_predict: NotRequired[int | None]
    repeat_penalty: NotRequired[float | None]
    stop: NotRequired[list[str] | None]
    temperature: NotRequired[float | None]
    top_k: NotRequired[int | None]
    top_p: NotRequired[float | None]


class SamplingOptions(TypedDict):
    """null: the setting's value, or the model's own default."""

    context_history_limit: NotRequired[int | None]
    """Newest messages the model sees; 0: all."""
    frequency_penalty: NotRequired[float | None]
    min_p: NotRequired[float | None]
    num_predict: NotRequired[int | None]
    """Most tokens of an answer."""
    presence_penalty: NotRequired[float | None]
    repeat_penalty: NotRequired[float | None]
    seed: NotRequired[int | None]
    stop: NotRequired[list[str] | None]
    temperature: NotRequired[float | None]
    top_k: NotRequired[int | None]
    top_p: NotRequired[float | None]


class ScannedModels(TypedDict):
    failed: list[BrokenModelFile]
    scanned: int
    """New models."""
    total: int
    updated: int
    """Known models whose file changed."""


class SearchAnswer(TypedDict):
    count: int
    query: str
    results: list[SearchResult]


class SearchResult(TypedDict):
    content: str
    """Of the message; empty for a conversation that was found by its title."""
    estimated_tokens: int | None
    id: int
    """Of the conversation."""
    message_id: int | None
    model: str
    response_time_ms: int | None
    role: Literal["system", "user", "assistant"] | None
    snippet: str
    """HTML: the surroundings of the match, matches in <mark>, all else escaped."""
    timestamp: str
    title: str
    updated_at: str


class SectionBody(TypedDict):
    config: NotRequired[dict[str, str | int | float | bool]]
    """Values by key."""
    name: str


class SectionInfo(TypedDict):
    config: dict[str, str | int | float | bool]
    """What the section itself says."""
    group: NotRequired[str | None]
    name: str
    options: dict[str, str | int | float | bool]
    """With what it inherits, by the options' own names."""
    path: NotRequired[str | None]
    sources: dict[str, str]


class Sections(TypedDict):
    models: list[SectionInfo]
    name: str


class ServerStatus(TypedDict):
    cors_enabled: bool
    """Whether other origins may call."""
    host: str
    port: int
    ssl: bool
    """false: the service speaks plain HTTP."""


class ServicesHealth(TypedDict):
    llama_server: EngineHealth
    proxy: ProxyHealth


class SetOption(TypedDict):
    name: str
    source: str
    value: str | int | float | bool


class StartBody(TypedDict):
    maxModels: NotRequired[int | None]
    options: NotRequired[dict[str, str | int | float | bool | None]]
    """By option; null removes one."""
    preset: str


class StatusData(TypedDict):
    application: ApplicationStatus
    models: ModelCounts
    performance: PerformanceStatus
    server: ServerStatus
    websocket: WebsocketStatus


class SuccessAnswer(TypedDict):
    success: NotRequired[Literal[True]]


class Summary(TypedDict):
    avgCpu: float
    avgMemory: float
    avgResponseTime: float
    maxCpu: float
    maxMemory: float
    totalRequests: int


class SystemHealth(TypedDict):
    cpu_usage: float
    disk_usage: float
    memory_usage: float


class TemplateInfo(TypedDict):
    content: str
    """The INI file's text."""
    description: str
    name: str
    title: str


class Templates(TypedDict):
    templates: list[TemplateInfo]


class Timeouts(TypedDict):
    llamacpp_connect_timeout: float
    """Seconds."""
    llamacpp_timeout: float
    """Seconds without a byte of the answer."""


class UsageAnswer(TypedDict):
    by_day: list[DayUsage]
    by_day_and_model: list[DayModelUsage]
    by_model: list[ModelUsage]
    days: int
    total: UsageTotals


class UsageTotals(TypedDict):
    avg_response_time: float | None
    """Milliseconds."""
    cached_tokens: int
    completion_tokens: int
    errors: int
    prompt_tokens: int
    requests: int
    tokens_per_second: float | None
    """While generating."""


class VersionInfo(TypedDict):
    id: int
    replacedAt: str
    size: int


class Versions(TypedDict):
    name: str
    versions: list[VersionInfo]
    """Newest first."""


class Waiting(TypedDict):
    position: int
    """Of the model among all that wait, from 1."""
    reason: str
    requests: int
    """How many wait for the model."""


class WebsocketStatus(TypedDict):
    active_connections: int
    """The same: a session is one connection."""
    connected_clients: int
    """Socket.IO sessions."""
    messages_per_second: float


def get_attachment(attachment_id: int) -> Request[bytes]:
    """An image of a message."""
    return Request("GET", path_of("/api/attachments/{attachment_id}", attachment_id=attachment_id))


def chat(body: ChatBody) -> Request[ChatAnswer]:
    """Send something and get the answer. It is generated to its end and stored, whether or not its reader
    stays."""
    return Request("POST", "/api/chat", body=body)


def get_config() -> Request[ConfigAnswer]:
    """The configuration in force."""
    return Request("GET", "/api/config")


def update_config(body: ConfigBody) -> Request[ConfigUpdatedAnswer]:
    """Change any part of the configuration: all of it or, when a value is wrong, nothing."""
    return Request("POST", "/api/config", body=body)


def list_conversations(
    *, limit: int | None = None, offset: int | None = None, archived: bool | None = None
) -> Request[ConversationsAnswer]:
    """Conversations, last updated first."""
    return Request("GET", "/api/conversations", query={"limit": limit, "offset": offset, "archived": archived})


def create_conversation(body: NewConversationBody) -> Request[ConversationCreated]:
    """Begin a conversation."""
    return Request("POST", "/api/conversations", body=body)


def export_conversations() -> Request[bytes]:
    """All conversations as one file, which can be imported again."""
    return Request("GET", "/api/conversations/export")


def import_conversations(body: Mapping[str, object] | list[object]) -> Request[ImportedAnswer]:
    """Add the conversations of a file of this service, of llama.cpp's web UI or of Open WebUI: all or
    none."""
    return Request("POST", "/api/conversations/import", body=body)


def delete_conversation(conversation_id: int) -> Request[SuccessAnswer]:
    """Delete a conversation and all its messages; an answer that is being generated ends."""
    return Request("DELETE", path_of("/api/conversations/{conversation_id}", conversation_id=conversation_id))


def get_conversation(conversation_id: int, *, branches: bool | None = None) -> Request[ConversationAnswer]:
    """A conversation with its messages, oldest first."""
    return Request(
        "GET",
        path_of("/api/conversations/{conversation_id}", conversation_id=conversation_id),
        query={"branches": branches},
    )


def update_conversation(conversation_id: int, body: ConversationChangesBody) -> Request[ConversationUpdated]:
    """Rename, pin or archive a conversation, or change its model, system prompt or options."""
    return Request("PUT", path_of("/api/conversations/{conversation_id}", conversation_id=conversation_id), body=body)


def export_conversation(conversation_id: int, *, format: FileFormat | None = None) -> Request[bytes]:
    """A conversation as a file."""
    return Request(
        "GET",
        path_of("/api/conversations/{conversation_id}/export", conversation_id=conversation_id),
        query={"format": format},
    )


def choose_branch(conversation_id: int, message_id: int) -> Request[ConversationAnswer]:
    """Make the branch through a message the one that is read and continued."""
    return Request(
        "POST",
        path_of(
            "/api/conversations/{conversation_id}/messages/{message_id}/choose",
            conversation_id=conversation_id,
            message_id=message_id,
        ),
    )


def edit_message(conversation_id: int, message_id: int, body: EditBody) -> Request[ChatAnswer]:
    """Send something else in place of an earlier message, in a branch of its own."""
    return Request(
        "POST",
        path_of(
            "/api/conversations/{conversation_id}/messages/{message_id}/edit",
            conversation_id=conversation_id,
            message_id=message_id,
        ),
        body=body,
    )


def regenerate_answer(conversation_id: int, message_id: int, body: RegenerateBody | None = None) -> Request[ChatAnswer]:
    """Answer again, beside the earlier answer."""
    return Request(
        "POST",
        path_of(
            "/api/conversations/{conversation_id}/messages/{message_id}/regenerate",
            conversation_id=conversation_id,
            message_id=message_id,
        ),
        body=body,
    )


def stop_answer(conversation_id: int) -> Request[AnswerStopped]:
    """End the answer that is being generated; what there is of it is kept."""
    return Request("POST", path_of("/api/conversations/{conversation_id}/stop", conversation_id=conversation_id))


def resume_stream(conversation_id: int, *, last_event_id: str | None = None) -> Request[bytes]:
    """The answer that is being generated, or the rest of the one that was being read; 204 when there is no
    more."""
    return Request(
        "GET",
        path_of("/api/conversations/{conversation_id}/stream", conversation_id=conversation_id),
        headers={"last-event-id": last_event_id},
    )


def get_health() -> Request[HealthData]:
    """200 when all is well, 503 saying what is not."""
    return Request("GET", "/api/health", is_wrapped=True)


def get_engine() -> Request[EngineData]:
    """What runs the models, and where inference is answered."""
    return Request("GET", "/api/llama-server", is_wrapped=True)


def get_engine_options() -> Request[OptionsOfEngine]:
    """What holds for every model, unless a preset, the model or a load says otherwise."""
    return Request("GET", "/api/llama-server/options", is_wrapped=True)


def configure_engine(body: EngineOptionsBody) -> Request[OptionsOfEngine]:
    """Change it, from the next load of each model on."""
    return Request("PATCH", "/api/llama-server/options", body=body, is_wrapped=True)


def leave_preset() -> Request[EngineData]:
    """Run without a preset."""
    return Request("DELETE", "/api/llama-server/preset", is_wrapped=True)


def start_with_preset(body: StartBody) -> Request[EngineData]:
    """Run with a preset, over restarts too. Models whose effective options stay the same stay loaded."""
    return Request("POST", "/api/llama-server/preset", body=body, is_wrapped=True)


def rescan() -> Request[ScannedModels]:
    """Register the new files of the models directory and refresh the changed ones."""
    return Request("POST", "/api/llama-server/rescan", is_wrapped=True)


def restart_engine() -> Request[EngineData]:
    """Stop, wait two seconds, start."""
    return Request("POST", "/api/llama-server/restart", is_wrapped=True)


def start_engine() -> Request[EngineData]:
    """Be ready to load models; nothing happens when it is."""
    return Request("POST", "/api/llama-server/start", is_wrapped=True)


def stop_engine() -> Request[EngineData]:
    """Unload all models and refuse to load any until the next start."""
    return Request("POST", "/api/llama-server/stop", is_wrapped=True)


def get_logger() -> Request[LoggerData]:
    """What is logged, and where to."""
    return Request("GET", "/api/logger", is_wrapped=True)


def update_logger(body: LoggerBody) -> Request[LoggerData]:
    """Change what is logged and where to, at once and for later starts."""
    return Request("POST", "/api/logger", body=body, is_wrapped=True)


def list_models() -> Request[ModelsAnswer]:
    """Registered models and how they are doing."""
    return Request("GET", "/api/models")


def create_models(body: NewModelsBody) -> Request[RegisteredModels]:
    """Register model files: all of them or none."""
    return Request("POST", "/api/models", body=body, is_wrapped=True)


def list_models_directory() -> Request[DirectoryInfo]:
    """The files of the models directory, and the GPU memory each would take."""
    return Request("GET", "/api/models-directory", is_wrapped=True)


def clean_up_models() -> Request[CleanedUpModels]:
    """Forget the models whose file is gone."""
    return Request("POST", "/api/models/cleanup", is_wrapped=True)


def discover_models(body: DiscoverBody | None = None) -> Request[DiscoveredModels]:
    """Look for model files without registering them."""
    return Request("POST", "/api/models/discover", body=body, is_wrapped=True)


def scan_models() -> Request[ScannedModels]:
    """Register the new files of the models directory and refresh the changed ones."""
    return Request("POST", "/api/models/scan", is_wrapped=True)


def delete_model(model_id: str) -> Request[RemovedModel]:
    """Forget a model. Its file stays."""
    return Request("DELETE", path_of("/api/models/{model_id}", model_id=model_id), is_wrapped=True)


def get_model(model_id: str) -> Request[RegisteredModel]:
    """One model, by its id or any other name of it."""
    return Request("GET", path_of("/api/models/{model_id}", model_id=model_id), is_wrapped=True)


def update_model(model_id: str, body: ModelChangesBody) -> Request[RegisteredModel]:
    """Change what is stored of a model. Its id never changes."""
    return Request("PATCH", path_of("/api/models/{model_id}", model_id=model_id), body=body, is_wrapped=True)


def load_model(model_id: str, body: LoadBody | None = None) -> Request[RegisteredModel]:
    """Run a model; answers when it is ready."""
    return Request("POST", path_of("/api/models/{model_id}/load", model_id=model_id), body=body, is_wrapped=True)


def get_model_memory(
    model_id: str,
    *,
    ctx_size: int | None = None,
    slots: int | None = None,
    gpu_layers: int | None = None,
    cache_type: str | None = None,
) -> Request[ModelMemory]:
    """What a load would take, beside what is free and what the model takes while it runs."""
    return Request(
        "GET",
        path_of("/api/models/{model_id}/memory", model_id=model_id),
        query={"ctx_size": ctx_size, "slots": slots, "gpu_layers": gpu_layers, "cache_type": cache_type},
        is_wrapped=True,
    )


def get_model_options(model_id: str) -> Request[OptionsOfModel]:
    """Every option that a load of the model would have, and who set it."""
    return Request("GET", path_of("/api/models/{model_id}/options", model_id=model_id), is_wrapped=True)


def start_model(model_id: str, body: LoadBody | None = None) -> Request[RegisteredModel]:
    """Run a model; answers when it is ready."""
    return Request("POST", path_of("/api/models/{model_id}/start", model_id=model_id), body=body, is_wrapped=True)


def stop_model(model_id: str) -> Request[RegisteredModel]:
    """Stop a model once its requests have ended."""
    return Request("POST", path_of("/api/models/{model_id}/stop", model_id=model_id), is_wrapped=True)


def unload_model(model_id: str) -> Request[RegisteredModel]:
    """Stop a model once its requests have ended."""
    return Request("POST", path_of("/api/models/{model_id}/unload", model_id=model_id), is_wrapped=True)


def get_metrics() -> Request[MonitoringData]:
    """The machine now."""
    return Request("GET", "/api/monitoring", is_wrapped=True)


def get_history(*, hours: float | None = None, resolution: str | None = None) -> Request[HistoryData]:
    """The machine before: means over equal pieces of time, oldest first."""
    return Request("GET", "/api/monitoring/history", query={"hours": hours, "resolution": resolution}, is_wrapped=True)


def list_options() -> Request[OptionCatalogue]:
    """Every option of the installed engine, grouped for people."""
    return Request("GET", "/api/options", is_wrapped=True)


def import_preset(body: ImportBody) -> Request[PresetDetails]:
    """Make a preset of the text of a file."""
    return Request("POST", "/api/preset-import", body=body, is_wrapped=True)


def list_preset_templates() -> Request[Templates]:
    """Presets to begin with."""
    return Request("GET", "/api/preset-templates", is_wrapped=True)


def validate_preset(body: PresetBody) -> Request[PresetVerdict]:
    """What the engine would refuse. Nothing is stored."""
    return Request("POST", "/api/preset-validation", body=body, is_wrapped=True)


def list_presets() -> Request[Presets]:
    """Every preset, and which of them the engine runs with."""
    return Request("GET", "/api/presets", is_wrapped=True)


def create_preset(body: NewPresetBody) -> Request[PresetDetails]:
    """Make a preset, empty or from a template."""
    return Request("POST", "/api/presets", body=body, is_wrapped=True)


def delete_preset(name: str) -> Request[PresetRemoved]:
    """Delete a preset. Its versions stay, so that it can be restored."""
    return Request("DELETE", path_of("/api/presets/{name}", name=name), is_wrapped=True)


def read_preset(name: str) -> Request[PresetDetails]:
    """One preset: its text, what it says, and what is wrong with it."""
    return Request("GET", path_of("/api/presets/{name}", name=name), is_wrapped=True)


def save_preset(name: str, body: PresetBody) -> Request[PresetDetails]:
    """Make or replace a preset; what the engine would refuse changes nothing."""
    return Request("PUT", path_of("/api/presets/{name}", name=name), body=body, is_wrapped=True)


def clone_preset(name: str, body: NewNameBody) -> Request[PresetDetails]:
    """Copy a preset."""
    return Request("POST", path_of("/api/presets/{name}/clone", name=name), body=body, is_wrapped=True)


def get_preset_defaults(name: str) -> Request[Defaults]:
    """What a preset says for every model."""
    return Request("GET", path_of("/api/presets/{name}/defaults", name=name), is_wrapped=True)


def update_preset_defaults(name: str, body: ChangesBody) -> Request[PresetDetails]:
    """Change some of what a preset says for every model."""
    return Request("PATCH", path_of("/api/presets/{name}/defaults", name=name), body=body, is_wrapped=True)


def diff_presets(name: str, *, other: str | None = None, version: int | None = None) -> Request[Difference]:
    """What changes from a preset to another one, or to an earlier version of itself."""
    return Request(
        "GET",
        path_of("/api/presets/{name}/diff", name=name),
        query={"other": other, "version": version},
        is_wrapped=True,
    )


def export_preset(name: str, *, flat: bool | None = None) -> Request[PresetFileText]:
    """A preset's file."""
    return Request("GET", path_of("/api/presets/{name}/export", name=name), query={"flat": flat}, is_wrapped=True)


def show_inheritance(name: str, model: str) -> Request[InheritedOptions]:
    """What holds for a model of a preset after all, and where each value comes from."""
    return Request(
        "GET", path_of("/api/presets/{name}/inheritance", name=name), query={"model": model}, is_wrapped=True
    )


def list_preset_models(name: str) -> Request[Sections]:
    """The models of a preset, with what they inherit."""
    return Request("GET", path_of("/api/presets/{name}/models", name=name), is_wrapped=True)


def add_preset_model(name: str, body: SectionBody) -> Request[PresetDetails]:
    """Add a model's section."""
    return Request("POST", path_of("/api/presets/{name}/models", name=name), body=body, is_wrapped=True)


def remove_preset_model(name: str, model_name: str) -> Request[PresetDetails]:
    """Remove a model's section."""
    return Request(
        "DELETE", path_of("/api/presets/{name}/models/{model_name}", name=name, model_name=model_name), is_wrapped=True
    )


def update_preset_model(name: str, model_name: str, body: ChangesBody) -> Request[PresetDetails]:
    """Change some values of a model's section."""
    return Request(
        "PATCH",
        path_of("/api/presets/{name}/models/{model_name}", name=name, model_name=model_name),
        body=body,
        is_wrapped=True,
    )


def rename_preset(name: str, body: NewNameBody) -> Request[PresetDetails]:
    """Rename a preset; its versions go with it."""
    return Request("POST", path_of("/api/presets/{name}/rename", name=name), body=body, is_wrapped=True)


def list_preset_versions(name: str) -> Request[Versions]:
    """Earlier texts of a preset, at most ten; of a deleted one, too."""
    return Request("GET", path_of("/api/presets/{name}/versions", name=name), is_wrapped=True)


def restore_preset(name: str, version: int) -> Request[PresetDetails]:
    """Make an earlier text the present one."""
    return Request(
        "POST", path_of("/api/presets/{name}/versions/{version}/restore", name=name, version=version), is_wrapped=True
    )


def list_requests(*, limit: int | None = None, model: str | None = None) -> Request[Requests]:
    """Inference requests, running and ended, newest first."""
    return Request("GET", "/api/requests", query={"limit": limit, "model": model}, is_wrapped=True)


def cancel_request(request_id: str) -> Request[CancelledData]:
    """Break off a running request. Its client gets an error, its slot is free after the token then
    computed."""
    return Request("DELETE", path_of("/api/requests/{request_id}", request_id=request_id), is_wrapped=True)


def search(
    q: str,
    *,
    limit: int | None = None,
    sort: Literal["rank", "newest"] | None = None,
    typing: bool | None = None,
    client: str | None = None,
) -> Request[SearchAnswer]:
    """Find messages, and conversations by their title."""
    return Request(
        "GET", "/api/search", query={"q": q, "limit": limit, "sort": sort, "typing": typing, "client": client}
    )


def get_usage(*, days: int | None = None) -> Request[UsageAnswer]:
    """Requests, tokens and speed by model and by day, of all inference and not only of chats."""
    return Request("GET", "/api/stats", query={"days": days})


def get_conversation_stats(conversation_id: int) -> Request[ConversationStats]:
    """Messages, lengths, tokens and response times of one conversation."""
    return Request("GET", path_of("/api/stats/{conversation_id}", conversation_id=conversation_id))


def get_status() -> Request[StatusData]:
    """The service itself: versions, clients, models, requests."""
    return Request("GET", "/api/status", is_wrapped=True)
