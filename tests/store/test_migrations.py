from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.schema import CreateIndex, CreateTable

from llama_async_proxy.store import migrations, schema
from llama_async_proxy.store.database import Database


def test_the_scripts_build_what_the_schema_says(database: Database) -> None:
    with database.writing.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []
        assert _definitions(connection) == {
            table.name: " ".join(str(CreateTable(table).compile(connection)).split())
            for table in schema.metadata.sorted_tables
        } | {
            index.name: " ".join(str(CreateIndex(index).compile(connection)).split())
            for table in schema.metadata.sorted_tables
            for index in table.indexes
        }


def _definitions(connection: Connection) -> dict[str, str]:
    """What Alembic does not compare, such as AUTOINCREMENT and WITHOUT ROWID, stands in the statements themselves."""
    ours = "sql NOTNULL AND name != 'alembic_version' AND name NOT LIKE 'sqlite_%'"
    rows = connection.execute(text(f"SELECT name, sql FROM sqlite_master WHERE {ours}"))
    return {row.name: " ".join(row.sql.split()) for row in rows}


def test_the_list_of_revisions_is_that_of_the_scripts() -> None:
    scripts = ScriptDirectory(Path(migrations.__file__).parent)
    oldest_first = reversed(list(scripts.walk_revisions()))
    assert tuple(script.revision for script in oldest_first) == migrations.REVISIONS
    assert scripts.get_heads() == [migrations.HEAD]


def test_a_migration_that_does_not_finish_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "service.db")
    try:
        with database.writing.connect() as connection:
            for table in ("alembic_version", *schema.metadata.tables):
                with connection.begin():
                    connection.execute(text(f'DROP TABLE "{table}"'))
            unfinished = connection.begin()
            migrations.upgrade(connection)
            assert "models" in inspect(connection).get_table_names()
            unfinished.rollback()
            assert _definitions(connection) == {}
    finally:
        database.close()


def test_a_current_database_opens_without_alembic_or_the_orm(database: Database) -> None:
    program = (
        "import sys; from pathlib import Path; from llama_async_proxy.store import database, migrations, store;"
        "database.Database(Path(sys.argv[1])).close();"
        "print(*{'alembic', 'sqlalchemy.orm', 'sqlalchemy.ext.asyncio', 'greenlet'} & sys.modules.keys())"
    )
    loaded = subprocess.check_output([sys.executable, "-c", program, str(database.path)], text=True)
    assert loaded.split() == []


def test_reading_the_configuration_file_loads_no_database_library() -> None:
    program = "import sys; from llama_async_proxy.store import config_file; print('sqlalchemy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"
