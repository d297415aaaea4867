"""Carries a plan out against a running service, over its REST interface.

Doing it twice does what doing it once does. What people have set of a model that is registered already stays: names are
added, options that it has are not touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import quote

from msgspec import Struct

from llama_async_proxy.errors import ServiceError
from llama_async_proxy.importers.plan import PlannedModel
from llama_async_proxy.records.models import Variant

Call: TypeAlias = Callable[[str, str, Mapping[str, Any]], Any]
"""Method, path and body of a request to its JSON answer. Raises ServiceError with the service's own sentence."""


class Outcome(Struct, frozen=True):
    """What became of one model; `problem` is None when all of it was taken over."""

    name: str
    done: str
    """For people: "new, as tiny", "known, as tiny" ..."""
    is_registered: bool = True
    problem: str | None = None


def known_models(call: Call) -> dict[str, Any]:
    """What the service answers of its models, by path."""
    return {model["path"]: model for model in call("GET", "/api/models", {})["data"]["models"]}


def carry_out(planned: PlannedModel, known: Mapping[str, Any], call: Call) -> Outcome:
    """Register one model, or complete it where `known_models` has it."""
    stored = known.get(planned.path) or known.get(os.path.realpath(planned.path))
    is_new = stored is None
    try:
        if stored is None:
            stored = _register(planned, call)
        changes = _changes(planned, stored)
        if changes:
            stored = call("PATCH", f"/api/models/{quote(stored['id'], safe='')}", changes)["data"]
    except ServiceError as exc:
        done = "not taken over" if stored is None else f"{'new' if is_new else 'known'}, as {stored['id']}, incomplete"
        return Outcome(planned.name, done, stored is not None, exc.message)
    return Outcome(planned.name, f"{'new' if is_new else 'known'}, as {stored['id']}")


def _register(planned: PlannedModel, call: Call) -> Any:
    new: dict[str, Any] = {"name": planned.name, "options": dict(planned.options)}
    if not planned.path.startswith("command:"):
        new["path"] = planned.path
    if planned.description:
        new["description"] = planned.description
    [stored] = call("POST", "/api/models", {"models": [new]})["data"]["models"]
    return stored


def _changes(planned: PlannedModel, stored: Any) -> dict[str, Any]:
    """What the stored model lacks."""
    variants = {variant["name"].casefold(): variant for variant in stored["variants"]}
    taken = {stored["id"], stored["name"].casefold(), *variants, *(alias.casefold() for alias in stored["aliases"])}
    wanted = dict.fromkeys((planned.name, *planned.aliases) if planned.has_given_name else planned.aliases)
    aliases = [alias for alias in wanted if alias.casefold() not in taken]
    new_variants = [_wire(variant) for variant in planned.variants if variant.name.casefold() not in variants]
    changes: dict[str, Any] = {}
    if options := {key: value for key, value in planned.options.items() if key not in stored["options"]}:
        changes["options"] = {**stored["options"], **options}
    if aliases:
        changes["aliases"] = [*stored["aliases"], *aliases]
    if new_variants:
        changes["variants"] = [*stored["variants"], *new_variants]
    if planned.is_pinned and not stored["isPinned"]:
        changes["isPinned"] = True
    return changes


def _wire(variant: Variant) -> dict[str, Any]:
    wire: dict[str, Any] = {"name": variant.name, "parameters": dict(variant.parameters)}
    return wire | ({"systemPrompt": variant.system_prompt} if variant.system_prompt else {})
