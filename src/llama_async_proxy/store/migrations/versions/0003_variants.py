"""Variants: further names of a model with defaults of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "variants",
        sa.Column("name_key", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("model_id", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("system_prompt", sa.String),
        sa.PrimaryKeyConstraint("name_key", name="pk_variants"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_variants_model_id", ondelete="CASCADE"),
    )
    op.create_index("ix_variants_model_id", "variants", ["model_id"])
