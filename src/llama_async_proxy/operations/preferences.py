"""What a user chose: preferences of the browser, kept as they come, beside a few settings of the service."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.settings import Settings

_SETTINGS = {
    "logLevel": "log_level",
    "autoLoadModels": "load_on_request",
    "maxModelsLoaded": "max_models",
    "threads": "threads",
}
"""Keys that are the service's own settings -> name of the setting."""
_MOST_KEYS = 1000


class GetPreferences(Struct, frozen=True):
    pass


class UpdatePreferences(Struct, frozen=True):
    """What is not named stays; None removes a preference."""

    changes: Mapping[str, object]


class Preferences(Struct, frozen=True):
    values: Mapping[str, object]


@operation("preferences.get", Effect.READ)
async def get_preferences(context: Context, _: GetPreferences) -> Preferences:
    return Preferences({**await context.store.preferences.get_all(), **_own(context.configuration.settings)})


@operation("preferences.update", Effect.ADMIN)
async def update_preferences(context: Context, request: UpdatePreferences) -> Preferences:
    """Raises InvalidInput naming a setting whose value is wrong; nothing changes then."""
    settings = {key: value for key, value in request.changes.items() if key in _SETTINGS}
    remembered = {key: value for key, value in request.changes.items() if key not in _SETTINGS}
    known = await context.store.preferences.get_all()
    if len(known.keys() | remembered.keys()) > _MOST_KEYS:
        raise InvalidInput("settings", f"must not have more than {_MOST_KEYS} keys")
    if settings:
        await context.configuration.update(settings)
    return Preferences({**await context.store.preferences.merge(remembered), **_own(context.configuration.settings)})


def _own(settings: Settings) -> dict[str, object]:
    return {key: getattr(settings, name) for key, name in _SETTINGS.items()}
