"""Migrations of databases of older versions.

Alembic is imported only by `upgrade`, because that takes longer than opening the database. A new migration needs a
script in versions/, its revision at the end of REVISIONS, and the same change in schema.py, from which new databases
are created.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""All revisions, oldest first. A database with any other one was written by a newer version of this program."""
HEAD = REVISIONS[-1]


def upgrade(connection: Connection, to: str = HEAD) -> None:
    """Run the missing migrations up to the revision `to` in the caller's transaction."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(Path(__file__).parent)
    context = MigrationContext.configure(
        connection, opts={"script": scripts, "fn": lambda revision, _: scripts._upgrade_revs(to, revision)}
    )
    with Operations.context(context):
        context.run_migrations()
