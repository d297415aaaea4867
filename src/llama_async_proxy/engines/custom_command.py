"""Custom commands: a command template in place of llama-server's arguments, for models of other programs. Pure.

The template is part of the model's own options, so that every interface that shows and changes options can show and
change it. It is split once, by the rules of a shell but without one; then placeholders are replaced in each argument.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.records.models import COMMAND
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import CustomCommand, Endpoint, LaunchSpec

START, HEALTH, STOP = COMMAND, "command-health", "command-stop"
ENVIRONMENT, DIRECTORY = "command-environment", "command-directory"
COMMAND_OPTIONS = frozenset({START, HEALTH, STOP, ENVIRONMENT, DIRECTORY})
"""Keys of the options that form a model's command."""

_HEALTH = "/health"
_PLACEHOLDERS = ("port", "model", "alias")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
"""Other braces, such as those of JSON, are left unchanged."""
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_HEALTH_PATH = re.compile(r"/[!-~]*")


def has_command(options: Mapping[str, OptionValue]) -> bool:
    """True when `options` has any key of COMMAND_OPTIONS."""
    return not COMMAND_OPTIONS.isdisjoint(options)


def parse_command(options: Mapping[str, OptionValue], *, has_file: bool) -> CustomCommand | None:
    """Command in `options`, or None. Raises InvalidInput naming the option at fault."""
    given = {key: _text(key, value) for key, value in options.items() if key in COMMAND_OPTIONS}
    if not given:
        return None
    if START not in given:
        raise InvalidInput(_field(min(given)), f"is of no use without {_field(START)}")
    start = _arguments(START, given[START])
    if not start:
        raise InvalidInput(_field(START), "must name a program")
    stop = _arguments(STOP, given.get(STOP, ""))
    environment = _environment(given.get(ENVIRONMENT, ""))
    everything = (*start, *environment.values())
    if not any("{port}" in text for text in everything):
        raise InvalidInput(_field(START), "must tell the program its port: put {port} where it expects it")
    if not has_file and any("{model}" in text for text in (*everything, *stop)):
        raise InvalidInput(_field(START), "holds {model}, the path of a file, but this model has none")
    health = given.get(HEALTH) or _HEALTH
    if not _HEALTH_PATH.fullmatch(health):
        raise InvalidInput(_field(HEALTH), f"must be the path of a URL, such as /health, not {health!r}")
    directory = given.get(DIRECTORY) or None
    if directory is not None and not directory.startswith("/"):
        raise InvalidInput(_field(DIRECTORY), f"must be an absolute path, not {directory!r}")
    return CustomCommand(start, health, stop, environment, directory)


def fill_placeholders(template: str, spec: LaunchSpec, endpoint: Endpoint) -> str:
    """One argument or value of the command, with its placeholders replaced."""
    values = {"port": str(endpoint.port), "model": spec.path, "alias": spec.alias}
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def _arguments(key: str, text: str) -> tuple[str, ...]:
    try:
        arguments = tuple(shlex.split(text))
    except ValueError as exc:
        raise InvalidInput(_field(key), f"cannot be split into arguments: {exc}") from exc
    for argument in arguments:
        _check_placeholders(key, argument)
    return arguments


def _environment(text: str) -> dict[str, str]:
    environment = {}
    for word in _arguments(ENVIRONMENT, text):
        assignment = _ASSIGNMENT.fullmatch(word)
        if assignment is None:
            raise InvalidInput(_field(ENVIRONMENT), f"must be words such as NAME=value, not {word!r}")
        environment[assignment[1]] = assignment[2]
    return environment


def _check_placeholders(key: str, argument: str) -> None:
    for name in _PLACEHOLDER.findall(argument):
        if name not in _PLACEHOLDERS:
            known = ", ".join(f"{{{known}}}" for known in _PLACEHOLDERS)
            raise InvalidInput(_field(key), f"holds the unknown placeholder {{{name}}}; there are {known}")


def _text(key: str, value: OptionValue) -> str:
    if not isinstance(value, str):
        raise InvalidInput(_field(key), f"must be text, not {value!r}")
    if "\0" in value:
        raise InvalidInput(_field(key), "must not contain a NUL character")
    return value.strip()


def _field(key: str) -> str:
    return f"options.{key}"
