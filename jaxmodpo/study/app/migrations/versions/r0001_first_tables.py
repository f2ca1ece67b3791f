"""The first version of a study's tables.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("actor", sa.String(length=20), nullable=False),
        sa.Column("event", sa.String(length=40), nullable=False),
        sa.Column("rater", sa.String(length=12), server_default="", nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "facts",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_facts")),
    )
    op.create_table(
        "raters",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pseudonym", sa.String(length=12), nullable=False),
        sa.Column("source", sa.String(length=10), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=True),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("assignment", sa.Integer(), nullable=True),
        sa.Column("holds_place", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("last_seen_at", sa.Float(precision=53), nullable=False),
        sa.Column("consent_version", sa.Text(), nullable=True),
        sa.Column("consented_at", sa.Float(precision=53), nullable=True),
        sa.Column("begun_at", sa.Float(precision=53), nullable=True),
        sa.Column("ended_at", sa.Float(precision=53), nullable=True),
        sa.Column("excluded", sa.Text(), server_default="", nullable=False),
        sa.Column("rejected", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint(
            "status IN ('invited', 'active', 'finished', 'withdrawn', 'declined', 'abandoned', 'revoked')",
            name=op.f("ck_raters_status"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_raters")),
        sa.UniqueConstraint("pseudonym", name=op.f("uq_raters_pseudonym")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_raters_token_hash")),
    )
    op.create_index(
        "ix_raters_place",
        "raters",
        ["assignment"],
        unique=True,
        sqlite_where=sa.text("holds_place"),
        postgresql_where=sa.text("holds_place"),
    )
    op.create_table(
        "answers",
        sa.Column("rater_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("criterion", sa.Text(), nullable=False),
        sa.Column("side", sa.String(length=5), nullable=False),
        sa.Column("answered_at", sa.Float(precision=53), nullable=False),
        sa.CheckConstraint("side IN ('left', 'right', 'equal')", name=op.f("ck_answers_side")),
        sa.ForeignKeyConstraint(["rater_id"], ["raters.id"], name=op.f("fk_answers_rater_id")),
        sa.PrimaryKeyConstraint("rater_id", "item_id", "criterion", name=op.f("pk_answers")),
    )
    op.create_table(
        "participants",
        sa.Column("rater_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.Text(), server_default="", nullable=False),
        sa.Column("prolific_pid", sa.String(length=64), nullable=True),
        sa.Column("prolific_study", sa.String(length=64), nullable=True),
        sa.Column("prolific_session", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["rater_id"], ["raters.id"], name=op.f("fk_participants_rater_id")),
        sa.PrimaryKeyConstraint("rater_id", name=op.f("pk_participants")),
        sa.UniqueConstraint("prolific_pid", name=op.f("uq_participants_prolific_pid")),
    )
    op.create_table(
        "revisions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rater_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("criterion", sa.Text(), nullable=False),
        sa.Column("side", sa.String(length=5), nullable=False),
        sa.Column("answered_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["rater_id"], ["raters.id"], name=op.f("fk_revisions_rater_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revisions")),
    )
    op.create_index(op.f("ix_revisions_rater_id"), "revisions", ["rater_id"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("rater_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["rater_id"], ["raters.id"], name=op.f("fk_sessions_rater_id")),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_rater_id"), "sessions", ["rater_id"], unique=False)
    op.create_table(
        "visits",
        sa.Column("rater_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("first_shown_at", sa.Float(precision=53), nullable=False),
        sa.Column("last_answered_at", sa.Float(precision=53), nullable=True),
        sa.Column("showings", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["rater_id"], ["raters.id"], name=op.f("fk_visits_rater_id")),
        sa.PrimaryKeyConstraint("rater_id", "item_id", name=op.f("pk_visits")),
    )


def downgrade() -> None:
    for table in (
        "visits",
        "sessions",
        "revisions",
        "participants",
        "answers",
        "raters",
        "facts",
        "audit",
    ):
        op.drop_table(table)
