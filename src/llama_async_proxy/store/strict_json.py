"""JSON columns without NaN and infinities, which Python's JSON has and no browser reads."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from sqlalchemy import JSON, Column, Connection, Table, or_, select, type_coerce, update
from sqlalchemy.types import String

from llama_async_proxy.store import schema

_CONSTANTS = ("NaN", "Infinity")
_HEALED = (schema.models, schema.variants, schema.settings, schema.conversations)
"""Tables whose JSON clients have written."""


class _Constant:
    """Stands for NaN, Infinity or -Infinity."""


def dumps(value: object) -> str:
    """Numbers that JSON does not have become null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return msgspec.json.encode(value).decode()


def loads(text: str) -> Any:
    """Values that JSON does not have are left out: entries of objects and of arrays; null where one stands alone."""
    if not any(constant in text for constant in _CONSTANTS):
        return json.loads(text)
    value = _without(json.loads(text, parse_constant=lambda _: _Constant()))
    return None if isinstance(value, _Constant) else value


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if not isinstance(inner, _Constant)}
    if isinstance(value, list):
        return [_without(inner) for inner in value if not isinstance(inner, _Constant)]
    return value


def heal(connection: Connection) -> int:
    """Write anew what earlier versions stored with such numbers; the number of rows."""
    return sum(
        _heal(connection, table, column)
        for table in _HEALED
        for column in table.columns
        if isinstance(column.type, JSON)
    )


def _heal(connection: Connection, table: Table, column: Column[Any]) -> int:
    text = type_coerce(column, String)
    [key] = table.primary_key.columns
    rows = connection.execute(select(key, column).where(or_(*(text.contains(name) for name in _CONSTANTS)))).all()
    for row_key, value in rows:
        connection.execute(update(table).where(key == row_key).values({column.name: value}))
    return len(rows)
