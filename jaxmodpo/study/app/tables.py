"""The tables of a study's database.

Answers stand under a pseudonym. What leads to a person (a participant's id at Prolific, the label
of a link) stands in ``participants`` alone, and no table has a place for an address of a network.

Moments are seconds since 1970 (UTC), of the server's clock. The migrations beside this module make
these tables; a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sql

METADATA = sql.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

STATUSES = ("invited", "active", "finished", "withdrawn", "declined", "abandoned", "revoked")
"""where a rater stands: ``invited`` has not consented yet, ``active`` has, ``declined`` did not,
``abandoned`` lost the place to another rater after too long a time, ``revoked`` has a link that
leads nowhere any more"""

_MOMENT = sql.Float(53)

FACTS = sql.Table(
    "facts",
    METADATA,
    sql.Column("name", sql.String(40), primary_key=True),
    sql.Column("value", sql.Text, nullable=False),
)
"""what holds for the whole study, as the fingerprint of its file"""

RATERS = sql.Table(
    "raters",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("pseudonym", sql.String(12), nullable=False, unique=True),
    sql.Column("source", sql.String(10), nullable=False),
    sql.Column("token_hash", sql.String(64), unique=True),
    sql.Column("status", sql.String(10), nullable=False),
    sql.Column("assignment", sql.Integer),
    # A rater who left keeps the number, by which the answers can be read; the place is free again.
    sql.Column("holds_place", sql.Boolean, nullable=False),
    sql.Column("created_at", _MOMENT, nullable=False),
    sql.Column("last_seen_at", _MOMENT, nullable=False),
    sql.Column("consent_version", sql.Text),
    sql.Column("consented_at", _MOMENT),
    sql.Column("begun_at", _MOMENT),
    sql.Column("ended_at", _MOMENT),
    sql.Column("excluded", sql.Text, nullable=False, server_default=""),
    sql.Column("rejected", sql.Text, nullable=False, server_default=""),
    sql.CheckConstraint(sql.column("status").in_(STATUSES), name="status"),
)
"""``excluded`` and ``rejected`` are reasons: left out of the analysis, not paid; two decisions"""

sql.Index(
    "ix_raters_place",
    RATERS.c.assignment,
    unique=True,
    sqlite_where=sql.text("holds_place"),
    postgresql_where=sql.text("holds_place"),
)


def _rater_id(*, is_key: bool) -> sql.Column[int]:
    return sql.Column(
        "rater_id",
        sql.ForeignKey("raters.id"),
        primary_key=is_key,
        nullable=False,
        index=not is_key,
    )


PARTICIPANTS = sql.Table(
    "participants",
    METADATA,
    _rater_id(is_key=True),
    sql.Column("label", sql.Text, nullable=False, server_default=""),
    sql.Column("prolific_pid", sql.String(64), unique=True),
    sql.Column("prolific_study", sql.String(64)),
    sql.Column("prolific_session", sql.String(64)),
)
"""all that leads from a pseudonym to a person; the row goes where answers are deleted"""

SESSIONS = sql.Table(
    "sessions",
    METADATA,
    sql.Column("token_hash", sql.String(64), primary_key=True),
    _rater_id(is_key=False),
    sql.Column("created_at", _MOMENT, nullable=False),
)
"""browsers in which a rater is known"""

ANSWERS = sql.Table(
    "answers",
    METADATA,
    _rater_id(is_key=True),
    sql.Column("item_id", sql.Text, primary_key=True),
    sql.Column("criterion", sql.Text, primary_key=True),
    sql.Column("side", sql.String(5), nullable=False),
    sql.Column("answered_at", _MOMENT, nullable=False),
    sql.CheckConstraint(sql.column("side").in_(("left", "right", "equal")), name="side"),
)
"""the answer that holds, one for each criterion of an item"""

REVISIONS = sql.Table(
    "revisions",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    _rater_id(is_key=False),
    sql.Column("item_id", sql.Text, nullable=False),
    sql.Column("criterion", sql.Text, nullable=False),
    sql.Column("side", sql.String(5), nullable=False),
    sql.Column("answered_at", _MOMENT, nullable=False),
)
"""answers that a rater changed later, as they were before"""

VISITS = sql.Table(
    "visits",
    METADATA,
    _rater_id(is_key=True),
    sql.Column("item_id", sql.Text, primary_key=True),
    sql.Column("first_shown_at", _MOMENT, nullable=False),
    sql.Column("last_answered_at", _MOMENT),
    sql.Column("showings", sql.Integer, nullable=False),
    sql.Column("reason", sql.Text, nullable=False, server_default=""),
)
"""how long a rater had an item before them, and what they wrote to it"""

AUDIT = sql.Table(
    "audit",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("at", _MOMENT, nullable=False),
    sql.Column("actor", sql.String(20), nullable=False),
    sql.Column("event", sql.String(40), nullable=False),
    sql.Column("rater", sql.String(12), nullable=False, server_default=""),
    sql.Column("detail", sql.Text, nullable=False, server_default=""),
)
"""who did what: consent, withdrawal, links, decisions, exports; it names pseudonyms alone"""
