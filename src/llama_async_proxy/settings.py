"""Every setting, declared once. The command line, the environment, the configuration file, the docs and the
UI derive from SETTINGS; nothing else in the project knows a default.

Precedence at start: command line > environment > file > default. A change at run time is written to the file
and, if the setting is live, holds at once whatever the start said; at the next start CLI and environment win
again (`Settings.overridden`).
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
from types import MappingProxyType
from typing import Any, TypeAlias

from llama_async_proxy.errors import InvalidInput, PermissionDenied

Value: TypeAlias = str | int | float | bool | tuple[str, ...] | Mapping[str, Any] | None

ENV_PREFIX = "LLAMA_ASYNC_PROXY_"


class Source(StrEnum):
    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    COMMAND_LINE = "command line"
    RUNTIME = "runtime"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    `name` is the attribute of Settings. `file_key` is its dotted place in llama-server-config.json; `aliases` are
    other dotted names clients use for the same thing. `env` are environment names beside ENV_PREFIX + NAME.
    `flag` is the CLI flag, None for a setting that has none.
    """

    name: str
    type: type
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
    """True: a change takes effect at the next start."""
    by_hand: bool = False
    """True: nobody who is connected may change it, only who has the command line, the environment or the file."""
    is_path: bool = False

    @property
    def env_names(self) -> tuple[str, ...]:
        return (ENV_PREFIX + self.name.upper(), *self.env)


SETTINGS: tuple[Setting, ...] = (
    # Where the service listens.
    Setting("host", str, "127.0.0.1", "Address to listen on. Anything but loopback needs --insecure-no-auth.",
            "server.host", "--host", restart=True),
    Setting("port", int, 3000, "TCP port to listen on.", "server.port", "--port", env=("PORT",), minimum=1,
            maximum=65535, restart=True),
    Setting("insecure_no_auth", bool, False, "Allow listening beyond loopback although there is no authentication.",
            "server.insecureNoAuth", "--insecure-no-auth", restart=True, by_hand=True),
    Setting("allowed_hosts", tuple, (), "Host names browsers may use besides loopback ones and the listen address.",
            "server.allowedHosts", "--allowed-host", by_hand=True),
    Setting("allowed_origins", tuple, (), "Web origins other than our own that may call us (CORS). Empty: none.",
            "server.allowedOrigins", "--allowed-origin", by_hand=True),
    # Places.
    Setting("data_dir", str, "", "Directory of everything the service stores. Default: the user's data directory.",
            "server.dataDir", "--data-dir", restart=True, by_hand=True, is_path=True),
    Setting("models_dir", str, "", "Directory scanned for GGUF models. Default: models/ in the data directory.",
            "basePath", "--models-dir", aliases=("baseModelsPath", "llama.modelsDir"), is_path=True),
    # The engine.
    Setting("engine", str, "auto", "auto: llama-server if found, else the built-in engine. workers: llama-server is "
            "required. embedded: the built-in one. router: llama-server's own router.", "llama.engine", "--engine",
            choices=("auto", "workers", "embedded", "router"), restart=True),
    Setting("llama_server", str, "", "Path of the llama-server binary. Default: search PATH and common places.",
            "serverPath", "--llama-server", aliases=("llama.serverPath",), is_path=True),
    Setting("requested_llama_server", str, "", "A llama-server that a client asked for, at a path where there was "
            "none. Clients are shown it as serverPath; it is never run.", "llama.requestedServerPath", is_path=True),
    Setting("engine_host", str, "localhost", "Host of the router engine; stored for other engines.", "host"),
    Setting("engine_port", int, 8134, "Port of the router engine; stored for other engines.", "port",
            aliases=("llama.port",), minimum=1, maximum=65535),
    Setting("router_url", str, "", "Address of a llama-server router that runs elsewhere, for --engine router. "
            "Default: the service starts its own.", "llama.routerUrl", "--router-url", restart=True, by_hand=True),
    Setting("router_api_key_file", str, "", "File whose first line is the API key that this router asks for.",
            "llama.routerApiKeyFile", "--router-api-key-file", restart=True, by_hand=True, is_path=True),
    Setting("custom_commands", bool, False, "Let models be served by commands of their own. Whoever may change a model "
            "can then run programs as the service's user.", "llama.customCommands", "--custom-commands", restart=True,
            by_hand=True),
    Setting("max_models", int, 4, "Most models loaded at once; 0: no limit.", "maxModels", "--max-models",
            aliases=("llama.maxModels", "maxModelsLoaded"), minimum=0, maximum=1000),
    Setting("load_on_request", bool, True, "Load a model when a request names it.", "autoLoadModels"),
    Setting("load_timeout_s", float, 600.0, "Longest a model may take to become ready, in seconds.",
            "llama.loadTimeout", "--load-timeout", minimum=1, maximum=86400),
    Setting("idle_ttl_s", float, 0.0, "Unload a model unused for this many seconds; 0: never.", "llama.idleTtl",
            "--idle-ttl", minimum=0, maximum=31536000),
    Setting("drain_s", float, 10.0, "How long an unload waits for running requests, in seconds.", "llama.drain",
            minimum=0, maximum=3600),
    # Taking turns.
    Setting("fairness_s", float, 30.0, "Models that cannot be loaded together take turns: newer requests for others "
            "overtake a waiting model for at most this many seconds. Loading, and ending what runs, come on top.",
            "inference.fairness", "--fairness", minimum=0, maximum=86400),
    Setting("queue_limit", int, 256, "Most requests that wait for one model's turn; more are answered with 429.",
            "inference.queueLimit", minimum=1, maximum=100_000),
    Setting("queue_timeout_s", float, 600.0, "Longest a request waits for its model's turn, in seconds.",
            "inference.queueTimeout", minimum=0.1, maximum=86400),
    # Memory. A load that does not fit evicts what is idle; what never fits is refused.
    Setting("memory_limit_mib", int, 0, "Most main memory that models may take together, in MiB; 0: what is free.",
            "memory.limit", "--memory-limit", minimum=0, maximum=1 << 30),
    Setting("gpu_memory_limit_mib", int, 0, "Most GPU memory that models may take together, in MiB; 0: what is free.",
            "memory.gpuLimit", "--gpu-memory-limit", minimum=0, maximum=1 << 30),
    Setting("memory_margin_mib", int, 512, "Main memory that loads leave free, in MiB.", "memory.margin", minimum=0,
            maximum=1 << 30),
    Setting("gpu_memory_margin_mib", int, 512, "Memory that loads leave free on each GPU, in MiB.",
            "memory.gpuMargin", minimum=0, maximum=1 << 30),
    Setting("memory_strict", bool, False, "Refuse a load that needs more than is free, not only one that needs more "
            "than the machine has.", "memory.strict", "--memory-strict"),
    Setting("memory_retry", bool, False, "Try a load that ran out of memory once more with the largest context, or the "
            "most layers on the GPU, that should fit.", "memory.retrySmaller"),
    Setting("groups", dict, MappingProxyType({}), 'Models that never run at the same time, such as {"big": {"models": '
            '["a", "b"], "together": false}}; with "together": true they run with one another, but with no other '
            "model.", "groups"),
    # Engine options for every model. -1: the flag is not passed, the engine decides.
    Setting("ctx_size", int, -1, "Context window in tokens; -1: the engine decides.", "ctx_size", "--ctx-size",
            aliases=("ctxSize",), minimum=-1, maximum=1 << 31),
    Setting("batch_size", int, -1, "Logical batch size in tokens; -1: the engine decides.", "batch_size",
            "--batch-size", minimum=-1, maximum=1 << 31),
    Setting("threads", int, -1, "CPU threads per model; -1: the engine decides.", "threads", "--threads", minimum=-1,
            maximum=4096),
    Setting("gpu_layers", int, -1, "Layers to offload to the GPU; -1: the engine decides.", "gpu_layers",
            "--gpu-layers", minimum=-1, maximum=100000),
    Setting("engine_options", tuple, (), "An engine option for every model, as NAME=VALUE, such as temp=0.7.",
            "llama.options", "--option"),
    Setting("engine_environment", tuple, (), "Further environment variable that models' processes get, as NAME or "
            "PREFIX*. They get what finds libraries, GPU and home, and nothing else of the service's environment.",
            "llama.environment", "--engine-environment", restart=True, by_hand=True),
    Setting("preset", str, "", "Preset the engine runs with. Default: none.", "llama.preset", "--preset"),
    # The data path.
    Setting("connect_timeout_s", float, 5.0, "Longest to wait for a model's process to accept a connection.",
            "inference.connectTimeout", minimum=0.1, maximum=3600),
    Setting("first_token_timeout_s", float, 600.0, "Longest to wait for the first byte of an answer.",
            "inference.firstTokenTimeout", minimum=1, maximum=86400),
    Setting("idle_timeout_s", float, 600.0, "Longest silence between two pieces of a streamed answer.",
            "inference.idleTimeout", minimum=1, maximum=86400),
    Setting("max_body_mib", int, 256, "Largest request body accepted on the inference routes, in MiB.",
            "inference.maxBodyMiB", minimum=1, maximum=65536),
    # Chats. -1: the model's own default.
    Setting("chat_system_prompt", str, "", "System prompt of conversations that have none of their own.",
            "chat.systemPrompt"),
    Setting("chat_history_limit", int, 0, "Newest messages of a conversation that go to the model; 0: all.",
            "chat.contextHistoryLimit", minimum=0, maximum=100_000),
    Setting("chat_titles", str, "words", "How conversations without a title are named: by the first words, or by the "
            "model when it is idle.", "chat.titles", choices=("words", "model")),
    Setting("chat_temperature", float, -1.0, "Temperature of answers; -1: the model's default.", "chat.temperature",
            minimum=-1, maximum=100),
    Setting("chat_top_p", float, -1.0, "Probability mass sampled from; -1: the model's default.", "chat.topP",
            minimum=-1, maximum=1),
    Setting("chat_top_k", int, -1, "Most likely tokens sampled from, 0: all; -1: the model's default.", "chat.topK",
            minimum=-1, maximum=1 << 31),
    Setting("chat_min_p", float, -1.0, "Least probability relative to the best token; -1: the model's default.",
            "chat.minP", minimum=-1, maximum=1),
    Setting("chat_num_predict", int, -1, "Most tokens of an answer; -1: no limit.", "chat.numPredict", minimum=-1,
            maximum=1 << 31),
    Setting("chat_repeat_penalty", float, -1.0, "Penalty of repeated tokens; -1: the model's default.",
            "chat.repeatPenalty", minimum=-1, maximum=100),
    Setting("chat_stop", tuple, (), "Texts that end an answer.", "chat.stop"),
    # Monitoring and feeds.
    Setting("sample_watched_s", float, 1.0, "Seconds between samples while someone watches.", "monitor.watchedInterval",
            minimum=0.05, maximum=3600),
    Setting("sample_idle_s", float, 10.0, "Seconds between samples otherwise, and between stored ones.",
            "monitor.idleInterval", minimum=0.05, maximum=3600),
    Setting("metrics_broadcast_s", float, 10.0, "Seconds between metrics:update broadcasts with clients.",
            "monitor.broadcastInterval", minimum=0.05, maximum=3600),
    Setting("metrics_broadcast_idle_s", float, 60.0, "The same without clients.", "monitor.broadcastIdleInterval",
            minimum=0.05, maximum=3600),
    Setting("engine_broadcast_s", float, 20.0, "Seconds between llama-server:status broadcasts while the engine runs.",
            "monitor.engineInterval", minimum=0.05, maximum=3600),
    Setting("models_feed_s", float, 30.0, "Seconds between models_update messages to subscribers.",
            "monitor.modelsFeedInterval", minimum=0.05, maximum=3600),
    Setting("logs_feed_s", float, 15.0, "Seconds between logs_update messages to subscribers.",
            "monitor.logsFeedInterval", minimum=0.05, maximum=3600),
    # Logs.
    Setting("log_level", str, "info", "Least severe level that is logged.", "logging.level", "--log-level",
            aliases=("logLevel",), choices=("debug", "info", "warn", "error")),
    Setting("log_console", bool, True, "Write the log to the console.", "logging.console"),
    Setting("log_file", bool, True, "Write the log to files.", "logging.file"),
    Setting("log_max_mib", int, 10, "Size at which the log file is rotated, in MiB.", "logging.maxSizeMiB", minimum=1,
            maximum=10240),
    Setting("log_max_files", int, 7, "Rotated log files that are kept.", "logging.maxFiles", minimum=0, maximum=1000),
    Setting("log_max_rows", int, 200_000, "Log lines kept in the database.", "logging.maxRows", minimum=1000,
            maximum=100_000_000),
)  # fmt: skip

BY_NAME: Mapping[str, Setting] = {s.name: s for s in SETTINGS}
BY_FILE_KEY: Mapping[str, Setting] = {key: s for s in SETTINGS for key in (s.file_key, *s.aliases)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Effective values. Field names equal Setting.name; defaults come from SETTINGS through `resolve`."""

    host: str
    port: int
    insecure_no_auth: bool
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    data_dir: Path
    models_dir: Path
    engine: str
    llama_server: str
    requested_llama_server: str
    engine_host: str
    engine_port: int
    router_url: str
    router_api_key_file: str
    custom_commands: bool
    max_models: int
    load_on_request: bool
    load_timeout_s: float
    idle_ttl_s: float
    drain_s: float
    fairness_s: float
    queue_limit: int
    queue_timeout_s: float
    memory_limit_mib: int
    gpu_memory_limit_mib: int
    memory_margin_mib: int
    gpu_memory_margin_mib: int
    memory_strict: bool
    memory_retry: bool
    groups: Mapping[str, Any]
    """By name: {"models": names, "together": bool}."""
    ctx_size: int
    batch_size: int
    threads: int
    gpu_layers: int
    engine_options: tuple[str, ...]
    engine_environment: tuple[str, ...]
    preset: str
    connect_timeout_s: float
    first_token_timeout_s: float
    idle_timeout_s: float
    max_body_mib: int
    chat_system_prompt: str
    chat_history_limit: int
    chat_titles: str
    chat_temperature: float
    chat_top_p: float
    chat_top_k: int
    chat_min_p: float
    chat_num_predict: int
    chat_repeat_penalty: float
    chat_stop: tuple[str, ...]
    sample_watched_s: float
    sample_idle_s: float
    metrics_broadcast_s: float
    metrics_broadcast_idle_s: float
    engine_broadcast_s: float
    models_feed_s: float
    logs_feed_s: float
    log_level: str
    log_console: bool
    log_file: bool
    log_max_mib: int
    log_max_files: int
    log_max_rows: int
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
    # JSON knows no read-only objects.
    return dict(setting.default) if isinstance(setting.default, Mapping) else setting.default, Source.DEFAULT


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
