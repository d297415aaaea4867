"""What was logged: the lines in the database, the files on disk."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput, NotFound
from llama_async_proxy.monitor.logfiles import ENGINE_LOG, SERVICE_LOG, LogFile
from llama_async_proxy.monitor.logtext import parse_line
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.records.logs import LogLevel, LogLine

_MOST_LINES = 10_000


class ListLogs(Struct, frozen=True):
    """The newest lines of at least that severity."""

    limit: int = 100
    level: LogLevel = LogLevel.DEBUG
    since_ms: int | None = None
    source: str | None = None
    """"service", or "model:<slug>"."""


class LogLines(Struct, frozen=True):
    lines: tuple[LogLine, ...]
    """Newest first."""


class ClearLogs(Struct, frozen=True):
    pass


class ClearedLogs(Struct, frozen=True):
    cleared: int


class ListLogFiles(Struct, frozen=True):
    pass


class LogFileList(Struct, frozen=True):
    files: tuple[LogFile, ...]


class ReadLogFile(Struct, frozen=True):
    name: str = SERVICE_LOG


class ReadEngineLog(Struct, frozen=True):
    """The file with the output of all model processes."""


class LogFileContent(Struct, frozen=True):
    name: str
    content: str
    """The end of the file, at most one MiB."""
    lines: tuple[LogLine, ...]
    """The same, oldest first; what is no line of ours is left out."""
    truncated: bool
    """There is more before it."""


class ClearLogFiles(Struct, frozen=True):
    pass


@operation("logs.list", Effect.READ)
async def list_logs(context: Context, request: ListLogs) -> LogLines:
    if not 1 <= request.limit <= _MOST_LINES:
        raise InvalidInput("limit", f"must be between 1 and {_MOST_LINES}, not {request.limit}")
    lines = await context.store.logs.query(
        at_least=request.level, source=request.source, since_ms=request.since_ms, limit=request.limit
    )
    return LogLines(lines)


@operation("logs.clear", Effect.ADMIN)
async def clear_logs(context: Context, _: ClearLogs) -> ClearedLogs:
    """Empties the database's table; files stay."""
    return ClearedLogs(await context.store.logs.clear())


@operation("logs.files", Effect.READ)
async def list_log_files(context: Context, _: ListLogFiles) -> LogFileList:
    return LogFileList(await asyncio.to_thread(context.log_files.list_files))


@operation("logs.read_file", Effect.READ)
async def read_log_file(context: Context, request: ReadLogFile) -> LogFileContent:
    """Raises PermissionDenied for a name with a path in it, NotFound for one that is not listed."""
    return await asyncio.to_thread(_read, context, request.name)


@operation("logs.read_engine", Effect.READ)
async def read_engine_log(context: Context, _: ReadEngineLog) -> LogFileContent:
    """Empty before the first model was loaded."""
    return await asyncio.to_thread(_read, context, ENGINE_LOG)


def _read(context: Context, name: str) -> LogFileContent:
    try:
        found = context.log_files.read_file(name)
    except NotFound:
        if name in (SERVICE_LOG, ENGINE_LOG):  # nothing was written yet
            return LogFileContent(name, "", (), truncated=False)
        raise
    lines = (parse_line(line) for line in found.text.splitlines())
    return LogFileContent(found.name, found.text, tuple(line for line in lines if line), found.truncated)


@operation("logs.clear_files", Effect.ADMIN)
async def clear_log_files(context: Context, _: ClearLogFiles) -> ClearedLogs:
    """Empties the files in use, deletes the rotated ones. Raises PermissionDenied when one resists; the others are."""
    return ClearedLogs(await asyncio.to_thread(context.log_files.clear_files))
