"""One scan of the models directory at a time, shared by everybody who asks for one, and what waits for the first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from llama_async_proxy.errors import Conflict, InvalidInput
from llama_async_proxy.events import EventBus, ModelCreated, ModelUpdated, ScanFinished, ScanProgressed
from llama_async_proxy.operations.scan import ScanResult, scan_directories
from llama_async_proxy.records.models import BrokenFile, Model, ModelDraft, ModelFile, ModelOrigin
from llama_async_proxy.settings import Settings
from llama_async_proxy.store.models import ModelTable

FIRST_SCAN_WAIT_S = 60.0
"""Longest that a request for an unknown model waits for the first scan."""


class ScanReport(Struct, frozen=True):
    scanned: int
    """New models."""
    updated: int
    """Known models whose file changed, went or came back."""
    total: int
    """Models registered now."""
    failed: tuple[BrokenFile, ...]


class ModelScanner:
    """Keeps the table of models in step with the models directory. Belongs to the event loop's thread."""

    def __init__(self, models: ModelTable, *, settings: Callable[[], Settings], bus: EventBus) -> None:
        self._models = models
        self._settings = settings
        self._bus = bus
        self._first_scan_ended = asyncio.Event()
        self._running: asyncio.Task[ScanReport] | None = None
        self._root = Path()

    @property
    def has_scanned(self) -> bool:
        """False until the first scan after the start has ended, well or not: until then lists may lack models."""
        return self._first_scan_ended.is_set()

    async def wait_for(self, is_known: Callable[[], bool]) -> None:
        """Return when `is_known`, when the first scan has ended, or after FIRST_SCAN_WAIT_S."""
        if self.has_scanned or is_known():
            return
        await asyncio.wait({asyncio.ensure_future(self._first_scan_ended.wait())}, timeout=FIRST_SCAN_WAIT_S)

    def default_model(self, kind: str) -> str:
        """The name of the model for requests of a kind ("chat", "vision" ...) that name none; empty: none is set."""
        settings = self._settings()
        names = {
            "chat": settings.default_chat_model,
            "vision": settings.default_vision_model or settings.default_chat_model,
            "embedding": settings.default_embedding_model,
            "rerank": settings.default_rerank_model,
        }
        return names.get(kind, "")

    async def scan(self) -> ScanReport:
        """Scan, or share the scan of the same directory that is running. Raises InvalidInput, StoreUnavailable."""
        root = self._settings().models_dir
        while self._running is not None and self._root != root:
            await asyncio.wait({self._running})
        if self._running is None:
            self._root = root
            self._running = asyncio.create_task(self._scan(root))
            self._running.add_done_callback(self._ended)
        return await asyncio.shield(self._running)  # a caller that leaves does not end the scan of others

    def _ended(self, task: asyncio.Task[ScanReport]) -> None:
        self._running = None
        self._first_scan_ended.set()
        if not task.cancelled():
            task.exception()  # who asked has it; a scan that nobody waits for any more must not end in a warning

    async def _scan(self, root: Path) -> ScanReport:
        known = {model.path: model for model in self._models.all()}
        loop = asyncio.get_running_loop()

        def progress(done: int, total: int) -> None:
            loop.call_soon_threadsafe(self._bus.publish, ScanProgressed(done, total))

        if not await asyncio.to_thread(root.is_dir):
            raise InvalidInput("basePath", f"models directory {root} does not exist; create it or set another")
        result = await asyncio.to_thread(scan_directories, (root,), known=known, progress=progress)
        changed = await self._refresh(result, known) + await self._mark(result)
        created = await self._register([file for file in result.found if file.path not in known])
        total = len(self._models.all())
        self._bus.publish(ScanFinished(len(created), changed, total, len(result.broken)))
        return ScanReport(len(created), changed, total, result.broken)

    async def _refresh(self, result: ScanResult, known: dict[str, Model]) -> int:
        changed = [file for file in result.found if file.path in known]
        for file in changed:
            self._bus.publish(ModelUpdated(await self._models.refresh(known[file.path].id, file)))
        return len(changed)

    async def _mark(self, result: ScanResult) -> int:
        """Mark the models whose files went, and those whose files came back."""
        seen = {file.path for file in result.found} | {model.path for model in result.unchanged}
        elsewhere = [model for model in self._models.all() if model.has_file and model.path not in seen]
        exists = await asyncio.to_thread(lambda: {model.id: Path(model.path).is_file() for model in elsewhere})
        changed = [model for model in elsewhere if model.is_missing == exists[model.id]]
        changed += [model for model in result.unchanged if model.is_missing]
        for model in changed:
            marked = await self._models.mark(model.id, missing=not model.is_missing)
            self._bus.publish(ModelUpdated(marked))
        return len(changed)

    async def _register(self, files: list[ModelFile]) -> list[Model]:
        created: list[Model] = []
        try:
            created += await self._models.add_many([ModelDraft(file, ModelOrigin.SCANNED) for file in files])
        except Conflict:  # somebody registered one of them by hand while the scan was running
            for file in files:
                if self._models.by_path(file.path) is None:
                    created.append(await self._models.add(ModelDraft(file, ModelOrigin.SCANNED)))
        for model in created:
            self._bus.publish(ModelCreated(model))
        return created
