"""Which registered model a name means. Pure.

Precedence: slug, name, alias, variant, the preset's section that names the model's file, file name with or without its
extension; first exactly, then ignoring case; last, the integer id. Within one kind the older model wins, so that
registering a model never changes what a name means.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from types import MappingProxyType

from llama_async_proxy.errors import InvalidInput, NotFound
from llama_async_proxy.records.models import Model, Variant

NO_SECTIONS: Mapping[str, str] = MappingProxyType({})
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_EXTENSIONS = (".gguf", ".bin")
_MAX_COMPARED = 200
"""difflib is quadratic in the length of the name, which a stranger chose."""


class NameIndex:
    """Every name of every model; a lookup takes the same time for one model and for thousands."""

    def __init__(self, models: tuple[Model, ...], sections: Mapping[str, str] = NO_SECTIONS) -> None:
        """`sections` are real paths of files by the name that a preset gives them."""
        self.models = models
        self.sections = sections
        by_age = sorted(models, key=lambda model: model.id)
        self._by_id: Mapping[str, Model] = {str(model.id): model for model in by_age}
        self._exact: dict[str, Model] = {}
        self._folded: dict[str, Model] = {}
        self._variants = {variant.name.casefold(): variant for model in by_age for variant in model.variants}
        in_sections = _names_in(sections)
        self.listed = tuple(_with_aliases(model, in_sections(model)) for model in models)
        """The models as they are shown to clients: what a preset calls them is among their aliases."""
        kinds = (_slugs, _display_names, _aliases, _variant_names, in_sections, _file_names)
        for names_of in kinds:
            for model in by_age:
                for name in names_of(model):
                    self._exact.setdefault(name, model)
                    self._folded.setdefault(name.casefold(), model)

    @classmethod
    def of(cls, models: tuple[Model, ...]) -> NameIndex:
        return cls(models)

    def resolve(self, name: str) -> Model | None:
        return self._exact.get(name) or self._folded.get(name.casefold()) or self._by_id.get(name)

    def variant(self, name: str | None) -> Variant | None:
        """The variant that `name` means; it resolves to the variant's model."""
        return self._variants.get(name.casefold()) if self._variants and name else None

    def similar(self, name: str, limit: int = 3) -> tuple[str, ...]:
        """Slugs of models somebody who wrote `name` may have meant, best first."""
        wanted = name.casefold()[:_MAX_COMPARED]
        containing = [known for known in self._folded if len(wanted) > 1 and wanted in known]
        close = difflib.get_close_matches(wanted, self._folded, n=3 * limit, cutoff=0.6)
        slugs = dict.fromkeys(self._folded[known].slug for known in (*close, *containing))
        return tuple(slugs)[:limit]


class Names:
    """The index of the models there are now, rebuilt when `models` or `sections` answers with another object."""

    def __init__(
        self,
        models: Callable[[], tuple[Model, ...]],
        sections: Callable[[], Mapping[str, str]] = lambda: NO_SECTIONS,
    ) -> None:
        self._models = models
        self._sections = sections
        self._index = NameIndex(())

    @property
    def index(self) -> NameIndex:
        models, sections = self._models(), self._sections()
        if models is not self._index.models or sections is not self._index.sections:
            self._index = NameIndex(models, sections)
        return self._index


def choose(index: NameIndex, name: str | None, loaded: tuple[int, ...]) -> Model:
    """The model of a request: the named one, or without a name the only loaded one (`loaded` are ids).

    Raises NotFound naming close matches, and InvalidInput when no name was given and it could be several or none.
    """
    if name is not None:
        model = index.resolve(name)
        if model is None:
            raise NotFound("model", name, f"Model {_shown(name)} not found.", similar=index.similar(name))
        return model
    found = [model for model in index.models if model.id in loaded]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InvalidInput("model", "is missing, and no model is loaded; name one of those listed by /v1/models")
    names = ", ".join(sorted(model.slug for model in found))
    raise InvalidInput("model", f"is missing, and several models are loaded; name one of {names}")


def _shown(name: str) -> str:
    return repr(name if len(name) <= _MAX_COMPARED else name[:_MAX_COMPARED] + "...")


def _slugs(model: Model) -> Iterator[str]:
    yield model.slug


def _display_names(model: Model) -> Iterator[str]:
    yield model.name


def _aliases(model: Model) -> Iterator[str]:
    yield from model.aliases


def _variant_names(model: Model) -> Iterator[str]:
    yield from (variant.name for variant in model.variants)


def _with_aliases(model: Model, names: Iterator[str]) -> Model:
    more = [name for name in names if name not in (model.slug, model.name, *model.aliases)]
    return replace(model, aliases=(*model.aliases, *more)) if more else model


def _names_in(sections: Mapping[str, str]) -> Callable[[Model], Iterator[str]]:
    by_path: dict[str, list[str]] = {}
    for name, path in sections.items():
        by_path.setdefault(path, []).append(name)

    def section_names(model: Model) -> Iterator[str]:
        yield from by_path.get(model.path, ())

    return section_names


def _file_names(model: Model) -> Iterator[str]:
    """ "m-00001-of-00002.gguf" is also known as "m-00001-of-00002", "m.gguf" and "m"."""
    path = PurePath(model.path)
    yield path.name
    if path.suffix.lower() in _EXTENSIONS:
        yield path.stem
        whole = _SHARD.sub("", path.stem)
        yield whole
        yield whole + path.suffix
