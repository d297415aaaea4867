"""Every setting, declared once: a field of `Settings`, made by `setting(...)`.

The command line, the environment, the configuration file and the docs are derived from these fields; no other module
knows a default. Precedence at start: command line > environment > file > default. A change at run time is written to
the file and, unless the setting says `restart`, holds at once; at the next start command line and environment win
again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from math import inf
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, Unpack

from llama_async_proxy.errors import InvalidInput, PermissionDenied

Value: TypeAlias = str | int | float | bool | tuple[str, ...] | Mapping[str, Any] | None

ENV_PREFIX = "LLAMA_ASYNC_PROXY_"


class Source(StrEnum):
    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    COMMAND_LINE = "command line"
    RUNTIME = "runtime"


class _SettingDetails(TypedDict, total=False):
    """Rarer properties of a setting."""

    env: tuple[str, ...]
    """Names of environment variables beside ENV_PREFIX + NAME."""
    aliases: tuple[str, ...]
    """Other dotted keys that clients use for the same setting."""
    choices: tuple[str, ...]
    minimum: float
    maximum: float
    restart: bool
    """True: a change takes effect at the next start."""
    by_hand: bool
    """True: no connected client may change it; the command line, the environment and the file may."""
    is_path: bool
    """True: a path, absolute unless it comes from the command line or the environment."""


def setting(default: Value, about: str, key: str, flag: str | None = None, **details: Unpack[_SettingDetails]) -> Any:
    """Declare a field of `Settings`.

    `about` is its help text, `key` its dotted place in the configuration file. A setting without a `flag` cannot be
    given on the command line.
    """
    return dataclasses.field(metadata={"default": default, "help": about, "file_key": key, "flag": flag, **details})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Effective values, made by `resolve`."""

    # fmt: off
    # Where the service listens.
    host: str = setting("127.0.0.1", "Address to listen on. Anything but loopback needs --insecure-no-auth.",
        "server.host", "--host", restart=True)
    port: int = setting(3000, "TCP port to listen on.", "server.port", "--port", env=("PORT",), minimum=1,
        maximum=65535, restart=True)
    insecure_no_auth: bool = setting(False, "Allow listening beyond loopback although there is no authentication.",
        "server.insecureNoAuth", "--insecure-no-auth", restart=True, by_hand=True)
    allowed_hosts: tuple[str, ...] = setting((), "Host names browsers may use besides loopback ones and the listen "
        "address.", "server.allowedHosts", "--allowed-host", by_hand=True)
    allowed_origins: tuple[str, ...] = setting((), "Web origins other than our own that may call us (CORS). Empty: "
        "none.", "server.allowedOrigins", "--allowed-origin", by_hand=True)

    # Places.
    data_dir: Path = setting("", "Directory of everything the service stores. Default: the user's data directory.",
        "server.dataDir", "--data-dir", restart=True, by_hand=True, is_path=True)
    models_dir: Path = setting("", "Directory scanned for GGUF models. Default: models/ in the data directory.",
        "basePath", "--models-dir", aliases=("baseModelsPath", "llama.modelsDir"), is_path=True)

    # The engine.
    engine: str = setting("auto", "auto: llama-server if found, else the built-in engine. workers: llama-server is "
        "required. embedded: the built-in one. router: llama-server's own router.", "llama.engine", "--engine",
        choices=("auto", "workers", "embedded", "router"), restart=True)
    llama_server: str = setting("", "Path of the llama-server binary. Default: search PATH and common places.",
        "serverPath", "--llama-server", aliases=("llama.serverPath",), is_path=True)
    requested_llama_server: str = setting("", "A llama-server that a client asked for, at a path where there was "
        "none. Clients are shown it as serverPath; it is never run.", "llama.requestedServerPath", is_path=True)
    engine_host: str = setting("localhost", "Host of the router engine; stored for other engines.", "host")
    engine_port: int = setting(8134, "Port of the router engine; stored for other engines.", "port",
        aliases=("llama.port",), minimum=1, maximum=65535)
    router_url: str = setting("", "Address of a llama-server router that runs elsewhere, for --engine router. "
        "Default: the service starts its own.", "llama.routerUrl", "--router-url", restart=True, by_hand=True)
    router_api_key_file: str = setting("", "File whose first line is the API key that this router asks for.",
        "llama.routerApiKeyFile", "--router-api-key-file", restart=True, by_hand=True, is_path=True)
    custom_commands: bool = setting(False, "Let models be served by commands of their own. Whoever may change a model "
        "can then run programs as the service's user.", "llama.customCommands", "--custom-commands", restart=True,
        by_hand=True)
    default_chat_model: str = setting("", "Model for chats that name none, where several are registered.",
        "default_model.chat", "--default-model")
    default_vision_model: str = setting("", "Model for chats with images that name none. Default: that for chats.",
        "default_model.vision")
    default_embedding_model: str = setting("", "Model for embeddings that name none.", "default_model.embedding")
    default_rerank_model: str = setting("", "Model for reranking that names none.", "default_model.rerank")
    max_models: int = setting(4, "Most models loaded at once; 0: no limit.", "maxModels", "--max-models",
        aliases=("llama.maxModels", "maxModelsLoaded"), minimum=0, maximum=1000)
    load_on_request: bool = setting(True, "Load a model when a request names it.", "autoLoadModels")
    load_timeout_s: float = setting(600.0, "Longest a model may take to become ready, in seconds.", "llama.loadTimeout",
        "--load-timeout", minimum=1, maximum=86400)
    idle_ttl_s: float = setting(0.0, "Unload a model unused for this many seconds; 0: never.", "llama.idleTtl",
        "--idle-ttl", minimum=0, maximum=31536000)
    drain_s: float = setting(10.0, "How long an unload waits for running requests, in seconds.", "llama.drain",
        minimum=0, maximum=3600)

    # Taking turns.
    fairness_s: float = setting(30.0, "Models that cannot be loaded together take turns: newer requests for others "
        "overtake a waiting model for at most this many seconds. Loading, and ending what runs, come on top.",
        "inference.fairness", "--fairness", minimum=0, maximum=86400)
    queue_limit: int = setting(256, "Most requests that wait for one model's turn; more are answered with 429.",
        "inference.queueLimit", minimum=1, maximum=100_000)
    queue_timeout_s: float = setting(600.0, "Longest a request waits for its model's turn, in seconds.",
        "inference.queueTimeout", minimum=0.1, maximum=86400)

    # Memory. A load that does not fit evicts what is idle; what never fits is refused.
    memory_limit_mib: int = setting(0, "Most main memory that models may take together, in MiB; 0: what is free.",
        "memory.limit", "--memory-limit", minimum=0, maximum=1 << 30)
    gpu_memory_limit_mib: int = setting(0, "Most GPU memory that models may take together, in MiB; 0: what is free.",
        "memory.gpuLimit", "--gpu-memory-limit", minimum=0, maximum=1 << 30)
    memory_margin_mib: int = setting(512, "Main memory that loads leave free, in MiB.", "memory.margin", minimum=0,
        maximum=1 << 30)
    gpu_memory_margin_mib: int = setting(512, "Memory that loads leave free on each GPU, in MiB.", "memory.gpuMargin",
        minimum=0, maximum=1 << 30)
    memory_strict: bool = setting(False, "Refuse a load that needs more than is free, not only one that needs more "
        "than the machine has.", "memory.strict", "--memory-strict")
    memory_retry: bool = setting(False, "Try a load that ran out of memory once more with the largest context, or the "
        "most layers on the GPU, that should fit.", "memory.retrySmaller")
    groups: Mapping[str, Any] = setting({}, 'Models that never run at the same time, such as '
        '{"big": {"models": ["a", "b"], "together": false}}; with "together": true they run with one another, but '
        'with no other model.', "groups")
    """By name: {"models": names, "together": bool}."""

    # Engine options for every model. -1: the flag is not passed, the engine decides.
    ctx_size: int = setting(-1, "Context window in tokens; -1: the engine decides.", "ctx_size", "--ctx-size",
        aliases=("ctxSize",), minimum=-1, maximum=1 << 31)
    batch_size: int = setting(-1, "Logical batch size in tokens; -1: the engine decides.", "batch_size", "--batch-size",
        minimum=-1, maximum=1 << 31)
    threads: int = setting(-1, "CPU threads per model; -1: the engine decides.", "threads", "--threads", minimum=-1,
        maximum=4096)
    gpu_layers: int = setting(-1, "Layers to offload to the GPU; -1: the engine decides.", "gpu_layers", "--gpu-layers",
        minimum=-1, maximum=100000)
    engine_options: tuple[str, ...] = setting((), "An engine option for every model, as NAME=VALUE, such as temp=0.7.",
        "llama.options", "--option")
    engine_environment: tuple[str, ...] = setting((), "Further environment variable that models' processes get, as "
        "NAME or PREFIX*. They get what finds libraries, GPU and home, and nothing else of the service's environment.",
        "llama.environment", "--engine-environment", restart=True, by_hand=True)
    preset: str = setting("", "Preset the engine runs with. Default: none.", "llama.preset", "--preset")

    # The data path.
    connect_timeout_s: float = setting(5.0, "Longest to wait for a model's process to accept a connection.",
        "inference.connectTimeout", minimum=0.1, maximum=3600)
    first_token_timeout_s: float = setting(600.0, "Longest to wait for the first byte of an answer.",
        "inference.firstTokenTimeout", minimum=1, maximum=86400)
    idle_timeout_s: float = setting(600.0, "Longest silence between two pieces of a streamed answer.",
        "inference.idleTimeout", minimum=1, maximum=86400)
    max_body_mib: int = setting(256, "Largest request body accepted on the inference routes, in MiB.",
        "inference.maxBodyMiB", minimum=1, maximum=65536)
    request_memory_mib: int = setting(512, "Memory for all bodies of requests and packets of Socket.IO that are being "
        "read or answered, in MiB; what comes beyond it is answered with 429.", "memory.requests", "--request-memory",
        minimum=1, maximum=1 << 30)

    # Chats. -1: the model's own default.
    chat_system_prompt: str = setting("", "System prompt of conversations that have none of their own.",
        "chat.systemPrompt")
    chat_history_limit: int = setting(0, "Newest messages of a conversation that go to the model; 0: all.",
        "chat.contextHistoryLimit", minimum=0, maximum=100_000)
    chat_titles: str = setting("words", "How conversations without a title are named: by the first words, or by the "
        "model when it is idle.", "chat.titles", choices=("words", "model"))
    chat_temperature: float = setting(-1.0, "Temperature of answers; -1: the model's default.", "chat.temperature",
        minimum=-1, maximum=100)
    chat_top_p: float = setting(-1.0, "Probability mass sampled from; -1: the model's default.", "chat.topP",
        minimum=-1, maximum=1)
    chat_top_k: int = setting(-1, "Most likely tokens sampled from, 0: all; -1: the model's default.", "chat.topK",
        minimum=-1, maximum=1 << 31)
    chat_min_p: float = setting(-1.0, "Least probability relative to the best token; -1: the model's default.",
        "chat.minP", minimum=-1, maximum=1)
    chat_num_predict: int = setting(-1, "Most tokens of an answer; -1: no limit.", "chat.numPredict", minimum=-1,
        maximum=1 << 31)
    chat_repeat_penalty: float = setting(-1.0, "Penalty of repeated tokens; -1: the model's default.",
        "chat.repeatPenalty", minimum=-1, maximum=100)
    chat_stop: tuple[str, ...] = setting((), "Texts that end an answer.", "chat.stop")

    # Monitoring and feeds.
    sample_watched_s: float = setting(1.0, "Seconds between samples while someone watches.", "monitor.watchedInterval",
        minimum=0.05, maximum=3600)
    sample_idle_s: float = setting(10.0, "Seconds between samples otherwise, and between stored ones.",
        "monitor.idleInterval", minimum=0.05, maximum=3600)
    metrics_broadcast_s: float = setting(10.0, "Seconds between metrics:update broadcasts with clients.",
        "monitor.broadcastInterval", minimum=0.05, maximum=3600)
    metrics_broadcast_idle_s: float = setting(60.0, "The same without clients.", "monitor.broadcastIdleInterval",
        minimum=0.05, maximum=3600)
    engine_broadcast_s: float = setting(20.0, "Seconds between llama-server:status broadcasts while the engine runs.",
        "monitor.engineInterval", minimum=0.05, maximum=3600)
    models_feed_s: float = setting(30.0, "Seconds between models_update messages to subscribers.",
        "monitor.modelsFeedInterval", minimum=0.05, maximum=3600)
    logs_feed_s: float = setting(15.0, "Seconds between logs_update messages to subscribers.",
        "monitor.logsFeedInterval", minimum=0.05, maximum=3600)

    # Logs.
    log_level: str = setting("info", "Least severe level that is logged.", "logging.level", "--log-level",
        aliases=("logLevel",), choices=("debug", "info", "warn", "error"))
    log_console: bool = setting(True, "Write the log to the console.", "logging.console")
    log_file: bool = setting(True, "Write the log to files.", "logging.file")
    log_max_mib: int = setting(10, "Size at which the log file is rotated, in MiB.", "logging.maxSizeMiB", minimum=1,
        maximum=10240)
    log_max_files: int = setting(7, "Rotated log files that are kept.", "logging.maxFiles", minimum=0, maximum=1000)
    log_max_rows: int = setting(200_000, "Log lines kept in the database.", "logging.maxRows", minimum=1000,
        maximum=100_000_000)
    # fmt: on

    sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    """Where each value came from, by name."""

    def is_set(self, name: str) -> bool:
        """True when somebody set it, anywhere."""
        return self.sources[name] is not Source.DEFAULT

    @property
    def shown_llama_server(self) -> str:
        """What clients are shown as `serverPath`: the one they asked for, though it is not run."""
        return self.requested_llama_server or self.llama_server

    @property
    def database_path(self) -> Path:
        return self.data_dir / "service.db"

    @property
    def config_path(self) -> Path:
        return self.data_dir / CONFIG_FILE_NAME

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def presets_dir(self) -> Path:
        return self.data_dir / "presets"


CONFIG_FILE_NAME = "llama-server-config.json"


@dataclass(frozen=True, slots=True)
class Setting:
    """The declaration of one setting. The parameters of `setting` say what the fields mean."""

    name: str
    """The field of `Settings`."""
    type: type
    """bool, int, float, str, tuple (of strings) or dict."""
    default: Value = dataclasses.field(hash=False)
    help: str
    file_key: str
    flag: str | None = None
    env: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    restart: bool = False
    by_hand: bool = False
    is_path: bool = False

    @property
    def env_names(self) -> tuple[str, ...]:
        return (ENV_PREFIX + self.name.upper(), *self.env)


_TYPES: Mapping[str, type] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "Path": str,
    "tuple[str, ...]": tuple,
    "Mapping[str, Any]": dict,
}
"""Annotation of a field -> the type that its values are checked as."""

SETTINGS: tuple[Setting, ...] = tuple(
    Setting(field.name, _TYPES[str(field.type)], **field.metadata)
    for field in dataclasses.fields(Settings)
    if field.metadata
)
BY_NAME: Mapping[str, Setting] = {s.name: s for s in SETTINGS}
BY_FILE_KEY: Mapping[str, Setting] = {key: s for s in SETTINGS for key in (s.file_key, *s.aliases)}


def check(setting: Setting, value: Any, spelled: str | None = None) -> Value:
    """The value as its proper type. Raises InvalidInput naming the field as the caller `spelled` it."""
    field = spelled or setting.name
    if setting.type is bool:
        if not isinstance(value, bool):
            raise InvalidInput(field, f"must be true or false, not {value!r}")
        return value
    if setting.type is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise InvalidInput(field, "must be a list of strings")
        return tuple(value)
    if setting.type is dict:
        return _check_groups(value, field)
    if setting.type is str:
        return _check_string(setting, value, field)
    return _check_number(setting, value, field)


def _check_string(setting: Setting, value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(field, f"must be a string, not {type(value).__name__}")
    if "\0" in value:
        raise InvalidInput(field, "must not contain a NUL character")
    if setting.choices and value not in setting.choices:
        raise InvalidInput(field, f"must be one of {', '.join(setting.choices)}, not {value!r}")
    if setting.is_path and value and not Path(value).is_absolute():
        raise InvalidInput(field, f"must be an absolute path, not {value!r}")
    return value


def _check_groups(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(field, 'must be an object such as {"big": {"models": ["a", "b"], "together": false}}')
    checked = {}
    for name, group in value.items():
        if not isinstance(group, Mapping) or not group.keys() <= {"models", "together"}:
            raise InvalidInput(f"{field}.{name}", 'must be an object with "models" and "together"')
        models, together = group.get("models"), group.get("together", False)
        if not isinstance(models, list) or not models or not all(isinstance(model, str) for model in models):
            raise InvalidInput(f"{field}.{name}.models", "must be a list of names of models")
        if not isinstance(together, bool):
            raise InvalidInput(f"{field}.{name}.together", f"must be true or false, not {together!r}")
        checked[str(name)] = {"models": models, "together": together}
    return checked


def _check_number(setting: Setting, value: Any, field: str) -> int | float:
    # JSON as Python reads it knows NaN, Infinity and whole numbers beyond any float.
    if isinstance(value, bool) or not isinstance(value, int | float) or value in (inf, -inf) or value != value:
        raise InvalidInput(field, f"must be a number, not {value!r}")
    if setting.type is int and value != int(value):
        raise InvalidInput(field, f"must be a whole number, not {value!r}")
    low, high = setting.minimum, setting.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise InvalidInput(field, f"must be between {low:g} and {high:g}, not {value}")
    return int(value) if setting.type is int else float(value)


def parse(setting: Setting, text: str, spelled: str) -> Value:
    """The value written as text, as in the environment. Raises InvalidInput."""
    if setting.type is bool:
        lowered = text.strip().lower()
        if lowered not in _BOOLEANS:
            raise InvalidInput(spelled, f"must be true or false, not {text!r}")
        return _BOOLEANS[lowered]
    if setting.type is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if setting.type is dict:
        try:
            return check(setting, json.loads(text), spelled)
        except ValueError as exc:
            raise InvalidInput(spelled, f"must be JSON: {exc}") from None
    if setting.type is str:
        # A path typed in a shell may be relative or start with ~; the file and the API demand absolute ones.
        resolved = str(Path(text).expanduser().absolute()) if setting.is_path and text else text
        return check(setting, resolved, spelled)
    try:
        number = float(text)
    except ValueError:
        raise InvalidInput(spelled, f"must be a number, not {text!r}") from None
    return check(setting, number, spelled)


_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def resolve(
    *,
    command_line: Mapping[str, Value],
    environment: Mapping[str, str],
    file: Mapping[str, Any],
    default_data_dir: Path,
) -> Settings:
    """Effective settings. `command_line` holds parsed values by name, `file` the configuration file's JSON object.

    Raises InvalidInput naming the flag, variable or key at fault.
    """
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for setting in SETTINGS:
        values[setting.name], sources[setting.name] = _resolve_one(setting, command_line, environment, file)
    if sources["llama_server"] in (Source.COMMAND_LINE, Source.ENVIRONMENT):
        values["requested_llama_server"] = ""  # as with every update, these win again at the next start
    data_dir = Path(values["data_dir"] or default_data_dir)
    values["data_dir"] = data_dir
    values["models_dir"] = Path(values["models_dir"] or data_dir / "models")
    return Settings(**values, sources=sources)


def _resolve_one(
    setting: Setting, command_line: Mapping[str, Value], environment: Mapping[str, str], file: Mapping[str, Any]
) -> tuple[Value, Source]:
    if command_line.get(setting.name) is not None:
        return command_line[setting.name], Source.COMMAND_LINE
    for name in setting.env_names:
        if environment.get(name):
            return parse(setting, environment[name], name), Source.ENVIRONMENT
    for key in (setting.file_key, *setting.aliases):
        found, value = lookup(file, key)
        if found and value is not None:
            return check(setting, value, key), Source.FILE
    return setting.default, Source.DEFAULT


def lookup(file: Mapping[str, Any], key: str) -> tuple[bool, Any]:
    """(found, value) of a dotted key in a nested JSON object."""
    node: Any = file
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False, None
        node = node[part]
    return True, node


def is_loopback(host: str) -> bool:
    """True for addresses that only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def data_dir_of(command_line: Mapping[str, Value], environment: Mapping[str, str], default: Path) -> Path:
    """The data directory alone, which must be known before the file in it can be read."""
    value, _ = _resolve_one(BY_NAME["data_dir"], command_line, environment, {})
    return Path(str(value)) if value else default


def updated(current: Settings, changes: Mapping[str, Any]) -> Settings:
    """`current` with validated `changes` (by file key or alias) applied.

    Raises InvalidInput, and PermissionDenied for what may only be changed by hand; then nothing changed.
    """
    values: dict[str, Any] = {}
    for key, value in changes.items():
        setting = BY_FILE_KEY.get(key)
        if setting is None:
            raise InvalidInput(key, "is not a setting")
        checked = check(setting, value, key)
        effective = _effective(current, setting, checked)
        if setting.by_hand and effective != getattr(current, setting.name):
            raise PermissionDenied(
                f"{key} can be changed only on the command line, in the environment or in {CONFIG_FILE_NAME} by hand."
            )
        values[setting.name] = effective
    sources = {**current.sources, **dict.fromkeys(values, Source.RUNTIME)}
    return dataclasses.replace(current, **values, sources=sources)


def _effective(current: Settings, setting: Setting, value: Value) -> Any:
    if setting.name == "models_dir":
        return Path(str(value)) if value else current.data_dir / "models"
    if setting.name == "data_dir":
        return Path(str(value)) if value else current.data_dir
    return value
