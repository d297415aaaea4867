"""The settings in force, and the one way to change them: validate all, write the file, swap, tell."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.events import EventBus, SettingsChanged
from llama_async_proxy.settings import BY_FILE_KEY, BY_NAME, SETTINGS, Settings, Source, updated
from llama_async_proxy.store import config_file


class ConfigurationChange(Struct, frozen=True):
    """What an update did. Names are those of settings.SETTINGS."""

    changed: tuple[str, ...]
    restart_required: bool
    overridden: tuple[str, ...]
    """Settings that the command line or the environment will set again at the next start."""
    warnings: tuple[str, ...]


class ConfigurationReload(Struct, frozen=True):
    """Outcome of reading the configuration file again."""

    changed: tuple[str, ...]
    """Names of settings that are in force now."""
    waiting: tuple[str, ...]
    """Keys of settings that take effect at the next start."""


class Configuration:
    """Holds the effective Settings of the running service. Owned by the event loop."""

    def __init__(self, settings: Settings, bus: EventBus) -> None:
        self._settings = settings
        self._started_with = settings
        self._bus = bus
        self._lock = asyncio.Lock()
        self._configured_max_models: int | None = None
        """The configured number of models while a start's own number holds."""

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def started_with(self) -> Settings:
        """The settings this process started with: where it really listens."""
        return self._started_with

    def getter(self) -> Callable[[], Settings]:
        """A callable for rooms that need live settings but not this object."""
        return lambda: self._settings

    def hold_max_models(self, number: int | None) -> None:
        """Let at most `number` models be loaded until this is called again; None: as the configuration says.

        Nothing is written: the number belongs to one start of the engine. Raises InvalidInput for one that is none.
        """
        configured = self._settings.max_models if self._configured_max_models is None else self._configured_max_models
        if number is None and self._configured_max_models is None:
            return
        wanted = configured if number is None else number
        self._settings = updated(self._settings, {BY_NAME["max_models"].file_key: wanted})
        self._configured_max_models = None if number is None else configured
        self._bus.publish(SettingsChanged(("max_models",)))

    async def update(self, changes: Mapping[str, Any]) -> ConfigurationChange:
        """Apply `changes`, by dotted file key or alias. All or nothing.

        Raises InvalidInput naming the first bad key; PermissionDenied or StoreUnavailable when the file cannot be
        written, and then nothing changed.
        """
        async with self._lock:
            new = updated(self._settings, changes)
            changed = tuple(s.name for s in SETTINGS if getattr(new, s.name) != getattr(self._settings, s.name))
            settings = [(BY_FILE_KEY[key], value) for key, value in changes.items()]
            by_file_key = {setting.file_key: value for setting, value in settings if not setting.by_hand}
            await asyncio.to_thread(config_file.merge_write, new.config_path, by_file_key)
            self._settings = new
            if "max_models" in changed:
                self._configured_max_models = None
        if changed:
            self._bus.publish(SettingsChanged(changed))
        return ConfigurationChange(
            changed=changed,
            restart_required=any(s.restart for s in SETTINGS if s.name in changed),
            overridden=self._overridden(changed),
            warnings=_warnings(new, changed, {setting.name for setting, _ in settings}),
        )

    async def reload(self, read: Settings) -> ConfigurationReload:
        """Put into force what the configuration file says now; `read` are the settings resolved anew from it.

        Values of the command line and the environment stay, and so do settings that need a restart.
        """
        async with self._lock:
            differing = [
                s
                for s in SETTINGS
                if read.sources[s.name] in (Source.FILE, Source.DEFAULT)
                and self._settings.sources[s.name] not in (Source.COMMAND_LINE, Source.ENVIRONMENT)
                and getattr(read, s.name) != getattr(self._settings, s.name)
            ]
            live = [s.name for s in differing if not s.restart]
            sources = {**self._settings.sources, **{name: read.sources[name] for name in live}}
            values: dict[str, Any] = {name: getattr(read, name) for name in live}
            self._settings = dataclasses.replace(self._settings, **values, sources=sources)
        if live:
            self._bus.publish(SettingsChanged(tuple(live)))
        return ConfigurationReload(tuple(live), tuple(s.file_key for s in differing if s.restart))

    def _overridden(self, changed: tuple[str, ...]) -> tuple[str, ...]:
        outranking = (Source.COMMAND_LINE, Source.ENVIRONMENT)
        return tuple(name for name in changed if self._started_with.sources[name] in outranking)


def _warnings(settings: Settings, changed: tuple[str, ...], named: Collection[str]) -> tuple[str, ...]:
    """A path that does not exist yet is saved, with a warning: it may be a disk that is mounted later."""
    found = []
    if "models_dir" in changed and not settings.models_dir.is_dir():
        found.append(f"basePath: {settings.models_dir} is not a directory (yet)")
    if "llama_server" in changed and settings.llama_server and not Path(settings.llama_server).is_file():
        found.append(f"serverPath: {settings.llama_server} does not exist (yet)")
    if "requested_llama_server" in named and settings.requested_llama_server:
        found.append(
            f"serverPath: {settings.requested_llama_server} does not exist (yet). It is kept and shown, but not run. "
            f"To have it run, the owner of this machine names it by hand: --llama-server, or serverPath in "
            f"{settings.config_path}"
        )
    return tuple(found)


_UNLISTED = frozenset({"data_dir", "insecure_no_auth", "requested_llama_server"})
"""A client may send back all it was shown, and these, once in the file, would outlive the start they are meant for."""


def as_tree(settings: Settings, spellings: Mapping[str, str] = MappingProxyType({})) -> dict[str, object]:
    """JSON of every setting, nested as in the file; `spellings` has keys that differ from it, by setting."""
    nested: dict[str, object] = {}
    for setting in SETTINGS:
        if setting.name not in _UNLISTED:
            name = "shown_llama_server" if setting.name == "llama_server" else setting.name
            value = getattr(settings, name)
            _put(nested, spellings.get(setting.name, setting.file_key), _plain(value))
    return nested


def _plain(value: object) -> object:
    """JSON for what only settings hold."""
    if isinstance(value, Path):
        return str(value)
    return dict(value) if isinstance(value, Mapping) else value


def _put(nested: dict[str, Any], key: str, value: object) -> None:
    *groups, last = key.split(".")
    for group in groups:
        nested = nested.setdefault(group, {})
    nested[last] = value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"server": {"port": 1}} -> {"server.port": 1}, down to the keys that are settings.

    Raises InvalidInput for a key that is neither a setting nor a group of settings.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if dotted in BY_FILE_KEY:
            flat[dotted] = value
        elif isinstance(value, Mapping) and any(known.startswith(f"{dotted}.") for known in BY_FILE_KEY):
            flat.update(flatten(value, f"{dotted}."))
        else:
            raise InvalidInput(dotted, "is not a setting")
    return flat
