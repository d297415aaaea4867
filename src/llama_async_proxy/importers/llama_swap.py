"""Importer of llama-swap's configuration file.

The format is described in github.com/mostlygeek/llama-swap, docs/configuration.md. A model whose command is
llama-server becomes a model with options; any other command becomes a custom command. Settings of llama-swap itself
(ports, logs, captures) are left out silently; settings that change answers or scheduling are reported.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

import yaml
from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.importers.command_line import PATHS, ServerCommand, is_llama_server, parse
from llama_async_proxy.importers.plan import ImportPlan, PlannedModel, as_option, merged
from llama_async_proxy.records.models import IDLE_TTL, Variant
from llama_async_proxy.records.options import OptionValue

MAX_FILE_BYTES = 4 << 20
MAX_EXPANDED = 64 << 10
"""Longest expanded text in characters, because nested macros could double without end."""

Tree = Mapping[str, object]

_MACRO = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")
_RUNTIME_MACROS = frozenset({"PORT", "PID"})
"""Macros that are known only when a process starts."""
_IGNORED_KEYS = frozenset({
    "healthCheckTimeout", "logLevel", "logTimeFormat", "logToStdout", "metricsMaxInMemory", "captureBuffer",
    "startPort", "sendLoadingState", "includeAliasesInList", "performance", "ui", "store", "upstream", "unloadTimeout",
    "macros", "models", "groups", "globalTTL",
})  # fmt: skip
_UNSUPPORTED_KEYS = {
    "matrix": "which models run together is decided by --max-models, by memory and by the setting groups",
    "routing": "which models run together is decided by --max-models, by memory and by the setting groups",
    "profiles": "there are none here",
    "selectors": "there are none here; an alias or a variant may do",
    "peers": "models of other machines are not served",
    "apiKeys": "this service has no keys yet; it listens on this machine only",
    "hooks": "nothing is loaded at the start; the first request loads its model",
}
_MODEL_KEYS = frozenset({
    "cmd", "name", "description", "aliases", "filters", "ttl", "macros", "env", "unlisted", "concurrencyLimit", "proxy",
    "checkEndpoint", "cmdStop", "useModelName", "metadata", "sendLoadingState", "capabilities", "compat", "timeouts",
})  # fmt: skip


def read(path: Path, environment: Mapping[str, str]) -> ImportPlan:
    """Plan for a file. Raises InvalidInput when it cannot be read or is no llama-swap configuration."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise InvalidInput("CONFIG", f"cannot read {path}: {exc.strerror or exc}") from exc
    if len(content) > MAX_FILE_BYTES:
        raise InvalidInput("CONFIG", f"{path} has more than {MAX_FILE_BYTES >> 20} MiB; is it a configuration?")
    return parse_config(content, path.absolute().parent, environment)


def parse_config(content: bytes, directory: Path, environment: Mapping[str, str]) -> ImportPlan:
    """Plan for the content of a file. Raises InvalidInput.

    Relative paths begin at `directory`; `environment` has the values of `${env.NAME}`.
    """
    try:
        tree = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as exc:
        raise InvalidInput("CONFIG", f"is no YAML: {' '.join(str(exc).split())}") from exc
    models = _tree(tree).get("models")
    if not isinstance(models, dict) or not models:
        raise InvalidInput("CONFIG", "holds no models; a llama-swap configuration has them under the key models")
    config = _Config(_tree(tree), directory, environment)
    found = [model for name, entry in models.items() for model in config.model(str(name), _tree(entry))]
    config.report_rest(set(map(str, models)))
    return merged(found, config.problems)


def _tree(value: object) -> Tree:
    return cast("Tree", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return "" if value is None else str(value)


class _NotImported(Exception):
    """A whole model is not imported. The message gives the reason."""


class _Macros(Struct, frozen=True):
    values: Mapping[str, str]
    environment: Mapping[str, str]

    def expanded(self, text: str) -> str:
        """Text with macros expanded. Raises _NotImported for an undefined or endless macro."""
        for _ in range(len(self.values) + 2):
            new = _MACRO.sub(self._value, text)
            if new == text:
                return text
            if len(new) > MAX_EXPANDED:
                break
            text = new
        raise _NotImported("its macros contain one another without end")

    def _value(self, found: re.Match[str]) -> str:
        name = found[1]
        if name in _RUNTIME_MACROS:
            return found[0]
        value = self.environment.get(name[4:]) if name.startswith("env.") else self.values.get(name)
        if value is None:
            what = "variable of the environment" if name.startswith("env.") else "macro"
            raise _NotImported(f"there is no {what} {name.removeprefix('env.')}")
        return value

    def expand_tree(self, value: object) -> object:
        """`value` with macros expanded. A text that is a single macro becomes the YAML value of that macro."""
        if isinstance(value, dict):
            return {self.expanded(str(key)): self.expand_tree(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.expand_tree(each) for each in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        text = self.expanded(value)
        return yaml.safe_load(text) if _MACRO.fullmatch(value) else text


class _Config:
    def __init__(self, tree: Tree, directory: Path, environment: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self._tree = tree
        self._directory = directory
        self._environment = environment
        self._pinned = self._persistent()

    def model(self, name: str, entry: Tree) -> Iterator[PlannedModel]:
        """Model of one entry; yields nothing when it cannot be imported."""
        try:
            macros = {**_tree(self._tree.get("macros")), **_tree(entry.get("macros")), "MODEL_ID": name}
            yield self._model(name, entry, _Macros({k: _text(v) for k, v in macros.items()}, self._environment))
        except _NotImported as exc:
            self.problems.append(f"models.{name}: not taken over: {exc}")

    def report_rest(self, models: set[str]) -> None:
        """Report the settings of the file apart from its models."""
        for key in self._tree:
            if key not in _IGNORED_KEYS and self._tree[key]:
                self.problems.append(f"{key}: not taken over: {_UNSUPPORTED_KEYS.get(key, 'it is not known here')}")
        if ttl := self._tree.get("globalTTL"):
            self.problems.append(f"globalTTL: not taken over: it is a setting; start the service with --idle-ttl {ttl}")
        for group, entry in _tree(self._tree.get("groups")).items():
            self._report_group(str(group), _tree(entry), models)

    # --- groups -----------------------------------------------------------------------------------

    def _persistent(self) -> frozenset[str]:
        """Members of groups that other groups may not unload."""
        groups = map(_tree, _tree(self._tree.get("groups")).values())
        return frozenset(
            str(member) for group in groups if group.get("persistent") is True for member in _list(group.get("members"))
        )

    def _report_group(self, name: str, group: Tree, models: set[str]) -> None:
        if missing := sorted({str(member) for member in _list(group.get("members"))} - models):
            self.problems.append(f"groups.{name}: has members that are no models: {', '.join(missing)}")
        swaps, excludes = group.get("swap", True) is True, group.get("exclusive", True) is True
        if swaps != excludes:
            setting = json.dumps({name: {"models": _list(group.get("members")), "together": excludes}}, default=str)
            self.problems.append(f"groups.{name}: not taken over: it is a setting; add to groups: {setting}")
        elif not swaps:
            self.problems.append(
                f"groups.{name}: not taken over: models run together anyway, as far as --max-models and memory allow"
            )

    # --- one model --------------------------------------------------------------------------------

    def _model(self, name: str, entry: Tree, macros: _Macros) -> PlannedModel:
        arguments = self._arguments(_text(entry.get("cmd")), macros)
        if is_llama_server(arguments[0]):
            path, options, aliases = self._llama_server(name, entry, parse(arguments[1:]))
        else:
            path, options, aliases = *self._custom(name, arguments, _tree(macros.expand_tree(entry))), ()
        self._report_unsupported(name, entry)
        options = {**options, **self._idle_time(name, entry)}
        defaults, variants = self._filters(name, _tree(macros.expand_tree(entry.get("filters"))))
        described = " - ".join(filter(None, (_text(entry.get("name")), _text(entry.get("description")))))
        named = (*_aliases(entry), *(alias for alias in aliases if alias != name))
        return PlannedModel(
            path=path,
            name=name,
            description=described or None,
            options={**options, **defaults},
            aliases=tuple(dict.fromkeys(alias for alias in named if alias not in {v.name for v in variants})),
            variants=variants,
            is_pinned=name in self._pinned,
        )

    def _arguments(self, command: str, macros: _Macros) -> list[str]:
        text = macros.expanded(command)
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        try:
            arguments = shlex.split(" ".join(line.rstrip().removesuffix("\\") for line in lines))
        except ValueError as exc:
            raise _NotImported(f"its cmd cannot be split into arguments: {exc}") from exc
        if not arguments:
            raise _NotImported("it has no cmd")
        return arguments

    def _llama_server(
        self, name: str, entry: Tree, command: ServerCommand
    ) -> tuple[str, Mapping[str, OptionValue], tuple[str, ...]]:
        if command.model is None:
            raise _NotImported(" and ".join(("its cmd names no model file (-m)", *command.problems)))
        self.problems += [f"models.{name}.cmd: {problem}" for problem in command.problems]
        if entry.get("env"):
            self.problems.append(f"models.{name}.env: not taken over: options say the same, such as --device")
        path = self._absolute(command.model)
        if not path.is_file():
            raise _NotImported(f"there is no file {path}")
        options = {
            key: str(self._absolute(value)) if key in PATHS and isinstance(value, str) else value
            for key, value in command.options.items()
        }
        return str(path), options, command.aliases

    def _custom(self, name: str, arguments: list[str], entry: Tree) -> tuple[str, dict[str, OptionValue]]:
        """Path and options of a custom command. A single GGUF file in the command is the model's file."""
        if not any("${PORT}" in argument for argument in arguments):
            raise _NotImported("its cmd is no llama-server and takes no ${PORT}, which the service must choose")
        files = [each for each in arguments if each.lower().endswith(".gguf") and self._absolute(each).is_file()]
        if len(files) == 1:
            arguments = ["{model}" if argument == files[0] else argument for argument in arguments]
        options: dict[str, OptionValue] = {"command": _template(arguments)}
        if entry.get("env"):
            options["command-environment"] = _template(map(_text, _list(entry["env"])))
        if health := _text(entry.get("checkEndpoint")).removeprefix("none"):
            options["command-health"] = health
        if stop := _text(entry.get("cmdStop")):
            if "${PID}" in stop:
                self.problems.append(f"models.{name}.cmdStop: not taken over: processes are ended by their group")
            else:
                options["command-stop"] = _with_placeholders(" ".join(stop.split()))
        if entry.get("useModelName"):
            self.problems.append(f"models.{name}.useModelName: not taken over: the server is sent the client's name")
        return str(self._absolute(files[0])) if len(files) == 1 else f"command:{name}", options

    def _absolute(self, written: str) -> Path:
        return self._directory / Path(written).expanduser()

    def _report_unsupported(self, name: str, entry: Tree) -> None:
        """Report settings of an entry that have no counterpart."""
        limit = entry.get("concurrencyLimit")
        found = {
            "unlisted": entry.get("unlisted") is True and "every model is listed",
            "concurrencyLimit": limit and f"{limit}: the engine queues; --parallel says how many run at a time",
            "timeouts": entry.get("timeouts") and "they are settings of the service",
        }
        self.problems += [f"models.{name}.{key}: not taken over: {why}" for key, why in found.items() if why]
        for key in sorted(map(str, entry.keys() - _MODEL_KEYS)):
            self.problems.append(f"models.{name}.{key}: not taken over: it is not known here")

    def _idle_time(self, name: str, entry: Tree) -> dict[str, OptionValue]:
        """Time to live of the model, if it differs from the global one."""
        ttl = entry.get("ttl")
        if ttl in (None, -1, self._tree.get("globalTTL", 0)):
            return {}
        if isinstance(ttl, bool) or not isinstance(ttl, int) or ttl < 0:
            self.problems.append(f"models.{name}.ttl: not taken over: {ttl!r} is no number of seconds")
            return {}
        return {IDLE_TTL: ttl}

    def _filters(self, name: str, filters: Tree) -> tuple[dict[str, OptionValue], tuple[Variant, ...]]:
        """Options with the default parameters of the model itself, and its variants."""
        where = f"models.{name}.filters"
        if filters.get("stripParams"):
            self.problems.append(f"{where}.stripParams: not taken over: what a client asks for is never removed")
        by_id = {str(key): dict(_tree(value)) for key, value in _tree(filters.get("setParamsByID")).items()}
        everywhere = dict(_tree(filters.get("setParams")))
        own = {**everywhere, **by_id.pop(name, {})}
        if own or by_id:
            self.problems.append(f"{where}: taken over as defaults: a client that asks for something else gets that")
        options = {key: as_option(key, value) for key, value in own.items()}
        for key in (key for key, option in options.items() if option is None):
            self.problems.append(f"{where}: {key} is not taken over for {name} itself, only for its variants")
        return dict(filter(None, options.values())), tuple(
            Variant(key, {**everywhere, **parameters}) for key, parameters in by_id.items()
        )


def _with_placeholders(text: str) -> str:
    return text.replace("${PORT}", "{port}")


def _template(arguments: Iterable[str]) -> str:
    return shlex.join(map(_with_placeholders, arguments))


def _aliases(entry: Tree) -> list[str]:
    """Aliases of an entry, which may be texts or objects with an id."""
    given = _list(entry.get("aliases"))
    return [_text(_tree(alias).get("id") if isinstance(alias, dict) else alias) for alias in given]
