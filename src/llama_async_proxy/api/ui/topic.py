"""A topic of the web UI's feed: a snapshot for each client that joins, then numbered deltas at a bounded rate."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from llama_async_proxy.api.socketio.emitter import Emitter

_SLOW = 32
"""Packets queued for a client from which on it counts as slow; a client that keeps up has none or one."""

Snapshot: TypeAlias = Callable[[], Awaitable[object]]
"""Makes JSON values of a topic's whole present."""


class _Member(Struct):
    dropped: int = 0
    """Items lost since the last delta."""
    is_stale: bool = True
    """True while the next message must be a snapshot."""


class Delivery(Struct, frozen=True, kw_only=True):
    """How a topic delivers its items."""

    interval_s: float
    """Least time between two deltas."""
    lossy: bool
    """True: a slow client loses items and learns how many. False: it gets a snapshot once it has caught up."""
    kept: int = 2000
    """Newest items that are kept for clients that come back after a short absence."""
    render: Callable[[Any], object] = lambda item: item
    """Makes JSON values of an item; it is called only when a client is to receive the item."""
    first_seq: int | None = None
    """Number below the first delta's; None: the present in milliseconds.

    Milliseconds pass faster than deltas are sent, so a restarted service begins above every earlier number.
    """


class Topic:
    """One subject of the feed. Its owner publishes items and runs it."""

    def __init__(self, name: str, emitter: Emitter, snapshot: Snapshot, delivery: Delivery) -> None:
        self.name = name
        self._emitter = emitter
        self._snapshot = snapshot
        self._delivery = delivery
        self._seq = time.time_ns() // 1_000_000 if delivery.first_seq is None else delivery.first_seq
        self._members: dict[str, _Member] = {}
        self._pending: dict[Hashable, Any] = {}
        """Items of the next delta, by key."""
        self._sent: deque[tuple[int, list[Any]]] = deque()
        """Number and items of the newest deltas."""
        self._kept = 0
        """Number of items in `_sent`."""
        self._wake = asyncio.Event()

    @property
    def is_watched(self) -> bool:
        """True while some client has joined."""
        return bool(self._members)

    def publish(self, item: Any, key: Hashable) -> None:
        """Send `item` with the next delta. Of several items with one key only the last is sent."""
        self._pending.pop(key, None)
        self._pending[key] = item
        self._wake.set()

    def publish_all(self, items: Mapping[Hashable, Any]) -> None:
        """Publish many items by key, where the order of two with one key does not matter."""
        self._pending.update(items)
        self._wake.set()

    async def join(self, client: str, since: int | None = None) -> None:
        """Send deltas to `client` from now on; first the items after delta `since`, or a snapshot if they are gone."""
        member = self._members[client] = _Member()
        if since is None or not self._has_all_after(since):
            try:
                await self._send_snapshot(client, member)
            except Exception:
                self.leave(client)
                raise
            return
        member.is_stale = False
        if missed := [self._delivery.render(item) for seq, items in self._sent if seq > since for item in items]:
            await self._send_delta(client, missed, dropped=0)

    def leave(self, client: str) -> None:
        """Send no more deltas to `client`."""
        self._members.pop(client, None)

    async def run(self) -> None:
        """Send deltas until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._flush()
            await asyncio.sleep(self._delivery.interval_s)

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
            await self._deliver_all([self._delivery.render(item) for item in items])

    async def _deliver_all(self, items: list[object]) -> None:
        for client, member in tuple(self._members.items()):
            await self._deliver(client, member, items)
        if any(member.is_stale for member in self._members.values()):
            self._wake.set()

    def _keep(self, items: list[Any]) -> None:
        self._sent.append((self._seq, items))
        self._kept += len(items)
        while self._kept > self._delivery.kept:
            self._kept -= len(self._sent.popleft()[1])

    async def _deliver(self, client: str, member: _Member, items: list[object]) -> None:
        is_slow = self._emitter.backlog(client) >= _SLOW
        if is_slow and self._delivery.lossy:
            member.dropped += len(items)
        elif is_slow:
            member.is_stale = True
        elif member.is_stale:
            await self._send_snapshot(client, member)
        elif items:
            await self._send_delta(client, items, member.dropped)
            member.dropped = 0

    async def _send_snapshot(self, client: str, member: _Member) -> None:
        """Send the present, unless a delta went by while it was read: then the next flush tries again."""
        seq = self._seq
        data = await self._snapshot()
        if seq != self._seq or self._members.get(client) is not member:
            self._wake.set()
            return
        member.is_stale = False
        await self._emitter.send(client, "snapshot", {"topic": self.name, "seq": seq, "data": data})

    async def _send_delta(self, client: str, items: list[object], dropped: int) -> None:
        delta = {"topic": self.name, "seq": self._seq, "items": items, "dropped": dropped}
        await self._emitter.send(client, "delta", delta)
