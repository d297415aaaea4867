"""The preset the engine runs with: chosen, remembered, applied to models that run already.

A model whose effective options stay the same is left alone. The others are loaded anew, after their running requests;
options that a load of theirs asked for stay with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from llama_async_proxy.engines.contract import Engine
from llama_async_proxy.engines.options_cache import EngineOptionsCache
from llama_async_proxy.errors import EngineMissing, EngineStopped, NotFound, PresetInvalid, ServiceError
from llama_async_proxy.events import EngineChanged, EventBus, ModelCreated, SettingsChanged
from llama_async_proxy.gguf.reader import GgufError
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.operations.configuration import Configuration
from llama_async_proxy.operations.launch import NO_CATALOGUE, LaunchPlanner, RunningPreset, parse_engine_options
from llama_async_proxy.operations.scan import read_model_file, stable_path
from llama_async_proxy.presets.catalogue import Catalogue
from llama_async_proxy.presets.inheritance import inheritance, model_sections
from llama_async_proxy.presets.ini import Document
from llama_async_proxy.presets.validation import check_text, checked_name
from llama_async_proxy.records.engine import EngineEventType, EngineStatus
from llama_async_proxy.records.models import Model, ModelDraft, ModelOrigin
from llama_async_proxy.records.options import NO_OPTIONS, OptionValue
from llama_async_proxy.records.runtime import ModelRuntime
from llama_async_proxy.store.presets import PresetFile
from llama_async_proxy.store.store import Store

logger = logging.getLogger(__name__)

PRESET_KEY = "llama.preset"
"""Where the configuration remembers the choice."""
FILE_CHECK_S = 1.0
"""Between looks at the file of the preset in force, which people may edit by hand."""


class _Reload(Struct, frozen=True):
    options: Mapping[str, OptionValue]
    """What the load that is to be replaced had asked for itself."""


class ActivePreset:
    """Owned by the event loop. `run` does what takes time: reloading, and loading at startup."""

    def __init__(
        self,
        planner: LaunchPlanner,
        catalogue: EngineOptionsCache,
        *,
        configuration: Configuration,
        store: Store,
        engine: Engine,
        scheduler: ModelScheduler,
        bus: EventBus,
    ) -> None:
        self._planner = planner
        self._catalogue = catalogue
        self._configuration = configuration
        self._store = store
        self._engine = engine
        self._scheduler = scheduler
        self._bus = bus
        self._turn = asyncio.Lock()
        self._pending: dict[int, _Reload | None] = {}
        """Models to be loaded anew, or (None) loaded at all."""
        self._due = asyncio.Event()
        self.problem: str | None = None
        """Why the remembered preset is not in force."""

    @property
    def name(self) -> str | None:
        """Of the preset in force."""
        return self._planner.preset.name if self._planner.preset else None

    # --- choosing ---------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Put the remembered preset in force; without it the service still runs, and says what is wrong."""
        settings = self._configuration.settings
        async with self._turn:
            self.problem = None
            try:
                # Other engines have other options: what is in force is read again for each.
                self._planner.catalogue = await self.catalogue()
                parse_engine_options(settings.engine_options, self._planner.catalogue)
                await self._apply(await self._read(settings.preset) if settings.preset else None)
                self._load_at_startup()
            except (EngineMissing, EngineStopped) as exc:
                # The engine says so itself, and once it runs this is called again.
                self.problem = exc.message if settings.preset else None
            except ServiceError as exc:
                self.problem = exc.message
                what = "What was in force stays so" if self.name else "The remembered options are not in force"
                logger.error("%s: %s", what, exc.message)  # noqa: TRY400 - it says it all

    async def choose(self, name: str) -> None:
        """Put a preset in force and remember it.

        Raises PresetNotFound, PresetInvalid with everything the engine would refuse; then nothing has changed.
        """
        async with self._turn:
            preset = await self._read(name)
            await self._configuration.update({PRESET_KEY: name})
            await self._apply(preset)
            self.problem = None
            self._load_at_startup()

    async def check(self, name: str) -> None:
        """Raises what `choose` would raise."""
        await self._read(name)

    async def leave(self) -> None:
        """Run without a preset. A no-op when none is in force."""
        async with self._turn:
            if not (self.name or self._configuration.settings.preset):
                return
            await self._configuration.update({PRESET_KEY: ""})
            await self._apply(None)
            self.problem = None

    async def changed(self, name: str) -> None:
        """The preset's file was written: apply it when it is the one in force, or was to be."""
        if name == self._configuration.settings.preset:
            await self.restore()

    async def renamed(self, name: str, new_name: str) -> None:
        if name == self._configuration.settings.preset:
            await self._configuration.update({PRESET_KEY: new_name})
            await self.restore()

    async def catalogue(self) -> Catalogue:
        """The installed engine's options. Raises EngineMissing, EngineStopped."""
        options = (await self._catalogue.get()).options
        known = self._planner.catalogue
        return known if known.options is options else Catalogue(options)

    # --- applying ---------------------------------------------------------------------------------

    async def _read(self, name: str) -> RunningPreset:
        checked_name(name, PRESET_KEY)  # or a path would lead to a file outside the presets' directory
        catalogue = self._planner.catalogue = await self.catalogue()
        text = await asyncio.to_thread(self._store.presets.read, name)
        verdict = check_text(text, catalogue)
        if verdict.errors:
            raise PresetInvalid(name, tuple(map(str, verdict.errors)))
        document = Document.parse(text)
        paths = await asyncio.to_thread(_paths, document, self._configuration.settings.models_dir)
        return RunningPreset(name, document, paths)

    async def _apply(self, preset: RunningPreset | None) -> None:
        if preset is not None:
            await self._register(preset)
        running = [runtime for runtime in self._engine.runtimes() if runtime.status.in_use]
        own = {runtime.model_id: self._own_options(runtime) for runtime in running}
        self._planner.preset = preset
        for runtime in running:
            options = own[runtime.model_id]
            if options is not None and self._wanted(runtime.model_id, options) != runtime.options:
                self._pending[runtime.model_id] = _Reload(options)
        self._due.set()

    def _own_options(self, runtime: ModelRuntime) -> Mapping[str, OptionValue] | None:
        """What only the load of a running model asked for; None when the model is not registered any more."""
        waiting = self._pending.get(runtime.model_id)
        if waiting is not None:
            return waiting.options
        shared = self._wanted(runtime.model_id, NO_OPTIONS)
        if shared is None:
            return None
        return {name: value for name, value in runtime.options.items() if shared.get(name) != value}

    def _wanted(self, model_id: int, options: Mapping[str, OptionValue]) -> Mapping[str, OptionValue] | None:
        try:
            return self._planner.spec(self._store.models.get(model_id), options).options
        except ServiceError:
            return None

    async def _register(self, preset: RunningPreset) -> None:
        """Make models of files that only the preset names. One that cannot be read does not keep others from it."""
        for section, path in preset.paths.items():
            if self._store.models.by_path(path) is not None:
                continue
            try:
                file = await asyncio.to_thread(read_model_file, Path(path))
                draft = ModelDraft(file, ModelOrigin.SCANNED, name=section)
                for model in await self._store.models.add_many([draft]):
                    self._bus.publish(ModelCreated(model))
            except (GgufError, OSError, ServiceError) as exc:
                logger.warning("[%s] of preset %r has no usable model: %s: %s", section, preset.name, path, exc)

    def _load_at_startup(self) -> None:
        if self._engine.state.status is not EngineStatus.RUNNING:
            return
        for model in self._marked_for_startup():
            if not self._scheduler.runtime(model.id).status.in_use:
                self._pending.setdefault(model.id, None)
        self._due.set()

    def _marked_for_startup(self) -> list[Model]:
        preset = self._planner.preset
        if preset is None:
            return []
        marked = {
            section.name
            for section in model_sections(preset.document)
            if inheritance(preset.document, self._planner.catalogue, section.name).values.get("load-on-startup") is True
        }
        return [model for model in self._store.models.all() if preset.section_of(model) in marked]

    # --- working ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Load what is due, and follow the engine and the settings, until cancelled."""
        if self._planner.catalogue is NO_CATALOGUE:
            await self.restore()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._watch_file())
            while True:
                self._due.clear()
                while self._pending:
                    model_id, reload = self._pending.popitem()
                    tasks.create_task(self._load(model_id, reload))
                await self._due.wait()

    async def _follow(self) -> None:
        with self._bus.subscribe(EngineChanged, SettingsChanged) as changes:
            async for change in changes:
                is_start = isinstance(change, EngineChanged) and change.type is EngineEventType.STARTED
                is_choice = isinstance(change, SettingsChanged) and "preset" in change.names
                if is_start or (is_choice and self._configuration.settings.preset != (self.name or "")):
                    await self.restore()

    async def _watch_file(self) -> None:
        seen = await self._file()
        while True:
            await asyncio.sleep(FILE_CHECK_S)
            before, seen = seen, await self._file()
            if seen is None or seen == before:
                continue
            with contextlib.suppress(ServiceError):  # it vanished again, or is no text: what is in force stays so
                text = await asyncio.to_thread(self._store.presets.read, seen.name)
                preset = self._planner.preset
                if preset is None or preset.name != seen.name or text != preset.document.render():
                    await self.restore()

    async def _file(self) -> PresetFile | None:
        name = self._configuration.settings.preset
        try:
            return await asyncio.to_thread(self._store.presets.get, name) if name else None
        except ServiceError:
            return None

    async def _load(self, model_id: int, reload: _Reload | None) -> None:
        with contextlib.suppress(NotFound):
            model = self._store.models.get(model_id)
            try:
                if reload is not None:
                    if not self._engine.runtime(model_id).status.in_use:
                        return  # It was unloaded meanwhile; its next load is of the new kind anyway.
                    await self._scheduler.load(model)  # one that is coming up cannot be interrupted politely
                    if self._scheduler.runtime(model_id).options == self._wanted(model_id, reload.options):
                        return
                    logger.info("Model %s is loaded anew: its preset has changed", model.slug)
                    await self._scheduler.unload(model)
                await self._scheduler.load(model, reload.options if reload else NO_OPTIONS)
            except ServiceError as exc:
                logger.warning("Model %s is not loaded: %s", model.slug, exc.message)


def _paths(document: Document, models_dir: Path) -> dict[str, str]:
    """Real paths by section, in the order of the file."""
    named = {section.name: section.values().get("model") for section in model_sections(document)}
    return {name: str(stable_path(models_dir / path)) for name, path in named.items() if path}
