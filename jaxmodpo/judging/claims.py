"""Who is asking what: claims on calls, so that processes that share a ledger ask nothing twice.

A claim is a row: the call's key, its owner, and until when it holds. An owner renews its claims
while it lives. When a process dies its claims must come free, and when it only looks dead they must
not:

- A process of this machine that is gone is found out by its number, and its claims are free at
  once.
- Another machine's process cannot be looked for. Its claims run out :data:`LEASE` seconds after the
  last renewal.
- A batch outlives its process by hours. Its requests are claimed in the batch's own name, for as
  long as it may take.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterable, Sequence

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError

from jaxmodpo.judging.database import reason, upsert
from jaxmodpo.judging.store import Store, in_chunks
from jaxmodpo.judging.tables import CLAIMS
from jaxmodpo.processes import is_known_gone, this_process

logger = logging.getLogger(__name__)

LEASE = 120.0
"""Seconds for which a claim holds unless its owner renews it."""


class Claims:
    """The claims of one open ledger. All methods may be called from any thread."""

    def __init__(self, store: Store):
        self._store = store
        # The mark tells several ledgers of one process apart.
        self._owner = f"{this_process()} {uuid.uuid4().hex[:8]}"
        # What the database says of this owner, remembered: threads of this process are one owner
        # for the database, and only this set keeps them apart.
        self._held = set[str]()
        self._held_lock = threading.Lock()
        self._closing = threading.Event()
        self._renewing: threading.Thread | None = None

    # ----------------------------------------------------------------------- this process's own

    def take(self, keys: Sequence[str]) -> set[str]:
        """Reserve calls, so that no other process asks them, and return those that were free.

        A claim ends with :meth:`release`, or with the votes that it was for. One whose owner died
        ends at once on this machine, and after :data:`LEASE` seconds elsewhere.
        """
        self._start_renewing()
        # Under the lock, or two threads of this process would both take what neither holds yet: for
        # the database they are one owner.
        with self._store.writing:
            with self._held_lock:
                free = [key for key in dict.fromkeys(keys) if key not in self._held]
            claimed = self._insert(free)
            denied = [key for key in free if key not in claimed]
            # Whether an owner lives is looked up only where its claim is in the way.
            if denied and self._forget_dead_owners(denied):
                claimed |= self._insert(denied)
            with self._held_lock:
                self._held |= claimed
        return claimed

    def _insert(self, keys: Sequence[str]) -> set[str]:
        """Write claims where there are none or one that ran out; return the keys that are this
        ledger's afterwards.
        """
        claimed = set[str]()
        if not keys:
            return claimed
        now = time.time()
        insert = upsert(self._store.engine)(CLAIMS)
        # One statement looks and writes, so that nobody comes in between. To look first and to
        # write then would let two processes find the same call free.
        take_over = insert.on_conflict_do_update(
            index_elements=["key"],
            set_={"owner": insert.excluded.owner, "until": insert.excluded.until},
            where=CLAIMS.c.until < now,
        )
        # In one order, so that two processes cannot wait for each other's rows.
        rows = [{"key": key, "owner": self._owner, "until": now + LEASE} for key in sorted(keys)]

        def insert_and_look(connection: sql.Connection) -> None:
            connection.execute(take_over, rows)
            # The statement does not say which of its rows were written; what is there does.
            for chunk in in_chunks(keys):
                is_ours = CLAIMS.c.key.in_(chunk) & (CLAIMS.c.owner == self._owner)
                query = sql.select(CLAIMS.c.key).where(is_ours)
                claimed.update(connection.execute(query).scalars())

        self._store.transact(insert_and_look)
        return claimed

    def _forget_dead_owners(self, keys: Sequence[str]) -> bool:
        """Drop all claims of those who hold some of these and whose process on this machine is
        gone.
        """
        owners = set[str]()
        for chunk in in_chunks(keys):
            claims = sql.select(CLAIMS.c.owner).where(CLAIMS.c.key.in_(chunk))
            for (owner,) in self._store.rows(claims.distinct()):
                owners.add(owner)
        # Only who is known to be gone. A process of another machine, or one behind another
        # container's walls, is not known to be: its claims run out by themselves, later but
        # surely, and nothing is asked twice because a process could not be seen.
        dead = [owner for owner in owners if _is_dead(owner)]
        for chunk in in_chunks(dead):
            forget = sql.delete(CLAIMS).where(CLAIMS.c.owner.in_(chunk))
            self._store.transact(lambda connection, forget=forget: connection.execute(forget))
        return bool(dead)

    def held(self, keys: Sequence[str]) -> set[str]:
        """Return those of these calls that this ledger has claimed."""
        with self._held_lock:
            return self._held.intersection(keys)

    def release(self, keys: Sequence[str]) -> None:
        """Give back claims without an answer."""
        if keys:
            self._store.write(lambda connection: self.delete(connection, keys))
            self.forget(keys)

    def release_all(self) -> None:
        """Give back every claim that this ledger holds."""
        with self._held_lock:
            keys = list(self._held)
        self.release(keys)

    def delete(self, connection: sql.Connection, keys: Sequence[str]) -> None:
        """Delete claims within a transaction that writes more; :meth:`forget` them once it is
        done.
        """
        # A claim that ran out meanwhile may be somebody else's by now. A batch's goes with its
        # answer.
        is_ours = (CLAIMS.c.owner == self._owner) | CLAIMS.c.owner.like(_batch("%"))
        for chunk in in_chunks(keys):
            delete = sql.delete(CLAIMS).where(CLAIMS.c.key.in_(chunk) & is_ours)
            connection.execute(delete)

    def forget(self, keys: Iterable[str]) -> None:
        """No longer count calls among those that this ledger has claimed."""
        with self._held_lock:
            self._held.difference_update(keys)

    # ----------------------------------------------------------------------- a batch's

    def give_to_batch(self, keys: Sequence[str], tag: str, seconds: float) -> None:
        """Turn own claims into claims of a batch, which outlive this process; or let a batch's hold
        for longer.
        """
        owner_of_batch = _batch(tag)

        def give(connection: sql.Connection) -> None:
            until = time.time() + seconds
            for chunk in in_chunks(keys):
                # Nobody else's: a claim that ran out while the batch was written is lost, and the
                # call may be under way in the process that took it.
                is_ours = CLAIMS.c.owner.in_([self._owner, owner_of_batch])
                change = sql.update(CLAIMS).where(CLAIMS.c.key.in_(chunk) & is_ours)
                connection.execute(change.values(owner=owner_of_batch, until=until))

        self._store.write(give)
        # No longer renewed by this process: they hold by their own time.
        self.forget(keys)

    def take_from_batch(self, tag: str) -> set[str]:
        """Turn a batch's claims into own ones, and return their keys."""
        self._start_renewing()
        keys = set[str]()
        is_of_batch = CLAIMS.c.owner == _batch(tag)

        def take(connection: sql.Connection) -> None:
            query = sql.select(CLAIMS.c.key).where(is_of_batch)
            keys.update(connection.execute(query).scalars())
            change = sql.update(CLAIMS).where(is_of_batch)
            connection.execute(change.values(owner=self._owner, until=time.time() + LEASE))

        self._store.write(take)
        with self._held_lock:
            self._held |= keys
        return keys

    def release_batch(self, tag: str) -> None:
        """Give back a batch's claims."""
        delete = sql.delete(CLAIMS).where(CLAIMS.c.owner == _batch(tag))
        self._store.write(lambda connection: connection.execute(delete))

    # ----------------------------------------------------------------------- renewal

    def _start_renewing(self) -> None:
        # Only where something is claimed: a ledger that is read needs no thread.
        with self._held_lock:
            if self._renewing is None:
                self._renewing = threading.Thread(target=self._renew, name="ledger", daemon=True)
                self._renewing.start()

    def _renew(self) -> None:
        """Renew the claims again and again: four times a lease, so that three of them may fail."""
        change = sql.update(CLAIMS).where(CLAIMS.c.owner == self._owner)
        while not self._closing.wait(LEASE / 4):
            try:
                with self._store.writing, self._store.engine.begin() as connection:
                    connection.execute(change.values(until=time.time() + LEASE))
            except DBAPIError as error:
                # No end to the run: the claims still hold for a while, and a database that stays
                # away is noticed by whoever writes a vote.
                logger.warning("the ledger's claims could not be renewed (%s)", reason(error))

    def close(self) -> None:
        """End renewing and give back what is claimed."""
        self._closing.set()
        if self._renewing is not None:
            self._renewing.join()
        self.release_all()


def _batch(tag: str) -> str:
    """Return a batch as the owner of claims."""
    return f"batch {tag}"


def _is_dead(owner: str) -> bool:
    """Whether the owner of a claim, a process and its ledger's mark, is a process that is known to
    be gone.
    """
    process, _, _mark = owner.rpartition(" ")
    return is_known_gone(process)
