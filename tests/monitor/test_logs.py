from __future__ import annotations

import asyncio
import gc
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llama_async_proxy.events import EventBus, LogWritten, Subscription
from llama_async_proxy.monitor import logs
from llama_async_proxy.monitor.logfiles import ENGINE_LOG, SERVICE_LOG, LogFiles
from llama_async_proxy.monitor.logs import LogPipeline
from llama_async_proxy.monitor.logtext import parse_line
from llama_async_proxy.records.logs import LogLevel, LogLine

ours = logging.getLogger("llama_async_proxy.test")


class Bench:
    """A pipeline with all its outputs in reach of the test."""

    def __init__(self, directory: Path, console: io.StringIO | None = None) -> None:
        self.directory = directory
        self.bus = EventBus()
        self.stored: list[LogLine] = []
        self.store_error: Exception | None = None
        self.console = io.StringIO() if console is None else console
        self.pipeline = LogPipeline(self.bus, self._store, LogFiles(directory, 1 << 20, 3), console=self.console)

    def _store(self, line: LogLine) -> None:
        if self.store_error:
            raise self.store_error
        self.stored.append(line)

    def file(self, name: str = SERVICE_LOG) -> list[LogLine]:
        texts = (self.directory / name).read_text().splitlines()
        return [line for text in texts if (line := parse_line(text))]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "logs")


@pytest.fixture
def published(bench: Bench) -> Iterator[Subscription]:
    with bench.bus.subscribe(LogWritten, limit=100_000) as subscription:
        yield subscription


def waiting(subscription: Subscription) -> list[str]:
    """Messages published so far."""
    return [event.line.message for event in subscription._queue if isinstance(event, LogWritten)]


def child(message: str, level: LogLevel = LogLevel.INFO) -> LogLine:
    return LogLine(time.time_ns() // 1_000_000, level, "model:tiny", message)


def texts(lines: list[LogLine]) -> list[str]:
    return [line.message for line in lines]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


# --- where lines go ---------------------------------------------------------------------------------


async def test_line_reaches_store_bus_file_and_console(bench: Bench, published: Subscription) -> None:
    async with bench.pipeline:
        ours.warning("disk is %d %% full", 93)
    [stored] = bench.stored
    assert (stored.level, stored.source, stored.message) == (LogLevel.WARN, "service", "disk is 93 % full")
    assert abs(stored.timestamp_ms - time.time() * 1000) < 10_000
    assert waiting(published) == ["disk is 93 % full"]
    assert bench.file() == [stored]
    assert bench.console.getvalue().endswith(" warn  service: disk is 93 % full\n")


async def test_watcher_gets_lines_while_the_service_runs(bench: Bench, published: Subscription) -> None:
    async with bench.pipeline:
        ours.info("one")
        async with asyncio.timeout(30):
            async for event in published:
                assert isinstance(event, LogWritten)
                assert event.line.message == "one"
                break
        await until(lambda: (bench.directory / SERVICE_LOG).exists() and bench.file())


async def test_output_of_models_has_its_own_file(bench: Bench, published: Subscription) -> None:
    async with bench.pipeline:
        bench.pipeline.write(child("loading"))
    assert texts(bench.file(ENGINE_LOG)) == ["loading"]
    assert not (bench.directory / SERVICE_LOG).exists()
    assert [line.source for line in bench.stored] == ["model:tiny"]
    assert waiting(published) == ["loading"]


async def test_exception_comes_with_its_traceback_in_one_file_line(bench: Bench) -> None:
    async with bench.pipeline:
        try:
            raise ValueError("boom")
        except ValueError:
            ours.exception("It failed")
    [line] = bench.stored
    assert line.level is LogLevel.ERROR
    assert line.message.startswith("It failed\nTraceback (most recent call last):\n")
    assert line.message.endswith("ValueError: boom")
    assert len((bench.directory / SERVICE_LOG).read_text().splitlines()) == 1


async def test_levels_are_mapped(bench: Bench) -> None:
    bench.pipeline.level = LogLevel.DEBUG
    async with bench.pipeline:
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            ours.log(level, "x")
        ours.log(25, "between")
    names = [line.level.value for line in bench.stored]
    assert names == ["debug", "info", "warn", "error", "error", "info"]


async def test_library_is_named_in_its_lines(bench: Bench) -> None:
    async with bench.pipeline:
        logging.getLogger("some.library").warning("hm")
    assert texts(bench.stored) == ["some.library: hm"]


async def test_secrets_reach_no_output(bench: Bench, published: Subscription) -> None:
    async with bench.pipeline:
        ours.info("Authorization: Bearer %s", "abc123def456")
        bench.pipeline.write(child("started with --api-key abc123def456"))
    outputs = [*texts(bench.stored), *waiting(published), bench.console.getvalue()]
    outputs += [path.read_text() for path in bench.directory.iterdir()]
    assert len(outputs) == 7
    assert not [output for output in outputs if "abc123" in output]


# --- levels -------------------------------------------------------------------------------------------


async def test_level_changes_at_once_for_us_and_for_models(bench: Bench) -> None:
    async with bench.pipeline:
        ours.debug("no")
        bench.pipeline.write(child("no", LogLevel.DEBUG))
        bench.pipeline.level = LogLevel.DEBUG
        ours.debug("yes")
        bench.pipeline.write(child("yes", LogLevel.DEBUG))
        bench.pipeline.level = LogLevel.ERROR
        ours.warning("no")
        bench.pipeline.write(child("no", LogLevel.WARN))
    assert texts(bench.stored) == ["yes", "yes"]


async def test_libraries_do_not_flood_even_at_debug(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # A uvicorn without an access log, as other tests start it, switches this off for the whole process.
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)
    bench.pipeline.level = LogLevel.DEBUG
    async with bench.pipeline:
        for name in ("sqlalchemy.engine.Engine", "uvicorn.access", "engineio.x", "websockets.x"):
            logging.getLogger(name).info("per request")
            logging.getLogger(name).warning("worth knowing")
        logging.getLogger("asyncio").debug("per callback")
    assert len(bench.stored) == 4
    assert all(line.message.endswith("worth knowing") for line in bench.stored)


async def test_loggers_are_given_back_as_they_were(bench: Bench) -> None:
    root, library = logging.getLogger(), logging.getLogger("sqlalchemy")
    before = (root.level, root.handlers[:], library.level)
    async with bench.pipeline:
        assert (root.level, library.level) == (logging.INFO, logging.WARNING)
    assert (root.level, root.handlers, library.level) == before


# --- recursion ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["socketio.server", "engineio", "llama_async_proxy.api.socketio.v1.namespace", "llama_async_proxy.monitor.logs"],
)
async def test_lines_of_the_socket_doors_are_kept_but_never_published(
    bench: Bench, published: Subscription, name: str
) -> None:
    async with bench.pipeline:
        logging.getLogger(name).warning("emitted")
    assert len(bench.stored) == len(bench.file()) == 1
    assert waiting(published) == []


async def test_sink_that_fails_is_reported_once_and_ends_nothing(bench: Bench, published: Subscription) -> None:
    bench.store_error = OSError("database is locked")
    async with bench.pipeline:
        for n in range(5):
            ours.info("line %d", n)
        await until(lambda: (bench.directory / SERVICE_LOG).exists() and len(bench.file()) == 6)
        bench.store_error = None
        ours.info("stored again")
    assert waiting(published) == [*(f"line {n}" for n in range(5)), "stored again"]
    assert texts(bench.stored) == ["stored again"]
    assert sum("cannot be stored" in text for text in texts(bench.file())) == 1


async def test_finalizer_that_logs_in_the_middle_of_logging_does_not_deadlock(bench: Bench) -> None:
    class Noisy:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            ours.info("finalized")

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        async with bench.pipeline:
            for _ in range(200):
                Noisy()
                ours.info("line")
    finally:
        gc.set_threshold(*threshold)
    assert texts(bench.stored).count("line") == 200
    assert "finalized" in texts(bench.stored)


async def test_wrong_logging_call_harms_nobody(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own raise
    async with bench.pipeline:
        ours.info("%d lines", "many")
        ours.info("fine")
    assert texts(bench.stored) == ["fine"]
    assert "many" in capsys.readouterr().err


# --- threads and floods ---------------------------------------------------------------------------------


async def test_lines_of_many_threads_all_arrive_in_the_order_of_each(bench: Bench) -> None:
    def talk(name: int) -> None:
        for n in range(200):
            ours.info("%d %d", name, n)

    async with bench.pipeline:
        await asyncio.gather(*(asyncio.to_thread(talk, name) for name in range(4)))
    for lines in (bench.stored, bench.file()):
        assert len(lines) == 800
        for name in range(4):
            numbers = [int(text.split()[1]) for text in texts(lines) if text.startswith(f"{name} ")]
            assert numbers == list(range(200))


async def test_sink_and_bus_are_called_on_the_event_loop_only(tmp_path: Path) -> None:
    threads: set[int] = set()
    pipeline = LogPipeline(
        EventBus(), lambda _: threads.add(threading.get_ident()), LogFiles(tmp_path, 1000, 1), console=io.StringIO()
    )
    async with pipeline:
        await asyncio.to_thread(ours.info, "from a thread")
    assert threads == {threading.get_ident()}


async def test_flood_neither_blocks_nor_grows_and_says_what_it_dropped(bench: Bench, published: Subscription) -> None:
    count = 30_000
    async with bench.pipeline:
        # No await in here: the loop delivers nothing, so that its queue must overflow.
        for n in range(count):
            bench.pipeline.write(child(f"{n}"))
    kept = [text for text in texts(bench.stored) if text.isdigit()]
    [notice] = [text for text in texts(bench.stored) if "dropped" in text]
    assert len(kept) == 10_000
    assert notice.startswith(f"{count - len(kept)} log lines were dropped")
    assert len(waiting(published)) == len(bench.stored)


async def test_flood_leaves_the_loop_time_for_others(bench: Bench) -> None:
    async with bench.pipeline:
        for n in range(5000):
            bench.pipeline.write(child(f"{n}"))
        turns = 0
        while len(bench.stored) < 5000:
            await asyncio.sleep(0)
            turns += 1
    assert turns >= 5000 / 500


async def test_lines_before_the_start_are_kept(bench: Bench) -> None:
    bench.pipeline.write(child("early"))
    async with bench.pipeline:
        ours.info("late")
    assert texts(bench.stored) == ["early", "late"]
    assert texts(bench.file(ENGINE_LOG)) == ["early"]


async def test_line_after_the_end_is_harmless(bench: Bench) -> None:
    async with bench.pipeline:
        pass
    bench.pipeline.write(child("too late"))
    ours.info("too late")
    assert bench.stored == []


async def test_no_thread_and_no_file_handle_stays_behind(bench: Bench) -> None:
    threads = {thread.ident for thread in threading.enumerate()}
    handles = len(list(Path("/proc/self/fd").iterdir()))
    async with bench.pipeline:
        ours.info("x")
    assert not [t for t in threading.enumerate() if t.name == "log-writer" and t.ident not in threads]
    assert len(list(Path("/proc/self/fd").iterdir())) == handles


# --- outputs that fail ------------------------------------------------------------------------------------


async def test_unwritable_directory_is_warned_of_once_and_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_RETRY_S", 0.05)
    bench.directory.touch()  # a file where the directory should be
    async with bench.pipeline:
        ours.info("lost")
        await until(lambda: len(bench.stored) == 2)
        ours.info("lost too")
        await until(lambda: "lost too" in bench.console.getvalue())
        bench.directory.unlink()
        await asyncio.sleep(0.06)
        ours.info("written")
        await until(lambda: len(bench.stored) == 5)
    [warning] = [text for text in texts(bench.stored) if "cannot be written" in text]
    assert "exists" in warning
    assert texts(bench.file())[0] == "written"
    assert "about 3 lines are missing" in texts(bench.file())[1]
    assert texts(bench.stored).count("lost") == 1


async def test_closed_console_does_not_stop_the_files(tmp_path: Path) -> None:
    console = io.StringIO()
    console.close()
    bench = Bench(tmp_path / "logs", console)
    async with bench.pipeline:
        ours.info("one")
        ours.info("two")
    assert texts(bench.file()) == ["one", "two"]


async def test_console_that_cannot_show_a_character_shows_its_escape(tmp_path: Path) -> None:
    raw = io.BytesIO()
    pipeline = LogPipeline(
        EventBus(), lambda _: None, LogFiles(tmp_path, 1000, 1), console=io.TextIOWrapper(raw, encoding="ascii")
    )
    async with pipeline:
        ours.info("naïve ✓")
    assert raw.getvalue().endswith(rb"na\xefve \u2713" + b"\n")


async def test_an_output_that_is_switched_off_gets_no_lines_until_it_is_wanted_again(
    bench: Bench, published: Subscription
) -> None:
    async with bench.pipeline:
        bench.pipeline.write_to(console=False, files=False)
        ours.warning("kept quiet")
        await until(lambda: "kept quiet" in waiting(published))
    async with Bench(bench.directory, bench.console).pipeline as again:
        again.write_to(console=True, files=True)
        ours.warning("told")
    assert "told" in bench.console.getvalue()
    assert "quiet" not in bench.console.getvalue() + str(texts(bench.file()))
    assert [line.message for line in bench.stored][-1] == "kept quiet"
