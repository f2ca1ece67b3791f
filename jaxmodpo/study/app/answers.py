"""What raters answer: stored at once, with what it was before and how long an item was open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from jaxmodpo.judging.database import upsert
from jaxmodpo.study.annotations import Annotation, preferred
from jaxmodpo.study.app.clock import Clock
from jaxmodpo.study.app.database import Database
from jaxmodpo.study.app.raters import Rater
from jaxmodpo.study.app.tables import ANSWERS, RATERS, REVISIONS, VISITS
from jaxmodpo.study.study_file import Choice, StudyFile


@dataclass(frozen=True)
class ItemAnswers:
    """What a rater answered to one item so far."""

    sides: Mapping[str, Choice]
    """by criterion"""
    reason: str


@dataclass(frozen=True)
class StoredAnswer:
    """An answer with whose it is and when it was given."""

    annotation: Annotation
    answered_at: float


# --------------------------------------------------------------------------- statements

# Made once: to make one takes longer than to run it.

_OF_ITEM = {"rater": sql.bindparam("rater"), "item": sql.bindparam("item")}


def _of_item(table: sql.Table) -> sql.ColumnElement[bool]:
    """Return the condition for rows of one rater and item."""
    return (table.c.rater_id == _OF_ITEM["rater"]) & (table.c.item_id == _OF_ITEM["item"])


_SIDES = sql.select(ANSWERS.c.criterion, ANSWERS.c.side).where(_of_item(ANSWERS))
_REASON = sql.select(VISITS.c.reason).where(_of_item(VISITS))
_COUNTS = (
    sql.select(ANSWERS.c.item_id, sql.func.count())
    .where(ANSWERS.c.rater_id == _OF_ITEM["rater"])
    .group_by(ANSWERS.c.item_id)
)
_SEEN = (
    RATERS.update()
    .where(RATERS.c.id == _OF_ITEM["rater"])
    .values(last_seen_at=sql.bindparam("now"))
)
_ANSWERED = VISITS.update().where(_of_item(VISITS)).values(last_answered_at=sql.bindparam("now"))
_PUT_REASON = VISITS.update().where(_of_item(VISITS)).values(reason=sql.bindparam("reason"))

_COLUMNS = ("rater_id", "item_id", "criterion", "side", "answered_at")
_KEEP_OLD = REVISIONS.insert().from_select(
    _COLUMNS,
    sql.select(*(ANSWERS.c[name] for name in _COLUMNS))
    .where(_of_item(ANSWERS))
    .where(ANSWERS.c.criterion == sql.bindparam("criterion")),
)


class _Statements:
    """Statements that each kind of database has in words of its own.

    Attributes:
        show: notes that an item is shown.
        put: stores an answer.
    """

    def __init__(self, insert: Any) -> None:
        now = sql.bindparam("now")
        side = sql.bindparam("side")
        self.show = (
            insert(VISITS)
            .values(
                rater_id=_OF_ITEM["rater"],
                item_id=_OF_ITEM["item"],
                first_shown_at=now,
                showings=1,
                reason="",
            )
            .on_conflict_do_update(
                index_elements=[VISITS.c.rater_id, VISITS.c.item_id],
                set_={"showings": VISITS.c.showings + 1},
            )
        )
        self.put = (
            insert(ANSWERS)
            .values(
                rater_id=_OF_ITEM["rater"],
                item_id=_OF_ITEM["item"],
                criterion=sql.bindparam("criterion"),
                side=side,
                answered_at=now,
            )
            .on_conflict_do_update(
                index_elements=[ANSWERS.c.rater_id, ANSWERS.c.item_id, ANSWERS.c.criterion],
                set_={"side": side, "answered_at": now},
            )
        )


def _sides(connection: sql.Connection, of_item: Mapping[str, Any]) -> dict[str, Choice]:
    """Return a rater's answers to an item so far, by criterion."""
    return {row.criterion: row.side for row in connection.execute(_SIDES, of_item)}


# --------------------------------------------------------------------------- answers


class Answers:
    """The answers of a study."""

    def __init__(self, database: Database, study: StudyFile, clock: Clock) -> None:
        self._database = database
        self._study = study
        self._clock = clock
        self._items = {item.item_id: item for item in study.items}
        self._statements = _Statements(upsert(database.engine))
        self._a_is_left = {
            (assignment.number, place.item_id): place.a_is_left
            for assignment in study.assignments
            for place in assignment.places
        }

    def show(self, rater: Rater, item_id: str) -> ItemAnswers:
        """Note that an item is shown, and return what was answered to it so far."""

        def work(connection: sql.Connection) -> ItemAnswers:
            now = self._clock.now()
            of_item = {"rater": rater.id, "item": item_id}
            connection.execute(self._statements.show, {**of_item, "now": now})
            connection.execute(_SEEN, {"rater": rater.id, "now": now})
            reason = connection.execute(_REASON, of_item).scalar_one_or_none() or ""
            return ItemAnswers(_sides(connection, of_item), reason)

        return self._database.writing(work)

    def store(
        self, rater: Rater, item_id: str, sides: Mapping[str, Choice], reason: str | None = None
    ) -> None:
        """Store answers to some criteria of an item; when this returns they are on the disk.

        The same answer twice is stored once. One that changes leaves what it was in the revisions.

        Args:
            sides: by criterion.
            reason: what the rater wrote to the item; None leaves it as it is.
        """

        def work(connection: sql.Connection) -> None:
            # Of two changes the one that is made later has the later moment.
            now = self._clock.now()
            of_item = {"rater": rater.id, "item": item_id}
            before = _sides(connection, of_item)
            changed = {name: side for name, side in sides.items() if before.get(name) != side}
            for criterion, side in changed.items():
                answer = {**of_item, "criterion": criterion}
                # Insert and upsert alone touch the row: of two tabs one comes after the other.
                connection.execute(_KEEP_OLD, answer)
                connection.execute(self._statements.put, {**answer, "side": side, "now": now})
            if changed:
                connection.execute(_ANSWERED, {**of_item, "now": now})
            if reason is not None:
                connection.execute(_PUT_REASON, {**of_item, "reason": reason})
            connection.execute(_SEEN, {"rater": rater.id, "now": now})

        self._database.writing(work)

    def counts(self, rater: Rater) -> dict[str, int]:
        """Return how many criteria a rater answered of each item, by its id."""
        of_rater = {"rater": rater.id}
        return self._database.reading(
            lambda connection: {row[0]: row[1] for row in connection.execute(_COUNTS, of_rater)}
        )

    def of(self, rater: Rater) -> list[Annotation]:
        """Return a rater's answers."""
        return [stored.annotation for stored in self._read(RATERS.c.id == rater.id)]

    def all(self) -> list[StoredAnswer]:
        """Return everybody's answers, by rater, in the order of the study's items and criteria."""
        return self._read(sql.true())

    def revisions(self) -> dict[str, int]:
        """Return how many answers each rater changed, by pseudonym."""
        query = (
            sql.select(RATERS.c.pseudonym, sql.func.count())
            .join(REVISIONS, REVISIONS.c.rater_id == RATERS.c.id)
            .group_by(RATERS.c.pseudonym)
        )
        return self._database.reading(
            lambda connection: {row[0]: row[1] for row in connection.execute(query)}
        )

    def _read(self, condition: sql.ColumnElement[bool]) -> list[StoredAnswer]:
        query = (
            sql.select(
                RATERS.c.pseudonym,
                RATERS.c.assignment,
                RATERS.c.excluded,
                ANSWERS.c.item_id,
                ANSWERS.c.criterion,
                ANSWERS.c.side,
                ANSWERS.c.answered_at,
                VISITS.c.first_shown_at,
                VISITS.c.last_answered_at,
                VISITS.c.reason,
            )
            .join(ANSWERS, ANSWERS.c.rater_id == RATERS.c.id)
            .join(
                VISITS,
                (VISITS.c.rater_id == RATERS.c.id) & (VISITS.c.item_id == ANSWERS.c.item_id),
            )
            .where(condition)
        )
        rows = self._database.reading(lambda connection: connection.execute(query).all())
        stored: list[StoredAnswer] = []
        for row in rows:
            fields = dict(zip(row._fields, row, strict=True))
            stored.append(StoredAnswer(self._annotation(fields), row.answered_at))
        item_order = {item.item_id: number for number, item in enumerate(self._study.items)}
        names = [criterion.name for criterion in self._study.criteria]
        criterion_order = {name: number for number, name in enumerate(names)}

        def order(answer: StoredAnswer) -> tuple[str, int, int]:
            annotation = answer.annotation
            return (
                annotation.rater,
                item_order[annotation.item_id],
                criterion_order[annotation.criterion],
            )

        return sorted(stored, key=order)

    def _annotation(self, row: Mapping[str, Any]) -> Annotation:
        item = self._items[row["item_id"]]
        a_is_left = self._a_is_left[row["assignment"], item.item_id]
        answered = row["last_answered_at"]
        seconds = -1.0 if answered is None else round(answered - row["first_shown_at"], 2)
        return Annotation(
            rater=row["pseudonym"],
            kind=item.kind,
            question_id=item.question_id,
            reply=item.reply,
            item_id=item.item_id,
            criterion=row["criterion"],
            choice=preferred(row["side"], a_is_left=a_is_left),
            side=row["side"],
            # Clocks of two machines on one database differ: then the time is not known.
            seconds=seconds if seconds >= 0 else -1.0,
            excluded=row["excluded"],
            reason=row["reason"],
        )
