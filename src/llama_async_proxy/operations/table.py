"""The table of operations: everything the service can be asked to do, by name.

An operation is declared where it is written, with `@operation(name, effect)`; the table is the sum of the subjects
below. A new file of operations is added to `_SUBJECTS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from llama_async_proxy.operations import (
    activity,
    archive,
    chats,
    config,
    counters,
    engine,
    estimate,
    health,
    logs,
    metrics,
    models,
    models_directory,
    options,
    preferences,
    preset_sections,
    presets,
    requests,
    running_answers,
    search,
    usage,
)
from llama_async_proxy.operations.operation import Operation

_SUBJECTS = (
    models,
    estimate,
    engine,
    activity,
    metrics,
    counters,
    config,
    logs,
    preferences,
    health,
    requests,
    presets,
    preset_sections,
    models_directory,
    options,
    chats,
    running_answers,
    archive,
    search,
    usage,
)


def declared_in(subjects: Iterable[ModuleType]) -> Mapping[str, Operation[Any, Any]]:
    """The operations of these modules by name. Raises ValueError when two have the same name."""
    found: dict[str, Operation[Any, Any]] = {}
    for subject in subjects:
        for operation in vars(subject).values():
            # A subject may import operations of another one to call them.
            if not isinstance(operation, Operation) or operation.run.__module__ != subject.__name__:
                continue
            if found.setdefault(operation.name, operation) is not operation:
                raise ValueError(f"two operations are called {operation.name!r}")
    return found


OPERATIONS = declared_in(_SUBJECTS)
