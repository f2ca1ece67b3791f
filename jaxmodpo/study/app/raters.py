"""Who takes part: links, arrivals, consent, places, withdrawal."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sql

from jaxmodpo.errors import UserError
from jaxmodpo.study.app.clock import Clock
from jaxmodpo.study.app.database import Database
from jaxmodpo.study.app.places import FreePlace, Places
from jaxmodpo.study.app.tables import (
    ANSWERS,
    AUDIT,
    PARTICIPANTS,
    RATERS,
    REVISIONS,
    SESSIONS,
    VISITS,
)
from jaxmodpo.study.app.tokens import new_token, token_hash

Status = Literal["invited", "active", "finished", "withdrawn", "declined", "abandoned", "revoked"]
Decision = Literal["excluded", "rejected"]

# Letters and digits that nobody takes for one another.
_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"


@dataclass(frozen=True, slots=True)
class Rater:
    """A person under a pseudonym."""

    id: int
    pseudonym: str
    source: Literal["link", "prolific"]
    status: Status
    assignment: int | None
    holds_place: bool
    created_at: float
    last_seen_at: float
    consent_version: str | None
    consented_at: float | None
    begun_at: float | None
    ended_at: float | None
    excluded: str
    rejected: str


_FIELDS = [RATERS.c[field.name] for field in dataclasses.fields(Rater)]


@dataclass(frozen=True)
class Arrival:
    """What Prolific says of who comes from there."""

    pid: str
    study: str
    session: str


class Raters:
    """The people of a study."""

    def __init__(self, database: Database, clock: Clock, places: Places) -> None:
        self.places = places
        self._database = database
        self._clock = clock

    # ------------------------------------------------------------------ arriving

    def new_link(self, label: str = "") -> tuple[str, str]:
        """Invite a rater. Returns the pseudonym and the token of the link, which is not kept.

        Raises:
            UserError: all places are taken.
        """
        # Only its hash is stored: whoever reads the database comes in by nobody's link.
        token = new_token()

        def work(connection: sql.Connection) -> str:
            # An invited rater has the place at once, so that no more links are made than there are
            # places; who comes from Prolific gets one with the consent.
            place = self._free_place(connection)
            if place is None:
                raise UserError(self._all_taken())
            rater_id, pseudonym = self._insert(connection, "link", token_hash(token))
            self._take(connection, rater_id, place)
            connection.execute(PARTICIPANTS.insert().values(rater_id=rater_id, label=label))
            self._note(connection, "researcher", "link made", pseudonym)
            return pseudonym

        return self._database.writing(work), token

    def _all_taken(self) -> str:
        count = len(self.places.numbers)
        if 0 < self.places.quota.in_all < count:
            return f"all {self.places.quota.in_all} raters that are wanted have a place"
        return (
            f"all {count} places of the study are taken; revoke a link, or sample a study with more"
            " --raters"
        )

    def of_link(self, token: str) -> Rater | None:
        """Return the rater of a personal link; None where it leads nowhere."""
        return self._one(RATERS.c.token_hash == token_hash(token))

    def of_session(self, session: str) -> Rater | None:
        """Return the rater who is known in a browser."""
        known = sql.select(SESSIONS.c.rater_id).where(SESSIONS.c.token_hash == token_hash(session))
        return self._one(RATERS.c.id == known.scalar_subquery())

    def of_arrival(self, arrival: Arrival) -> Rater | None:
        """Return who comes from Prolific, a new rater the first time; None where the participant
        came with another submission before.
        """

        def work(connection: sql.Connection) -> Rater | None:
            earlier = connection.execute(
                sql.select(PARTICIPANTS).where(PARTICIPANTS.c.prolific_pid == arrival.pid)
            ).one_or_none()
            if earlier is not None:
                # A second submission of one participant would be a second rater who has seen the
                # items before.
                if earlier.prolific_session != arrival.session:
                    return None
                return _read(connection, RATERS.c.id == earlier.rater_id)
            rater_id, _ = self._insert(connection, "prolific", None)
            connection.execute(
                PARTICIPANTS.insert().values(
                    rater_id=rater_id,
                    prolific_pid=arrival.pid,
                    prolific_study=arrival.study,
                    prolific_session=arrival.session,
                )
            )
            return _read(connection, RATERS.c.id == rater_id)

        return self._database.writing(work)

    def new_session(self, rater: Rater) -> str:
        """Return the token by which a browser is known from now on."""
        session = new_token()
        row = {
            "token_hash": token_hash(session),
            "rater_id": rater.id,
            "created_at": self._clock.now(),
        }
        self._database.writing(lambda connection: connection.execute(SESSIONS.insert().values(row)))
        return session

    def has_place_for(self, rater: Rater) -> bool:
        """Return whether a rater has a place, or could have one."""
        if rater.holds_place:
            return True
        free = self._database.reading(lambda connection: self.places.free(connection, rater.id))
        return free is not None

    # ------------------------------------------------------------------ taking part

    def consent(self, rater: Rater, version: str) -> bool:
        """Store a consent and give a place; False where no place is free."""

        def work(connection: sql.Connection) -> bool:
            # Read again within the transaction: two browsers of one rater may consent at once.
            current = _read(connection, RATERS.c.id == rater.id)
            if not current.holds_place:
                place = self._free_place(connection, rater.id)
                if place is None:
                    return False
                self._take(connection, rater.id, place)
            self._change(
                connection,
                rater,
                status="active",
                consent_version=version,
                consented_at=self._clock.now(),
            )
            self._note(connection, "rater", "consent", rater.pseudonym, f"version {version}")
            return True

        return self._database.writing(work)

    def begin(self, rater: Rater) -> None:
        """Store that a rater read the instructions."""
        self._update(rater, begun_at=self._clock.now())

    def end(self, rater: Rater, status: Status, excluded: str = "") -> None:
        """Store that a rater has finished, or does not consent. The place of a rater whose answers
        do not count goes to the next one.
        """

        def work(connection: sql.Connection) -> None:
            keeps_place = status == "finished" and not (excluded or rater.excluded)
            # What a researcher decided before stays, with the reason that was given for it.
            reason = {"excluded": excluded} if excluded and not rater.excluded else {}
            self._change(
                connection,
                rater,
                status=status,
                ended_at=self._clock.now(),
                holds_place=keeps_place,
                **reason,
            )
            self._note(connection, "rater", status, rater.pseudonym, excluded)

        self._database.writing(work)

    def withdraw(self, rater: Rater, *, delete: bool) -> None:
        """End a rater's part, and delete all that they gave if they ask for it."""

        def work(connection: sql.Connection) -> None:
            # The rater's own row stays, under its pseudonym: the study must go on counting that
            # somebody withdrew.
            if delete:
                for table in (ANSWERS, REVISIONS, VISITS, PARTICIPANTS):
                    connection.execute(table.delete().where(table.c.rater_id == rater.id))
            self._change(
                connection,
                rater,
                status="withdrawn",
                ended_at=self._clock.now(),
                holds_place=False,
                excluded="withdrew",
            )
            detail = "answers deleted on request" if delete else "answers kept"
            self._note(connection, "rater", "withdrawal", rater.pseudonym, detail)

        self._database.writing(work)

    # ------------------------------------------------------------------ decisions

    def all(self) -> list[Rater]:
        """Return everybody, in the order of their coming."""
        query = sql.select(*_FIELDS).order_by(RATERS.c.id)
        rows = self._database.reading(lambda connection: connection.execute(query).all())
        return [_rater(row) for row in rows]

    def labels(self) -> Mapping[str, str]:
        """Return what researchers call the raters of personal links, by pseudonym."""
        query = sql.select(RATERS.c.pseudonym, PARTICIPANTS.c.label).join(PARTICIPANTS)
        rows = self._database.reading(lambda connection: connection.execute(query).all())
        return {row.pseudonym: row.label for row in rows}

    def named(self, pseudonym: str) -> Rater:
        """Return the rater of a pseudonym.

        Raises:
            UserError: there is none.
        """
        rater = self._one(RATERS.c.pseudonym == pseudonym)
        if rater is None:
            raise UserError(f"the study has no rater {pseudonym:.20}")
        return rater

    def decide(self, rater: Rater, decision: Decision, reason: str) -> None:
        """Exclude a rater's answers from the analysis, or reject a submission; an empty reason
        takes the decision back.

        The place of a rater who has finished and is excluded goes to the next one. Who counts again
        takes it back while nobody else has it.
        """

        def work(connection: sql.Connection) -> None:
            self._change(connection, rater, **{decision: reason})
            if decision == "excluded" and rater.status == "finished":
                self._lock_places(connection)
                holds_place = not reason and self._may_hold(connection, rater)
                self._change(connection, rater, holds_place=holds_place)
            event = decision if reason else f"no longer {decision}"
            self._note(connection, "researcher", event, rater.pseudonym, reason)

        self._database.writing(work)

    def revoke(self, rater: Rater) -> None:
        """Let a link lead nowhere, end the rater's sessions, and free the place."""

        def work(connection: sql.Connection) -> None:
            # Who had come to an end keeps it: only a rater who could still go on is cut off.
            ended = {} if rater.status in ("finished", "withdrawn") else {"status": "revoked"}
            self._change(
                connection,
                rater,
                # No token has this hash, so that the link leads nowhere.
                token_hash=None,
                # Answers that are complete keep their place in the design.
                holds_place=rater.status == "finished" and rater.holds_place,
                **ended,
            )
            connection.execute(SESSIONS.delete().where(SESSIONS.c.rater_id == rater.id))
            self._note(connection, "researcher", "link revoked", rater.pseudonym)

        self._database.writing(work)

    # ------------------------------------------------------------------ parts

    def _one(self, condition: sql.ColumnElement[bool]) -> Rater | None:
        return self._database.reading(lambda connection: _read_or_none(connection, condition))

    def _update(self, rater: Rater, **values: Any) -> None:
        self._database.writing(lambda connection: self._change(connection, rater, **values))

    def _change(self, connection: sql.Connection, rater: Rater, **values: Any) -> None:
        connection.execute(RATERS.update().where(RATERS.c.id == rater.id).values(**values))

    def _insert(
        self, connection: sql.Connection, source: str, hashed: str | None
    ) -> tuple[int, str]:
        now = self._clock.now()
        # Drawn, since a number would tell in which order people came.
        pseudonym = "R-" + "".join(secrets.choice(_ALPHABET) for _ in range(8))
        values = {
            "pseudonym": pseudonym,
            "source": source,
            "token_hash": hashed,
            "status": "invited",
            "holds_place": False,
            "created_at": now,
            "last_seen_at": now,
        }
        query = RATERS.insert().values(values).returning(RATERS.c.id)
        return connection.execute(query).scalar_one(), pseudonym

    def _take(self, connection: sql.Connection, rater_id: int, place: FreePlace) -> None:
        """Give a place to a rater; whoever left it loses it."""
        if place.left_by is not None:
            earlier = _read(connection, RATERS.c.id == place.left_by)
            self._change(connection, earlier, status="abandoned", holds_place=False)
            self._note(connection, "program", "place taken back", earlier.pseudonym)
        connection.execute(
            RATERS.update()
            .where(RATERS.c.id == rater_id)
            .values(assignment=place.number, holds_place=True, last_seen_at=self._clock.now())
        )

    def _free_place(
        self, connection: sql.Connection, rater_id: int | None = None
    ) -> FreePlace | None:
        self._lock_places(connection)
        return self.places.free(connection, rater_id)

    def _may_hold(self, connection: sql.Connection, rater: Rater) -> bool:
        if rater.holds_place:
            return True
        return rater.assignment is not None and self.places.is_free(connection, rater.assignment)

    def _lock_places(self, connection: sql.Connection) -> None:
        """Let one transaction at a time look for a place; SQLite has one writer anyway."""
        if self._database.is_postgres:
            connection.execute(sql.text("LOCK TABLE raters IN SHARE ROW EXCLUSIVE MODE"))

    def _note(
        self, connection: sql.Connection, actor: str, event: str, rater: str = "", detail: str = ""
    ) -> None:
        connection.execute(
            AUDIT.insert().values(
                at=self._clock.now(), actor=actor, event=event, rater=rater, detail=detail
            )
        )


def _read_or_none(connection: sql.Connection, condition: sql.ColumnElement[bool]) -> Rater | None:
    row = connection.execute(sql.select(*_FIELDS).where(condition)).one_or_none()
    return None if row is None else _rater(row)


def _read(connection: sql.Connection, condition: sql.ColumnElement[bool]) -> Rater:
    rater = _read_or_none(connection, condition)
    assert rater is not None
    return rater


def _rater(row: Iterable[Any]) -> Rater:
    values: tuple[Any, ...] = tuple(row)  # in the order of the fields
    return Rater(*values)
