"""Which batches a run has handed to an endpoint, and how far each has come: what a later start goes
on from.
"""

from __future__ import annotations

import time
from typing import Literal, NamedTuple

import sqlalchemy as sql

from jaxmodpo.judging.database import upsert
from jaxmodpo.judging.store import Store
from jaxmodpo.judging.tables import BATCHES


class Batch(NamedTuple):
    """A batch handed to an endpoint; ``state`` is prepared, submitted or read, ``batch_id`` the
    endpoint's.
    """

    tag: str
    batch_id: str
    state: Literal["prepared", "submitted", "read"]
    requests: int


class BatchRecords:
    """The batches of one run in an open ledger."""

    def __init__(self, store: Store, run: str):
        self._store = store
        self._run = run

    def all(self) -> list[Batch]:
        """Return the run's batches, oldest first."""
        columns = BATCHES.c
        query = (
            sql.select(columns.tag, columns.batch_id, columns.state, columns.requests)
            .where(columns.run == self._run)
            .order_by(columns.time, columns.tag)
        )
        return [Batch(*row) for row in self._store.rows(query)]

    def record(self, batch: Batch) -> None:
        """Write a batch down, or its new state; durable when this returns."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        insert = upsert(self._store.engine)(BATCHES)
        # The time stays that of the first record, so that batches keep their order.
        changing = {name: insert.excluded[name] for name in ("batch_id", "state", "requests")}
        statement = insert.on_conflict_do_update(index_elements=["tag"], set_=changing)
        row = {**batch._asdict(), "run": self._run, "time": now}
        self._store.write(lambda connection: connection.execute(statement, [row]))
