from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path

import psutil
import pytest
import uvloop

from llama_async_proxy.engines.process import MAX_LINE, STDERR, STDOUT, Child, Lines, describe_exit, free_port
from support.rig import is_alive

PROGRAM = Path(__file__).parents[1] / "support" / "child.py"


class Started:
    """A child that runs support/child.py, and the lines that it has printed."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self._arrived = asyncio.Event()
        self.child: Child

    @classmethod
    async def spawn(cls, *arguments: str) -> Started:
        started = cls()
        argv = (sys.executable, "-I", "-S", str(PROGRAM), *arguments)
        started.child = await Child.spawn(argv, started._on_line, os.environ)
        return started

    def _on_line(self, stream: int, line: str) -> None:
        self.lines.append((stream, line))
        self._arrived.set()

    async def next_line(self) -> str:
        while not self.lines:
            self._arrived.clear()
            await self._arrived.wait()
        return self.lines.pop(0)[1]


Scenario = Callable[[], Coroutine[object, object, None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    """Runs a scenario on asyncio's loop and on uvloop."""

    def run(scenario: Scenario) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(scenario())

    return run


Play = Callable[[Scenario], None]


def test_lines_of_any_bytes_arrive(play: Play) -> None:
    async def scenario() -> None:
        started = await Started.spawn("odd-lines")
        assert await started.child.wait() == 0
        stdout = [line for stream, line in started.lines if stream == STDOUT]
        assert stdout == ["first", "x" * MAX_LINE, "caf� �", "", "naïve ✓"]
        assert [line for stream, line in started.lines if stream == STDERR] == ["no end"]

    play(scenario)


@pytest.mark.parametrize("code", [0, 1, 127])
def test_the_exit_code_is_known_at_once(play: Play, code: int) -> None:
    async def scenario() -> None:
        started = await Started.spawn("exit", str(code))
        async with asyncio.timeout(30):
            assert await started.child.wait() == code
        assert not started.child.is_running
        assert started.child.rss_bytes is None

    play(scenario)


def test_stop_is_graceful_and_idempotent(play: Play) -> None:
    async def scenario() -> None:
        started = await Started.spawn("wait")
        await started.next_line()
        codes = await asyncio.gather(started.child.stop(5), started.child.stop(5))
        assert [*codes, await started.child.stop(5)] == [-signal.SIGTERM] * 3
        assert not is_alive(started.child.pid)

    play(scenario)


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace_period(play: Play) -> None:
    async def scenario() -> None:
        started = await Started.spawn("deaf")
        await started.next_line()
        assert await started.child.stop(0.05) == -signal.SIGKILL

    play(scenario)


@pytest.mark.parametrize("mode", ["family", "dying-family"])
def test_grandchildren_end_with_the_child(play: Play, mode: str) -> None:
    async def scenario() -> None:
        started = await Started.spawn(mode)
        grandchild = int(await started.next_line())
        if mode == "family":
            await started.child.stop(5)
        else:
            assert await started.child.wait() == 3
        async with asyncio.timeout(30):
            while is_alive(grandchild):  # It was killed and ends as soon as it is scheduled.
                await asyncio.sleep(0.001)

    play(scenario)


def test_stdin_is_open_until_the_end(play: Play) -> None:
    async def scenario() -> None:
        started = await Started.spawn("echo")
        started.child.write(b"hello\n")
        assert await started.next_line() == "hello"
        await started.child.stop(5)
        assert started.lines == [], "it did not see the end of its stdin"
        started.child.write(b"too late\n")

    play(scenario)


def test_a_child_leads_its_group_and_gets_the_parents_id(play: Play) -> None:
    async def scenario() -> None:
        started = await Started.spawn("environment", "LLAMA_ASYNC_PROXY_OWNER")
        assert await started.child.wait() == 0
        assert [line for _, line in started.lines] == [str(os.getpid()), "True"]

    play(scenario)


def test_memory_is_measured_while_it_runs(play: Play) -> None:
    async def scenario() -> None:
        started = await Started.spawn("wait")
        await started.next_line()
        assert (started.child.rss_bytes or 0) > 1 << 20
        await started.child.stop(0)
        assert started.child.rss_bytes is None

    play(scenario)


def test_a_program_that_cannot_be_run_is_an_os_error(play: Play) -> None:
    async def scenario() -> None:
        with pytest.raises(FileNotFoundError):
            await Child.spawn(["/nonexistent/program"], lambda *_: None, os.environ)

    play(scenario)


def test_many_children_leak_no_descriptor_or_thread(play: Play) -> None:
    async def scenario() -> None:
        async def one() -> None:
            started = await Started.spawn("wait")
            await started.next_line()
            await started.child.stop(5)

        await one()
        before = psutil.Process().num_fds()
        for _ in range(5):
            await asyncio.gather(*(one() for _ in range(4)))
        assert psutil.Process().num_fds() <= before

    before_all = set(threading.enumerate())
    play(scenario)
    for thread in set(threading.enumerate()) - before_all:
        thread.join(30)  # asyncio's own, one per child, end a moment after it
    assert set(threading.enumerate()) <= before_all


def test_lines_do_not_depend_on_the_bounds_of_chunks() -> None:
    data = "eins\r\nzwei €\n\ndrei".encode()
    for size in range(1, len(data) + 1):
        lines = Lines()
        found = [line for start in range(0, len(data), size) for line in lines.feed(data[start : start + size])]
        assert [*found, lines.flush()] == ["eins", "zwei €", "", "drei"]


def test_a_line_without_end_does_not_grow_memory() -> None:
    lines = Lines()
    for _ in range(100):
        assert lines.feed(b"x" * 65536) == []
    assert lines.feed(b"\nnext\n") == ["x" * MAX_LINE, "next"]


def test_a_free_port_can_be_bound() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exit code 0"),
        (1, "exit code 1"),
        (-9, "killed by signal 9 (SIGKILL; often out of memory)"),
        (-11, "killed by signal 11 (SIGSEGV)"),
        (-63, "killed by signal 63"),
    ],
)
def test_an_exit_code_is_described(code: int, text: str) -> None:
    assert describe_exit(code) == text
