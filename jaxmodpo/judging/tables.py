"""The ledger's tables, and a vote as a row of one.

Rows hold ids, never a persona's or a reply's text.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError

from jaxmodpo.errors import UserError
from jaxmodpo.files import Row
from jaxmodpo.judging.judge import Kind, Status
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


def _types_of(column: sql.Column[Any]) -> tuple[type, ...]:
    """Return the types of Python that a column's values may have where we wrote them."""
    if isinstance(column.type, sql.String):
        return (str,) if not column.nullable else (str, type(None))
    if column.name == "repeat":
        return (int,)
    # A server's numbers are what its driver makes of them.
    return (object,)


_TYPES = tuple(_types_of(column) for column in COLUMNS)
_NAMES = tuple(column.name for column in COLUMNS)
_EMPTY: Row = dict.fromkeys(_NAMES, "") | {"repeat": 0}
_SHOWN = _NAMES.index("shown")
_ORDER = _NAMES.index("order")
_KIND = _NAMES.index("kind")


def row_of(vote: Vote) -> Row:
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


def vote_of(row: Sequence[Any]) -> Vote:
    """Return the vote of a row that has :data:`COLUMNS`.

    Raises:
        UserError: a value is of another type than we write.
    """
    _refuse_other_types(row[0], tuple(map(type, row)))
    # A million rows pass here: by place, since a mapping of names would take as long as all else.
    values = list(row)
    values[_SHOWN] = _loaded(row[_SHOWN])
    answer = row[_ORDER]
    if answer is None:
        return Vote(*values)
    if row[_KIND] == "score":
        values[_ORDER] = None
        return Vote(*values, score=_loaded_score(answer))
    values[_ORDER] = _loaded(answer)
    return Vote(*values)


def answer_of(kind: Kind, shown: str, answer: str | None, status: Status) -> Vote:
    """Return the part of a vote that says what was answered, from its columns; the rest is empty.

    Raises:
        UserError: ids or a score that are none.
    """
    values = {"kind": kind, "shown": shown, "order": answer, "status": status}
    return vote_of([values.get(name, _EMPTY[name]) for name in _NAMES])


def _refuse_other_types(key: Any, types: tuple[type, ...]) -> None:
    """Refuse a row with a value of another type than we write: SQLite keeps any in any column.

    Raises:
        UserError: there is one.
    """
    if not _are_ours(types):
        raise _other_type(key)


def _other_type(key: Any) -> UserError:
    return UserError(
        f"the ledger's vote {key!r} is damaged: a value is of another type than we write"
    )


class VoteColumns(NamedTuple):
    """Some votes, oldest first, column by column: what statistics read, and no more.

    ``shown`` and ``order`` are texts as the ledger has them, of which :func:`answer_of` makes ids.
    """

    key: Sequence[str]
    kind: Sequence[Kind]
    question_id: Sequence[str]
    persona_id: Sequence[str]
    criterion: Sequence[str]
    repeat: Sequence[int]
    shown: Sequence[str]
    order: Sequence[str | None]
    status: Sequence[Status]
    model: Sequence[str]
    judge: Sequence[str]
    run: Sequence[str]


STATISTICS_COLUMNS = [VOTES.c[name] for name in VoteColumns._fields]


def columns_of(rows: Sequence[Sequence[Any]]) -> VoteColumns:
    """Return the columns of rows that have :data:`STATISTICS_COLUMNS`; of one row at least.

    Raises:
        UserError: a value is of another type than we write.
    """
    columns = VoteColumns(*zip(*rows, strict=True))
    for name, column in zip(VoteColumns._fields, columns, strict=True):
        allowed = _types_of(VOTES.c[name])
        if all(issubclass(type_of_value, allowed) for type_of_value in set(map(type, column))):
            continue
        for key, value in zip(columns.key, column, strict=True):
            if not isinstance(value, allowed):
                raise _other_type(key)
    return columns


# Remembered, since the rows of a ledger have the same few types.
@functools.lru_cache(maxsize=256)
def _are_ours(types: tuple[type, ...]) -> bool:
    return all(
        issubclass(type_of_value, allowed)
        for type_of_value, allowed in zip(types, _TYPES, strict=True)
    )


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
