"""Import plan: the models that an import would register. Pure.

A file is registered once. When the other program has it under several names, the first names the model; another one
becomes an alias when all options are equal, and a variant when only sampling differs. Of two context sizes or idle
times the larger applies. Other differences cannot be kept.
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
"""Names of request parameters by the option that sets their default. These options affect only sampling."""
_LARGER_APPLIES = ("ctx-size", IDLE_TTL)
"""Options for which the larger value serves both models; 0 and unset mean the largest possible value."""
_OPTION_OF_PARAMETER: Mapping[str, str] = MappingProxyType(
    {parameter: option for option, parameter in PARAMETER_OF_OPTION.items()} | {"max_tokens": "predict"}
)


class PlannedModel(Struct, frozen=True):
    """A model to be registered or, if registered already, completed."""

    path: str
    """Absolute path, or `command:NAME` for a model without a file."""
    name: str
    description: str | None = None
    options: Mapping[str, OptionValue] = field(default_factory=no_options)
    """Engine options by long name."""
    aliases: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    is_pinned: bool = False
    has_given_name: bool = True
    """False for a name that the importer made up, which must not become an alias."""


class ImportPlan(Struct, frozen=True):
    """Models to import, and everything that cannot be imported."""

    models: tuple[PlannedModel, ...]
    problems: tuple[str, ...]
    """Parts that are not imported, one line each: where, what, why, and advice."""


def without_options(plan: ImportPlan, refusal: Callable[[str], str | None]) -> ImportPlan:
    """The plan without the options that the service refuses. `refusal` returns the reason for an option's name."""
    problems = list(plan.problems)
    models = []
    for model in plan.models:
        refused = {key: why for key in model.options if (why := refusal(key)) is not None}
        problems += [f"{model.name}: --{key} is not taken over: {why}" for key, why in refused.items()]
        kept = {key: value for key, value in model.options.items() if key not in refused}
        models.append(replace(model, options=kept) if refused else model)
    return ImportPlan(tuple(models), tuple(problems))


def merged(models: Iterable[PlannedModel], problems: Iterable[str] = ()) -> ImportPlan:
    """Plan with one model for each file."""
    by_path: dict[str, PlannedModel] = {}
    all_problems = list(problems)
    for model in models:
        first = by_path.get(model.path)
        if first is None:
            by_path[model.path] = model
            continue
        try:
            first, model, notes = _with_larger_limits(first, model)
            by_path[model.path] = _joined(first, model)
            all_problems += notes
        except ValueError as exc:
            all_problems.append(f"{model.name}: {exc}")
    return ImportPlan(tuple(by_path.values()), tuple(all_problems))


def _with_larger_limits(first: PlannedModel, other: PlannedModel) -> tuple[PlannedModel, PlannedModel, list[str]]:
    """Both models with the larger of their context sizes and idle times, and notes on the changes."""
    notes = []
    for key in _LARGER_APPLIES:
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
    """`first` with the names of `other`, which has the same file. Raises ValueError with the reason when impossible."""
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
    """Sampling options as request parameters. JSON texts are decoded."""
    return {PARAMETER_OF_OPTION[key]: _decoded(value) for key, value in options.items()}


def as_option(parameter: str, value: object) -> tuple[str, OptionValue] | None:
    """Option and value for a request parameter; None when no option corresponds to it."""
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
