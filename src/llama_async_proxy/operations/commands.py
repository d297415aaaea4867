"""Options of a model that are the service's own: its idle time, and custom commands: who may set them, and the models
they make.

A command is a program of the caller's choice, so that setting one is running code. None is taken, and none is run,
unless `custom_commands` is on; and that no door can turn on.
"""

from __future__ import annotations

from collections.abc import Mapping

from llama_async_proxy.engines.custom_command import COMMAND_OPTIONS, START, has_command, parse_command
from llama_async_proxy.errors import InvalidInput, PermissionDenied
from llama_async_proxy.records.models import IDLE_TTL, Model, ModelFacts, ModelFile, ModelKind
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import CustomCommand
from llama_async_proxy.settings import Settings

COMMAND_PATH = "command:"
MAX_IDLE_TTL_S = 365 * 86400
ARCHITECTURE = "custom"
"""What a model without a header shows in place of its architecture."""


def check_options(settings: Settings, options: Mapping[str, OptionValue], *, has_file: bool) -> None:
    """May these options be stored? Raises PermissionDenied, InvalidInput."""
    _check_idle_ttl(options)
    if not has_command(options):
        if not has_file:
            raise InvalidInput(f"options.{START}", "is required: the model has no file")
        return
    _check_allowed(settings)
    parse_command(options, has_file=has_file)


def check_change(settings: Settings, model: Model, options: Mapping[str, OptionValue]) -> None:
    """May these options replace the model's? A command that stays as it is needs no permission. Raises as above."""
    _check_idle_ttl(options)
    is_new = any(options.get(key) != model.options.get(key) for key in COMMAND_OPTIONS)
    if is_new and not model.path.startswith("router:"):
        check_options(settings, options, has_file=model.has_file)
    elif is_new:
        raise InvalidInput(f"options.{START}", "has no meaning for a model that a router elsewhere runs")


def command_of(settings: Settings, model: Model) -> CustomCommand | None:
    """How the model is to be run, if not by llama.cpp. Raises PermissionDenied, InvalidInput."""
    if not has_command(model.options):
        return None
    _check_allowed(settings)
    return parse_command(model.options, has_file=model.has_file)


def command_file(name: str) -> ModelFile:
    """What stands for the file of a model that has none."""
    return fileless(COMMAND_PATH + name, name)


def fileless(path: str, name: str) -> ModelFile:
    facts = ModelFacts(ARCHITECTURE, ModelKind.CHAT, name=name)
    return ModelFile(path, size_bytes=0, mtime_ns=0, facts=facts)


def _check_idle_ttl(options: Mapping[str, OptionValue]) -> None:
    seconds = options.get(IDLE_TTL, 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_IDLE_TTL_S:
        raise InvalidInput(f"options.{IDLE_TTL}", f"must be seconds from 0 to {MAX_IDLE_TTL_S}, not {seconds!r}")


def _check_allowed(settings: Settings) -> None:
    if not settings.custom_commands:
        raise PermissionDenied(
            "Custom commands are off, because whoever sets one runs a program on this machine. To allow them, start "
            "the service with --custom-commands, or set llama.customCommands in its configuration file by hand."
        )
