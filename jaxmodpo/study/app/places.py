"""The places of a study: who may still come in, and which order of items is theirs.

A place is one of the study file's assignments. Raters hold one from consent on, until they
withdraw or are left out of the analysis; it then goes to the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sql

from jaxmodpo.study.app.clock import Clock
from jaxmodpo.study.app.tables import PARTICIPANTS, RATERS

# Seconds that a server has to run before it takes a place back: while it did not run, or if its
# clock was set forward since then, nobody could be seen.
_GRACE = 3600.0


@dataclass(frozen=True)
class Quota:
    """How many raters are wanted.

    Attributes:
        in_all: at most so many hold a place; 0 means as many as there are.
        by_study: the same for those who come from one study at Prolific, by its id; a study that is
            not named has no limit of its own.
    """

    in_all: int = 0
    by_study: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FreePlace:
    """A place that a rater may take.

    Attributes:
        number: of the assignment.
        left_by: the rater, by id, who has to lose it first; None where nobody holds it.
    """

    number: int
    left_by: int | None = None


class Places:
    """Who holds which place.

    Args:
        numbers: of the study file's assignments.
        quota: how many raters are wanted.
        abandoned_after: seconds after which a rater of Prolific who left may lose the place.
    """

    def __init__(
        self, numbers: Iterable[int], quota: Quota, clock: Clock, abandoned_after: float
    ) -> None:
        self.numbers = tuple(numbers)
        self.quota = quota
        self._clock = clock
        self._abandoned_after = abandoned_after

    def free(self, connection: sql.Connection, rater_id: int | None) -> FreePlace | None:
        """Return the first place that nobody holds; where none is, or as many raters have come as
        are wanted, that of a rater who left it long ago. None where nobody may come in.

        The transaction must hold the lock of places where others could look for one too.

        Args:
            rater_id: who looks for one; None for a rater who is not there yet.
        """
        studies = self._studies_of_places(connection)
        study = self._study_of(connection, rater_id)
        from_study = sum(other == study for other in studies.values())
        wanted = self.quota.in_all or len(self.numbers)
        is_study_full = from_study >= self.quota.by_study.get(study, len(self.numbers))
        if len(studies) < wanted and not is_study_full:
            for number in self.numbers:
                if number not in studies:
                    return FreePlace(number)
        return self._left_place(connection, study if is_study_full else None)

    def is_free(self, connection: sql.Connection, number: int) -> bool:
        """Return whether nobody holds a place."""
        return number not in self._studies_of_places(connection)

    def _studies_of_places(self, connection: sql.Connection) -> dict[int, str]:
        """Return from which study at Prolific the rater of each place came that somebody holds;
        empty for a personal link.
        """
        query = (
            sql.select(RATERS.c.assignment, PARTICIPANTS.c.prolific_study)
            .outerjoin(PARTICIPANTS)
            .where(RATERS.c.holds_place)
        )
        return {row.assignment: row.prolific_study or "" for row in connection.execute(query)}

    def _study_of(self, connection: sql.Connection, rater_id: int | None) -> str:
        query = sql.select(PARTICIPANTS.c.prolific_study).where(PARTICIPANTS.c.rater_id == rater_id)
        return connection.execute(query).scalar_one_or_none() or ""

    def _left_place(self, connection: sql.Connection, study: str | None) -> FreePlace | None:
        """Return the place of the rater of Prolific who has been away for the longest time.

        Args:
            study: at Prolific, from which that rater must have come; None for any.
        """
        if self._clock.running() < min(_GRACE, self._abandoned_after):
            return None
        long_ago = self._clock.now() - self._abandoned_after
        query = (
            sql.select(RATERS.c.id, RATERS.c.assignment)
            .outerjoin(PARTICIPANTS)
            .where(RATERS.c.holds_place)
            .where(RATERS.c.source == "prolific")
            .where(RATERS.c.status == "active")
            .where(RATERS.c.last_seen_at < long_ago)
            .order_by(RATERS.c.last_seen_at)
            .limit(1)
        )
        if study is not None:
            query = query.where(PARTICIPANTS.c.prolific_study == study)
        row = connection.execute(query).one_or_none()
        return None if row is None else FreePlace(row.assignment, row.id)
