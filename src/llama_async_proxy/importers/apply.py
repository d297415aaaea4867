"""Applies an import plan to a running service, over its REST interface.

Idempotent. Settings of a registered model stay: names are added, and only options without a value are set.
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
"""Sends a request (method, path, body) and returns its JSON answer. Raises ServiceError with the service's message."""


class Outcome(Struct, frozen=True):
    """Result for one model; `problem` is None when all of it was imported."""

    name: str
    done: str
    """Result in words, such as "new, as tiny" or "known, as tiny"."""
    is_registered: bool = True
    problem: str | None = None


def registered_models(call: Call) -> dict[str, Any]:
    """Models of the service, by path."""
    return {model["path"]: model for model in call("GET", "/api/models", {})["data"]["models"]}


def apply(planned: PlannedModel, registered: Mapping[str, Any], call: Call) -> Outcome:
    """Register one model, or complete it when it is among the `registered_models`."""
    stored = registered.get(planned.path) or registered.get(os.path.realpath(planned.path))
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
    """Changes that add everything the stored model lacks."""
    variants = {variant["name"].casefold(): variant for variant in stored["variants"]}
    taken = {stored["id"], stored["name"].casefold(), *variants, *(alias.casefold() for alias in stored["aliases"])}
    wanted = dict.fromkeys((planned.name, *planned.aliases) if planned.has_given_name else planned.aliases)
    aliases = [alias for alias in wanted if alias.casefold() not in taken]
    new_variants = [_variant_json(variant) for variant in planned.variants if variant.name.casefold() not in variants]
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


def _variant_json(variant: Variant) -> dict[str, Any]:
    json: dict[str, Any] = {"name": variant.name, "parameters": dict(variant.parameters)}
    return json | ({"systemPrompt": variant.system_prompt} if variant.system_prompt else {})
