"""One subject of the web UI's feed: a snapshot for whoever joins, then numbered deltas, at a bounded rate."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from msgspec import Struct

from llama_async_proxy.api.socketio.emitter import Emitter

_SLOW = 32
"""Packets waiting for a client before it counts as slow; one that keeps up has none or one."""


class _Member(Struct):
    dropped: int = 0
    """Items it has lost since it last got some."""
    is_stale: bool = False
    """It needs a snapshot before it can use another delta."""


class Topic:
    """`snapshot` renders the whole present. A `lossy` topic drops items for a slow client and says how many; any other
    sends it a fresh snapshot once it has caught up. `first_seq` must be above what an earlier process sent.
    """

    def __init__(
        self,
        name: str,
        outlet: Emitter,
        snapshot: Callable[[], object],
        *,
        interval_s: float,
        lossy: bool,
        first_seq: int,
        render: Callable[[Any], object] = lambda item: item,
        keeps: int = 2000,
    ) -> None:
        """`render` makes JSON values of an item; it is asked only when somebody is to see the item. So many items as
        `keeps` says are there for clients that come back after a short absence."""
        self.name = name
        self._outlet = outlet
        self._snapshot = snapshot
        self._interval_s = interval_s
        self._lossy = lossy
        self._render = render
        self._keeps = keeps
        self._seq = first_seq
        self._members: dict[str, _Member] = {}
        self._pending: dict[Hashable, Any] = {}
        self._sent: deque[tuple[int, list[Any]]] = deque()
        self._kept = 0
        """Items in `_sent`."""
        self._wake = asyncio.Event()

    @property
    def is_watched(self) -> bool:
        return bool(self._members)

    def publish(self, item: Any, key: Hashable) -> None:
        """Send `item` with the next delta. Of several with one key only the last is sent."""
        self._pending.pop(key, None)
        self._pending[key] = item
        self._wake.set()

    def publish_all(self, items: Mapping[Hashable, Any]) -> None:
        """The same for many, by key, where the order of two with one key does not matter."""
        self._pending.update(items)
        self._wake.set()

    async def join(self, client: str, since: int | None = None) -> None:
        """From now on `client` gets deltas; first what it missed after `since`, or a snapshot where that is gone."""
        member = self._members[client] = _Member()
        if since is None or not self._has_all_after(since):
            await self._send_snapshot(client, member)
        elif missed := [self._render(item) for seq, items in self._sent if seq > since for item in items]:
            await self._send_delta(client, missed, dropped=0)

    def leave(self, client: str) -> None:
        self._members.pop(client, None)

    async def run(self) -> None:
        """Send deltas until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._flush()
            await asyncio.sleep(self._interval_s)

    def _has_all_after(self, since: int) -> bool:
        oldest = self._sent[0][0] if self._sent else self._seq + 1
        return oldest - 1 <= since <= self._seq

    async def _flush(self) -> None:
        items = list(self._pending.values())
        self._pending.clear()
        if items:
            self._seq += 1
            self._keep(items)
        if self._members:
            await self._deliver_all([self._render(item) for item in items])

    async def _deliver_all(self, items: list[object]) -> None:
        for client, member in tuple(self._members.items()):
            await self._deliver(client, member, items)
        if any(member.is_stale for member in self._members.values()):
            self._wake.set()

    def _keep(self, items: list[Any]) -> None:
        self._sent.append((self._seq, items))
        self._kept += len(items)
        while self._kept > self._keeps:
            self._kept -= len(self._sent.popleft()[1])

    async def _deliver(self, client: str, member: _Member, items: list[object]) -> None:
        is_slow = self._outlet.backlog(client) >= _SLOW
        if is_slow and self._lossy:
            member.dropped += len(items)
        elif is_slow:
            member.is_stale = True
        elif member.is_stale:
            await self._send_snapshot(client, member)
        elif items:
            await self._send_delta(client, items, member.dropped)
            member.dropped = 0

    async def _send_snapshot(self, client: str, member: _Member) -> None:
        member.is_stale = False
        await self._outlet.send(client, "snapshot", {"topic": self.name, "seq": self._seq, "data": self._snapshot()})

    async def _send_delta(self, client: str, items: list[object], dropped: int) -> None:
        delta = {"topic": self.name, "seq": self._seq, "items": items, "dropped": dropped}
        await self._outlet.send(client, "delta", delta)
