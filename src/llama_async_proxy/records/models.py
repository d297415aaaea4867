"""Models, the files they are found in, and what a user says of them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from llama_async_proxy.records.options import OptionValue, no_options


class ModelKind(StrEnum):
    """What a model is for; the header decides."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    RERANK = "rerank"


class ModelOrigin(StrEnum):
    SCANNED = "scanned"
    REGISTERED = "registered"


class ModelFacts(Struct, frozen=True):
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


class ModelFile(Struct, frozen=True):
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
    """Companion multimodal projector found next to it, or next to a link to it."""
    links: tuple[str, ...] = ()
    """Paths of symbolic links to it that a scan came by; the model answers to their names, too."""


class BrokenFile(Struct, frozen=True):
    """A file that looks like a model and is none; `reason` is for people."""

    path: str
    reason: str


COMMAND = "command"
"""The option of a model that holds how another program serves it."""


IDLE_TTL = "idle-ttl"
"""The option of a model that holds after how many idle seconds it is unloaded; 0: never."""


NO_FILE = ("command:", "router:")
"""What the path of a model begins with that has no file: one of a custom command, one of a router elsewhere."""


class Variant(Struct, frozen=True):
    """A further name of a model under which requests get defaults of their own, on the same process."""

    name: str
    """Unique among the names of all models, ignoring case."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Top-level keys of a request's body for requests that do not have them; JSON-safe."""
    system_prompt: str | None = None
    """For conversations that have none."""


class Model(Struct, frozen=True):
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
    links: tuple[str, ...] = ()
    is_missing: bool = False
    """The last scan did not find its file. The model keeps its id, and comes back with the file."""
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


class ModelDraft(Struct, frozen=True):
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
