"""Work that is only done while clients are there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack


class Watch:
    """A context manager that is entered when the first client comes, and left when the last one goes."""

    def __init__(self, begin: Callable[[], AbstractContextManager[None]]) -> None:
        self._begin = begin
        self._entered = ExitStack()
        self._is_on = False

    def switch(self, *, on: bool) -> None:
        """Begin or end the work; nothing happens when it is so already."""
        if on and not self._is_on:
            self._entered.enter_context(self._begin())
        elif self._is_on and not on:
            self._entered.close()
        self._is_on = on
