"""Models: files that are gone, links to files, and text ids that keep case and script of the file's name."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import PurePath

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_UNSAFE = re.compile(r"[^\w.~+@=-]+")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def upgrade() -> None:
    op.add_column("models", sa.Column("links", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("models", sa.Column("is_missing", sa.Boolean, nullable=False, server_default="0"))
    _give_ids_as_written()


def _give_ids_as_written() -> None:
    """A model whose text id was made from its file's name gets that name as it is written; the old id stays an alias.

    The rule is the one of store/models.py at this version, repeated here because a migration must not change with it.
    """
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT id, slug, name, path, aliases FROM models ORDER BY id")).all()
    taken = {row.slug for row in rows}
    for row in rows:
        stem = _SHARD.sub("", PurePath(row.path).stem)
        if row.path.startswith(("command:", "router:")):
            continue
        new = _UNSAFE.sub("-", unicodedata.normalize("NFC", stem))[:100].strip("-.")
        lowered = unicodedata.normalize("NFKD", stem.casefold()).encode("ascii", "ignore").decode().lower()
        old = re.sub(r"[^a-z0-9._-]+", "-", lowered)[:100].strip("-._") or "model"
        if not new or new in taken or not re.fullmatch(re.escape(old) + r"(-\d+)?", row.slug):
            continue
        taken.add(new)
        aliases = [*json.loads(row.aliases), row.slug]
        connection.execute(
            sa.text("UPDATE models SET slug = :slug, aliases = :aliases WHERE id = :id"),
            {"slug": new, "aliases": json.dumps(aliases), "id": row.id},
        )
