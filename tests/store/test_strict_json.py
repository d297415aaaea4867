from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from llama_async_proxy.store import strict_json
from llama_async_proxy.store.database import Database


def test_numbers_that_json_does_not_have_are_not_written() -> None:
    assert strict_json.dumps({"a": [float("nan"), 1.5], "b": float("-inf")}) == '{"a":[null,1.5],"b":null}'


def test_they_are_left_out_of_what_is_read() -> None:
    assert strict_json.loads('{"a": [NaN, 1], "b": -Infinity, "c": {"d": Infinity}, "e": "NaN"}') == {
        "a": [1],
        "c": {},
        "e": "NaN",
    }
    assert strict_json.loads("NaN") is None


def test_stored_rows_are_healed_at_start(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    Database(path).close()
    database = Database(path)
    with database.writing.begin() as connection:
        connection.execute(text("INSERT INTO settings VALUES ('width', '{\"x\": NaN, \"y\": 2}', 1)"))
    database.close()
    database = Database(path)
    with database.reading() as connection:
        assert connection.execute(text("SELECT value FROM settings")).scalar() == '{"y": 2}'
    database.close()
