"""From settings, preset, model and a load's own wishes to what the engine is asked to run.

Later wins: engine default < configuration < engine options < preset's [*] < group < preset's model < model < this load
< the options of the engine's last start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import PurePath
from types import MappingProxyType

from msgspec import Struct, field

from llama_async_proxy.engines.arguments import NO_NEGATIVE_FORM
from llama_async_proxy.engines.custom_command import COMMAND_OPTIONS
from llama_async_proxy.errors import InvalidInput, NotFound
from llama_async_proxy.operations.commands import command_of
from llama_async_proxy.operations.option_policy import OptionPolicy
from llama_async_proxy.presets.catalogue import BadValue, Catalogue, default_value, typed
from llama_async_proxy.presets.inheritance import Layers, layers, model_sections
from llama_async_proxy.presets.ini import Document
from llama_async_proxy.presets.option_limits import is_passed
from llama_async_proxy.records.models import IDLE_TTL, Model
from llama_async_proxy.records.options import NO_OPTIONS, OptionType, OptionValue
from llama_async_proxy.records.runtime import LaunchSpec
from llama_async_proxy.settings import Settings

_FLAG_OF_SETTING = {
    "ctx_size": "ctx-size",
    "batch_size": "batch-size",
    "threads": "threads",
    "gpu_layers": "n-gpu-layers",
}
_STOP_TIMEOUT = "stop-timeout"
_OURS = frozenset({*COMMAND_OPTIONS, IDLE_TTL, _STOP_TIMEOUT})
"""Options of a model that the service heeds itself."""
_PUT_BACK = "Put it back and scan, or forget the model."
NO_CATALOGUE = Catalogue(())
_NO_PATHS: Mapping[str, str] = MappingProxyType({})


class OptionSource(StrEnum):
    """Who set an option, weakest first."""

    ENGINE = "engine"
    """Nobody: it is the engine's own default."""
    CONFIGURATION = "configuration"
    ENGINE_OPTIONS = "engine options"
    PRESET_GLOBAL = "preset"
    PRESET_GROUP = "preset group"
    PRESET_MODEL = "preset model"
    MODEL = "model"
    LOAD = "load"
    START = "start"
    """Given with the engine's last start, over everything, until its next."""


class EffectiveOption(Struct, frozen=True):
    name: str
    value: OptionValue
    source: OptionSource


class RunningPreset(Struct, frozen=True):
    """A preset as the engine runs with it."""

    name: str
    document: Document
    paths: Mapping[str, str] = field(default_factory=dict)
    """Real paths of the files that sections name in `model`, by section."""

    def section_of(self, model: Model) -> str | None:
        """The first section that names the model's file, else the one that has its name."""
        by_path = next((name for name, path in self.paths.items() if path == model.path), None)
        if by_path is not None:
            return by_path
        sections = [s.name for s in model_sections(self.document) if s.name not in self.paths]
        for name in (model.slug, model.name, *model.aliases, PurePath(model.path).stem):
            if name in sections:
                return name
        return None


class LaunchPlanner:
    """Knows everything that decides on a model's options. Whoever owns it sets `preset` and `catalogue`."""

    def __init__(self, settings: Callable[[], Settings], policy: OptionPolicy) -> None:
        self._settings = settings
        self.policy = policy
        self.preset: RunningPreset | None = None
        self.start_options: Mapping[str, OptionValue] = NO_OPTIONS
        """Options of the engine's last start, by long name."""
        self.catalogue = NO_CATALOGUE
        """Of the installed engine; without one, options keep the names they were given."""

    def preset_paths(self) -> Mapping[str, str]:
        """`paths` of the preset in force; the same object until another is."""
        return _NO_PATHS if self.preset is None else self.preset.paths

    def spec(self, model: Model, options: Mapping[str, OptionValue] = NO_OPTIONS) -> LaunchSpec:
        """What nobody set is not passed, so that the engine's own fitting to free memory stays in force.

        Raises InvalidInput for an engine option in the settings that is none, and PermissionDenied for a model with a
        command of its own where those are not allowed, or with options that may not come over the network: rows written
        by earlier versions may hold them.
        """
        if model.is_missing:
            raise NotFound("model", model.slug, f"The file of model {model.slug!r} is gone: {model.path}. {_PUT_BACK}")
        settings = self._settings()
        self.policy.check({**_from_model(model), **options}, self.catalogue)
        chosen = {option.name: option.value for option in self._chosen(model, options)}
        return LaunchSpec(
            model_id=model.id,
            alias=model.slug,
            path=model.path,
            kind=model.facts.kind,
            options={n: value for n, value in chosen.items() if is_passed(value) and self._can_be_passed(n, value)},
            mmproj_path=model.mmproj_path,
            load_timeout_s=settings.load_timeout_s,
            command=command_of(settings, model),
            stop_timeout_s=self._stop_timeout_s(model),
            served_name=self.served_name(model),
        )

    def served_name(self, model: Model) -> str:
        """The name that llama-server's router would give the model: its section of the preset, else its file's stem."""
        section = self.preset.section_of(model) if self.preset is not None else None
        return section or model.slug

    def effective(self, model: Model) -> tuple[EffectiveOption, ...]:
        """Every option with a value, the engine's defaults too, in the catalogue's order."""
        defaults = {
            option.name: EffectiveOption(option.name, value, OptionSource.ENGINE)
            for option in self.catalogue.options
            if not option.is_reserved and not option.is_removed and (value := default_value(option)) is not None
        }
        chosen = {option.name: option for option in self._chosen(model, NO_OPTIONS)}
        order = {option.name: place for place, option in enumerate(self.catalogue.options)}
        return tuple(sorted((defaults | chosen).values(), key=lambda option: order.get(option.name, len(order))))

    # --- inside -----------------------------------------------------------------------------------

    def _chosen(self, model: Model, options: Mapping[str, OptionValue]) -> Iterator[EffectiveOption]:
        """What somebody set, weakest first; of one name the last counts."""
        for source, layer in self._layers(model, options):
            for key, value in layer.items():
                yield EffectiveOption(*self.catalogue.canonical(key, value), source)

    def _layers(
        self, model: Model, options: Mapping[str, OptionValue]
    ) -> Iterable[tuple[OptionSource, Mapping[str, OptionValue]]]:
        settings = self._settings()
        preset = self._preset_layers(model)
        return (
            (OptionSource.CONFIGURATION, _from_settings(settings)),
            (OptionSource.ENGINE_OPTIONS, parse_engine_options(settings.engine_options, self.catalogue)),
            (OptionSource.PRESET_GLOBAL, self._passable(preset.shared)),
            (OptionSource.PRESET_GROUP, self._passable(preset.group)),
            (OptionSource.PRESET_MODEL, self._passable(preset.own)),
            (OptionSource.MODEL, _from_model(model)),
            (OptionSource.LOAD, options),
            (OptionSource.START, self.start_options),
        )

    def _preset_layers(self, model: Model) -> Layers:
        if self.preset is None:
            return Layers()
        return layers(self.preset.document, self.catalogue, self.preset.section_of(model))

    def _stop_timeout_s(self, model: Model) -> float | None:
        preset = self._preset_layers(model)
        said = {**preset.shared, **preset.group, **preset.own, **model.options}.get(_STOP_TIMEOUT)
        return max(0.0, float(said)) if isinstance(said, int | float) else None

    def _passable(self, options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
        """Without what is the service's own business, or llama-server's router's."""
        kept = {}
        for name, value in options.items():
            option = self.catalogue.find(name)
            if option is not None and not option.is_reserved and not option.is_preset_only:
                kept[name] = value
        return kept

    def _can_be_passed(self, name: str, value: OptionValue) -> bool:
        """False for a switch turned off that can only be turned on: leaving it out is what turns it off."""
        option = self.catalogue.find(name)
        is_one_way = option is not None and option.type is OptionType.BOOL and not option.negatives
        return not (value is False and is_one_way and name not in NO_NEGATIVE_FORM)


def parse_engine_options(texts: Iterable[str], catalogue: Catalogue) -> dict[str, OptionValue]:
    """ "temp=0.7" -> {"temp": 0.7}. Raises InvalidInput for what is none, or has no such value."""
    found: dict[str, OptionValue] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name = key.strip().lstrip("-")
        if not equals or not name:
            raise InvalidInput("llama.options", f"must be NAME=VALUE, such as temp=0.7, not {text!r}")
        option = catalogue.find(name)
        if option is None:
            found[name] = {"true": True, "false": False}.get(value.strip(), value.strip())
            continue
        try:
            found[option.name] = typed(option, name, value.strip())
        except BadValue as exc:
            raise InvalidInput("llama.options", f"{name} {exc}") from exc
    return found


def _from_settings(settings: Settings) -> dict[str, OptionValue]:
    return {
        flag: getattr(settings, name)
        for name, flag in _FLAG_OF_SETTING.items()
        if settings.is_set(name) and getattr(settings, name) != -1
    }


def _from_model(model: Model) -> dict[str, OptionValue]:
    context = {} if model.context_size is None else {"ctx-size": model.context_size}
    return {**context, **{key: value for key, value in model.options.items() if key not in _OURS}}
