"""Signals to the service: SIGHUP reads the configuration file again, all others that would end it stop it in order.

Handlers stay in place from the start to the end of the last clean-up, so that no signal in between skips it. SIGKILL
cannot be handled, and signals of a fault (SIGSEGV, SIGABRT ...) end the process at once, as they should.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NAMES = ("INT", "TERM", "QUIT", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "XCPU")
_TERMINAL = "/dev/tty"


def ending_signals() -> tuple[int, ...]:
    """Numbers of the signals that stop the service, on this system."""
    named = {int(getattr(signal, f"SIG{name}")) for name in _NAMES if hasattr(signal, f"SIG{name}")}
    first, last = getattr(signal, "SIGRTMIN", 1), getattr(signal, "SIGRTMAX", 0)
    return (*sorted(named), *range(first, last + 1))


class Signals:
    """What to do on signals; both callables may be replaced at any time."""

    def __init__(self) -> None:
        self.stops = 0
        """Signals so far that ask for an end."""
        self.on_stop: Callable[[], None] = _nothing
        """Called for each of them."""
        self.on_reload: Callable[[], None] = _nothing
        self._had_terminal = _has_terminal()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle signals in the running event loop."""
        loop = asyncio.get_running_loop()
        ending, hang_up = ending_signals(), getattr(signal, "SIGHUP", None)
        for number in ending:
            loop.add_signal_handler(number, self._stop)
        if hang_up is not None:
            loop.add_signal_handler(hang_up, self._hung_up)
        try:
            yield
        finally:
            for number in (*ending, *([hang_up] if hang_up is not None else ())):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.stops += 1
        self.on_stop()

    def _hung_up(self) -> None:
        """A terminal that was closed sends SIGHUP, too; the service ends with it, as other programs do."""
        if self._had_terminal and not _has_terminal():
            self._stop()
        else:
            self.on_reload()


def _has_terminal() -> bool:
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _nothing() -> None:
    """Stands in until there is something to stop or to read again."""
