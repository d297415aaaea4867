"""A --help as llama-server lays it out, in our words: enough of every kind of option to test with."""

from __future__ import annotations

from llama_async_proxy.engines.help import parse_help
from llama_async_proxy.presets.catalogue import Catalogue

_OPTIONS = (
    ("-h,    --help, --usage", "tell about options and end"),
    ("-t,    --threads N", "threads to compute with (default: -1)", "(env: LLAMA_ARG_THREADS)"),
    ("-C,    --cpu-mask M", 'which cores, in hex (default: "")'),
    ("--cpu-strict <0|1>", "stay on these cores (default: 0)"),
    (
        "-c,    --ctx-size N",
        "tokens of context (default: 0, 0 = as the model",
        "was trained)",
        "(env: LLAMA_ARG_CTX_SIZE)",
    ),
    ("-b,    --batch-size N", "tokens of a batch (default: 2048)", "(env: LLAMA_ARG_BATCH)"),
    ("--swa-full", "no sliding cache (default: false)", "(env: LLAMA_ARG_SWA_FULL)"),
    ("-fa,   --flash-attn [on|off|auto]", "flash attention ('on', 'off' or 'auto', default: 'auto')"),
    ("--rope-freq-base N", "base frequency of RoPE (default: loaded from", "model)"),
    (
        "-kvo,  --kv-offload, -nkvo, --no-kv-offload",
        "cache on the GPU (default: enabled)",
        "(env: LLAMA_ARG_KV_OFFLOAD)",
    ),
    ("--no-host", "leave the host's buffers out"),
    ("-ctk,  --cache-type-k TYPE", "type of cached keys", "allowed values: f16, q8_0, q4_0", "(default: f16)"),
    (
        "-lm,   --load-mode MODE",
        "how a file is read (default: auto)",
        "- auto: as fits",
        "- mmap+mlock: mapped and held",
        "",
    ),
    (
        "-ngl,  --gpu-layers, --n-gpu-layers N",
        "layers on the GPU, either an exact number,",
        "'auto', or 'all' (default: auto)",
    ),
    ("-ts,   --tensor-split N0,N1,N2,...", "how layers are shared by GPUs"),
    ("-fitt, --fit-target MiB0,MiB1,MiB2,...",),
    ("--control-vector-layer-range START END", "layers of control vectors"),
    ("-m,    --model FNAME", "file to load", "(env: LLAMA_ARG_MODEL)"),
    ("-lv,   --verbosity, --log-verbosity N", "how much is logged:", " - 0: nothing", " - 1: errors", "(default: 3)"),
    ("--temp, --temperature N", "how daring (default: 0.80)", "(env: LLAMA_ARG_TEMPERATURE)"),
    ("--top-k N", "best of so many (default: 40, 0 = all)", "(env: LLAMA_ARG_TOP_K)"),
    ("--draft, --draft-n, --draft-max N", "the argument has been removed. use another"),
    ("-np,   --parallel N", "slots (default: -1, -1 = auto)", "(env: LLAMA_ARG_N_PARALLEL)"),
    ("--warmup, --no-warmup", "try an empty run first (default: enabled)"),
    ("--mmproj-auto, --no-mmproj, --no-mmproj-auto", "use a projector beside the model (default: enabled)"),
    ("--host HOST", "where to listen (default: 127.0.0.1)", "(env: LLAMA_ARG_HOST)"),
    ("--embedding, --embeddings", "only embeddings (default: disabled)"),
    ("--rerank, --reranking", "only ranking (default: disabled)"),
    ("--chat-template JINJA", "template of chats (default: the model's own)"),
    (
        "-rea,  --reasoning [on|off|auto]",
        "think first ('on', 'off', or 'auto', default:",
        "'auto' (as the template says))",
    ),
    ("--metrics", "answer /metrics (default: disabled)"),
    ("--fake-option N", "an option no group knows"),
)


def _lines(spec: str, *text: str) -> list[str]:
    if len(spec) <= 37:
        return [spec.ljust(40) + (text[0] if text else ""), *(" " * 40 + line for line in text[1:])]
    return [spec, *(" " * 40 + line for line in text)]


HELP = "----- common params -----\n\n" + "".join(f"{line}\n" for option in _OPTIONS for line in _lines(*option))
CATALOGUE = Catalogue(parse_help(HELP))
