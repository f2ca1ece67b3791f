"""A study's database: a file of SQLite, or one on a server. A commit outlives a power cut."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from jaxmodpo.errors import UserError
from jaxmodpo.files import private_database
from jaxmodpo.judging.database import is_away, location_url, reason, shown_url

_T = TypeVar("_T")

_MIGRATIONS = Path(__file__).parent / "migrations"

# Seconds to wait before each further try where the database is away, as one that restarts.
_WAITS = (0.2, 0.5, 1.0, 2.0)

# Milliseconds for which SQLite waits for another process's lock. Commands on a running study hold
# it for a few; who holds it for longer should not keep raters waiting.
_BUSY = 5_000

# Connections that a process holds: as many as it has threads that answer. Each stays open, since
# opening one takes as long as an answer does.
_CONNECTIONS = 40


class NotStored(Exception):
    """The database took nothing of a change: its disk is full, or it is away."""


class _Change:
    """A piece of writing that waits for its turn.

    Attributes:
        is_done: it is committed, or cannot be.
        value: what it returned.
        error: why it is not committed.
    """

    def __init__(self, work: Callable[[sql.Connection], Any]) -> None:
        self.work = work
        self.is_done = False
        self.value: Any = None
        self.error: BaseException | None = None

    def result(self) -> Any:
        """Return what the work returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return self.value


class Database:
    """Connections to a study's database.

    Args:
        location: a file, or a URL such as ``postgresql://user@host/name``.
        create: make a file that is not there.

    Raises:
        UserError: it cannot be opened, is not there, or is of a newer version.
    """

    def __init__(self, location: str | Path, *, create: bool) -> None:
        url = location_url(location)
        self.shown_location = shown_url(url)
        self._is_file = url.get_backend_name() == "sqlite"
        try:
            self.engine = self._file(url, create) if self._is_file else _server(url)
        except OSError as error:
            raise UserError(f"{self.shown_location} cannot be opened: {error.strerror}") from None
        except ModuleNotFoundError as error:
            raise UserError(
                f"the database needs the package {error.name}: pip install 'jaxmodpo[postgres]'"
            ) from None
        # SQLite has one writer at a time. Writers of this process queue up here, in turn, rather
        # than asking for its lock again and again.
        self._one_writer = threading.Lock() if self._is_file else contextlib.nullcontext()
        self._waiting: deque[_Change] = deque()
        try:
            self._migrate()
        except DBAPIError as error:
            raise UserError(f"{self.shown_location} cannot be opened: {reason(error)}") from None

    def close(self) -> None:
        """End all connections."""
        self.engine.dispose()

    @property
    def is_postgres(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    def reading(self, work: Callable[[sql.Connection], _T]) -> _T:
        """Return what a piece of reading returns, tried again where the database is away.

        Raises:
            NotStored: it stayed away.
        """

        def read() -> _T:
            with self.engine.begin() as connection:
                return work(connection)

        return self._tried(read)

    def writing(self, work: Callable[[sql.Connection], _T]) -> _T:
        """Return what a change returns, once it is committed.

        A change may run more than once, and must not do anything outside the database.

        Raises:
            NotStored: nothing of it is stored, or the database went away before it said so.
        """
        return self._tried(lambda: self._alone(work) if self.is_postgres else self._together(work))

    def _alone(self, work: Callable[[sql.Connection], _T]) -> _T:
        with self._write() as connection:
            return work(connection)

    def _together(self, work: Callable[[sql.Connection], _T]) -> _T:
        """Make a change in one transaction with those that came meanwhile, and return what it
        returned.

        A commit waits for the disk, and others come while it does. Whoever has the turn next makes
        all of their changes and commits once: answers that come together cost one wait together.
        """
        change = _Change(work)
        self._waiting.append(change)
        with self._one_writer:
            if not change.is_done:
                group = [self._waiting.popleft() for _ in range(len(self._waiting))]
                self._make(group)
        return change.result()

    def _make(self, group: Sequence[_Change]) -> None:
        """Make changes in one transaction; where one of them fails, each in one of its own.

        A disk or a lock that refuses one refuses all, and is not asked for each.
        """
        try:
            with self._begin_writing() as connection:
                values = [change.work(connection) for change in group]
        except BaseException as error:
            if len(group) > 1 and not _is_trouble(error):
                for change in group:
                    self._make([change])
                return
            for change in group:
                change.error = error
                change.is_done = True
            return
        for change, value in zip(group, values, strict=True):
            change.value = value
            change.is_done = True

    @contextlib.contextmanager
    def _begin_writing(self) -> Generator[sql.Connection]:
        with self.engine.connect() as connection:
            connection = connection.execution_options(writes=True)
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def _write(self) -> Generator[sql.Connection]:
        with self._one_writer, self._begin_writing() as connection:
            yield connection

    def _tried(self, attempt: Callable[[], _T]) -> _T:
        for wait in (*_WAITS, None):
            try:
                return attempt()
            except DBAPIError as error:
                if not _is_trouble(error):
                    raise
                # SQLite has waited for a lock already.
                if wait is None or self._is_file or not is_away(error):
                    raise NotStored(reason(error)) from error
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _file(self, url: sql.URL, create: bool) -> sql.Engine:
        path = Path(url.database or "")
        if not create and not path.is_file():
            raise UserError(
                f"there is no database {path}; it is made by jaxmodpo study links or study serve"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        private_database(path.resolve())
        engine = sql.create_engine(url, poolclass=QueuePool, pool_size=_CONNECTIONS, max_overflow=5)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _migrate(self) -> None:
        """Bring the tables to the newest version.

        Raises:
            UserError: a newer version of the program made them.
        """
        # Alembic tells of each of its parts, from its import on.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from alembic import command
        from alembic.config import Config
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        scripts = ScriptDirectory.from_config(config)
        with self._write() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
            known_revisions = {script.revision for script in scripts.walk_revisions()}
            if current is not None and current not in known_revisions:
                raise UserError(
                    f"{self.shown_location} was written by a newer version of jaxmodpo (revision"
                    f" {current}); use that one"
                )
            if current != scripts.get_current_head():
                config.attributes["connection"] = connection
                command.upgrade(config, "head")


def _is_trouble(error: BaseException) -> bool:
    """Return whether an error is a disk's or a server's, and not of the change itself."""
    return isinstance(error, DBAPIError) and not isinstance(error.orig, _programming_errors())


def _programming_errors() -> tuple[type[Exception], ...]:
    """Return errors that are faults of ours or broken rules of the tables, and no trouble of a
    disk or a server.
    """
    import sqlite3

    kinds: list[type[Exception]] = [sqlite3.IntegrityError, sqlite3.ProgrammingError]
    with contextlib.suppress(ImportError):
        import psycopg

        kinds += [psycopg.IntegrityError, psycopg.ProgrammingError]
    return tuple(kinds)


def _server(url: sql.URL) -> sql.Engine:
    # A server has fewer to give than a file, and others may want some.
    return sql.create_engine(
        url, pool_size=_CONNECTIONS // 2, max_overflow=_CONNECTIONS // 2 + 5, pool_pre_ping=True
    )


def _prepare_sqlite(connection: Any, _: object) -> None:
    # Transactions begin where _begin_sqlite says so, and not where the driver thinks.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={_BUSY}")
    connection.execute("PRAGMA journal_mode=WAL")
    # An answer is acknowledged after its commit, so the commit has to reach the disk.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    # What a rater asks to be deleted is overwritten, and not only unlinked.
    connection.execute("PRAGMA secure_delete=ON")


def _begin_sqlite(connection: sql.Connection) -> None:
    # A transaction that writes takes the lock at once: one that read first and then finds that
    # somebody else wrote could not go on.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
