"""The ledger's tables, and a vote as a row of one.

Rows hold ids, never a persona's or a reply's text.
"""

from __future__ import annotations

import functools
import json
import time
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError

from jaxmodpo.errors import UserError
from jaxmodpo.judging.votes import FIELDS, Vote
from jaxmodpo.parsing import parse_json
from jaxmodpo.schema import is_number

TABLES = sql.MetaData()

# Rows are only ever added, and their numbers grow: the newest of two votes is the one with the
# higher number, whatever the clocks of the machines say that wrote them.
VOTES = sql.Table(
    "votes",
    TABLES,
    # SQLite counts rows by itself only where the column is its plain INTEGER.
    sql.Column("id", sql.BigInteger().with_variant(sql.Integer, "sqlite"), primary_key=True),
    sql.Column("key", sql.String(32), nullable=False),
    sql.Column("run", sql.String(64), nullable=False),
    sql.Column("judge", sql.Text, nullable=False),
    sql.Column("call", sql.String(32), nullable=False),
    sql.Column("kind", sql.String(8), nullable=False),
    sql.Column("question_id", sql.Text, nullable=False),
    sql.Column("persona_id", sql.Text, nullable=False),
    sql.Column("criterion", sql.Text, nullable=False),
    sql.Column("repeat", sql.Integer, nullable=False),
    sql.Column("shown", sql.Text, nullable=False),
    # The answer as JSON: a list of ids, or the number of a score. A column of its own for scores
    # would be missing in every ledger that was begun without one.
    sql.Column("order", sql.Text),
    sql.Column("status", sql.String(16), nullable=False),
    sql.Column("raw", sql.Text, nullable=False),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("prompt_tokens", sql.Float),
    sql.Column("cached_tokens", sql.Float),
    sql.Column("completion_tokens", sql.Float),
    sql.Column("cost", sql.Float),
    sql.Column("request_id", sql.Text, nullable=False),
    sql.Column("time", sql.String(24), nullable=False),
    sql.Index("votes_by_key", "key"),
    sql.Index("votes_by_run", "run"),
)

# The key is the table's primary key, so that the database itself refuses a second claim on a call.
CLAIMS = sql.Table(
    "claims",
    TABLES,
    sql.Column("key", sql.String(32), primary_key=True),
    sql.Column("owner", sql.Text, nullable=False),
    sql.Column("until", sql.Float, nullable=False),
)

BATCHES = sql.Table(
    "batches",
    TABLES,
    sql.Column("tag", sql.String(32), primary_key=True),
    sql.Column("run", sql.String(64), nullable=False),
    sql.Column("batch_id", sql.Text, nullable=False),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("requests", sql.Integer, nullable=False),
    sql.Column("time", sql.String(24), nullable=False),
)

COLUMNS = [VOTES.c[name] for name in FIELDS if name != "score"]


def _is_required_text(column: sql.Column[Any]) -> bool:
    return isinstance(column.type, sql.String) and not column.nullable


_TEXTS = tuple(column.name for column in COLUMNS if _is_required_text(column))


def row_of(vote: Vote) -> dict[str, Any]:
    """Return the columns of a vote."""
    row = {column.name: getattr(vote, column.name) for column in COLUMNS}
    row["shown"] = _dumped(vote.shown)
    if vote.score is not None:
        row["order"] = json.dumps(vote.score, allow_nan=False)
    elif vote.order is not None:
        row["order"] = _dumped(vote.order)
    # What a server said may be anything that JSON can hold.
    for name in ("raw", "model", "request_id"):
        row[name] = _storable(row[name])
    return row


def _storable(text: str) -> str:
    """Return a text that a database takes: Postgres takes no zero bytes, and none takes half of a
    surrogate pair.
    """
    text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def vote_of(row: sql.Row[*tuple[Any, ...]]) -> Vote:
    """Return the vote of a row that has :data:`COLUMNS`.

    Raises:
        UserError: a value is of another type than we write.
    """
    values = row._asdict()
    # SQLite keeps values of any type in any column.
    texts_are_texts = all(isinstance(values[name], str) for name in _TEXTS)
    if not texts_are_texts or not isinstance(values["repeat"], int):
        raise UserError(
            f"the ledger's vote {values['key']!r} is damaged: a value is of another type than we"
            " write"
        )
    values["shown"] = _loaded(values["shown"])
    answer = values.pop("order")
    order = None
    score = None
    if answer is not None and values["kind"] == "score":
        score = _loaded_score(answer)
    elif answer is not None:
        order = _loaded(answer)
    return Vote(**values, order=order, score=score)


def _loaded_score(text: str) -> float:
    try:
        score: Any = parse_json(text)
    except ValueError:
        score = text
    if not is_number(score):
        raise UserError(
            f"a vote of the ledger is damaged: the score in it is no number: {text[:60]!r}"
        )
    return float(score)


# Remembered, since a million votes name the same few replies, in the same few orders.
@functools.lru_cache(maxsize=2**16)
def _dumped(ids: tuple[str, ...]) -> str:
    return json.dumps(ids, ensure_ascii=False)


@functools.lru_cache(maxsize=2**16)
def _loaded(text: str) -> tuple[str, ...]:
    try:
        ids = parse_json(text)
    except ValueError:
        ids = None
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise UserError(
            f"a vote of the ledger is damaged: the ids in it are no list of texts: {text[:60]!r}"
        )
    return tuple(ids)


def create_tables(engine: sql.Engine) -> None:
    """Create what is missing; of two processes that find nothing, one comes too late and looks
    again.
    """
    try:
        TABLES.create_all(engine)
    except DBAPIError:
        time.sleep(0.2)
        TABLES.create_all(engine)
