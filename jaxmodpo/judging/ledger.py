"""Every vote ever given, in a database, under a hash of what was asked.

The ledger makes judging resumable and answerable: a vote that is in it is not asked for again, and
what was shown, said and paid can be looked up. It is an SQLite file, or a database on a server,
that several runs and several processes may share; nothing is held in memory. Rows hold ids, never a
persona's or a reply's text::

    with Ledger("out/votes.sqlite", run="a run's name") as ledger:
        for key in ledger.claims.take(keys):            # what no other process is asking
            ledger.add([ask_for_a_vote(key)], [key])    # the vote is on disk, and the claim ends
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError

from jaxmodpo.judging.batch_records import BatchRecords
from jaxmodpo.judging.claims import Claims
from jaxmodpo.judging.commits import GroupCommit
from jaxmodpo.judging.effective import is_effective
from jaxmodpo.judging.judge import Kind, Status
from jaxmodpo.judging.store import Store, in_chunks
from jaxmodpo.judging.tables import (
    COLUMNS,
    STATISTICS_COLUMNS,
    VOTES,
    VoteColumns,
    columns_of,
    row_of,
    vote_of,
)
from jaxmodpo.judging.votes import Vote

_IMPORTED_TOGETHER = 5000
_READ_TOGETHER = 5000


class Spent(NamedTuple):
    """What a run has used: calls, dollars (of those with a known price), tokens of calls that
    counted them.
    """

    calls: int
    dollars: float
    counted_calls: int
    prompt_tokens: float
    cached_tokens: float
    completion_tokens: float


@dataclass(eq=False)
class Ledger:
    """The votes in one database. Use it as a context manager, or :meth:`close` it.

    Several votes may stand under one key; :mod:`jaxmodpo.judging.effective` says which of them
    counts. All methods may be called from any thread.

    Attributes:
        location: a path (SQLite) or a database URL. An URL may hold a password: it is never logged.
        run: names the run whose votes are written, for :meth:`spent` and exports.
        read_only: neither the ledger nor a table is made where it is missing, and nothing is
            written.
        claims: which calls this process is asking, and others are.
        batches: the run's batches at an endpoint.

    Raises:
        NoLedger: ``read_only``, and there is none.
        UserError: the database cannot be opened, or holds something else.
    """

    location: str | Path = field(repr=False)
    run: str = ""
    read_only: bool = False
    claims: Claims = field(init=False, repr=False)
    batches: BatchRecords = field(init=False, repr=False)
    _store: Store = field(init=False, repr=False)
    _commits: GroupCommit = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._store = Store(self.location, self.read_only)
        self.claims = Claims(self._store)
        self.batches = BatchRecords(self._store, self.run)
        self._commits = GroupCommit(
            self._store.writing,
            lambda votes, released: self._write(votes, released),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is claimed and close the database."""
        self.claims.close()
        self._store.close()

    @property
    def shown_location(self) -> str:
        """Where the ledger is, without a password."""
        return self._store.shown_location

    # ----------------------------------------------------------------------- writing

    def add(self, votes: Sequence[Vote], released: Sequence[str] = ()) -> None:
        """Keep votes and give back the claims on their calls: all durable when this returns.

        Threads that come while another commits wait for it and are then committed together.
        """
        self._commits.add(votes, released)

    def _write(self, votes: Sequence[Vote], released: Sequence[str]) -> None:
        """Write votes and give back claims, in one transaction."""
        rows = [row_of(vote) for vote in votes]
        attempts = 0

        def write(connection: sql.Connection) -> None:
            nonlocal attempts
            attempts += 1
            # Where the connection was lost during a commit, nobody knows whether it succeeded.
            # Votes that are there are not written again, or their calls would count twice in what
            # was spent.
            missing = rows if attempts == 1 else _missing(connection, rows)
            if missing:
                connection.execute(sql.insert(VOTES), missing)
            # In the same transaction: were a claim given back before its vote is there, another
            # process would ask for it again; were it given back later, a process that dies in
            # between would leave it claimed.
            self.claims.delete(connection, released)

        try:
            self._store.transact(write)
        finally:
            # Also after a failure: what could not be written is asked for again, and by whoever
            # comes first.
            self.claims.forget(released)

    # ----------------------------------------------------------------------- votes under keys

    def statuses(self, keys: Sequence[str]) -> dict[str, Status]:
        """Return the status of the effective vote under each key that has one."""
        rows = self._effective((VOTES.c.key, VOTES.c.status), keys)
        return {row[0]: row[1] for row in rows}

    def votes(self, keys: Sequence[str]) -> dict[str, Vote]:
        """Return the effective vote under each key that has one."""
        return {row.key: vote_of(row) for row in self._effective(COLUMNS, keys)}

    def _effective(
        self,
        columns: Sequence[sql.ColumnElement[Any]],
        keys: Sequence[str],
    ) -> Iterator[sql.Row[*tuple[Any, ...]]]:
        # Built once: a statement takes longer to build than a few hundred votes to read.
        is_meant = VOTES.c.key.in_(sql.bindparam("keys", expanding=True)) & is_effective()
        query = sql.select(*columns).where(is_meant).order_by(VOTES.c.id)
        for chunk in in_chunks(keys):
            yield from self._store.rows(query, {"keys": chunk})

    def newest(self) -> int:
        """Return the newest vote's number; 0 where there is none."""
        rows = self._store.rows(sql.select(sql.func.max(VOTES.c.id)))
        return rows[0][0] or 0

    def voted_since(self, number: int, keys: Sequence[str]) -> set[str]:
        """Return the keys that have a vote newer than the one with that number, valid or failed."""
        newer = set[str]()
        for chunk in in_chunks(keys):
            is_newer = VOTES.c.key.in_(chunk) & (VOTES.c.id > number)
            query = sql.select(VOTES.c.key).where(is_newer)
            newer.update(row.key for row in self._store.rows(query))
        return newer

    # ----------------------------------------------------------------------- all votes

    def every_vote(
        self,
        run: str | None = None,
        *,
        kinds: Collection[Kind] = (),
        effective_only: bool = False,
    ) -> Iterator[Vote]:
        """Yield all votes, failed and superseded ones too, oldest first; of one run or of all.

        With ``kinds`` only votes of these kinds; with ``effective_only`` only the effective vote
        under each key, among the votes of the run or of all.
        """
        query = _selected(COLUMNS, run, kinds)
        if effective_only:
            query = query.where(is_effective(run))
        yield from map(vote_of, self._streamed(query))

    def every_column(
        self, run: str | None = None, *, kinds: Collection[Kind] = ()
    ) -> Iterator[VoteColumns]:
        """Yield what statistics read of :meth:`every_vote`'s votes, some thousands at a time."""
        rows = self._streamed(_selected(STATISTICS_COLUMNS, run, kinds))
        while together := list(itertools.islice(rows, _READ_TOGETHER)):
            yield columns_of(together)

    def _streamed(self, query: sql.Executable) -> Iterator[sql.Row[*tuple[Any, ...]]]:
        """Yield a query's rows."""
        try:
            # Streamed, since a million votes would not fit into memory; so it is no transaction
            # that can be repeated.
            connecting = self._store.engine.connect()
            options = {"stream_results": True, "yield_per": _READ_TOGETHER}
            with connecting.execution_options(**options) as connection:
                yield from connection.execute(query)
        except DBAPIError as error:
            raise self._store.refusal(error) from None

    def extent(self, run: str | None = None) -> tuple[int, int]:
        """Return how many votes there are, of one run or of all, and the newest one's number: both
        grow with each.
        """
        query = sql.select(sql.func.count(), sql.func.max(VOTES.c.id))
        if run is not None:
            query = query.where(VOTES.c.run == run)
        (row,) = self._store.rows(query)
        count, newest = row
        return count, newest or 0

    def spent(self, run: str) -> Spent:
        """Add up what a run has used."""
        return self._spent(VOTES.c.run == run)

    def spent_by(self, judge: str) -> Spent:
        """Add up what a judge, by its identity, has used in all runs."""
        return self._spent(VOTES.c.judge == judge)

    def _spent(self, condition: sql.ColumnElement[bool]) -> Spent:
        columns = VOTES.c
        # A call's votes share its name, and its cost and tokens are divided among them.
        counted_call = sql.case((columns.prompt_tokens.is_not(None), columns.call))
        query = sql.select(
            sql.func.count(sql.distinct(columns.call)),
            sql.func.sum(columns.cost),
            sql.func.count(sql.distinct(counted_call)),
            sql.func.sum(columns.prompt_tokens),
            sql.func.sum(columns.cached_tokens),
            sql.func.sum(columns.completion_tokens),
        ).where(condition)
        (row,) = self._store.rows(query)
        calls, dollars, counted_calls, *tokens = row
        # A sum of nothing is no number for a database.
        prompt, cached, completion = (float(count or 0) for count in tokens)
        return Spent(calls, dollars or 0.0, counted_calls, prompt, cached, completion)

    def identities(self) -> list[str]:
        """Return the identities of all judges that voted here, sorted."""
        return self._distinct(VOTES.c.judge)

    def runs(self) -> list[str]:
        """Return the names of all runs that voted here, sorted."""
        return self._distinct(VOTES.c.run)

    def _distinct(self, column: sql.ColumnElement[str]) -> list[str]:
        rows = self._store.rows(sql.select(column).distinct())
        return sorted(row[0] for row in rows)


def _selected(
    columns: Sequence[sql.ColumnElement[Any]], run: str | None, kinds: Collection[Kind]
) -> sql.Select[*tuple[Any, ...]]:
    """Return a query of all votes, oldest first; of one run or of all, and of some kinds or all."""
    query = sql.select(*columns).order_by(VOTES.c.id)
    if kinds:
        query = query.where(VOTES.c.kind.in_(kinds))
    if run is not None:
        query = query.where(VOTES.c.run == run)
    return query


def _missing(connection: sql.Connection, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that are not in the database; a call's votes are written together."""
    calls = set[str]()
    for keys in in_chunks([row["key"] for row in rows]):
        query = sql.select(VOTES.c.call).where(VOTES.c.key.in_(keys))
        calls.update(connection.execute(query).scalars())
    return [row for row in rows if row["call"] not in calls]


def import_votes(ledger: Ledger, records: Iterable[Vote]) -> int:
    """Add exported votes to a ledger; return how many."""
    count = 0
    remaining = iter(records)
    while group := list(itertools.islice(remaining, _IMPORTED_TOGETHER)):
        ledger.add(group)
        count += len(group)
    return count
