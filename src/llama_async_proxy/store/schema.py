"""All tables of the database. The scripts in migrations/versions build the same schema; a test compares the two.

Timestamps are integers, milliseconds since the Unix epoch.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    event,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("slug", String, nullable=False, unique=True),
    Column("name", String, nullable=False),
    # SQLite's NOCASE covers ASCII only, so the key by which names are compared is computed here and stored.
    Column("name_key", String, nullable=False, unique=True),
    Column("path", String, nullable=False, unique=True),
    Column("origin", String, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("shards", JSON, nullable=False),
    Column("mmproj_path", String),
    Column("description", String),
    Column("version", String),
    Column("family", String),
    Column("quantization", String),
    Column("context_size", BigInteger),
    Column("options", JSON, nullable=False),
    Column("aliases", JSON, nullable=False),
    Column("is_favorite", Boolean, nullable=False),
    Column("is_pinned", Boolean, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Column("last_used_at_ms", BigInteger),
    Column("links", JSON, nullable=False, server_default="[]"),
    Column("is_missing", Boolean, nullable=False, server_default="0"),
    # Clients keep ids. Without autoincrement SQLite reuses the id of a deleted newest row.
    sqlite_autoincrement=True,
)

variants = Table(
    "variants",
    metadata,
    Column("name_key", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("model_id", Integer, ForeignKey("models.id", ondelete="CASCADE"), nullable=False, index=True),
    # Position among the variants of the model.
    Column("position", Integer, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("system_prompt", String),
)

settings = Table(
    "settings",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", JSON, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
)

samples = Table(
    "samples",
    metadata,
    Column("timestamp_ms", Integer, primary_key=True, autoincrement=False),
    Column("cpu_percent", Float, nullable=False),
    Column("cpu_cores", Integer, nullable=False),
    Column("load_average", JSON(none_as_null=True)),
    Column("memory_used_bytes", BigInteger, nullable=False),
    Column("memory_total_bytes", BigInteger, nullable=False),
    Column("memory_available_bytes", BigInteger, nullable=False),
    Column("swap_used_bytes", BigInteger, nullable=False),
    Column("swap_total_bytes", BigInteger, nullable=False),
    Column("disk_used_bytes", BigInteger, nullable=False),
    Column("disk_total_bytes", BigInteger, nullable=False),
    Column("disk_free_bytes", BigInteger, nullable=False),
    Column("gpus", JSON, nullable=False),
    Column("models_loaded", Integer, nullable=False),
    Column("models_memory_bytes", BigInteger, nullable=False),
    Column("requests_total", BigInteger, nullable=False),
    Column("requests_active", Integer, nullable=False),
    Column("requests_errors", BigInteger, nullable=False),
    Column("response_ms", Float),
    Column("uptime_s", Float, nullable=False),
)

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
"""Values in roll-ups. Each has its own count, because a GPU may come and go and response times need traffic."""


def _gauge(name: str) -> tuple[Column[int], Column[float], Column[float], Column[float]]:
    return (
        Column(f"{name}_count", Integer, nullable=False),
        Column(f"{name}_sum", Float, nullable=False),
        Column(f"{name}_min", Float),
        Column(f"{name}_max", Float),
    )


rollups = Table(
    "rollups",
    metadata,
    Column("resolution_s", Integer, primary_key=True),
    Column("start_ms", BigInteger, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    *(column for name in GAUGES for column in _gauge(name)),
    # Rows are stored in the order of the key, so a history is one range of neighbouring pages.
    sqlite_with_rowid=False,
)

logs = Table(
    "logs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("timestamp_ms", BigInteger, nullable=False),
    Column("level", Integer, nullable=False),
    Column("source", String, nullable=False),
    Column("message", String, nullable=False),
    Index(None, "timestamp_ms"),
    Index(None, "level"),
    Index(None, "source"),
    sqlite_autoincrement=True,
)

requests = Table(
    "requests",
    metadata,
    # Clients may choose the id of a request, so it need not be unique.
    Column("row_id", Integer, primary_key=True),
    Column("id", String, nullable=False),
    Column("arrived_at_ms", BigInteger, nullable=False),
    Column("client", String, nullable=False),
    Column("route", String, nullable=False),
    Column("model", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("queued_ms", Float),
    Column("load_ms", Float),
    Column("first_token_ms", Float),
    Column("total_ms", Float, nullable=False),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("tokens_per_second", Float),
    Column("error", String),
    Column("key", String),
    Index(None, "arrived_at_ms"),
    Index(None, "model", "arrived_at_ms"),
    sqlite_autoincrement=True,
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("title", String, nullable=False),
    Column("has_automatic_title", Boolean, nullable=False),
    Column("model", String, nullable=False),
    Column("system_prompt", String),
    Column("sampling", JSON, nullable=False),
    Column("is_pinned", Boolean, nullable=False),
    Column("is_archived", Boolean, nullable=False),
    # True when the title has text of a script without spaces between words.
    Column("is_unspaced", Boolean, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Index(None, "updated_at_ms"),
    sqlite_autoincrement=True,
)

messages = Table(
    "messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    # No cascade: conversations are deleted as a whole, and SQLite limits a chain of cascades to 1000.
    Column("parent_id", ForeignKey("messages.id")),
    Column("role", String, nullable=False),
    Column("content", String, nullable=False),
    Column("reasoning", String),
    Column("model", String),
    Column("status", String, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("is_unspaced", Boolean, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("response_ms", Float),
    Column("prompt_tokens", BigInteger),
    Column("tokens", BigInteger),
    Column("tokens_per_second", Float),
    Index(None, "conversation_id"),
    Index(None, "parent_id"),
    # For finding the unfinished answers of a killed service without reading all rows.
    Index("ix_messages_generating", "id", sqlite_where=text("status = 'generating'")),
    Index("ix_messages_unspaced", "id", sqlite_where=text("is_unspaced = 1")),
    sqlite_autoincrement=True,
)

attachments = Table(
    "attachments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("message_id", ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
    Column("media_type", String, nullable=False),
    Column("name", String, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index(None, "message_id"),
    sqlite_autoincrement=True,
)

FULL_TEXT = (
    """CREATE VIRTUAL TABLE messages_words USING fts5(content, content='messages', content_rowid='id',
    tokenize='unicode61 remove_diacritics 2', prefix='2 3')""",
    """CREATE VIRTUAL TABLE messages_trigrams USING fts5(content, content='messages', content_rowid='id',
    tokenize='trigram')""",
    """CREATE VIRTUAL TABLE titles_words USING fts5(title, content='conversations', content_rowid='id',
    tokenize='unicode61 remove_diacritics 2', prefix='2 3')""",
    # An answer is indexed once, when it is complete.
    """CREATE TRIGGER messages_words_insert AFTER INSERT ON messages WHEN new.status <> 'generating' BEGIN
    INSERT INTO messages_words(rowid, content) VALUES (new.id, new.content); END""",
    """CREATE TRIGGER messages_words_delete AFTER DELETE ON messages WHEN old.status <> 'generating' BEGIN
    INSERT INTO messages_words(messages_words, rowid, content) VALUES ('delete', old.id, old.content); END""",
    """CREATE TRIGGER messages_words_update_new AFTER UPDATE OF content, status ON messages
    WHEN old.status = 'generating' AND new.status <> 'generating' BEGIN
    INSERT INTO messages_words(rowid, content) VALUES (new.id, new.content); END""",
    """CREATE TRIGGER messages_trigrams_insert AFTER INSERT ON messages
    WHEN new.status <> 'generating' AND new.is_unspaced = 1 BEGIN
    INSERT INTO messages_trigrams(rowid, content) VALUES (new.id, new.content); END""",
    """CREATE TRIGGER messages_trigrams_delete AFTER DELETE ON messages
    WHEN old.status <> 'generating' AND old.is_unspaced = 1 BEGIN
    INSERT INTO messages_trigrams(messages_trigrams, rowid, content) VALUES ('delete', old.id, old.content); END""",
    """CREATE TRIGGER messages_trigrams_update_new AFTER UPDATE OF content, status ON messages
    WHEN old.status = 'generating' AND new.status <> 'generating' AND new.is_unspaced = 1 BEGIN
    INSERT INTO messages_trigrams(rowid, content) VALUES (new.id, new.content); END""",
    """CREATE TRIGGER titles_words_insert AFTER INSERT ON conversations BEGIN
    INSERT INTO titles_words(rowid, title) VALUES (new.id, new.title); END""",
    """CREATE TRIGGER titles_words_delete AFTER DELETE ON conversations BEGIN
    INSERT INTO titles_words(titles_words, rowid, title) VALUES ('delete', old.id, old.title); END""",
    """CREATE TRIGGER titles_words_update AFTER UPDATE OF title ON conversations BEGIN
    INSERT INTO titles_words(titles_words, rowid, title) VALUES ('delete', old.id, old.title);
    INSERT INTO titles_words(rowid, title) VALUES (new.id, new.title); END""",
)
"""Search indexes, which hold no text of their own, and the triggers that update them. The triggers rely on messages
changing only while they are generated."""

for _statement in FULL_TEXT:
    event.listen(metadata, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
