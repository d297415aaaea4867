"""Presets to begin with. Pure.

They say only what their purpose needs and leave the rest to the engine, above all what must fit the machine's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

DEFAULT_NAME = "default"
DEFAULT_TEXT = """\
; name: Default
; description: Changes nothing: every option is left to the engine and to each model's own settings

; What stands in [*] holds for every model:
[*]

; A section of its own, named like the model, holds for that model alone:
; [my-model]
; ctx-size = 8192
; temp = 0.7
"""

TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "fast-chat": """\
; name: Fast chat
; description: Several people chat at once, answers begin soon

[*]
; Room for a long talk in each of four slots.
ctx-size = 32768
parallel = 4
flash-attn = auto
; A returning conversation finds its prompt in the cache.
cache-prompt = true
cache-reuse = 256
temp = 0.7
top-p = 0.9
min-p = 0.05
""",
        "code": """\
; name: Code
; description: Precise answers over long files

[*]
ctx-size = 32768
parallel = 1
flash-attn = auto
cache-prompt = true
cache-reuse = 256
temp = 0.2
top-k = 20
top-p = 0.9
min-p = 0.05
repeat-penalty = 1.0
""",
        "creative": """\
; name: Creative
; description: Varied, surprising text that does not repeat itself

[*]
ctx-size = 16384
temp = 1.1
top-k = 0
top-p = 1.0
min-p = 0.05
dry-multiplier = 0.8
xtc-probability = 0.3
xtc-threshold = 0.1
""",
        "minimal-memory": """\
; name: Minimal memory
; description: The least memory a model can do with; one request at a time

[*]
ctx-size = 2048
parallel = 1
batch-size = 256
ubatch-size = 128
; Half the bytes of f16. A quantized V needs flash attention.
cache-type-k = q8_0
cache-type-v = q8_0
flash-attn = on
; No copies of earlier prompts in main memory.
cache-ram = 0
""",
        "embeddings": """\
; name: Embeddings
; description: Many texts to vectors

[*]
embeddings = true
; A text must fit one physical batch.
batch-size = 2048
ubatch-size = 2048
parallel = 4
ctx-size = 8192
""",
        "rerank": """\
; name: Rerank
; description: Ranks documents by how well they answer a question

[*]
reranking = true
batch-size = 2048
ubatch-size = 2048
parallel = 4
ctx-size = 8192
""",
    }
)
"""Text by name."""
