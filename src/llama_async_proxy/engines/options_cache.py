"""Cache of the engine's options: its --help is run once per program, and its text is kept over restarts."""

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

_MAX_FILES = 8


class EngineOptions(Struct, frozen=True):
    """Options of one program. The same object is returned until the program changes."""

    options: tuple[EngineOption, ...]
    binary: str | None
    version: str | None


class EngineOptionsCache:
    """Reads and keeps the options of the current engine.

    `state` returns the engine's state; the text of --help is kept in `directory`.
    """

    def __init__(self, state: Callable[[], EngineState], directory: Path) -> None:
        self._state = state
        self._directory = directory
        self._turn = asyncio.Lock()
        self._key = ""
        self._found: EngineOptions | None = None

    async def get(self) -> EngineOptions:
        """Options of the current engine.

        Raises EngineMissing when no engine was found, EngineStopped before the first start.
        """
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
        file = self._directory / f"{key}.txt"
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if options := parse_help(file.read_text(encoding="utf-8")):
                return EngineOptions(options, state.binary, state.version)
        text = help_text(state.binary)
        options = parse_help(text)
        if not options:
            raise EngineMissing(
                f"{state.binary or 'The built-in engine'} --help lists no options, so it is another program."
            )
        self._write(file, text)
        return EngineOptions(options, state.binary, state.version)

    def _write(self, path: Path, text: str) -> None:
        """Write the text. A failure is no error, because it costs only a few milliseconds at the next start."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.part")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
            by_age = sorted(self._directory.glob("*.txt"), key=lambda file: file.stat().st_mtime_ns)
            for old in by_age[:-_MAX_FILES]:
                old.unlink(missing_ok=True)
        except OSError as exc:
            logger.debug("The engine's options are not kept in %s: %s", self._directory, exc)


def _key(state: EngineState) -> str:
    """Key of the program: from its path, size and time of change, or from the version of the wheel."""
    parts: tuple[object, ...] = ("built-in", state.version)
    if state.binary:
        try:
            status = Path(state.binary).stat()
        except OSError as exc:
            raise EngineMissing(f"{state.binary}: {exc.strerror or exc}.") from exc
        parts = (Path(state.binary).resolve(), status.st_size, status.st_mtime_ns)
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]
