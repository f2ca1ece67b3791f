"""Where a ledger may be: what is refused with a sentence, what is made, and what is waited for."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from some_votes import keys, vote

from jaxmodpo.errors import UserError
from jaxmodpo.judging import database, store
from jaxmodpo.judging.database import NoLedger, existing
from jaxmodpo.judging.ledger import Ledger


def test_a_file_of_something_else_is_refused_by_name(tmp_path):
    (tmp_path / "votes.sqlite").write_text("question_id,question_text\n" * 200)
    with pytest.raises(
        UserError, match=r"the ledger .*votes\.sqlite cannot be opened: file is not a database"
    ):
        Ledger(tmp_path / "votes.sqlite")


def test_a_place_that_cannot_be_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be opened"):
        Ledger(tmp_path / "file" / "votes.sqlite")
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(UserError, match="cannot be opened: Is a directory"):
        Ledger(tmp_path / "folder.sqlite")
    for url in ("nonsense://host/name", "://", "http://host/name", "postgresql://u@h:notaport/x"):
        for read_only in (False, True):
            with pytest.raises(UserError, match="must be a file or a database URL"):
                Ledger(url, read_only=read_only)
    with pytest.raises(UserError, match="names no file"):
        Ledger("sqlite://")


def test_a_database_of_another_program_is_refused_by_what_it_lacks(tmp_path):
    with sqlite3.connect(tmp_path / "v.sqlite") as connection:
        connection.execute("create table votes (id integer primary key, title text)")
    connection.close()
    before = (tmp_path / "v.sqlite").read_bytes()
    for read_only in (True, False):
        with pytest.raises(
            UserError,
            match=r"v\.sqlite is no ledger: its table 'votes' .*\(no column key, run, judge\)",
        ):
            Ledger(tmp_path / "v.sqlite", read_only=read_only)
        assert not read_only or (tmp_path / "v.sqlite").read_bytes() == before
    with sqlite3.connect(tmp_path / "empty.sqlite") as connection:
        connection.execute("create table other (id integer)")
    connection.close()
    before = (tmp_path / "empty.sqlite").read_bytes()
    with pytest.raises(NoLedger, match="it has no table of votes"):
        Ledger(tmp_path / "empty.sqlite", read_only=True)
    assert (tmp_path / "empty.sqlite").read_bytes() == before


def test_a_ledger_opened_to_be_read_writes_nothing_and_sees_what_others_add(place):
    with pytest.raises(NoLedger):
        Ledger(place, read_only=True)
    with Ledger(place) as ledger:
        ledger.add([vote("1")])
        with Ledger(place, read_only=True) as reading:
            assert reading.extent() == (1, 1) and reading.extent("nobody") == (0, 0)
            ledger.add([vote("2", run="r")])
            assert len(list(reading.every_vote())) == 2
            assert reading.extent() == (2, 2) and reading.extent("r") == (1, 2)
            if isinstance(place, Path):
                with pytest.raises(UserError, match="readonly"):
                    reading.add([vote("3")])


def test_a_file_that_stays_locked_for_long_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "_BUSY", 10)
    monkeypatch.setattr(store, "RECONNECT", (0.05, 0.3))
    with Ledger(tmp_path / "v.sqlite") as ledger:
        locking = sqlite3.connect(
            tmp_path / "v.sqlite", isolation_level=None, check_same_thread=False
        )
        locking.execute("begin immediate")
        with pytest.raises(UserError, match="database is locked"):
            ledger.add([vote("1")])
        freed = threading.Timer(0.15, lambda: locking.execute("rollback"))
        freed.start()
        ledger.add([vote("1")])
        freed.join()
        locking.close()
        assert len(list(ledger.every_vote())) == 1


def test_a_ledger_that_is_only_read_is_not_made(tmp_path):
    for place in (tmp_path / "none.sqlite", f"sqlite:///{tmp_path}/none.sqlite"):
        with pytest.raises(UserError, match=r"there is no ledger .*none\.sqlite"):
            existing(place)
    assert list(tmp_path.iterdir()) == []
    Ledger(tmp_path / "some.sqlite").close()
    assert existing(tmp_path / "some.sqlite") == tmp_path / "some.sqlite"
    assert existing("postgresql://host/name") == "postgresql://host/name"


def test_a_torn_database_file_is_told_in_a_sentence(tmp_path):
    path = tmp_path / "votes.sqlite"
    with Ledger(path) as ledger:
        ledger.add([vote(str(n)) for n in range(2000)])
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot be opened"), Ledger(path) as ledger:
        ledger.statuses(keys("1"))


def test_a_path_is_made_where_its_folder_is_missing(tmp_path):
    Ledger(Path(tmp_path / "deep" / "er" / "votes.sqlite")).close()
    assert (tmp_path / "deep" / "er" / "votes.sqlite").is_file()
