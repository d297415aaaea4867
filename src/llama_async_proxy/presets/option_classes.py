"""What each engine option can do to this machine, and so from where it may be set. Pure.

A reviewed table over the options of llama.cpp b11434 (`llama-server --help`) and of the xllamacpp wheel, with those of
earlier builds that presets and command lines still name. An option that the table does not know counts as the owner's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType

from llama_async_proxy.presets.catalogue import Catalogue
from llama_async_proxy.records.options import OptionValue


class OptionClass(StrEnum):
    HARMLESS = "harmless"
    """Changes how a model computes or answers. The value is a number, a choice or text that no file stands behind."""
    MODEL_FILE = "model file"
    """Reads GGUF files, whose paths are the value."""
    OWNER = "owner"
    """Runs programs, listens, downloads, or reads or writes files of the caller's choice."""


UNKNOWN = "it is not among the reviewed options"
"""Why an option that the table does not know is the owner's."""

_OWNER: Mapping[str, str] = {
    "it can run programs on this machine": (
        "agent tools tools-runtime mcp-servers-config mcp-servers-json ui-mcp-proxy webui-mcp-proxy video-ffmpeg-dir "
        "command command-health command-stop command-environment command-directory"
    ),
    "it downloads files": (
        "model-url mmproj-url docker-repo hf hf-repo hf-file hf-token hf-repo-v hf-file-v hf-repo-draft spec-draft-hf "
        "embd-gemma-default embd-bge-small-en-default embd-e5-small-en-default embd-gte-small-default "
        "fim-qwen-1.5b-default fim-qwen-3b-default fim-qwen-7b-default fim-qwen-7b-spec fim-qwen-14b-spec "
        "fim-qwen-30b-default gpt-oss-20b-default gpt-oss-120b-default vision-gemma-4b-default "
        "vision-gemma-12b-default tts-oute-default"
    ),
    "it opens network connections": "rpc",
    "it decides where the engine listens and for whom": (
        "host port reuse-port api-key api-key-file api-prefix ssl-key-file ssl-cert-file cors-origins cors-methods "
        "cors-headers cors-credentials"
    ),
    "it reads or writes files other than models": (
        "chat-template-file grammar-file json-schema-file log-file log-prompts-dir lookup-cache-static "
        "lookup-cache-dynamic slot-save-path path media-path models-dir models-preset ui-config ui-config-file "
        "webui-config webui-config-file"
    ),
}
"""Long names by what the options can do."""

_MODEL_FILES = frozenset({"mmproj", "model-draft", "spec-draft-model", "model-vocoder", "lora", "control-vector"})
_SCALED_MODEL_FILES = frozenset({"lora-scaled", "control-vector-scaled"})
"""Paths with `:SCALE` behind each."""
_LISTS = frozenset({"lora", "control-vector"}) | _SCALED_MODEL_FILES
"""Several paths, with commas between them."""

# `model` names the file of a preset's section: it is read by our own reader, and only a GGUF file becomes a model.
_HARMLESS = (
    # The model and its place in memory.
    "model alias tags override-kv check-tensors load-mode lazy-mode mmap no-mmap mlock direct-io offline warmup "
    "mmproj-auto mmproj-offload mmproj-device image-min-tokens image-max-tokens mtmd-batch-max-tokens video-fps "
    "video-timestamp-interval lora-init-without-apply control-vector-layer-range n-gpu-layers gpu-layers split-mode "
    "tensor-split main-gpu device override-tensor op-offload no-host repack cpu-moe n-cpu-moe n-cpu-ffn moe-cache-mib "
    "fit fit-target fit-ctx flash-attn kv-offload kv-unified kv-unified-per-slot swa-full "
    # Threads.
    "threads threads-batch threads-http cpu-mask cpu-range cpu-strict prio poll cpu-mask-batch cpu-range-batch "
    "cpu-strict-batch prio-batch poll-batch numa "
    # Context, batches, caches.
    "ctx-size parallel keep n-predict predict context-shift batch-size ubatch-size cont-batching perf cache-type-k "
    "cache-type-v cache-prompt cache-reuse cache-ram cache-idle-slots ctx-checkpoints swa-checkpoints "
    "checkpoint-every-n-tokens checkpoint-min-step defrag-thold slot-prompt-similarity rope-scaling rope-scale "
    "rope-freq-base rope-freq-scale yarn-orig-ctx yarn-ext-factor yarn-attn-factor yarn-beta-slow yarn-beta-fast "
    "grp-attn-n grp-attn-w "
    # Sampling and answers.
    "temp temperature top-k top-p min-p typical typical-p top-nsigma top-n-sigma seed samplers sampling-seq "
    "sampler-seq repeat-last-n repeat-penalty presence-penalty frequency-penalty dry-multiplier dry-base "
    "dry-allowed-length dry-penalty-last-n dry-sequence-breaker xtc-probability xtc-threshold dynatemp-range "
    "dynatemp-exp mirostat mirostat-lr mirostat-ent adaptive-target adaptive-decay logit-bias grammar json-schema "
    "ignore-eos backend-sampling reverse-prompt special escape jinja chat-template chat-template-kwargs "
    "skip-chat-parsing prefill-assistant reasoning reasoning-format reasoning-budget reasoning-budget-message "
    "reasoning-effort reasoning-preserve embedding embeddings rerank reranking pooling embd-normalize attention "
    "spm-infill "
    # A draft model.
    "spec-type spec-default spec-draft-n-max spec-draft-n-min spec-draft-p-min spec-draft-p-split spec-draft-sampling "
    "spec-draft-backend-sampling spec-draft-ngl spec-draft-device spec-draft-type-k spec-draft-type-v "
    "spec-draft-threads spec-draft-threads-batch spec-draft-cpu-mask spec-draft-cpu-range spec-draft-cpu-strict "
    "spec-draft-prio spec-draft-poll spec-draft-cpu-mask-batch spec-draft-cpu-range-batch "
    "spec-draft-cpu-strict-batch spec-draft-prio-batch spec-draft-poll-batch spec-draft-cpu-moe "
    "spec-draft-n-cpu-moe spec-draft-ncmoe spec-draft-override-tensor spec-draft-ctx-size spec-draft-replace "
    "spec-ngram-mod-n-match spec-ngram-mod-n-min spec-ngram-mod-n-max spec-ngram-simple-size-n "
    "spec-ngram-simple-size-m spec-ngram-simple-min-hits spec-ngram-map-k-size-n spec-ngram-map-k-size-m "
    "spec-ngram-map-k-min-hits spec-ngram-map-k4v-size-n spec-ngram-map-k4v-size-m spec-ngram-map-k4v-min-hits "
    "spec-ngram-size-n spec-ngram-size-m spec-ngram-min-hits spec-synth-len spec-synth-rates draft draft-n draft-max "
    "draft-min draft-n-min draft-p-min draft-p-split ctx-size-draft threads-draft threads-batch-draft device-draft "
    "n-gpu-layers-draft gpu-layers-draft cache-type-k-draft cache-type-v-draft cpu-moe-draft n-cpu-moe-draft "
    "override-tensor-draft cpu-mask-draft cpu-range-draft cpu-strict-draft prio-draft poll-draft "
    "cpu-mask-batch-draft cpu-range-batch-draft cpu-strict-batch-draft prio-batch-draft poll-batch-draft "
    # The server: what it answers, what it logs to us, and what only prints something.
    "timeout sse-ping-interval metrics props slots ui webui sleep-idle-seconds models-max models-autoload log-disable "
    "log-colors log-jsonl log-prefix log-timestamps log-verbose verbose log-verbosity verbosity help usage version "
    "list-devices cache-list completion-bash "
    # Read by the service or by llama-server's router, no flags.
    "idle-ttl load-on-startup stop-timeout dedup-cache-models"
)

OPTION_CLASSES: Mapping[str, OptionClass] = MappingProxyType(
    {
        **dict.fromkeys(_HARMLESS.split(), OptionClass.HARMLESS),
        **dict.fromkeys(_MODEL_FILES | _SCALED_MODEL_FILES, OptionClass.MODEL_FILE),
        **{name: OptionClass.OWNER for names in _OWNER.values() for name in names.split()},
    }
)
"""By long name. An option has the strictest class that any of its names has."""
_STRICTEST_FIRST = (OptionClass.OWNER, OptionClass.MODEL_FILE, OptionClass.HARMLESS)
_REASONS: Mapping[str, str] = MappingProxyType(
    {name: reason for reason, names in _OWNER.items() for name in names.split()}
)


class NotPaths(ValueError):
    """The message says why the value of a MODEL_FILE option is no list of paths."""


def class_of(key: str, catalogue: Catalogue, classes: Mapping[str, OptionClass] = OPTION_CLASSES) -> OptionClass:
    """Class of the option that `key` means, in any spelling; OWNER for one that nobody has reviewed."""
    found = {classes[name] for name in names_of(key, catalogue) if name in classes}
    return next((each for each in _STRICTEST_FIRST if each in found), OptionClass.OWNER)


def reason(key: str, catalogue: Catalogue) -> str:
    """Why an OWNER option is the owner's, as a clause: "it downloads files"."""
    return next((_REASONS[name] for name in names_of(key, catalogue) if name in _REASONS), UNKNOWN)


def names_of(key: str, catalogue: Catalogue) -> tuple[str, ...]:
    """Names under which the table may have the option. `key` is any spelling that a way in takes: long, short or
    negative, with or without dashes in front, with underscores, or the name of an environment variable.
    """
    bare = key.strip().lstrip("-")
    option = catalogue.find(bare) or catalogue.find(bare.replace("_", "-").lower())
    if option is not None:
        return (option.name, *option.names)
    plain = bare.replace("_", "-").lower()
    return (plain, *((plain.removeprefix("no-"),) if plain.startswith("no-") else ()))


def model_paths(key: str, value: OptionValue, catalogue: Catalogue) -> Iterator[str]:
    """Paths that the value of a MODEL_FILE option names. False, which leaves the file out, names none.

    Raises NotPaths for a value that two builds of the engine could read in two ways.
    """
    if value is False:
        return
    if not isinstance(value, str) or not value:
        raise NotPaths("its value must be the path of a file")
    names = set(names_of(key, catalogue))
    is_list = not names.isdisjoint(_LISTS)
    if '"' in value or (not is_list and "," in value):
        # llama.cpp reads such lists as CSV, in which quotes hide commas.
        raise NotPaths("a path must not contain a quotation mark or a comma")
    for part in value.split(",") if is_list else (value,):
        yield _without_scale(part) if not names.isdisjoint(_SCALED_MODEL_FILES) else part


def _without_scale(text: str) -> str:
    path, colon, scale = text.rpartition(":")
    try:
        float(scale)
    except ValueError:
        colon = ""
    if not colon or ":" in path:
        raise NotPaths("its value must look like PATH:SCALE, with commas between several")
    return path
