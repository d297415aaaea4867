"""The options of the engine there is: its --help, run once per program and kept, over restarts too."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from llama_async_proxy.engines.discovery import help_text
from llama_async_proxy.engines.help import parse_help
from llama_async_proxy.errors import EngineMissing, EngineStopped
from llama_async_proxy.records.engine import EngineState
from llama_async_proxy.records.options import EngineOption

logger = logging.getLogger(__name__)

_KEPT_FILES = 8


class EngineOptions(Struct, frozen=True):
    """The options of one program. The same object until the program changes."""

    options: tuple[EngineOption, ...]
    binary: str | None
    version: str | None


class CatalogueCache:
    """`state` tells which engine there is; `directory` is where the text of --help is kept."""

    def __init__(self, state: Callable[[], EngineState], directory: Path) -> None:
        self._state = state
        self._directory = directory
        self._turn = asyncio.Lock()
        self._key = ""
        self._found: EngineOptions | None = None

    async def get(self) -> EngineOptions:
        """Raises EngineMissing when nothing that can run models was found, EngineStopped before the first start."""
        state = self._state()
        if state.version is None:
            raise EngineMissing(state.error) if state.error else EngineStopped()
        async with self._turn:
            key = await asyncio.to_thread(_key, state)
            if self._found is None or key != self._key:
                self._found = await asyncio.to_thread(self._read, state, key)
                self._key = key
            return self._found

    def _read(self, state: EngineState, key: str) -> EngineOptions:
        kept = self._directory / f"{key}.txt"
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if options := parse_help(kept.read_text(encoding="utf-8")):
                return EngineOptions(options, state.binary, state.version)
        text = help_text(state.binary)
        options = parse_help(text)
        if not options:
            raise EngineMissing(
                f"{state.binary or 'The built-in engine'} --help lists no options, so it is another program."
            )
        self._keep(kept, text)
        return EngineOptions(options, state.binary, state.version)

    def _keep(self, path: Path, text: str) -> None:
        """A cache that cannot be written costs a few milliseconds at the next start, so it is no error."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.part")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
            by_age = sorted(self._directory.glob("*.txt"), key=lambda file: file.stat().st_mtime_ns)
            for old in by_age[:-_KEPT_FILES]:
                old.unlink(missing_ok=True)
        except OSError as exc:
            logger.debug("The engine's options are not kept in %s: %s", self._directory, exc)


def _key(state: EngineState) -> str:
    """Another one for another program: by path, size and time of change, or by the wheel's version."""
    parts: tuple[object, ...] = ("built-in", state.version)
    if state.binary:
        try:
            status = Path(state.binary).stat()
        except OSError as exc:
            raise EngineMissing(f"{state.binary}: {exc.strerror or exc}.") from exc
        parts = (Path(state.binary).resolve(), status.st_size, status.st_mtime_ns)
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]
