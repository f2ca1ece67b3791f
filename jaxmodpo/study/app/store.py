"""All that a study stores, behind one door."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sql

from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import fingerprint
from jaxmodpo.study.app.answers import Answers
from jaxmodpo.study.app.clock import Clock
from jaxmodpo.study.app.database import Database
from jaxmodpo.study.app.places import Places, Quota
from jaxmodpo.study.app.raters import Raters
from jaxmodpo.study.app.tables import AUDIT, FACTS, RATERS, SESSIONS
from jaxmodpo.study.study_file import StudyFile, read_study

DATABASE = "answers.sqlite"
"""beside the study file, unless another place is named"""

DEFAULT_HOURS = 24.0
"""after which a rater of Prolific who left may lose the place"""


@dataclass(frozen=True)
class AuditEntry:
    """What somebody did."""

    at: float
    actor: str
    event: str
    rater: str
    detail: str


class Store:
    """A study's people, answers and audit trail."""

    def __init__(self, database: Database, study: StudyFile, clock: Clock, places: Places) -> None:
        self.study = study
        self.database = database
        self.clock = clock
        self.raters = Raters(database, clock, places)
        self.answers = Answers(database, study, clock)

    def close(self) -> None:
        """End the connections."""
        self.database.close()

    def note(self, actor: str, event: str, detail: str = "") -> None:
        """Add to the audit trail."""
        row = {"at": self.clock.now(), "actor": actor, "event": event, "detail": detail}
        self.database.writing(lambda connection: connection.execute(AUDIT.insert().values(row)))

    def audit(self) -> list[AuditEntry]:
        """Return the audit trail, the oldest entry first."""
        columns = (AUDIT.c.at, AUDIT.c.actor, AUDIT.c.event, AUDIT.c.rater, AUDIT.c.detail)
        query = sql.select(*columns).order_by(AUDIT.c.id)
        return self.database.reading(
            lambda connection: [
                AuditEntry(row.at, row.actor, row.event, row.rater, row.detail)
                for row in connection.execute(query)
            ]
        )


def open_store(
    study_path: Path,
    location: str | Path | None,
    *,
    create: bool = False,
    abandoned_after: float = DEFAULT_HOURS * 3600,
    quota: Quota | None = None,
) -> Store:
    """Open what a study stores.

    Args:
        study_path: the study file.
        location: a database's file or URL; None is the file beside the study's.
        create: make a database that is not there.
        abandoned_after: seconds.
        quota: how many raters are wanted; None means as many as the study has places for.

    Raises:
        UserError: no study file; no database; the database is of another study file, or of this
            one before it was changed.
    """
    study = read_study(study_path)
    database = Database(location or study_path.with_name(DATABASE), create=create)
    try:
        clock = Clock(database.reading(_last_moment))
        numbers = [assignment.number for assignment in study.assignments]
        places = Places(numbers, quota or Quota(), clock, abandoned_after)
        store = Store(database, study, clock, places)
        _hold_to(store, study_path)
    except BaseException:
        database.close()
        raise
    return store


def _last_moment(connection: sql.Connection) -> float:
    """Return when something was stored last; 0 where nothing is. Whatever a rater does is noted in
    one of these columns.
    """
    latest = 0.0
    for column in (AUDIT.c.at, RATERS.c.last_seen_at, SESSIONS.c.created_at):
        moment = connection.execute(sql.select(sql.func.max(column))).scalar_one()
        latest = max(latest, moment or 0.0)
    return latest


def _hold_to(store: Store, study_path: Path) -> None:
    """Note the study file's fingerprint the first time, and hold to it from then on."""
    current = fingerprint(study_path, remembered=False)

    def work(connection: sql.Connection) -> str:
        query = sql.select(FACTS.c.value).where(FACTS.c.name == "study_sha256")
        stored = connection.execute(query).scalar_one_or_none()
        if stored is None:
            connection.execute(FACTS.insert().values(name="study_sha256", value=current))
            return current
        return stored

    if store.database.writing(work) != current:
        raise UserError(
            f"{study_path} is not the study file that {store.database.shown_location} was begun"
            " with: answers would go to other items; put the file back, or begin a new study with"
            " another --database"
        )
