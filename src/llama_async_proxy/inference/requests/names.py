"""Model names: the registered model that a name in a request means. Pure.

Precedence: slug, name, alias, variant, the preset's section that names the model's file, file name with or without its
extension, the name of a link to the file, directory and file name, `repository:quantization`; first exactly, then
ignoring case and Unicode normal form; last, the integer id. Within one kind of name the older model wins, so that
registering a model never changes what a name means. `NAME:latest`, as Ollama's clients write it, means NAME.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from types import MappingProxyType

from msgspec.structs import replace

from llama_async_proxy.errors import InvalidInput, NotFound
from llama_async_proxy.records.models import Model, ModelKind, Variant

NO_SECTIONS: Mapping[str, str] = MappingProxyType({})
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_EXTENSIONS = (".gguf", ".bin")
_CACHED = re.compile(r"/models--([^/]+?)--([^/]+)/snapshots/")
_QUANTIZATION = re.compile(r"[.-]((?:UD-)?(?:I?Q\d[A-Z0-9_]*|TQ\d_\d|MXFP4[A-Z_]*|BF16|F(?:16|32)))$", re.IGNORECASE)
"""The end of a file's stem that says how its weights are stored, as people who publish GGUF files write it."""
_PARTS_OF_REPOSITORY = 3
_LATEST = ":latest"
_MOST_NAMED = 20
_MAX_COMPARED = 200
"""Characters of a name that are compared. difflib is quadratic in the length of the name, which the client chose."""


class NameIndex:
    """Every name of every model; a lookup takes the same time for one model and for thousands."""

    def __init__(self, models: tuple[Model, ...], sections: Mapping[str, str] = NO_SECTIONS) -> None:
        """`sections` are real paths of model files by their section's name in a preset."""
        self.models = models
        self.sections = sections
        by_age = sorted(models, key=lambda model: model.id)
        self._by_id: Mapping[str, Model] = {str(model.id): model for model in by_age}
        self._exact: dict[str, Model] = {}
        self._folded: dict[str, Model] = {}
        self._variants = {variant.name.casefold(): variant for model in by_age for variant in model.variants}
        in_sections = _names_in(sections)
        self.listed = tuple(_with_aliases(model, in_sections(model)) for model in models if not model.is_missing)
        """The models whose files are there, as they are shown to clients: a preset's names for them are aliases."""
        kinds = (_slugs, _display_names, _aliases, _variant_names, in_sections, _file_names, _link_names, _places)
        for names_of in kinds:
            for model in by_age:
                for name in names_of(model):
                    self._exact.setdefault(name, model)
                    self._folded.setdefault(_folded(name), model)

    @classmethod
    def of(cls, models: tuple[Model, ...]) -> NameIndex:
        return cls(models)

    def resolve(self, name: str) -> Model | None:
        model = self._exact.get(name) or self._folded.get(_folded(name)) or self._by_id.get(name)
        if model is None and name.endswith(_LATEST):
            return self.resolve(name.removesuffix(_LATEST))
        return model

    def variant(self, name: str | None) -> Variant | None:
        """The variant that `name` means; None if it means none. `resolve` gives the variant's model."""
        return self._variants.get(name.casefold()) if self._variants and name else None

    def similar(self, name: str, limit: int = 3) -> tuple[str, ...]:
        """Slugs of at most `limit` models with names similar to `name`, best first."""
        wanted = name.casefold()[:_MAX_COMPARED]
        containing = [known for known in self._folded if len(wanted) > 1 and wanted in known]
        close = difflib.get_close_matches(wanted, self._folded, n=3 * limit, cutoff=0.6)
        slugs = dict.fromkeys(self._folded[known].slug for known in (*close, *containing))
        return tuple(slugs)[:limit]


class Names:
    """The current name index, rebuilt when `models` or `sections` returns another object."""

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


def choose(index: NameIndex, name: str) -> Model:
    """The model that `name` means. Raises NotFound naming close matches, or the file when that is gone."""
    model = index.resolve(name)
    if model is None:
        raise NotFound("model", name, f"Model {_shown(name)} not found.", similar=index.similar(name))
    return model


def choose_unnamed(
    index: NameIndex, kind: ModelKind | None, default: str = "", *, loaded: tuple[int, ...] = ()
) -> Model:
    """The model of a request that names none.

    The only model of the `kind` that the request is for (None: of any kind), else the one that `default` names, else
    the only loaded one (`loaded` are ids). Raises InvalidInput naming the choices, or the setting that names no model.
    """
    fitting = [model for model in index.models if not model.is_missing and kind in (None, model.facts.kind)]
    if len(fitting) == 1:
        return fitting[0]
    if default:
        model = index.resolve(default)
        if model is None:
            raise InvalidInput("model", f"is missing, and the default model {_shown(default)} is not registered")
        return model
    running = [model for model in fitting if model.id in loaded]
    if len(running) == 1:
        return running[0]
    if not fitting:
        what = "model is registered" if kind is None else f"model for {kind.value} is registered"
        raise InvalidInput("model", f"is missing, and no {what}")
    choices = sorted(model.slug for model in running or fitting)
    names = ", ".join(choices[:_MOST_NAMED]) + (", ..." if len(choices) > _MOST_NAMED else "")
    raise InvalidInput("model", f"is missing; name one of {names}")


def _folded(name: str) -> str:
    """Equal for names that people take for the same."""
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


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
    yield from _names_of_file(PurePath(model.path))


def _link_names(model: Model) -> Iterator[str]:
    for link in model.links:
        yield from _names_of_file(PurePath(link))


def _places(model: Model) -> Iterator[str]:
    """Names by directory, and by repository and quantization, as hubs and Ollama write them."""
    if not model.has_file:
        return
    for path in map(PurePath, (model.path, *model.links)):
        for name in _names_of_file(path):
            yield f"{path.parent.name}/{name}"
        yield from _repository_names(path, (model.quantization or model.facts.quantization or ""))


def _repository_names(path: PurePath, quantization: str) -> Iterator[str]:
    """ "org/repo:Q4_K_M", "org/repo", "repo:Q4_K_M"; and "stem:Q4_K_M" for a file `stem-Q4_K_M.gguf`."""
    written = _QUANTIZATION.search(_SHARD.sub("", path.stem))
    tags = dict.fromkeys(tag for tag in (written[1] if written else "", quantization) if tag)
    bases = []
    if cached := _CACHED.search(path.as_posix()):  # Hugging Face's cache: models--ORG--REPO/snapshots/REVISION/FILE
        bases = [f"{cached[1]}/{cached[2]}", cached[2]]
    elif len(path.parts) > _PARTS_OF_REPOSITORY:  # LM Studio's: ORG/REPO/FILE
        bases = [f"{path.parts[-3]}/{path.parts[-2]}", path.parts[-2]]
    if written:
        bases.append(path.stem[: written.start()])
    for base in bases:
        yield from (f"{base}:{tag}" for tag in tags)
    if bases:
        yield bases[0]


def _names_of_file(path: PurePath) -> Iterator[str]:
    """ "m-00001-of-00002.gguf" is also known as "m-00001-of-00002", "m.gguf" and "m"."""
    yield path.name
    if path.suffix.lower() in _EXTENSIONS:
        yield path.stem
        whole = _SHARD.sub("", path.stem)
        yield whole
        yield whole + path.suffix
