"""Programs whose models can be imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from llama_async_proxy.importers import llama_swap, lm_studio, ollama
from llama_async_proxy.importers.plan import ImportPlan, PlannedModel


class ImportContext(Struct, frozen=True):
    """Parts of the user's environment that importers use."""

    home: Path
    environment: Mapping[str, str]


def _llama_swap(place: Path | None, context: ImportContext) -> ImportPlan:
    return llama_swap.read(place or Path("config.yaml"), context.environment)


def _ollama(place: Path | None, context: ImportContext) -> ImportPlan:
    return ollama.read(place or ollama.default_directory(context.home, context.environment))


def _lm_studio(place: Path | None, context: ImportContext) -> ImportPlan:
    return lm_studio.read(place or lm_studio.default_directory(context.home))


SOURCES: Mapping[str, Callable[[Path | None, ImportContext], ImportPlan]] = {
    "llama-swap": _llama_swap,
    "ollama": _ollama,
    "lm-studio": _lm_studio,
}
"""Importers by their name on the command line.

Each takes a file or directory, or None for the usual place, and returns a plan. Raises InvalidInput.
"""


def describe(model: PlannedModel) -> str:
    """Description of one planned model for users."""
    lines = [f"{model.name}: {model.path}"]
    lines += [f"    also called {alias}" for alias in model.aliases]
    lines += [f"    --{key} {value}" for key, value in model.options.items()]
    for variant in model.variants:
        defaults = [f"{key}={value}" for key, value in variant.parameters.items()]
        defaults += ["a system prompt"] if variant.system_prompt else []
        lines.append(f"    variant {variant.name}: {', '.join(defaults) or 'no defaults'}")
    return "\n".join([*lines, "    stays loaded"] if model.is_pinned else lines)
