"""Flags of settings, and the settings that they, the environment and the configuration file give."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from platformdirs import user_data_path

from llama_async_proxy.settings import CONFIG_FILE_NAME, SETTINGS, Setting, Settings, Value, data_dir_of, parse, resolve
from llama_async_proxy.store import config_file


def named(*names: str) -> tuple[Setting, ...]:
    return tuple(s for s in SETTINGS if s.name in names)


ADDRESS = named("host", "port", "data_dir")
"""Settings that say where the running service answers."""


def add_settings(parser: argparse.ArgumentParser, settings: Sequence[Setting]) -> None:
    for setting in settings:
        if setting.flag is None:
            continue
        if setting.type is bool:
            parser.add_argument(setting.flag, dest=setting.name, action="store_true", default=None, help=setting.help)
        elif setting.type is tuple:
            parser.add_argument(setting.flag, dest=setting.name, action="append", metavar="NAME", help=setting.help)
        else:
            parser.add_argument(setting.flag, dest=setting.name, metavar=_metavar(setting), help=_help(setting))


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return "{" + ",".join(setting.choices) + "}"
    if setting.is_path:
        return "PATH"
    return {str: "TEXT", int: "N", float: "SECONDS"}[setting.type]


def _help(setting: Setting) -> str:
    if setting.default in ("", None) or "Default:" in setting.help:
        return setting.help
    return f"{setting.help} (default: {setting.default})"


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Effective settings of this call. Raises InvalidInput naming the flag, variable or key at fault."""
    given: dict[str, Value] = {}
    for setting in SETTINGS:
        value = getattr(arguments, setting.name, None)
        if value is None:
            continue
        if isinstance(value, str):
            value = parse(setting, value, setting.flag or setting.name)
        given[setting.name] = tuple(value) if isinstance(value, list) else value
    default_data_dir = user_data_path("llama-async-proxy", appauthor=False)
    data_dir = data_dir_of(given, os.environ, default_data_dir)
    file = config_file.read(data_dir / CONFIG_FILE_NAME)
    return resolve(command_line=given, environment=os.environ, file=file, default_data_dir=default_data_dir)
