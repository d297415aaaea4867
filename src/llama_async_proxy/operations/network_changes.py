"""What a caller over the network may change, and what takes the owner's hand.

Every operation that takes options or settings asks here: each way in but the command line of `serve`, the environment
and files edited on disk leads through an operation.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from typing import Any

from llama_async_proxy.engines.discovery import found_binaries
from llama_async_proxy.errors import EngineMissing, EngineStopped, InvalidInput, PermissionDenied
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.launch import parse_engine_options
from llama_async_proxy.presets.catalogue import Catalogue
from llama_async_proxy.presets.validation import checked_name
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.settings import BY_FILE_KEY, BY_NAME, Setting, Settings, Source, is_loopback

_LISTEN_ADDRESSES = frozenset({"host", "engine_host"})
"""Settings that say where the service, and a router of its own, listen."""
_REQUESTED_KEY = BY_NAME["requested_llama_server"].file_key
_SERVER_KEY = BY_NAME["llama_server"].file_key


async def current_catalogue(context: Context) -> Catalogue:
    """The installed engine's options; those last known when no engine is there now."""
    try:
        return await context.active_preset.catalogue()
    except (EngineMissing, EngineStopped):
        return context.planner.catalogue


async def check_options(context: Context, options: Mapping[str, OptionValue], *, beside: Iterable[str] = ()) -> None:
    """Look at options of a model or of a load. `beside` are paths of models that are about to be registered.

    Raises PermissionDenied for one that may not come over the network.
    """
    if options:
        catalogue = await current_catalogue(context)
        await asyncio.to_thread(context.planner.policy.check, options, catalogue, beside=tuple(beside))


async def permitted_settings(context: Context, changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` of settings, by dotted file key, as they may be made.

    A `serverPath` at which nothing exists is kept as `llama.requestedServerPath`: clients are shown it, and it is never
    run. Raises PermissionDenied for what takes the owner's hand, and InvalidInput.
    """
    permitted: dict[str, Any] = {}
    for key, value in changes.items():
        setting = BY_FILE_KEY.get(key)
        if setting is not None and setting.name == "llama_server" and isinstance(value, str):
            permitted |= await asyncio.to_thread(_server_path, context, key, value)
            continue
        if setting is not None:
            await _check_setting(context, setting, key, value)
        permitted[key] = value
    return permitted


async def _check_setting(context: Context, setting: Setting, key: str, value: object) -> None:
    settings = context.configuration.settings
    if setting.name in _LISTEN_ADDRESSES and isinstance(value, str):
        if value != getattr(settings, setting.name) and not is_loopback(value):
            raise PermissionDenied(
                f"{key} may be set over the network to a loopback address only, because it decides who can reach this "
                f"machine. {_by_hand(setting, settings)}"
            )
    elif setting.name == "engine" and value == "router" and settings.engine != "router":
        raise PermissionDenied(
            f"{key} may not be set to 'router' over the network, because that router listens without the service's "
            f"protection. {_by_hand(setting, settings)}"
        )
    elif setting.name == "preset" and isinstance(value, str) and value:
        checked_name(value, key)
    elif setting.name == "engine_options" and isinstance(value, list):
        await _check_engine_options(context, [text for text in value if isinstance(text, str)])


async def _check_engine_options(context: Context, texts: list[str]) -> None:
    """Options for every model: those in force may stay as they are."""
    catalogue = await current_catalogue(context)
    try:
        present = parse_engine_options(context.configuration.settings.engine_options, catalogue)
    except InvalidInput:
        present = {}
    wanted = parse_engine_options(texts, catalogue)
    new = {name: value for name, value in wanted.items() if present.get(name) != value}
    await asyncio.to_thread(context.planner.policy.check, new, catalogue)


def _server_path(context: Context, key: str, value: str) -> dict[str, Any]:
    """The change that a caller who wants `value` as the engine's program may make."""
    settings, started_with = context.configuration.settings, context.configuration.started_with
    if value == settings.shown_llama_server:
        return {_REQUESTED_KEY: settings.requested_llama_server}
    if not value or value in _named_by_owner(started_with) or value in _found():
        return {_SERVER_KEY: value, _REQUESTED_KEY: ""}
    if not os.path.lexists(value):
        return {_REQUESTED_KEY: value}
    raise PermissionDenied(
        f"{key} may be set over the network only to a llama-server that is found on PATH or in the usual places, "
        f"because the service runs that program. {_by_hand(BY_NAME['llama_server'], settings)}"
    )


def _named_by_owner(started_with: Settings) -> tuple[str, ...]:
    by_hand = started_with.sources["llama_server"] in (Source.COMMAND_LINE, Source.ENVIRONMENT, Source.FILE)
    return (started_with.llama_server,) if by_hand else ()


def _found() -> set[str]:
    """Paths that discovery tries, as found and as links lead. A link of the caller's own is neither."""
    return {spelling for path in found_binaries() for spelling in (str(path), os.path.realpath(path))}


def _by_hand(setting: Setting, settings: Settings) -> str:
    return (
        f"The owner of this machine sets it by hand: {setting.flag or setting.file_key} on the command line, "
        f"{setting.env_names[0]} in the environment, or {setting.file_key} in {settings.config_path}."
        if setting.flag
        else f"The owner of this machine sets it by hand: {setting.env_names[0]} in the environment, or "
        f"{setting.file_key} in {settings.config_path}."
    )
