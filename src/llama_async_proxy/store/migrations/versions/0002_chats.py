"""Conversations, messages, attachments, and the indexes to search them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_conversations()
    create_messages()
    create_attachments()
    create_full_text()


def create_conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("has_automatic_title", sa.Boolean, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("system_prompt", sa.String),
        sa.Column("sampling", sa.JSON, nullable=False),
        sa.Column("is_pinned", sa.Boolean, nullable=False),
        sa.Column("is_archived", sa.Boolean, nullable=False),
        sa.Column("is_unspaced", sa.Boolean, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_conversations_updated_at_ms", "conversations", ["updated_at_ms"])


def create_messages() -> None:
    op.create_table(
        "messages",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("conversation_id", sa.Integer, nullable=False),
        sa.Column("parent_id", sa.Integer),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("content", sa.String, nullable=False),
        sa.Column("reasoning", sa.String),
        sa.Column("model", sa.String),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("is_unspaced", sa.Boolean, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("response_ms", sa.Float),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("tokens", sa.BigInteger),
        sa.Column("tokens_per_second", sa.Float),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name="fk_messages_conversation_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["parent_id"], ["messages.id"], name="fk_messages_parent_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_messages_conversation_id", "messages", ["conversation_id"])
    op.create_index("ix_messages_parent_id", "messages", ["parent_id"])
    op.create_index("ix_messages_generating", "messages", ["id"], sqlite_where=sa.text("status = 'generating'"))
    op.create_index("ix_messages_unspaced", "messages", ["id"], sqlite_where=sa.text("is_unspaced = 1"))


def create_attachments() -> None:
    op.create_table(
        "attachments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("message_id", sa.Integer, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name="fk_attachments_message_id", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_attachments_message_id", "attachments", ["message_id"])


def create_full_text() -> None:
    for statement in FULL_TEXT:
        op.execute(statement)


FULL_TEXT = (
    """CREATE VIRTUAL TABLE messages_words USING fts5(content, content='messages', content_rowid='id',
    tokenize='unicode61 remove_diacritics 2', prefix='2 3')""",
    """CREATE VIRTUAL TABLE messages_trigrams USING fts5(content, content='messages', content_rowid='id',
    tokenize='trigram')""",
    """CREATE VIRTUAL TABLE titles_words USING fts5(title, content='conversations', content_rowid='id',
    tokenize='unicode61 remove_diacritics 2', prefix='2 3')""",
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
