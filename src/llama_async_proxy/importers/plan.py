"""What an import would do. Pure.

A file is registered once. Where the other program has it under several names, the first is the model's, and a further
one is an alias when it means the same, a variant when only sampling differs. Of contexts and idle times the larger
serves both; what else differs cannot be kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct, field
from msgspec.structs import replace

from llama_async_proxy.records.models import IDLE_TTL, Variant
from llama_async_proxy.records.options import OptionValue, no_options

PARAMETER_OF_OPTION: Mapping[str, str] = MappingProxyType({
    "temp": "temperature", "top-k": "top_k", "top-p": "top_p", "min-p": "min_p", "typical": "typical_p",
    "top-nsigma": "top_n_sigma", "xtc-probability": "xtc_probability", "xtc-threshold": "xtc_threshold",
    "repeat-last-n": "repeat_last_n", "repeat-penalty": "repeat_penalty", "presence-penalty": "presence_penalty",
    "frequency-penalty": "frequency_penalty", "dry-multiplier": "dry_multiplier", "dry-base": "dry_base",
    "dry-allowed-length": "dry_allowed_length", "dry-penalty-last-n": "dry_penalty_last_n", "mirostat": "mirostat",
    "mirostat-lr": "mirostat_eta", "mirostat-ent": "mirostat_tau", "seed": "seed", "predict": "n_predict",
    "chat-template-kwargs": "chat_template_kwargs",
})  # fmt: skip
"""Options that only say how requests are sampled, and what a request calls the same."""
_LARGER_SERVES = ("ctx-size", IDLE_TTL)
"""Options of which 0 and nothing said mean as much as can be."""
_OPTION_OF_PARAMETER: Mapping[str, str] = MappingProxyType(
    {parameter: option for option, parameter in PARAMETER_OF_OPTION.items()} | {"max_tokens": "predict"}
)


class PlannedModel(Struct, frozen=True):
    """A model to be registered, or to be found registered."""

    path: str
    """Absolute. `command:NAME` for a model without a file."""
    name: str
    description: str | None = None
    options: Mapping[str, OptionValue] = field(default_factory=no_options)
    """Engine options by long flag name, as a model has them."""
    aliases: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    is_pinned: bool = False
    has_given_name: bool = True
    """False for a name made up here, which is of no use as an alias."""


class ImportPlan(Struct, frozen=True):
    models: tuple[PlannedModel, ...]
    problems: tuple[str, ...]
    """What is not taken over, a line each: where it stands, what it is, why, what to do."""


def without_options(plan: ImportPlan, refusal: Callable[[str], str | None]) -> ImportPlan:
    """The plan without those options for which `refusal`, given the name, says why the service would not take them."""
    problems = list(plan.problems)
    models = []
    for model in plan.models:
        refused = {key: why for key in model.options if (why := refusal(key)) is not None}
        problems += [f"{model.name}: --{key} is not taken over: {why}" for key, why in refused.items()]
        kept = {key: value for key, value in model.options.items() if key not in refused}
        models.append(replace(model, options=kept) if refused else model)
    return ImportPlan(tuple(models), tuple(problems))


def merged(models: Iterable[PlannedModel], problems: Iterable[str] = ()) -> ImportPlan:
    """One model for each file."""
    by_path: dict[str, PlannedModel] = {}
    all_problems = list(problems)
    for model in models:
        first = by_path.get(model.path)
        if first is None:
            by_path[model.path] = model
            continue
        try:
            first, model, notes = _alike(first, model)
            by_path[model.path] = _joined(first, model)
            all_problems += notes
        except ValueError as exc:
            all_problems.append(f"{model.name}: {exc}")
    return ImportPlan(tuple(by_path.values()), tuple(all_problems))


def _alike(first: PlannedModel, other: PlannedModel) -> tuple[PlannedModel, PlannedModel, list[str]]:
    """Both with the larger of their contexts and idle times, and what that changes."""
    notes = []
    for key in _LARGER_SERVES:
        given = [model.options[key] for model in (first, other) if key in model.options]
        if not given or (len(given) == 2 and given[0] == given[1]):
            continue
        sizes = [value for value in given if isinstance(value, int | float) and value > 0]
        shared = {key: max(sizes)} if len(sizes) == 2 else {}
        first, other = _with(first, key, shared), _with(other, key, shared)
        what = f"{shared[key]}, the larger" if shared else "left open, as for one of them"
        notes.append(f"{other.name}: has the same file as {first.name}, which is loaded once: --{key} is {what}")
    return first, other, notes


def _with(model: PlannedModel, key: str, shared: Mapping[str, OptionValue]) -> PlannedModel:
    kept = {name: value for name, value in model.options.items() if name != key}
    return replace(model, options={**kept, **shared})


def _joined(first: PlannedModel, other: PlannedModel) -> PlannedModel:
    """`first` with the names of `other`, which has the same file. Raises ValueError saying why it cannot."""
    differing = {key for key in (*first.options, *other.options) if first.options.get(key) != other.options.get(key)}
    if differing - PARAMETER_OF_OPTION.keys():
        flags = ", ".join(f"--{key}" for key in sorted(differing - PARAMETER_OF_OPTION.keys()))
        raise ValueError(
            f"has the same file as {first.name}, which is loaded once, but differs in {flags}; not taken over. Use one "
            "set of options for both, or a copy of the file (a hard link will do)"
        )
    if missing := differing - other.options.keys():
        flags = ", ".join(f"--{key}" for key in sorted(missing))
        raise ValueError(
            f"has the same file as {first.name} but leaves out its {flags}; not taken over. Add it to both"
        )
    names = (other.name, *other.aliases) if other.has_given_name else other.aliases
    if not differing:
        return replace(first, aliases=(*first.aliases, *names), variants=(*first.variants, *other.variants))
    parameters = as_parameters({key: other.options[key] for key in differing})
    own = tuple(Variant(name, parameters) for name in names)
    inherited = tuple(replace(each, parameters={**parameters, **each.parameters}) for each in other.variants)
    return replace(first, variants=(*first.variants, *own, *inherited))


def as_parameters(options: Mapping[str, OptionValue]) -> dict[str, object]:
    """Sampling options as a request says them. Those that are JSON in text are decoded, if they are."""
    return {PARAMETER_OF_OPTION[key]: _decoded(value) for key, value in options.items()}


def as_option(parameter: str, value: object) -> tuple[str, OptionValue] | None:
    """The option that says what a request's parameter does, and its value; None when there is none."""
    option = _OPTION_OF_PARAMETER.get(parameter)
    if option is None:
        return None
    if option == "chat-template-kwargs" and isinstance(value, dict):
        return option, json.dumps(value)
    return (option, value) if isinstance(value, str | int | float) else None


def _decoded(value: OptionValue) -> object:
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
