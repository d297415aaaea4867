"""Which engine options may come over the network: harmless ones, and those that read a model's file.

Everything else is said by the owner of this machine: on the command line, in the environment, in the configuration
file, or in a preset file edited on disk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from llama_async_proxy.engines.arguments import RESERVED
from llama_async_proxy.errors import InvalidInput, PermissionDenied
from llama_async_proxy.gguf.reader import has_magic
from llama_async_proxy.presets.catalogue import Catalogue
from llama_async_proxy.presets.inheritance import OUR_KEYS
from llama_async_proxy.presets.ini import Document
from llama_async_proxy.presets.option_classes import (
    OPTION_CLASSES,
    NotPaths,
    OptionClass,
    class_of,
    model_paths,
    names_of,
    reason,
)
from llama_async_proxy.presets.validation import Problem, ProblemKind
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.settings import Settings


class OptionPolicy:
    """Judges options that came over the network.

    `settings` are the live ones, `models` the registered models. `classes` is the reviewed table; tests add the options
    of the program that stands in for llama-server.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        models: Callable[[], Iterable[Model]],
        classes: Mapping[str, OptionClass] = OPTION_CLASSES,
    ) -> None:
        self._settings = settings
        self._models = models
        self._classes = classes

    def check(self, options: Mapping[str, OptionValue], catalogue: Catalogue, *, beside: Iterable[str] = ()) -> None:
        """Look at a model's or a load's options; reads the first bytes of files that they name.

        `beside` are paths of models that are about to be registered. Raises PermissionDenied naming the option, and
        InvalidInput for one that the service sets itself.
        """
        for key, value in options.items():
            if not RESERVED.isdisjoint(names_of(key, catalogue)):
                raise InvalidInput(f"options.{key}", "is set by the engine and cannot be chosen")
            why = self.why_not(key, value, catalogue, beside)
            if why is not None:
                raise PermissionDenied(f"options.{key} {why}. {self.way_by_hand(key, value)}")

    def why_not(self, key: str, value: OptionValue, catalogue: Catalogue, beside: Iterable[str] = ()) -> str | None:
        """Why this option may not come over the network, as the rest of a sentence; None when it may."""
        match class_of(key, catalogue, self._classes):
            case OptionClass.HARMLESS:
                return None
            case OptionClass.MODEL_FILE:
                return self._file_problem(key, value, catalogue, beside)
        return f"may not be set over the network, because {reason(key, catalogue)}"

    def way_by_hand(self, key: str, value: OptionValue | None = None) -> str:
        """How the owner sets the option, as a sentence."""
        settings = self._settings()
        shown = value if isinstance(value, str) and len(value) <= _MOST_SHOWN and value.isprintable() else "VALUE"
        return (
            f"The owner of this machine sets it by hand: --option {key}={shown} on the command line, llama.options in "
            f"{settings.config_path}, or a line in a preset file in {settings.presets_dir}."
        )

    def preset_problems(self, new: Document, old: Document | None, catalogue: Catalogue) -> Iterator[Problem]:
        """Lines of a preset that may not come over the network. What `old`, the file on disk, says in the same words
        in the same section may stay.
        """
        said = _lines(old) if old is not None else frozenset()
        for section in new.sections():
            for entry in section.entries:
                if entry.key in OUR_KEYS or (section.name, entry.key, entry.value) in said:
                    continue
                if catalogue.find(entry.key) is None:
                    continue  # The engine has no such option, which is an error of another kind.
                why = self.why_not(entry.key, entry.value, catalogue)
                if why is not None:
                    yield Problem(
                        f"{entry.key} {why}. To have it, write the line into a preset file in "
                        f"{self._settings().presets_dir} by hand",
                        section.name,
                        entry.key,
                        entry.line,
                        1,
                        ProblemKind.OWNER,
                    )

    def check_preset(self, name: str, new: Document, old: Document | None, catalogue: Catalogue) -> None:
        """Raises PermissionDenied with every line of `new` that may not come over the network."""
        problems = tuple(map(str, self.preset_problems(new, old, catalogue)))
        if problems:
            raise PermissionDenied(f"{name}: {problems[0]}.", details="\n".join(problems[1:]) or None)

    # --- inside -----------------------------------------------------------------------------------

    def _file_problem(self, key: str, value: OptionValue, catalogue: Catalogue, beside: Iterable[str]) -> str | None:
        try:
            for path in model_paths(key, value, catalogue):
                if problem := self._path_problem(path, beside):
                    return f"may not be set to {path!r} over the network: {problem}"
        except NotPaths as exc:
            return f"may not be set so over the network: {exc}"
        return None

    def _path_problem(self, path: str, beside: Iterable[str]) -> str | None:
        if not Path(path).is_absolute():
            return "it must be an absolute path"
        try:
            real = Path(path).resolve(strict=True)
            is_model = stat.S_ISREG(real.stat().st_mode) and has_magic(real)
        except (OSError, RuntimeError, ValueError):
            is_model = False
        if not is_model:
            return "it must be an existing GGUF file"
        if not self._is_among_models(real, beside):
            return f"it must lie in the models directory {self._settings().models_dir} or beside a registered model"
        return None

    def _is_among_models(self, real: Path, beside: Iterable[str]) -> bool:
        root = self._settings().models_dir.resolve()
        if real.is_relative_to(root):
            return True
        registered = (path for model in self._models() for path in (model.path, model.mmproj_path) if path)
        paths = chain(registered, map(os.path.realpath, beside))  # the registered ones are real paths
        return any(real.parent == Path(path).parent for path in paths)


_MOST_SHOWN = 80
"""Characters of a value that a message repeats."""


def _lines(document: Document) -> frozenset[tuple[str, str, str]]:
    return frozenset(
        (section.name, entry.key, entry.value) for section in document.sections() for entry in section.entries
    )
