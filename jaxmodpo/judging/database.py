"""Where a ledger lies: a file of SQLite, or a database on a server, opened so that a commit
outlives a power cut.

The module knows databases and nothing of votes: what a place is called, how it is opened to write
or only to read, and which of its errors will pass.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import QueuePool

from jaxmodpo.errors import UserError
from jaxmodpo.files import private_database

# Milliseconds for which SQLite itself waits for a lock.
_BUSY = 60_000

_NO_LOCATION = "the ledger must be a file or a database URL such as postgresql://user@host/name"


class NoLedger(UserError):
    """A ledger that is only read is not there."""


def open_engine(location: str | Path, read_only: bool) -> sql.Engine:
    """Open a database's connections; a file and its folder are made, unless it is only read.

    Raises:
        NoLedger: ``read_only``, and there is no such file.
        UserError: it cannot be opened.
    """
    if read_only:
        location = existing(location)
    url = location_url(location)
    try:
        if url.get_backend_name() != "sqlite":
            return sql.create_engine(url, pool_size=5, max_overflow=20, pool_pre_ping=True)
        settings: dict[str, Any] = {"poolclass": QueuePool, "pool_size": 5, "max_overflow": 20}
        if read_only:
            # What is left in a write-ahead log can be read, so that the file is opened for that; it
            # is not made.
            uri = Path(url.database or "").absolute().as_uri() + "?mode=rw"
            settings["creator"] = lambda: sqlite3.connect(uri, uri=True, check_same_thread=False)
        else:
            Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
            # A link that was named as the ledger's place is followed; phases refuse one in their
            # own folder.
            if not url.query:
                private_database(Path(url.database or "").resolve())
        engine = sql.create_engine(url, **settings)
    except OSError as error:
        raise UserError(f"the ledger {url.database} cannot be opened: {error.strerror}") from None
    except ModuleNotFoundError as error:
        raise UserError(
            f"the ledger's database needs the package {error.name}; for Postgres: pip install"
            " 'jaxmodpo[postgres]'"
        ) from None
    except (ArgumentError, NoSuchModuleError):
        raise UserError(_NO_LOCATION) from None
    event.listen(engine, "connect", _prepare_sqlite_to_read if read_only else _prepare_sqlite)
    return engine


def location_url(location: str | Path) -> sql.URL:
    """Return a ledger's place as a database URL.

    Raises:
        UserError: it looks like a URL, and is none.
    """
    text = str(location)
    if "://" not in text:
        return sql.URL.create("sqlite", database=text)
    if text.startswith(("postgres://", "postgresql://")):
        text = "postgresql+psycopg://" + text.split("://", 1)[1]
    try:
        url = sql.make_url(text)
    except (ArgumentError, ValueError):
        raise UserError(_NO_LOCATION) from None
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise UserError(
            "the ledger sqlite:// names no file; write sqlite:///folder/votes.sqlite, or the path"
            " alone"
        )
    return url


def existing(location: str | Path) -> str | Path:
    """Return where a ledger is that is only read: unlike a run's, it is not made where it is
    missing.

    Raises:
        NoLedger: there is no such file.
        UserError: a URL that is none.
    """
    url = location_url(location)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise NoLedger(f"there is no ledger {url.database}; give a run's ledger, or a database URL")
    return location


def full_location(location: str | Path) -> str:
    """Return a ledger's place without a password: a file's path in full, or a URL."""
    url = location_url(location)
    if url.get_backend_name() == "sqlite":
        return str(Path(url.database or "").resolve())
    return shown_url(url)


def shown_url(url: sql.URL) -> str:
    """Return a URL without its passwords, of which some stand in the query."""
    query = {name: "***" if _is_secret(name) else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in ("pass", "pwd", "secret", "token", "key"))


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.execute(f"PRAGMA busy_timeout={_BUSY}")
    # Others read while one writes.
    connection.execute("PRAGMA journal_mode=WAL")
    # Each commit is synced, so that it outlives a power cut. SQLite's own default with WAL, NORMAL,
    # would lose the last votes, which are paid for.
    connection.execute("PRAGMA synchronous=FULL")


def _prepare_sqlite_to_read(connection: Any, _: object) -> None:
    connection.execute(f"PRAGMA busy_timeout={_BUSY}")
    connection.execute("PRAGMA query_only=ON")


def reason(error: DBAPIError) -> str:
    """Return what the database said, on one line."""
    lines = str(error.orig).strip().splitlines()
    return lines[0] if lines else type(error.orig).__name__


def is_away(error: DBAPIError) -> bool:
    """Whether a database may serve again soon: a server restarts, and who keeps a file locked ends
    some time.

    What else a file refuses will not mend itself.
    """
    if isinstance(error.orig, sqlite3.Error):
        # The lowest byte says what kind, the others why.
        kind = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        return kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return error.connection_invalidated or isinstance(error, OperationalError)


def upsert(engine: sql.Engine) -> Any:
    """Return the database's own form of an insert that may meet its row."""
    if engine.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert
    return insert
