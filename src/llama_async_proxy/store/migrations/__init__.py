"""How a database of an older version becomes one of this version. Importing this costs nothing; Alembic is loaded
only by `upgrade`, because it takes longer than opening the database.

A new migration is a script in versions/, its revision at the end of REVISIONS, and the same change in schema.py, from
which new databases are made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""Oldest first. A database with any other revision was written by a newer version of this program."""
HEAD = REVISIONS[-1]


def upgrade(connection: Connection, to: str = HEAD) -> None:
    """Run what is missing up to the revision `to`, inside the caller's transaction: all of it or nothing."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(Path(__file__).parent)
    context = MigrationContext.configure(
        connection, opts={"script": scripts, "fn": lambda revision, _: scripts._upgrade_revs(to, revision)}
    )
    with Operations.context(context):
        context.run_migrations()
