"""Table of the registered models. All are kept in memory, so that reads need no query."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, count
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, TypedDict, Unpack

from msgspec.structs import fields, replace
from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from llama_async_proxy.errors import Conflict, InvalidInput, NotFound
from llama_async_proxy.records.models import Model, ModelDraft, ModelFacts, ModelFile, ModelKind, ModelOrigin, Variant
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.store.database import Database
from llama_async_proxy.store.schema import models, variants
from llama_async_proxy.store.writer import Writer

RESERVED_SLUGS = frozenset({"load", "unload", "sse"})
"""Slugs that would hide routes such as /models/load."""
MAX_NAME_LENGTH = 255
_MAX_SLUG_LENGTH = 100
_UNPRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, and those that change the direction of writing: they make one name look like another."""
_TOUCH_INTERVAL_MS = 10_000
"""Precision of `last_used_at_ms`: a busy model answers hundreds of requests a second."""

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_NOT_IN_SLUGS = re.compile(r"[^\w.~+@=-]+")


class ModelChanges(TypedDict, total=False):
    """Fields that `ModelTable.update` can change. None clears an optional field."""

    name: str
    description: str | None
    version: str | None
    family: str | None
    quantization: str | None
    context_size: int | None
    options: Mapping[str, OptionValue]
    aliases: tuple[str, ...]
    variants: tuple[Variant, ...]
    is_favorite: bool
    is_pinned: bool


class ModelTable:
    """A method that changes models returns after the commit, and readers see the change from then on.

    The writer runs all changes one after the other, so they may read `_models` without a lock.
    """

    def __init__(self, database: Database, writer: Writer, now_ms: Callable[[], int]) -> None:
        """Load all models. Blocks. Raises StoreUnavailable."""
        self._writer = writer
        self._now_ms = now_ms
        self._touched: dict[int, int] = {}
        """Times of last use in this run of the service, by id. For the event loop's thread only."""
        self._publish(database.read_now(_load))

    # --- reading ----------------------------------------------------------------------------------

    def all(self) -> tuple[Model, ...]:
        """All models, oldest first. The same tuple is returned until a model changes."""
        return self._models

    def get(self, model_id: int) -> Model:
        """One model by id. Raises NotFound."""
        model = self._by_id.get(model_id)
        if model is None:
            raise NotFound("model", model_id)
        return model

    def with_last_use(self, model: Model) -> Model:
        """The model with the moment of its last use, which is stored a little later. For the event loop's thread."""
        at_ms = self._touched.get(model.id)
        return model if at_ms is None else replace(model, last_used_at_ms=max(at_ms, model.last_used_at_ms or 0))

    def by_slug(self, slug: str) -> Model | None:
        return next((model for model in self._models if model.slug == slug), None)

    def by_path(self, path: str) -> Model | None:
        """Model with this path, in which links must be resolved."""
        return next((model for model in self._models if model.path == path), None)

    # --- changing ---------------------------------------------------------------------------------

    async def add(self, draft: ModelDraft) -> Model:
        """Register a model. Raises Conflict naming the model with its path or name, InvalidInput, StoreUnavailable."""
        [model] = await self.add_many([draft])
        return model

    async def add_many(self, drafts: Sequence[ModelDraft]) -> tuple[Model, ...]:
        """Register all models or, raising as `add`, none."""
        return await self._writer.run(
            lambda connection: self._insert(connection, drafts), lambda new: self._publish((*self._models, *new))
        )

    async def refresh(self, model_id: int, file: ModelFile) -> Model:
        """Store the facts of a changed file. Fields set by users stay. Raises NotFound, Conflict."""
        return await self._change(
            model_id,
            path=file.path,
            facts=file.facts,
            size_bytes=file.size_bytes,
            mtime_ns=file.mtime_ns,
            shards=file.shards,
            mmproj_path=file.mmproj_path,
            links=file.links,
            is_missing=False,
        )

    async def mark(self, model_id: int, *, missing: bool) -> Model:
        """Store whether the model's file is missing. Raises NotFound."""
        return await self._change(model_id, is_missing=missing)

    async def update(self, model_id: int, **changes: Unpack[ModelChanges]) -> Model:
        """Change fields; the slug never changes. Raises NotFound, InvalidInput, and Conflict for a used name."""
        checked: dict[str, Any] = dict(changes)
        if "name" in changes:
            checked["name"] = _checked_name(changes["name"])
        if "options" in changes:
            checked["options"] = MappingProxyType(dict(changes["options"]))
        if "aliases" in changes:
            checked["aliases"] = tuple(dict.fromkeys(_checked_name(alias, "aliases") for alias in changes["aliases"]))
        if "variants" in changes:
            checked["variants"] = tuple(map(_checked_variant, changes["variants"]))
        return await self._change(model_id, **checked)

    def touch(self, model_id: int, at_ms: int) -> None:
        """Record the use of a model, with a precision of ten seconds. Cheap. Unknown ids are ignored."""
        model = self._by_id.get(model_id)
        if model is not None:
            self._touched[model_id] = at_ms
        if model is not None and (model.last_used_at_ms is None or at_ms - model.last_used_at_ms >= _TOUCH_INTERVAL_MS):
            self._writer.append(self._store_touches, (model_id, at_ms))

    async def delete(self, model_id: int) -> Model:
        """Remove a model from the registry, and return it. Its file stays. Raises NotFound."""

        def remove(connection: Connection) -> Model:
            model = self.get(model_id)
            connection.execute(delete(models).where(models.c.id == model_id))
            return model

        def publish(removed: Model) -> None:
            self._publish(tuple(model for model in self._models if model.id != removed.id))

        return await self._writer.run(remove, publish)

    # --- in the writing thread --------------------------------------------------------------------

    def _publish(self, new: Iterable[Model]) -> None:
        snapshot = tuple(new)
        # The order matters, because the event loop reads meanwhile: `get` must find every model that `all` returns.
        self._by_id = {model.id: model for model in snapshot}
        self._models = snapshot

    def _insert(self, connection: Connection, drafts: Sequence[ModelDraft]) -> tuple[Model, ...]:
        added: list[Model] = []
        now_ms = self._now_ms()
        for draft in drafts:
            new = register(draft, (*self._models, *added), now_ms)
            statement = insert(models).values(_to_row(new)).returning(models.c.id)
            added.append(replace(new, id=connection.execute(statement).scalar_one()))
        return tuple(added)

    async def _change(self, model_id: int, **changes: Any) -> Model:
        def change(connection: Connection) -> Model:
            new = replace(self.get(model_id), **changes, updated_at_ms=self._now_ms())
            _check_unique(new, self._models)
            connection.execute(update(models).where(models.c.id == model_id).values(_to_row(new)))
            if "variants" in changes:
                _store_variants(connection, new)
            return new

        def publish(changed: Model) -> None:
            self._publish(changed if model.id == changed.id else model for model in self._models)

        return await self._writer.run(change, publish)

    def _store_touches(self, connection: Connection, touches: Sequence[tuple[int, int]]) -> None:
        latest = dict(sorted(touches, key=lambda touch: touch[1]))
        connection.execute(
            update(models).where(models.c.id == bindparam("model_id")).values(last_used_at_ms=bindparam("at_ms")),
            [{"model_id": model_id, "at_ms": at_ms} for model_id, at_ms in latest.items()],
        )
        # Publishing before the commit is safe: if the commit fails, the writer stores the same touches again.
        self._publish(
            replace(model, last_used_at_ms=latest[model.id]) if model.id in latest else model for model in self._models
        )


# --- names ----------------------------------------------------------------------------------------


def slugify(text: str) -> str:
    """`text` for use in the path of a URL, in its own case and script. Empty when no character can be used."""
    return _NOT_IN_SLUGS.sub("-", unicodedata.normalize("NFC", text))[:_MAX_SLUG_LENGTH].strip("-.")


def file_stem(path: str) -> str:
    """Name of the file without its extension and without the number of a shard."""
    return _SHARD.sub("", PurePath(path).stem)


def _name_key(name: str) -> str:
    """Key that is equal for names which users take for the same: without case, in normal form."""
    return unicodedata.normalize("NFC", name).casefold()


def _unique(wanted: str, taken: Collection[str], key: Callable[[str], str] = str) -> str:
    """First free name of `wanted`, `wanted-2`, `wanted-3` and so on."""
    candidates = chain([wanted], (f"{wanted}-{n}" for n in count(2)))
    return next(candidate for candidate in candidates if key(candidate) not in taken)


def _checked_name(name: str, field: str = "name") -> str:
    name = name.strip()
    if not name:
        raise InvalidInput(field, "must not be empty")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidInput(field, f"must have at most {MAX_NAME_LENGTH} characters, not {len(name)}")
    if found := _UNPRINTED.search(name):
        raise InvalidInput(field, f"must not contain the control character U+{ord(found[0]):04X}")
    return name


def _checked_variant(variant: Variant) -> Variant:
    return Variant(
        _checked_name(variant.name, "variants"), MappingProxyType(dict(variant.parameters)), variant.system_prompt
    )


def _names(model: Model) -> list[str]:
    """All names of a model but those of its files."""
    return [model.slug, model.name, *model.aliases, *(variant.name for variant in model.variants)]


def _check_variants(new: Model, others: Sequence[Model]) -> None:
    """Raise InvalidInput or Conflict when a variant's name has another meaning.

    Aliases need no check: of two models with the same alias the older one answers.
    """
    own = {_name_key(name) for name in (new.slug, new.name, *new.aliases)}
    for variant in new.variants:
        key = _name_key(variant.name)
        if key in own:
            raise InvalidInput("variants", f"{variant.name!r} is another name of this model already")
        own.add(key)
    for other in others:
        # Skip most comparisons, because a scan may add thousands of models and few have variants.
        if other.id == new.id or not (new.variants or other.variants):
            continue
        for ours, theirs in ((new.variants, _names(other)), (other.variants, _names(new))):
            clash = {_name_key(variant.name) for variant in ours} & {_name_key(name) for name in theirs}
            if clash:
                raise Conflict(f"Model {other.name!r} (id {other.id}) has the name {min(clash)!r} already.")


def _check_unique(new: Model, others: Sequence[Model]) -> None:
    _check_variants(new, others)
    for other in others:
        if other.id == new.id:
            continue
        if other.path == new.path:
            raise Conflict(f"{new.path} is registered already, as model {other.name!r} (id {other.id}).")
        if _name_key(other.name) == _name_key(new.name):
            raise Conflict(
                f"Another model is named {other.name!r} already (id {other.id}, {other.path}). Choose another name."
            )


def register(draft: ModelDraft, existing: Sequence[Model], now_ms: int) -> Model:
    """Model for a draft, still with id 0. Raises Conflict, InvalidInput."""
    stem = file_stem(draft.file.path)
    taken = {_name_key(variant.name) for model in existing for variant in model.variants}
    name = (_UNPRINTED.sub("", stem) or "model") if draft.name is None else _checked_name(draft.name)
    if draft.origin is ModelOrigin.SCANNED:
        name = _unique(name, taken | {_name_key(model.name) for model in existing}, _name_key)
    slug = slugify(draft.name or stem) or slugify(stem) or "model"
    new = Model(
        id=0,
        slug=_unique(slug, RESERVED_SLUGS | taken | {model.slug.casefold() for model in existing}, str.casefold),
        name=name,
        path=draft.file.path,
        origin=draft.origin,
        facts=draft.file.facts,
        size_bytes=draft.file.size_bytes,
        mtime_ns=draft.file.mtime_ns,
        shards=draft.file.shards,
        mmproj_path=draft.file.mmproj_path,
        links=draft.file.links,
        description=draft.description,
        version=draft.version,
        family=draft.family,
        quantization=draft.quantization,
        context_size=draft.context_size,
        options=MappingProxyType(dict(draft.options)),
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
    )
    _check_unique(new, existing)
    return new


# --- rows -----------------------------------------------------------------------------------------


def _to_row(model: Model) -> dict[str, Any]:
    """Values of all columns but the id, which the database assigns."""
    row = {column.name: getattr(model, column.name) for column in models.c if column.name not in ("id", "name_key")}
    return row | {
        "name_key": _name_key(model.name),
        "origin": model.origin.value,
        "facts": {field.name: getattr(model.facts, field.name) for field in fields(ModelFacts)}
        | {"metadata": dict(model.facts.metadata)},
        "options": dict(model.options),
    }


def _store_variants(connection: Connection, model: Model) -> None:
    connection.execute(delete(variants).where(variants.c.model_id == model.id))
    rows = [
        {
            "name_key": _name_key(variant.name),
            "name": variant.name,
            "model_id": model.id,
            "position": position,
            "parameters": dict(variant.parameters),
            "system_prompt": variant.system_prompt,
        }
        for position, variant in enumerate(model.variants)
    ]
    if rows:
        connection.execute(insert(variants), rows)


def _load(connection: Connection) -> tuple[Model, ...]:
    by_model: defaultdict[int, list[Variant]] = defaultdict(list)
    for row in connection.execute(select(variants).order_by(variants.c.position)):
        by_model[row.model_id].append(Variant(row.name, MappingProxyType(row.parameters), row.system_prompt))
    rows = connection.execute(select(models).order_by(models.c.id))
    return tuple(_from_row(row, tuple(by_model[row.id])) for row in rows)


def _from_row(row: Row[Any], own_variants: tuple[Variant, ...]) -> Model:
    values = dict(row._mapping)
    del values["name_key"]
    facts = values["facts"]
    return Model(
        **values
        | {
            "origin": ModelOrigin(values["origin"]),
            "facts": ModelFacts(**facts | {"kind": ModelKind(facts["kind"])}),
            "shards": tuple(values["shards"]),
            "links": tuple(values["links"]),
            "options": MappingProxyType(values["options"]),
            "aliases": tuple(values["aliases"]),
            "variants": own_variants,
        }
    )
