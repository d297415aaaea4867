"""Frozen data that crosses rooms. No behaviour beyond trivial derived facts.

Units are part of the name where a bare number could be misread: `_ms` milliseconds (timestamps: since
the Unix epoch, UTC), `_s` seconds, `_bytes` bytes, `_percent` 0-100. None always means "not known".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

OptionValue: TypeAlias = str | int | float | bool
"""A value of one engine option. True/False select the positive/negative form of a switch."""

NO_OPTIONS: Mapping[str, OptionValue] = MappingProxyType({})


def no_options() -> Mapping[str, OptionValue]:
    """Default factory: dataclasses take an unhashable default for a mutable one."""
    return NO_OPTIONS


# --- engine options -----------------------------------------------------------------------------


class OptionType(StrEnum):
    BOOL = "bool"
    """A switch: given or not, without a value."""
    INTEGER = "int"
    FLOAT = "float"
    STRING = "string"
    PATH = "path"
    ENUM = "enum"


@dataclass(frozen=True, slots=True)
class EngineOption:
    """One option of the engine, as its --help tells. Spellings are without leading dashes."""

    name: str
    """The one we use: the last long spelling, but "temp"."""
    names: tuple[str, ...]
    """Every spelling that sets it, short ones too."""
    type: OptionType
    negatives: tuple[str, ...] = ()
    """Spellings that turn a switch off."""
    env: tuple[str, ...] = ()
    """Environment variables; presets take them as keys, too."""
    choices: tuple[str, ...] = ()
    """Of an ENUM, all there are; of a number, words it may be instead."""
    default: str | None = None
    """As the engine words it; None when it names none."""
    description: str = ""
    hint: str | None = None
    """What --help shows in the value's place: "N", "FNAME" ..."""
    is_removed: bool = False
    """Listed by the engine only to say what replaced it."""
    is_reserved: bool = False
    """The service's own business: ignored where a person sets it."""
    is_preset_only: bool = False
    """Read by llama-server's router from presets; no flag of the command line."""


class PresetChange(StrEnum):
    CREATED = "created"
    SAVED = "saved"
    DELETED = "deleted"
    RENAMED = "renamed"
    STARTED = "started"
    """The engine runs with it from now on."""
    STOPPED = "stopped"
    """The engine runs without a preset from now on."""


# --- models -------------------------------------------------------------------------------------


class ModelKind(StrEnum):
    """What a model is for; the header decides."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    RERANK = "rerank"


class ModelOrigin(StrEnum):
    SCANNED = "scanned"
    REGISTERED = "registered"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What one GGUF header says, read without touching the tensors."""

    architecture: str
    kind: ModelKind
    name: str | None = None
    description: str | None = None
    version: str | None = None
    quantization: str | None = None
    """File type as people write it: "Q4_K_M", "F16"."""
    parameter_count: int | None = None
    context_length: int | None = None
    """Tokens the model was trained for."""
    embedding_length: int | None = None
    block_count: int | None = None
    has_chat_template: bool = False
    metadata: Mapping[str, object] = field(default_factory=dict)
    """Scalars and short arrays by GGUF key; long arrays appear as {"type": ..., "length": n}. JSON-safe."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model on disk: a file, or all shards of a split one."""

    path: str
    """Real path of the file (split: of its first shard); for a model without one `command:NAME` or `router:NAME`."""
    size_bytes: int
    """All shards together."""
    mtime_ns: int
    """Newest of the shards; with path and size the cache key of `facts`."""
    facts: ModelFacts
    shards: tuple[str, ...] = ()
    """Real paths in order; empty when the model is one file."""
    mmproj_path: str | None = None
    """Companion multimodal projector found next to it."""


@dataclass(frozen=True, slots=True)
class BrokenFile:
    """A file that looks like a model and is none; `reason` is for people."""

    path: str
    reason: str


COMMAND = "command"
"""The option of a model that holds how another program serves it."""
IDLE_TTL = "idle-ttl"
"""The option of a model that holds after how many idle seconds it is unloaded; 0: never."""
NO_FILE = ("command:", "router:")
"""What the path of a model begins with that has no file: one of a custom command, one of a router elsewhere."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A further name of a model under which requests get defaults of their own, on the same process."""

    name: str
    """Unique among the names of all models, ignoring case."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Top-level keys of a request's body for requests that do not have them; JSON-safe."""
    system_prompt: str | None = None
    """For conversations that have none."""


@dataclass(frozen=True, slots=True)
class Model:
    """One registered model: what is stored, not whether it runs (see ModelRuntime)."""

    id: int
    """Never reused."""
    slug: str
    """Stable text id for REST, Socket.IO ack and the UI; set once."""
    name: str
    """Display name; unique ignoring case."""
    path: str
    origin: ModelOrigin
    facts: ModelFacts
    size_bytes: int
    mtime_ns: int
    shards: tuple[str, ...] = ()
    mmproj_path: str | None = None
    description: str | None = None
    """Given by a person; falls back to the header's."""
    version: str | None = None
    family: str | None = None
    quantization: str | None = None
    context_size: int | None = None
    """Tokens asked for when this model is loaded; None leaves it to the engine."""
    options: Mapping[str, OptionValue] = field(default_factory=no_options)
    """Engine options of this model only, by long flag name without dashes."""
    aliases: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    is_favorite: bool = False
    is_pinned: bool = False
    created_at_ms: int = 0
    updated_at_ms: int = 0
    last_used_at_ms: int | None = None

    @property
    def has_file(self) -> bool:
        """False for a model that another program brings along."""
        return not self.path.startswith(NO_FILE)

    @property
    def has_command(self) -> bool:
        """True for a model that a program other than llama.cpp serves."""
        return COMMAND in self.options


@dataclass(frozen=True, slots=True)
class ModelDraft:
    """A model about to be registered. None leaves the fact to the header."""

    file: ModelFile
    origin: ModelOrigin
    name: str | None = None
    """Default: the file's stem; made unique with -2, -3 ... for scanned files, a Conflict for registered ones."""
    description: str | None = None
    version: str | None = None
    family: str | None = None
    quantization: str | None = None
    context_size: int | None = None
    options: Mapping[str, OptionValue] = field(default_factory=no_options)


class ModelStatus(StrEnum):
    UNLOADED = "unloaded"
    QUEUED = "queued"
    LOADING = "loading"
    READY = "ready"
    SLEEPING = "sleeping"
    STOPPING = "stopping"
    FAILED = "failed"

    @property
    def in_use(self) -> bool:
        """True while a process exists or is about to."""
        return self not in (ModelStatus.UNLOADED, ModelStatus.FAILED)


@dataclass(frozen=True, slots=True)
class LoadProgress:
    stage: str
    """What the engine does now: "starting", "text_model", "warmup" ... as it reports it."""
    fraction: float
    """0.0 to 1.0 of the stage."""
    started_at_ms: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model's process answers HTTP/1.1."""

    host: str
    port: int
    model: str | None = None
    """What requests must call the model, where a router answers for several; None: it does not matter."""
    api_key: str | None = field(default=None, repr=False)
    """What the server there asks for."""

    def __hash__(self) -> int:
        return self.port  # pools of connections look endpoints up for each request


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes of main memory, and of all GPUs together."""

    host_bytes: int = 0
    gpu_bytes: int = 0
    gpus: tuple[int, ...] = ()
    """Of each GPU, in the driver's order; empty where the engine chooses, and where nobody knows."""


NO_MEMORY = MemoryUse()


@dataclass(frozen=True, slots=True)
class QueueState:
    """Who waits for a model that has no place now, or whose turn is over."""

    position: int
    """Of the model among all that wait, counted from 1."""
    requests: int
    """How many wait for this model."""
    reason: str
    """Why, for people."""
    since_ms: int
    """Arrival of the request that has waited longest."""


@dataclass(frozen=True, slots=True)
class ModelRuntime:
    """Live state of one model in the engine. A model the engine never heard of is UNLOADED."""

    model_id: int
    status: ModelStatus = ModelStatus.UNLOADED
    endpoint: Endpoint | None = None
    """Set exactly while status is READY, SLEEPING or STOPPING."""
    pid: int | None = None
    progress: LoadProgress | None = None
    """Set while LOADING."""
    error: str | None = None
    """Why it is FAILED."""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    loaded_at_ms: int | None = None
    load_duration_ms: int | None = None
    context_size: int | None = None
    """Tokens per slot, as the engine reports."""
    slots: int | None = None
    rss_bytes: int | None = None
    """Resident memory of the process when last measured."""
    gpu_bytes: int | None = None
    memory: MemoryUse | None = None
    """What the engine itself counts: weights, context and working memory. Set while loaded, where it tells."""
    restarts: int = 0
    """Automatic restarts since the last healthy minute."""
    options: Mapping[str, OptionValue] = field(default_factory=no_options)
    """What it was started with."""
    queue: QueueState | None = None
    """Set while QUEUED, and while newcomers to a loaded model wait because others have their turn."""


@dataclass(frozen=True, slots=True)
class CustomCommand:
    """How a server of another kind is run for a model. Arguments may hold {port}, {model} and {alias}."""

    start: tuple[str, ...]
    health_path: str = "/health"
    """Answers 200 once the server is ready."""
    stop: tuple[str, ...] = ()
    """Run before the server's processes are ended; empty: they are only ended."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside what the service itself was started with."""
    directory: str | None = None
    """To run in; None: the service's own."""


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """All an engine needs to run one model."""

    model_id: int
    alias: str
    """The name the child answers to; what `model` in its responses shows."""
    path: str
    kind: ModelKind
    options: Mapping[str, OptionValue] = field(default_factory=no_options)
    """Effective options by long flag name without dashes ("ctx-size": 4096). Only what somebody set."""
    mmproj_path: str | None = None
    load_timeout_s: float = 600.0
    command: CustomCommand | None = None
    """Set for a model that is no llama.cpp's; `options` are then ignored."""
    stop_timeout_s: float | None = None
    """How long it may take to end in order before it is killed; None: as the engine likes."""


# --- engine -------------------------------------------------------------------------------------


class EngineStatus(StrEnum):
    IDLE = "idle"
    """Stopped on purpose; loads are refused."""
    RUNNING = "running"
    """Ready to load on demand; no child needed."""
    ERROR = "error"
    """Nothing that can run models was found, or it broke."""


@dataclass(frozen=True, slots=True)
class EngineState:
    status: EngineStatus
    kind: str
    """"workers" with a binary, "embedded" for the wheel, "router"."""
    binary: str | None = None
    version: str | None = None
    error: str | None = None
    started_at_ms: int | None = None
    endpoint: Endpoint | None = None
    """Where a router answers by itself; None when the service's own address is the only one."""


class EngineEventType(StrEnum):
    STARTED = "started"
    STOPPED = "stopped"
    CLOSED = "closed"
    """A child exited without being asked."""
    ERROR = "error"


# --- machine ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GpuSample:
    index: int
    name: str
    vendor: str
    """"nvidia", "amd", "intel", "apple"."""
    usage_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None


@dataclass(frozen=True, slots=True)
class RequestCounters:
    """HTTP requests on /api, /v1 and the native routes since the service started."""

    total: int = 0
    active: int = 0
    errors: int = 0
    """Answers with status 500 and above, and broken streams."""
    average_response_ms: float | None = None
    """Mean over the last minute; None without traffic."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The machine and the service at one moment."""

    timestamp_ms: int
    cpu_percent: float
    cpu_cores: int
    load_average: tuple[float, float, float] | None
    """1, 5 and 15 minutes; None where the platform has none."""
    memory_used_bytes: int
    memory_total_bytes: int
    memory_available_bytes: int
    swap_used_bytes: int
    swap_total_bytes: int
    disk_used_bytes: int
    disk_total_bytes: int
    disk_free_bytes: int
    gpus: tuple[GpuSample, ...] = ()
    models_loaded: int = 0
    models_memory_bytes: int = 0
    """RSS of all model processes."""
    models_private_bytes: int = 0
    """The part of it that would be free without them."""
    models_gpu_bytes: int = 0
    """Memory of all GPUs that they hold."""
    requests: RequestCounters = RequestCounters()
    uptime_s: float = 0.0

    @property
    def memory_percent(self) -> float:
        return 100.0 * self.memory_used_bytes / self.memory_total_bytes if self.memory_total_bytes else 0.0

    @property
    def swap_percent(self) -> float:
        return 100.0 * self.swap_used_bytes / self.swap_total_bytes if self.swap_total_bytes else 0.0

    @property
    def disk_percent(self) -> float:
        return 100.0 * self.disk_used_bytes / self.disk_total_bytes if self.disk_total_bytes else 0.0


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """Means over one bucket of stored samples; `requests` is the count in the bucket."""

    timestamp_ms: int
    """Start of the bucket."""
    cpu_percent: float
    memory_percent: float
    disk_percent: float
    swap_percent: float
    gpu_percent: float | None
    gpu_memory_used_bytes: int | None
    gpu_memory_total_bytes: int | None
    requests: int
    response_ms: float | None


# --- logs and requests --------------------------------------------------------------------------


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class LogLine:
    timestamp_ms: int
    level: LogLevel
    source: str
    """"service", or "model:<slug>" for a child's output."""
    message: str
    id: int | None = None
    """Row id once stored."""


class RequestPhase(StrEnum):
    QUEUED = "queued"
    LOADING = "loading"
    """Its model comes up."""
    PROMPT = "prompt"
    """The engine has it, and has said nothing yet."""
    GENERATING = "generating"


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """One inference request that has not ended."""

    id: str
    arrived_at_ms: int
    client: str
    route: str
    model: str
    """As in RequestRecord."""
    phase: RequestPhase
    queue: QueueState | None
    """Of its model, while QUEUED."""
    tokens: int
    """Pieces of the answer so far, of which llama-server sends one for each token."""
    elapsed_ms: float
    position: int | None = None
    """In its model's line, counted from 1, while it waits there."""


class RequestRecord(NamedTuple):
    """One inference request from arrival to end. Times are durations in ms from arrival."""

    # A tuple, because a busy service makes thousands a second.

    id: str
    arrived_at_ms: int
    client: str
    route: str
    model: str
    """The model's slug, or the name asked for when it resolved to nothing."""
    status: int
    streamed: bool
    queued_ms: float | None = None
    load_ms: float | None = None
    first_token_ms: float | None = None
    total_ms: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_per_second: float | None = None
    error: str | None = None
    key: str | None = None
    """What tells the client's key from others: the first eight digits of its SHA-256."""


# --- chats --------------------------------------------------------------------------------------


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class MessageStatus(StrEnum):
    COMPLETE = "complete"
    GENERATING = "generating"
    STOPPED = "stopped"
    """A person ended it."""
    INTERRUPTED = "interrupted"
    """The service or the engine ended in its middle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How answers are drawn, and how much of a conversation the model sees. None: whatever rules otherwise."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    num_predict: int | None = None
    """Most tokens of an answer."""
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    context_history_limit: int | None = None
    """Newest messages that go to the model; 0: all."""


@dataclass(frozen=True, slots=True)
class Conversation:
    id: int
    title: str
    has_automatic_title: bool
    """It may be replaced by a better one; a title that a person gave never is."""
    model: str
    """A name of a model; not necessarily of one that still exists."""
    system_prompt: str | None
    """None: the setting's."""
    sampling: Sampling
    is_pinned: bool
    is_archived: bool
    created_at_ms: int
    updated_at_ms: int


@dataclass(frozen=True, slots=True)
class Image:
    media_type: str
    data: bytes = field(repr=False)
    name: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """An image that is stored with a message, without its bytes."""

    id: int
    media_type: str
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Message:
    """One node of a conversation's tree. The active ones make up the conversation as it is read, oldest first."""

    id: int
    conversation_id: int
    parent_id: int | None
    role: Role
    content: str
    reasoning: str | None
    model: str | None
    status: MessageStatus
    is_active: bool
    created_at_ms: int
    response_ms: float | None = None
    """From sending to the last token, of an answer."""
    prompt_tokens: int | None = None
    tokens: int | None = None
    """As the engine counted them."""
    tokens_per_second: float | None = None
    attachments: tuple[Attachment, ...] = ()

    @property
    def estimated_tokens(self) -> int:
        """The engine's count, else a quarter of the characters."""
        return (len(self.content) + 3) // 4 if self.tokens is None else self.tokens


@dataclass(frozen=True, slots=True)
class NewMessage:
    """`parent` is the index of an earlier message of the same new conversation."""

    parent: int | None
    role: Role
    content: str
    reasoning: str | None = None
    model: str | None = None
    status: MessageStatus = MessageStatus.COMPLETE
    created_at_ms: int | None = None
    """None: now."""
    response_ms: float | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class NewConversation:
    title: str
    model: str
    has_automatic_title: bool = False
    system_prompt: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    is_pinned: bool = False
    is_archived: bool = False
    created_at_ms: int | None = None
    updated_at_ms: int | None = None
    """None: now."""
    messages: tuple[NewMessage, ...] = ()
    active: int | None = None
    """Index of the last message of the active branch."""


@dataclass(frozen=True, slots=True)
class Say:
    """Go on where the conversation stands."""

    content: str
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Rephrase:
    """Say something else in place of an earlier message, in a branch of its own. Its images stay."""

    message_id: int
    content: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Answer again, beside the earlier answer; or answer a message that has none."""

    message_id: int


Opening: TypeAlias = Say | Rephrase | Retry
"""How a turn of a conversation begins."""


@dataclass(frozen=True, slots=True)
class Turn:
    conversation: Conversation
    thread: tuple[Message, ...]
    """Active messages up to the one that is to be answered."""
    images: Mapping[int, tuple[Image, ...]]
    """By message id, those of the thread."""
    answer: Message
    """Still empty."""
    before: int | None
    """Last message of the branch that was active before."""


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    status: MessageStatus
    response_ms: float
    prompt_tokens: int | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A chat completion that the service itself asks for."""

    model: str
    """Any name of it."""
    body: Mapping[str, object]
    """As of /v1/chat/completions, without model and stream."""
    client: str
    """Who asks, for the record."""
    route: str
    """On whose behalf, for the record."""


@dataclass(frozen=True, slots=True)
class Completion:
    record: RequestRecord
    was_stopped: bool
    """It was asked to stop before the model came to its end."""
