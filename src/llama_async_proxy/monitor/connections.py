"""Socket clients and their traffic, counted by the doors and read by status reports."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

_WINDOW_S = 10


class ConnectionMeter:
    """Connected Socket.IO clients and messages per second over the last ten seconds. O(1) per message."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._clients: set[str] = set()
        self._seconds: deque[tuple[int, int]] = deque(maxlen=_WINDOW_S)
        """(second, messages in it), oldest first."""

    @property
    def clients(self) -> int:
        return len(self._clients)

    def connected(self, client: str) -> None:
        self._clients.add(client)

    def disconnected(self, client: str) -> None:
        self._clients.discard(client)

    def message(self, times: int = 1) -> None:
        """Count messages, in or out."""
        second = int(self._monotonic_s())
        count = self._seconds.pop()[1] if self._seconds and self._seconds[-1][0] == second else 0
        self._seconds.append((second, count + times))

    @property
    def messages_per_second(self) -> float:
        oldest = int(self._monotonic_s()) - _WINDOW_S
        return sum(count for second, count in self._seconds if second > oldest) / _WINDOW_S
