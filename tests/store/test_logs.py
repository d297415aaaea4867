from __future__ import annotations

from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.store.database import Database
from llama_async_proxy.store.logs import KEPT_MS, LogTable
from llama_async_proxy.store.writer import Writer
from store.builders import line

DEBUG, INFO, WARN, ERROR = LogLevel


async def table_with(database: Database, writer: Writer) -> LogTable:
    table = LogTable(database, writer, lambda: 1000)
    for i, level in enumerate([DEBUG, INFO, WARN, ERROR, INFO]):
        table.append(line(f"{i}", timestamp_ms=i * 1000, level=level, source="model:tiny" if i % 2 else "service"))
    await writer.flush()
    return table


async def messages(table: LogTable, **conditions: object) -> list[str]:
    return [line.message for line in await table.query(**conditions)]  # type: ignore[arg-type]


async def test_lines_come_back_whole_newest_first(database: Database, writer: Writer) -> None:
    table = await table_with(database, writer)
    newest, *_ = lines = await table.query()
    assert newest == line("4", 4000, level=INFO, id=5)
    assert [entry.id for entry in lines] == [5, 4, 3, 2, 1]


async def test_conditions_combine(database: Database, writer: Writer) -> None:
    table = await table_with(database, writer)
    assert await messages(table, at_least=INFO) == ["4", "3", "2", "1"]
    assert await messages(table, at_least=WARN) == ["3", "2"]
    assert await messages(table, at_least=ERROR) == ["3"]
    assert await messages(table, source="model:tiny") == ["3", "1"]
    assert await messages(table, since_ms=3000) == ["4", "3"]
    assert await messages(table, limit=2) == ["4", "3"]
    assert await messages(table, at_least=WARN, source="service", since_ms=1000, limit=9) == ["2"]


async def test_output_that_is_not_unicode_is_kept_readable(database: Database, writer: Writer) -> None:
    table = LogTable(database, writer, lambda: 1000)
    table.append(line("caf\udce9 \x00 ☕", source="model:\ud800"))
    await writer.flush()
    assert await table.query() == (line("caf? \x00 ☕", source="model:?", id=1),)


async def test_clear_counts_and_covers_lines_just_appended(database: Database, writer: Writer) -> None:
    table = await table_with(database, writer)
    table.append(line("still in memory"))
    assert await table.clear() == 6
    assert await table.query() == ()


async def test_the_oldest_lines_beyond_the_limit_go_and_the_limit_may_change(
    database: Database, writer: Writer
) -> None:
    limit = 10
    table = LogTable(database, writer, lambda: limit)
    for i in range(25):
        table.append(line(str(i)))
    await writer.flush()
    assert await messages(table) == [str(i) for i in range(24, 14, -1)]
    await table.clear()
    limit = 2
    for i in range(3):
        table.append(line(str(i)))
    await writer.flush()
    assert await messages(table) == ["2", "1"]


async def test_lines_go_when_they_are_old(database: Database, writer: Writer) -> None:
    table = LogTable(database, writer, lambda: 1000)
    for message, timestamp_ms in [("old", 0), ("at the edge", 5), ("new", KEPT_MS + 5)]:
        table.append(line(message, timestamp_ms))
    await writer.flush()
    assert await messages(table) == ["new", "at the edge"]
