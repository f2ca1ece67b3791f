"""Every vote ever given, in a database, under a hash of what was asked.

The ledger makes judging resumable and answerable: a vote that is in it is not asked for again, and
what was shown, said and paid can be looked up. It is an SQLite file, or a database on a server, that
several runs and several processes may share; nothing is held in memory. Rows hold ids, never a
persona's or a reply's text.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError

from jaxmodpo.errors import UserError
from jaxmodpo.judging.database import NoLedger, is_away, open_engine, reason, shown_url, upsert
from jaxmodpo.judging.judge import Status
from jaxmodpo.judging.tables import BATCHES, CLAIMS, COLUMNS, TABLES, VOTES, create_tables, row_of, vote_of
from jaxmodpo.judging.votes import Vote
from jaxmodpo.processes import is_known_gone, this_process

log = logging.getLogger(__name__)

Result = TypeVar("Result")

LEASE = 120.0
"""Seconds for which a claim holds unless its owner renews it."""

# Seconds before further attempts at a database whose connection was lost.
_RECONNECT = (1.0, 5.0, 15.0)

# Databases limit the parameters of one statement.
_CHUNK = 500


class Spent(NamedTuple):
    """What a run has used: calls, dollars (of those with a known price), tokens of calls that counted them."""

    calls: int
    dollars: float
    counted_calls: int
    prompt_tokens: float
    cached_tokens: float
    completion_tokens: float


class Batch(NamedTuple):
    """A batch handed to an endpoint; ``state`` is prepared, submitted or read, ``batch_id`` the endpoint's."""

    tag: str
    batch_id: str
    state: Literal["prepared", "submitted", "read"]
    requests: int


@dataclass(eq=False)
class _Waiting:
    """Votes of one thread that wait for a commit, which any thread may make for all."""

    votes: Sequence[Vote]
    released: Sequence[str]
    done: bool = False
    error: BaseException | None = None


@dataclass(eq=False)
class Ledger:
    """The votes in one database. Use it as a context manager, or :meth:`close` it.

    Of several votes under one key the newest valid one counts, or the newest where none is valid.
    All methods may be called from any thread.

    Attributes:
        place: a path (SQLite) or a database URL. An URL may hold a password: it is never logged.
        run: names the run whose votes are written, for :meth:`spent` and exports.
        read_only: neither the ledger nor a table is made where it is missing, and nothing is written.

    Raises:
        NoLedger: ``read_only``, and there is none.
        UserError: the database cannot be opened, or holds something else.
    """

    place: str | Path = field(repr=False)
    run: str = ""
    read_only: bool = False
    _engine: sql.Engine = field(init=False)
    _owner: str = field(init=False)
    _held: set[str] = field(init=False, default_factory=set)
    _held_lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _queue: list[_Waiting] = field(init=False, default_factory=list)
    _queue_lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _commit_lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _closing: threading.Event = field(init=False, default_factory=threading.Event)
    _renewing: threading.Thread | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._owner = f"{this_process()} {uuid.uuid4().hex[:8]}"
        self._engine = open_engine(self.place, self.read_only)
        try:
            self._check_table()
            if not self.read_only:
                create_tables(self._engine)
        except DBAPIError as error:
            self._engine.dispose()
            raise UserError(f"the ledger {self.shown_place} cannot be opened: {reason(error)}") from None
        except UnicodeDecodeError:
            # SQLite quotes the damaged part in its error, which Python cannot read then.
            self._engine.dispose()
            raise UserError(f"the ledger {self.shown_place} cannot be opened: it is damaged") from None
        except UserError:
            self._engine.dispose()
            raise

    def _check_table(self) -> None:
        """Refuse a table of votes that is somebody else's, and to read where there is none."""
        inspector = sql.inspect(self._engine)
        if not inspector.has_table(VOTES.name):
            if self.read_only:
                raise NoLedger(f"{self.shown_place} is a database and no ledger: it has no table of votes")
            return
        for table in TABLES.tables.values():
            if not inspector.has_table(table.name):
                continue
            there = {column["name"] for column in inspector.get_columns(table.name)}
            missing = [column.name for column in table.c if column.name not in there]
            if missing:
                lacks = f"no column {', '.join(missing[:3])}"
                raise UserError(
                    f"{self.shown_place} is no ledger: its table '{table.name}' is another program's ({lacks})"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is claimed and close the database."""
        self._closing.set()
        if self._renewing is not None:
            self._renewing.join()
        self.release_all()
        self._engine.dispose()

    @property
    def shown_place(self) -> str:
        """Where the ledger is, without a password."""
        url = self._engine.url
        return str(url.database) if url.get_backend_name() == "sqlite" else shown_url(url)

    # ----------------------------------------------------------------------- votes

    def add(self, votes: Sequence[Vote], released: Sequence[str] = ()) -> None:
        """Keep votes and give back the claims on their calls: all durable when this returns.

        Threads that come while another commits wait for it and are then committed together.
        """
        waiting = _Waiting(votes, released)
        with self._queue_lock:
            self._queue.append(waiting)
        with self._commit_lock:
            if not waiting.done:
                with self._queue_lock:
                    together, self._queue = self._queue, []
                self._commit(together)
        if waiting.error is not None:
            raise waiting.error

    def _commit(self, together: Sequence[_Waiting]) -> None:
        rows = [row_of(vote) for waiting in together for vote in waiting.votes]
        released = [key for waiting in together for key in waiting.released]
        error = None
        try:
            self._write(rows, released)
        except BaseException as failed:
            error = failed
        with self._held_lock:
            self._held.difference_update(released)
        for waiting in together:
            waiting.done, waiting.error = True, error

    def _write(self, rows: Sequence[dict[str, Any]], released: Sequence[str]) -> None:
        attempts = 0

        def write(connection: sql.Connection) -> None:
            nonlocal attempts
            attempts += 1
            # Where the connection was lost, nobody knows whether what was written last is there.
            wanted = rows if attempts == 1 else _missing(connection, rows)
            if wanted:
                connection.execute(sql.insert(VOTES), wanted)
            for keys in _chunks(released):
                # One that ran out meanwhile may be somebody else's by now.
                ours = (CLAIMS.c.owner == self._owner) | CLAIMS.c.owner.like("batch %")
                connection.execute(sql.delete(CLAIMS).where(CLAIMS.c.key.in_(keys) & ours))

        self._transact(write)

    def _transact(self, work: Callable[[sql.Connection], Result]) -> Result:
        """Do some work in one transaction; again, where the database was away for a moment.

        Raises:
            UserError: the database stays away, or refuses.
        """
        waits = iter(_RECONNECT)
        while True:
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                wait = next(waits, None) if is_away(error) else None
                if wait is None:
                    raise self._refusal(error) from None
            time.sleep(wait)

    def _refusal(self, error: DBAPIError) -> UserError:
        return UserError(
            f"the ledger {self.shown_place} cannot be used: {reason(error)}; mend it and run the same command again"
        )

    def statuses(self, keys: Sequence[str]) -> dict[str, Status]:
        """Return the status of the vote that counts under each key that has one."""
        found: dict[str, Status] = {}
        for some in _chunks(keys):
            query = sql.select(VOTES.c.key, VOTES.c.status).where(VOTES.c.key.in_(some)).order_by(VOTES.c.id)
            for key, status in map(tuple, self._rows(query)):
                if found.get(key) != "valid":
                    found[key] = status
        return found

    def votes(self, keys: Sequence[str]) -> dict[str, Vote]:
        """Return the vote that counts under each key that has one."""
        found: dict[str, Vote] = {}
        for some in _chunks(keys):
            query = sql.select(*COLUMNS).where(VOTES.c.key.in_(some)).order_by(VOTES.c.id)
            for row in self._rows(query):
                earlier = found.get(row.key)
                if earlier is None or earlier.status != "valid" or row.status == "valid":
                    found[row.key] = vote_of(row)
        return found

    def _rows(self, query: sql.Executable) -> Sequence[sql.Row[Any]]:
        return self._transact(lambda connection: connection.execute(query).all())

    def every_vote(self, run: str | None = None, *, counted: bool = False) -> Iterator[Vote]:
        """Yield all votes, failed and superseded ones too, oldest first; of one run or of all.

        With ``counted``, of several votes under one key the one that counts, of the run or of all.
        """
        c = VOTES.c
        query = sql.select(*COLUMNS).order_by(c.id)
        if run is not None:
            query = query.where(c.run == run)
        if counted:
            query = query.where(~_better_vote(run))
        try:
            with self._engine.connect().execution_options(stream_results=True, yield_per=5000) as connection:
                for row in connection.execute(query):
                    yield vote_of(row)
        except DBAPIError as error:
            raise self._refusal(error) from None

    def extent(self, run: str | None = None) -> tuple[int, int]:
        """Return how many votes there are, of one run or of all, and the newest one's number: both grow with each."""
        query = sql.select(sql.func.count(), sql.func.max(VOTES.c.id))
        count, newest = tuple(self._rows(query if run is None else query.where(VOTES.c.run == run))[0])
        return count, newest or 0

    def newest(self) -> int:
        """Return the newest vote's number; 0 where there is none."""
        return self._rows(sql.select(sql.func.max(VOTES.c.id)))[0][0] or 0

    def voted_since(self, number: int, keys: Sequence[str]) -> set[str]:
        """Return the keys that have a vote newer than the one with that number, valid or failed."""
        found = set[str]()
        for some in _chunks(keys):
            query = sql.select(VOTES.c.key).where(VOTES.c.key.in_(some) & (VOTES.c.id > number))
            found.update(key for (key,) in self._rows(query))
        return found

    def spent(self, run: str) -> Spent:
        """Add up what a run has used."""
        return self._spent(VOTES.c.run == run)

    def spent_by(self, judge: str) -> Spent:
        """Add up what a judge, by its identity, has used in all runs."""
        return self._spent(VOTES.c.judge == judge)

    def _spent(self, condition: sql.ColumnElement[bool]) -> Spent:
        c, total = VOTES.c, sql.func.sum
        query = sql.select(
            sql.func.count(sql.distinct(c.call)),
            total(c.cost),
            sql.func.count(sql.distinct(sql.case((c.prompt_tokens.is_not(None), c.call)))),
            total(c.prompt_tokens),
            total(c.cached_tokens),
            total(c.completion_tokens),
        ).where(condition)
        calls, dollars, counted, *tokens = tuple(self._rows(query)[0])
        return Spent(calls, dollars or 0.0, counted, *(float(n or 0) for n in tokens))

    def identities(self) -> list[str]:
        """Return the identities of all judges that voted here, sorted."""
        return sorted(name for (name,) in self._rows(sql.select(VOTES.c.judge).distinct()))

    def runs(self) -> list[str]:
        """Return the names of all runs that voted here, sorted."""
        return sorted(name for (name,) in self._rows(sql.select(VOTES.c.run).distinct()))

    # ----------------------------------------------------------------------- claims

    def claim(self, keys: Sequence[str]) -> set[str]:
        """Reserve calls, so that no other process asks them, and return those that were free.

        A claim ends with :meth:`add` or :meth:`release`; one whose owner died ends at once on this
        machine, and after :data:`LEASE` seconds elsewhere.
        """
        self._start_renewing()
        with self._commit_lock:
            with self._held_lock:
                free = [key for key in dict.fromkeys(keys) if key not in self._held]
            mine = self._claim(free)
            denied = [key for key in free if key not in mine]
            if denied and self._forget_dead_owners(denied):
                mine |= self._claim(denied)
            with self._held_lock:
                self._held |= mine
        return mine

    def _claim(self, keys: Sequence[str]) -> set[str]:
        if not keys:
            return set()
        now, mine = time.time(), set[str]()
        insert = upsert(self._engine)(CLAIMS)
        taken_over = insert.on_conflict_do_update(
            index_elements=["key"],
            set_={"owner": insert.excluded.owner, "until": insert.excluded.until},
            where=CLAIMS.c.until < now,
        )
        # In one order, so that two processes cannot wait for each other's rows.
        rows = [{"key": key, "owner": self._owner, "until": now + LEASE} for key in sorted(keys)]

        def claim(connection: sql.Connection) -> None:
            connection.execute(taken_over, rows)
            for some in _chunks(keys):
                own = CLAIMS.c.key.in_(some) & (CLAIMS.c.owner == self._owner)
                mine.update(connection.execute(sql.select(CLAIMS.c.key).where(own)).scalars())

        self._transact(claim)
        return mine

    def _forget_dead_owners(self, keys: Sequence[str]) -> bool:
        """Drop all claims of those who hold some of these and whose process on this machine is gone."""
        owners = set[str]()
        for some in _chunks(keys):
            query = sql.select(CLAIMS.c.owner).where(CLAIMS.c.key.in_(some)).distinct()
            owners.update(owner for (owner,) in self._rows(query))
        dead = [owner for owner in owners if _is_dead(owner)]
        for some in _chunks(dead):
            forget = sql.delete(CLAIMS).where(CLAIMS.c.owner.in_(some))
            self._transact(lambda connection, forget=forget: connection.execute(forget))
        return bool(dead)

    def holds(self, keys: Sequence[str]) -> set[str]:
        """Return those of these calls that this process itself has claimed."""
        with self._held_lock:
            return self._held.intersection(keys)

    def release(self, keys: Sequence[str]) -> None:
        """Give back claims without an answer."""
        if keys:
            self.add([], keys)

    def release_all(self) -> None:
        """Give back every claim that this process still holds."""
        with self._held_lock:
            held = list(self._held)
        self.release(held)

    def hold_for(self, keys: Sequence[str], tag: str, seconds: float) -> None:
        """Turn own claims into claims of a batch, which outlive this process; or hold a batch's for longer."""

        def hold(connection: sql.Connection) -> None:
            for some in _chunks(keys):
                own = CLAIMS.c.key.in_(some) & CLAIMS.c.owner.in_([self._owner, f"batch {tag}"])
                change = sql.update(CLAIMS).where(own)
                connection.execute(change.values(owner=f"batch {tag}", until=time.time() + seconds))

        with self._commit_lock:
            self._transact(hold)
        with self._held_lock:
            self._held.difference_update(keys)

    def take_back(self, tag: str) -> set[str]:
        """Turn a batch's claims into own ones, and return their keys."""
        self._start_renewing()
        keys, own = set[str](), CLAIMS.c.owner == f"batch {tag}"

        def take(connection: sql.Connection) -> None:
            keys.update(connection.execute(sql.select(CLAIMS.c.key).where(own)).scalars())
            change = sql.update(CLAIMS).where(own)
            connection.execute(change.values(owner=self._owner, until=time.time() + LEASE))

        with self._commit_lock:
            self._transact(take)
        with self._held_lock:
            self._held |= keys
        return keys

    def release_batch(self, tag: str) -> None:
        """Give back a batch's claims."""
        forget = sql.delete(CLAIMS).where(CLAIMS.c.owner == f"batch {tag}")
        with self._commit_lock:
            self._transact(lambda connection: connection.execute(forget))

    def _start_renewing(self) -> None:
        with self._held_lock:
            if self._renewing is None:
                self._renewing = threading.Thread(target=self._renew, name="ledger", daemon=True)
                self._renewing.start()

    def _renew(self) -> None:
        change = sql.update(CLAIMS).where(CLAIMS.c.owner == self._owner)
        while not self._closing.wait(LEASE / 4):
            try:
                with self._commit_lock, self._engine.begin() as connection:
                    connection.execute(change.values(until=time.time() + LEASE))
            except DBAPIError as error:
                log.warning("the ledger's claims could not be renewed (%s)", reason(error))

    # ----------------------------------------------------------------------- batches

    def batches(self) -> list[Batch]:
        """Return this run's batches, oldest first."""
        c = BATCHES.c
        query = sql.select(c.tag, c.batch_id, c.state, c.requests).where(c.run == self.run).order_by(c.time, c.tag)
        return [Batch(*row) for row in self._rows(query)]

    def keep_batch(self, batch: Batch) -> None:
        """Write a batch down, or its new state; durable when this returns."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        insert = upsert(self._engine)(BATCHES)
        kept = insert.on_conflict_do_update(
            index_elements=["tag"], set_={name: insert.excluded[name] for name in ("batch_id", "state", "requests")}
        )
        row = {**batch._asdict(), "run": self.run, "time": now}
        with self._commit_lock:
            self._transact(lambda connection: connection.execute(kept, [row]))


# --------------------------------------------------------------------------- helpers


def _is_dead(owner: str) -> bool:
    """Whether the owner of a claim, a process and the ledger's own mark, is a process that is known to be gone."""
    process, _, _mark = owner.rpartition(" ")
    return is_known_gone(process)


def _missing(connection: sql.Connection, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that are not in the database; a call's votes are written together."""
    there = set[str]()
    for keys in _chunks([row["key"] for row in rows]):
        there.update(connection.execute(sql.select(VOTES.c.call).where(VOTES.c.key.in_(keys))).scalars())
    return [row for row in rows if row["call"] not in there]


def _better_vote(run: str | None) -> sql.Exists:
    """Whether another vote under a vote's key counts rather than it; looked up key by key, without a sort."""
    vote, other = VOTES.c, VOTES.alias("other").c
    newer = (other.id > vote.id) & ((other.status == "valid") | (vote.status != "valid"))
    better = (other.key == vote.key) & (newer | (other.status == "valid") & (vote.status != "valid"))
    return sql.exists().where(better if run is None else better & (other.run == run))


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[n : n + _CHUNK] for n in range(0, len(keys), _CHUNK))


def import_votes(ledger: Ledger, records: Iterable[Vote]) -> int:
    """Add exported votes to a ledger; return how many."""
    count, batch = 0, list[Vote]()
    for vote in records:
        batch.append(vote)
        count += 1
        if len(batch) == 5000:
            ledger.add(batch)
            batch = []
    ledger.add(batch)
    return count
