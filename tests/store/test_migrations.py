from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from llama_async_proxy.records.chats import NewConversation
from llama_async_proxy.store import migrations, schema
from llama_async_proxy.store.database import Database, examine_database
from llama_async_proxy.store.search import Query
from llama_async_proxy.store.store import Store

FULL_TEXT_TABLES = ("messages_words", "messages_trigrams", "titles_words")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Database]:
    """A database without a table."""
    database = Database(tmp_path / "empty.db")
    with database.writing.begin() as connection:
        tables = (table.name for table in reversed(schema.metadata.sorted_tables))
        for table in (*FULL_TEXT_TABLES, "alembic_version", *tables):
            connection.execute(text(f'DROP TABLE "{table}"'))
        assert definitions(connection) == {}
    yield database
    database.close()


def definitions(connection: Connection) -> dict[str, str]:
    """The statements themselves, as they show what Alembic does not compare: AUTOINCREMENT, WITHOUT ROWID ..."""
    rows = connection.execute(
        text("SELECT name, sql FROM sqlite_master WHERE sql NOTNULL AND name != 'sqlite_sequence'")
    )
    return {row.name: "".join(row.sql.split()) for row in rows}


def is_plain(name: str | None, kind: str, _: object) -> bool:
    """Alembic knows nothing of the tables that SQLite makes for its full-text indexes."""
    return kind != "table" or name is None or not name.startswith(FULL_TEXT_TABLES)


def test_the_migrations_build_the_same_schema_as_a_new_database(database: Database, empty: Database) -> None:
    with empty.writing.begin() as connection:
        migrations.upgrade(connection)
    with database.writing.connect() as new, empty.writing.connect() as upgraded:
        assert definitions(new) == definitions(upgraded)
        assert upgraded.scalar(text("SELECT version_num FROM alembic_version")) == migrations.HEAD
        options = {"compare_server_default": True, "include_name": is_plain}
        context = MigrationContext.configure(upgraded, opts=options)
        assert compare_metadata(context, schema.metadata) == []


def test_the_list_of_revisions_matches_the_scripts() -> None:
    scripts = ScriptDirectory(Path(migrations.__file__).parent)
    oldest_first = reversed(list(scripts.walk_revisions()))
    assert tuple(script.revision for script in oldest_first) == migrations.REVISIONS
    assert scripts.get_heads() == [migrations.HEAD]


def test_a_failed_migration_changes_nothing(empty: Database) -> None:
    with empty.writing.connect() as connection:
        unfinished = connection.begin()
        migrations.upgrade(connection)
        assert "models" in definitions(connection)
        unfinished.rollback()
        assert definitions(connection) == {}


def test_opening_an_older_database_upgrades_it_or_leaves_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "service.db"
    database = Database(path)
    with database.writing.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'older'")
    database.close()

    def upgrade(connection: Connection) -> None:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{migrations.HEAD}'")
        if broken:
            raise LookupError("in its middle")

    monkeypatch.setattr(migrations, "REVISIONS", ("older", migrations.HEAD))
    monkeypatch.setattr(migrations, "upgrade", upgrade)
    broken = True
    with pytest.raises(LookupError):
        Database(path)
    assert examine_database(path).endswith("brought up to date by the next start")
    broken = False
    Database(path).close()
    assert examine_database(path).endswith("MB")


@pytest.mark.parametrize("name", ["service.db", "new.db"])
def test_a_current_and_a_new_database_open_without_alembic_or_the_orm(database: Database, name: str) -> None:
    program = (
        "import sys; from pathlib import Path; from llama_async_proxy.store import database, migrations, store;"
        "database.Database(Path(sys.argv[1])).close();"
        "print(*{'alembic', 'sqlalchemy.orm', 'sqlalchemy.ext.asyncio', 'greenlet'} & sys.modules.keys())"
    )
    loaded = subprocess.check_output([sys.executable, "-c", program, str(database.path.with_name(name))], text=True)
    assert loaded.split() == []


def test_reading_the_configuration_file_loads_no_database_library() -> None:
    program = "import sys; from llama_async_proxy.store import config_file; print('sqlalchemy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"


async def test_a_database_of_the_first_version_keeps_what_it_holds(empty: Database) -> None:
    with empty.writing.begin() as connection:
        migrations.upgrade(connection, "0001")
        connection.execute(text("INSERT INTO settings VALUES ('theme', '\"dark\"', 1)"))
        connection.execute(
            text("INSERT INTO logs (timestamp_ms, level, source, message) VALUES (1, 1, 'service', 'hello')")
        )
    empty.close()
    async with Store.open(empty.path, log_max_rows=lambda: 1000) as store:
        assert await store.preferences.get_all() == {"theme": "dark"}
        assert [line.message for line in await store.logs.query()] == ["hello"]
        chat = await store.chats.create(NewConversation("after the upgrade", "m"))
        assert [hit.conversation_id for hit in await store.search.find(Query("upgrade"))] == [chat.id]


async def test_a_database_of_the_second_version_keeps_its_conversations(empty: Database) -> None:
    with empty.writing.begin() as connection:
        migrations.upgrade(connection, "0002")
        connection.execute(
            text(
                "INSERT INTO conversations (title, has_automatic_title, model, sampling, is_pinned, is_archived,"
                " is_unspaced, created_at_ms, updated_at_ms) VALUES ('Talk', 0, 'm', '{}', 1, 0, 0, 1, 2)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO messages (conversation_id, role, content, status, is_active, is_unspaced, created_at_ms)"
                " VALUES (1, 'user', 'ancient words', 'complete', 1, 0, 1)"
            )
        )
    empty.close()
    async with Store.open(empty.path, log_max_rows=lambda: 1000) as store:
        conversation, messages = await store.chats.thread(1)
        assert (conversation.title, conversation.is_pinned) == ("Talk", True)
        assert [message.content for message in messages] == ["ancient words"]
        assert [hit.conversation_id for hit in await store.search.find(Query("ancient"))] == [1]
    assert examine_database(empty.path).endswith("MB")


@pytest.mark.parametrize(
    ("path", "old", "new", "aliases"),
    [
        ("/m/TinyLlama-1.1B.Q4_0.gguf", "tinyllama-1.1b.q4_0", "TinyLlama-1.1B.Q4_0", ["tinyllama-1.1b.q4_0"]),
        ("/m/\u6a21\u578b.gguf", "model-2", "\u6a21\u578b", ["model-2"]),
        ("/m/plain.gguf", "plain", "plain", []),
        ("/m/Renamed.gguf", "chosen-by-a-person", "chosen-by-a-person", []),
    ],
)
def test_ids_become_the_files_names_and_old_ids_stay_aliases(
    tmp_path: Path, path: str, old: str, new: str, aliases: list[str]
) -> None:
    with sqlite3.connect(tmp_path / "old.db") as database:
        database.execute("CREATE TABLE models (id INTEGER PRIMARY KEY, slug, name, path, aliases)")
        database.execute("INSERT INTO models VALUES (1, ?, 'n', ?, '[]')", (old, path))
    engine = create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('0004')"))
        migrations.upgrade(connection)
        row = connection.execute(text("SELECT slug, aliases, is_missing FROM models")).one()
    engine.dispose()
    assert (row.slug, json.loads(row.aliases), row.is_missing) == (new, aliases, 0)
