"""Table of the UI's preferences, such as theme and table columns. The service itself does not read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from llama_async_proxy.store.database import Database
from llama_async_proxy.store.schema import settings
from llama_async_proxy.store.writer import Writer


class PreferenceTable:
    """Preferences as JSON values by key."""

    def __init__(self, database: Database, writer: Writer, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._writer = writer
        self._now_ms = now_ms

    async def get_all(self) -> dict[str, object]:
        """All preferences. Raises StoreUnavailable."""
        return await self._database.read(_load)

    async def merge(self, changes: Mapping[str, object]) -> dict[str, object]:
        """Set the keys of `changes`; None deletes a key. Returns all preferences then. Raises StoreUnavailable."""
        return await self._writer.run(lambda connection: self._merge(connection, changes))

    def _merge(self, connection: Connection, changes: Mapping[str, object]) -> dict[str, object]:
        now_ms = self._now_ms()
        deleted = [key for key, value in changes.items() if value is None]
        new = [{"key": k, "value": v, "updated_at_ms": now_ms} for k, v in changes.items() if v is not None]
        if deleted:
            connection.execute(delete(settings).where(settings.c.key.in_(deleted)))
        if new:
            upsert = insert(settings)
            changed = {"value": upsert.excluded.value, "updated_at_ms": upsert.excluded.updated_at_ms}
            connection.execute(upsert.on_conflict_do_update(index_elements=["key"], set_=changed), new)
        return _load(connection)


def _load(connection: Connection) -> dict[str, object]:
    return {row.key: row.value for row in connection.execute(select(settings).order_by(settings.c.key))}
