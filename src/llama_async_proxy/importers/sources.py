"""The programs whose models can be imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from llama_async_proxy.importers import llama_swap, lm_studio, ollama
from llama_async_proxy.importers.plan import ImportPlan, PlannedModel


class Machine(Struct, frozen=True):
    """What an import looks at beside the files themselves."""

    home: Path
    environment: Mapping[str, str]


def _llama_swap(place: Path | None, machine: Machine) -> ImportPlan:
    return llama_swap.read(place or Path("config.yaml"), machine.environment)


def _ollama(place: Path | None, machine: Machine) -> ImportPlan:
    return ollama.read(place or ollama.default_directory(machine.home, machine.environment))


def _lm_studio(place: Path | None, machine: Machine) -> ImportPlan:
    return lm_studio.read(place or lm_studio.default_directory(machine.home))


SOURCES: Mapping[str, Callable[[Path | None, Machine], ImportPlan]] = {
    "llama-swap": _llama_swap,
    "ollama": _ollama,
    "lm-studio": _lm_studio,
}
"""By the command line's name: from a file or directory, None for the usual place, to a plan. Raises InvalidInput."""


def described(model: PlannedModel) -> str:
    """One model of a plan, for people."""
    lines = [f"{model.name}: {model.path}"]
    lines += [f"    also called {alias}" for alias in model.aliases]
    lines += [f"    --{key} {value}" for key, value in model.options.items()]
    for variant in model.variants:
        said = [f"{key}={value}" for key, value in variant.parameters.items()]
        said += ["a system prompt"] if variant.system_prompt else []
        lines.append(f"    variant {variant.name}: {', '.join(said) or 'no defaults'}")
    return "\n".join([*lines, "    stays loaded"] if model.is_pinned else lines)
