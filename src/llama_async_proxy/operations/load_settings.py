"""From the options of a load to those numbers that decide how much memory it takes. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.gguf.memory import CACHE_BYTES_PER_32, FlashAttention, LoadSettings
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import LaunchSpec

MAX_GPUS = 16
"""As many as llama.cpp knows."""
ALL_LAYERS = 1 << 16
"""More than any model has."""
_FLASH: Mapping[str, FlashAttention] = {"on": "on", "off": "off", "auto": "auto", "1": "on", "0": "off", "-1": "auto"}
_DRAFT = ("spec-draft-model", "model-draft")
_DRAFT_LAYERS = ("spec-draft-ngl", "gpu-layers-draft", "n-gpu-layers-draft")
_DRAFT_CACHES = ("spec-draft-type-{}", "cache-type-{}-draft")


def load_settings(spec: LaunchSpec) -> LoadSettings:
    """The options that decide on memory, but for the layers on the GPU. Raises InvalidInput naming an unfit one."""
    options = spec.options
    slots = _integer(options, "parallel", -1)
    layers = ALL_LAYERS if _switch(options, "cpu-moe", default=False) else _integer(options, "n-cpu-moe", 0)
    unified = "kv-unified" in options or "no-kv-unified" in options
    return LoadSettings(
        context_size=_integer(options, "ctx-size", 0),
        slots=slots if slots > 0 else None,
        unified_cache=_switch(options, "kv-unified", default=False) if unified else None,
        batch_size=max(_integer(options, "batch-size", 2048), 1),
        micro_batch_size=max(_integer(options, "ubatch-size", 512), 1),
        cache_type_k=_cache_type(options, "cache-type-k"),
        cache_type_v=_cache_type(options, "cache-type-v"),
        flash_attention=_flash_attention(options),
        full_sliding_cache=_switch(options, "swa-full", default=False),
        cpu_expert_layers=layers,
        offload_cache=_switch(options, "kv-offload", default=True),
        gpu_shares=_gpu_shares(options),
    )


def gpu_layers(spec: LaunchSpec) -> int | None:
    """As asked for; None when the engine chooses. Raises InvalidInput."""
    if spec.options.get("device") == "none":
        return 0
    name = "gpu-layers" if "gpu-layers" in spec.options else "n-gpu-layers"
    match spec.options.get(name, "auto"):
        case "all":
            return ALL_LAYERS
        case "auto":
            return None
    layers = _integer(spec.options, name, -1)
    return None if layers < 0 else layers


def _gpu_shares(options: Mapping[str, OptionValue]) -> tuple[float, ...]:
    """What the options say of how GPUs share the layers; empty when the engine decides. Raises InvalidInput."""
    places = [int(number) for number in re.findall(r"([0-9]{1,3})(?:,|$)", str(options.get("device", "")))]
    if options.get("split-mode") == "none" or len(places) == 1:
        main = _integer(options, "main-gpu", 0)
        return _only(places[min(max(main, 0), len(places) - 1)] if places else max(main, 0))
    try:
        shares = [float(part) for part in re.split("[,/]", str(options.get("tensor-split", ""))) if part.strip()]
    except ValueError:
        raise InvalidInput("options.tensor-split", "must be numbers such as 3,1") from None
    if not all(0 <= share < math.inf for share in shares) or not any(shares):
        return ()
    by_place = dict(zip(places or range(len(shares)), shares, strict=False))
    return tuple(by_place.get(place, 0.0) for place in range(max(by_place) + 1))


def _only(place: int) -> tuple[float, ...]:
    return (*(0.0,) * min(place, MAX_GPUS - 1), 1.0)


def _integer(options: Mapping[str, OptionValue], name: str, default: int) -> int:
    value = options.get(name, default)
    text = f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
    # Nine digits: what llama-server's 32 bit hold, whatever the number is multiplied with here.
    if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise InvalidInput(f"options.{name}", f"must be a whole number of at most nine digits, not {value!r}")
    return int(text)


def _switch(options: Mapping[str, OptionValue], name: str, *, default: bool) -> bool:
    if f"no-{name}" in options:
        return options[f"no-{name}"] is False
    return options.get(name, default) is not False


def _cache_type(options: Mapping[str, OptionValue], *names: str) -> str:
    """By the first of `names` that is set."""
    name = next((name for name in names if name in options), names[0])
    value = options.get(name, "f16")
    if not isinstance(value, str) or value not in CACHE_BYTES_PER_32:
        raise InvalidInput(f"options.{name}", f"must be one of {', '.join(CACHE_BYTES_PER_32)}, not {value!r}")
    return value


def _flash_attention(options: Mapping[str, OptionValue]) -> FlashAttention:
    value = options.get("flash-attn", "auto")
    if isinstance(value, bool):
        return "on" if value else "off"
    chosen = _FLASH.get(str(value))
    if chosen is None:
        raise InvalidInput("options.flash-attn", f"must be on, off or auto, not {value!r}")
    return chosen


def draft_path(spec: LaunchSpec) -> str | None:
    """File of the small model that guesses ahead; None without one."""
    path = next((spec.options[name] for name in _DRAFT if name in spec.options), None)
    return path if isinstance(path, str) and path else None


def draft_settings(spec: LaunchSpec, settings: LoadSettings) -> LoadSettings:
    """Of the draft model beside a model with `settings`. All its layers go to the GPU, unless the options say
    otherwise. Raises InvalidInput.
    """
    options = spec.options
    name = next((name for name in _DRAFT_LAYERS if name in options), "")
    layers = -1 if options.get(name, "auto") in ("auto", "all") else _integer(options, name, -1)
    return LoadSettings(
        context_size=settings.context_size,
        slots=settings.slots,
        cache_type_k=_cache_type(options, *(each.format("k") for each in _DRAFT_CACHES)),
        cache_type_v=_cache_type(options, *(each.format("v") for each in _DRAFT_CACHES)),
        gpu_layers=ALL_LAYERS if layers < 0 else layers,
    )
