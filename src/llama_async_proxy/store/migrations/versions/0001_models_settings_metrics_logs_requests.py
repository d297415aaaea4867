"""Models, settings, metrics, logs and requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

GAUGES = (
    "cpu_percent",
    "memory_percent",
    "disk_percent",
    "swap_percent",
    "gpu_percent",
    "gpu_memory_used_bytes",
    "gpu_memory_total_bytes",
    "response_ms",
)


def upgrade() -> None:
    create_models()
    create_settings()
    create_samples()
    create_rollups()
    create_logs()
    create_requests()


def create_models() -> None:
    op.create_table(
        "models",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("slug", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("name_key", sa.String, nullable=False),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("origin", sa.String, nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("shards", sa.JSON, nullable=False),
        sa.Column("mmproj_path", sa.String),
        sa.Column("description", sa.String),
        sa.Column("version", sa.String),
        sa.Column("family", sa.String),
        sa.Column("quantization", sa.String),
        sa.Column("context_size", sa.BigInteger),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("aliases", sa.JSON, nullable=False),
        sa.Column("is_favorite", sa.Boolean, nullable=False),
        sa.Column("is_pinned", sa.Boolean, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
        sa.Column("last_used_at_ms", sa.BigInteger),
        sa.UniqueConstraint("slug", name="uq_models_slug"),
        sa.UniqueConstraint("name_key", name="uq_models_name_key"),
        sa.UniqueConstraint("path", name="uq_models_path"),
        sqlite_autoincrement=True,
    )


def create_settings() -> None:
    op.create_table(
        "settings",
        sa.Column("key", sa.String, nullable=False),
        sa.Column("value", sa.JSON, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_settings"),
    )


def create_samples() -> None:
    op.create_table(
        "samples",
        sa.Column("timestamp_ms", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("cpu_percent", sa.Float, nullable=False),
        sa.Column("cpu_cores", sa.Integer, nullable=False),
        sa.Column("load_average", sa.JSON),
        sa.Column("memory_used_bytes", sa.BigInteger, nullable=False),
        sa.Column("memory_total_bytes", sa.BigInteger, nullable=False),
        sa.Column("memory_available_bytes", sa.BigInteger, nullable=False),
        sa.Column("swap_used_bytes", sa.BigInteger, nullable=False),
        sa.Column("swap_total_bytes", sa.BigInteger, nullable=False),
        sa.Column("disk_used_bytes", sa.BigInteger, nullable=False),
        sa.Column("disk_total_bytes", sa.BigInteger, nullable=False),
        sa.Column("disk_free_bytes", sa.BigInteger, nullable=False),
        sa.Column("gpus", sa.JSON, nullable=False),
        sa.Column("models_loaded", sa.Integer, nullable=False),
        sa.Column("models_memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("requests_total", sa.BigInteger, nullable=False),
        sa.Column("requests_active", sa.Integer, nullable=False),
        sa.Column("requests_errors", sa.BigInteger, nullable=False),
        sa.Column("response_ms", sa.Float),
        sa.Column("uptime_s", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("timestamp_ms", name="pk_samples"),
    )


def create_rollups() -> None:
    gauges: list[sa.Column[int] | sa.Column[float]] = []
    for name in GAUGES:
        gauges += [
            sa.Column(f"{name}_count", sa.Integer, nullable=False),
            sa.Column(f"{name}_sum", sa.Float, nullable=False),
            sa.Column(f"{name}_min", sa.Float),
            sa.Column(f"{name}_max", sa.Float),
        ]
    op.create_table(
        "rollups",
        sa.Column("resolution_s", sa.Integer, nullable=False),
        sa.Column("start_ms", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        *gauges,
        sa.PrimaryKeyConstraint("resolution_s", "start_ms", name="pk_rollups"),
        sqlite_with_rowid=False,
    )


def create_logs() -> None:
    op.create_table(
        "logs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("timestamp_ms", sa.BigInteger, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("message", sa.String, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_logs_timestamp_ms", "logs", ["timestamp_ms"])
    op.create_index("ix_logs_level", "logs", ["level"])
    op.create_index("ix_logs_source", "logs", ["source"])


def create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("row_id", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("arrived_at_ms", sa.BigInteger, nullable=False),
        sa.Column("client", sa.String, nullable=False),
        sa.Column("route", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("queued_ms", sa.Float),
        sa.Column("load_ms", sa.Float),
        sa.Column("first_token_ms", sa.Float),
        sa.Column("total_ms", sa.Float, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("tokens_per_second", sa.Float),
        sa.Column("error", sa.String),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_requests_arrived_at_ms", "requests", ["arrived_at_ms"])
    op.create_index("ix_requests_model_arrived_at_ms", "requests", ["model", "arrived_at_ms"])
