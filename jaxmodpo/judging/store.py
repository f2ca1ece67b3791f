"""A ledger's database: opened and checked, and used in transactions that survive a lost connection.

Votes, claims and batches are kept in one database by the same rules, which stand here: one
transaction of this process writes at a time, what a restarting server broke off is done again, and
what the database refuses is told in a sentence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError

from jaxmodpo.errors import UserError
from jaxmodpo.judging.database import NoLedger, is_away, open_engine, reason, shown_url
from jaxmodpo.judging.tables import TABLES, VOTES, create_tables

Result = TypeVar("Result")

RECONNECT = (1.0, 5.0, 15.0)
"""Seconds before further attempts at a database whose connection was lost."""

# Databases limit the parameters of one statement.
_KEYS_PER_STATEMENT = 500


class Store:
    """An open database of a ledger.

    Attributes:
        engine: its connections.
        writing: held by the thread that writes. SQLite has one writer at a time anyhow, and waits
            for its lock by asking again and again; threads of one process wait for this one, which
            wakes them.

    Args:
        location: a path (SQLite) or a database URL.
        read_only: neither the database nor a table is made where it is missing, and nothing is
            written.

    Raises:
        NoLedger: ``read_only``, and there is none.
        UserError: the database cannot be opened, or holds something else.
    """

    def __init__(self, location: str | Path, read_only: bool):
        self.engine = open_engine(location, read_only)
        self.writing = threading.Lock()
        try:
            self._refuse_other_tables(read_only)
            if not read_only:
                create_tables(self.engine)
        except DBAPIError as error:
            self.close()
            raise UserError(
                f"the ledger {self.shown_location} cannot be opened: {reason(error)}"
            ) from None
        except UnicodeDecodeError:
            # SQLite quotes the damaged part in its error, which Python cannot read then.
            self.close()
            raise UserError(
                f"the ledger {self.shown_location} cannot be opened: it is damaged"
            ) from None
        except UserError:
            self.close()
            raise

    def _refuse_other_tables(self, read_only: bool) -> None:
        """Refuse a table of votes that is somebody else's, and to read where there is none."""
        inspector = sql.inspect(self.engine)
        if not inspector.has_table(VOTES.name):
            if read_only:
                raise NoLedger(
                    f"{self.shown_location} is a database and no ledger: it has no table of votes"
                )
            return
        for table in TABLES.tables.values():
            if not inspector.has_table(table.name):
                continue
            columns = {column["name"] for column in inspector.get_columns(table.name)}
            missing = [column.name for column in table.c if column.name not in columns]
            if missing:
                lacks = f"no column {', '.join(missing[:3])}"
                raise UserError(
                    f"{self.shown_location} is no ledger: its table '{table.name}' is another"
                    f" program's ({lacks})"
                )

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @property
    def shown_location(self) -> str:
        """Where the database is, without a password."""
        url = self.engine.url
        if url.get_backend_name() == "sqlite":
            return str(url.database)
        return shown_url(url)

    def transact(self, work: Callable[[sql.Connection], Result]) -> Result:
        """Do some work in one transaction; again, where the database was away for a moment.

        Args:
            work: may be called several times. Where a connection was lost during a commit, nobody
                knows whether the commit succeeded, so that work which must not be done twice has to
                look first.

        Raises:
            UserError: the database stays away, or refuses.
        """
        waits = iter(RECONNECT)
        while True:
            try:
                with self.engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                # What a database refuses for good would be refused again.
                wait = next(waits, None) if is_away(error) else None
                if wait is None:
                    raise self.refusal(error) from None
            # Not while the connection is held: another thread may have work that succeeds.
            time.sleep(wait)

    def write(self, work: Callable[[sql.Connection], Result]) -> Result:
        """Do some work in one transaction while no other thread of this process writes."""
        with self.writing:
            return self.transact(work)

    def rows(
        self, query: sql.Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[sql.Row[*tuple[Any, ...]]]:
        """Return the rows of a query with its parameters."""
        return self.transact(lambda connection: connection.execute(query, parameters).all())

    def refusal(self, error: DBAPIError) -> UserError:
        """Return the sentence that tells what the database refused."""
        return UserError(
            f"the ledger {self.shown_location} cannot be used: {reason(error)}; mend it and run the"
            " same command again"
        )


def in_chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Divide keys into as many as one statement takes."""
    for start in range(0, len(keys), _KEYS_PER_STATEMENT):
        yield keys[start : start + _KEYS_PER_STATEMENT]
