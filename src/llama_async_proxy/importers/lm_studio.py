"""Importer of LM Studio's model folders: publisher/repository/file.gguf.

LM Studio names a model by its repository in lower case without "-gguf", by publisher/repository, or by the whole path.
These become aliases when they name one model only. Registration itself finds multimodal projectors beside a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.importers.plan import ImportPlan, PlannedModel, merged

_OTHER_FORMATS = (".safetensors", ".npz")


def default_directory(home: Path) -> Path:
    """LM Studio's folder of models: the one in its settings, else the usual one, else the one of old versions."""
    places = (home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models")
    configured = _downloads_folder(home / ".lmstudio" / "settings.json")
    return next((place for place in (*([configured] if configured else []), *places) if place.is_dir()), places[0])


def _downloads_folder(settings: Path) -> Path | None:
    try:
        folder = json.loads(settings.read_bytes()).get("downloadsFolder")
    except (OSError, ValueError, AttributeError):
        return None
    return Path(folder) if isinstance(folder, str) and folder else None


def read(directory: Path) -> ImportPlan:
    """Plan for all models below `directory`. Raises InvalidInput when it is no folder of LM Studio."""
    try:
        folders = sorted(folder for folder in directory.glob("*/*") if folder.is_dir())
        files = {(each.parent.name, each.name): sorted(path.name for path in each.iterdir()) for each in folders}
    except OSError as exc:
        raise InvalidInput("DIR", f"cannot read {directory}: {exc.strerror or exc}") from exc
    if not directory.is_dir() or not folders:
        raise InvalidInput("DIR", f"{directory} has no folders publisher/model as LM Studio keeps them")
    plan = plan_of(files)
    return merged(
        (PlannedModel(str(directory / model.path), model.name, aliases=model.aliases) for model in plan.models),
        plan.problems,
    )


def plan_of(folders: Mapping[tuple[str, str], Sequence[str]]) -> ImportPlan:
    """Plan for file names by (publisher, repository). Paths are relative to LM Studio's folder. Pure."""
    models: list[PlannedModel] = []
    problems: list[str] = []
    for (publisher, repository), names in folders.items():
        ggufs = [name for name in names if _is_model(name)]
        models += [_model(publisher, repository, name, is_only=len(ggufs) == 1) for name in ggufs]
        if not ggufs and any(name.lower().endswith(_OTHER_FORMATS) for name in names):
            problems.append(
                f"{publisher}/{repository}: not taken over: it is no GGUF model but one for MLX or the like"
            )
    return _unambiguous(models, problems)


def _is_model(name: str) -> bool:
    """True for a whole GGUF file or the first of a split one."""
    lower = name.lower()
    is_later_shard = "-of-" in lower and not lower.removesuffix(".gguf").rpartition("-of-")[0].endswith("-00001")
    return lower.endswith(".gguf") and not name.startswith(".") and "mmproj" not in lower and not is_later_shard


def _model(publisher: str, repository: str, name: str, *, is_only: bool) -> PlannedModel:
    path = f"{publisher}/{repository}/{name}"
    stem = PurePath(name).stem.partition("-00001-of-")[0]
    short = repository.lower().removesuffix("-gguf")
    folder = (short, f"{publisher}/{repository}") if is_only else ()
    return PlannedModel(path, stem, aliases=tuple(alias for alias in (*folder, path) if alias != stem))


def _unambiguous(models: Sequence[PlannedModel], problems: Sequence[str]) -> ImportPlan:
    """Make names unique by their path, and drop aliases that several models have."""
    names = [model.name.casefold() for model in models]
    all_names = [alias.casefold() for model in models for alias in model.aliases] + names
    unique = [
        PlannedModel(
            model.path,
            model.name if names.count(model.name.casefold()) == 1 else str(PurePath(model.path).with_suffix("")),
            aliases=tuple(alias for alias in model.aliases if all_names.count(alias.casefold()) == 1),
        )
        for model in models
    ]
    return ImportPlan(tuple(unique), tuple(problems))
