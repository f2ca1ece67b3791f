"""The disk is full, the database is locked, changes come together: what is said, and what stays."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from app_world import Browser, opened
from sqlalchemy import event

from jaxmodpo.errors import UserError
from jaxmodpo.study.app import database
from jaxmodpo.study.app.store import DATABASE, Store


class Space(Protocol):
    """A place for a study that can be filled up."""

    folder: Path

    def fill(self, store: Store) -> None: ...
    def free(self, store: Store) -> None: ...


class Disk:
    """A file system of its own, of a few pages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
        if shutil.which("mount") is None:
            pytest.skip("there is no program mount")
        mounted = subprocess.run(command, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"a file system may not be mounted here: {mounted.stderr.strip()}")

    def fill(self, store: Store) -> None:
        with pytest.raises(OSError, match="No space left"), self._filler.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()

    def free(self, store: Store) -> None:
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


class Limit:
    """A database that may have no more pages than it has: SQLite then says what it says of a full
    disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def fill(self, store: Store) -> None:
        event.listen(store.database.engine, "connect", self._limit)
        store.database.engine.dispose()
        with pytest.raises(database.NotStored, match="full"):
            while True:
                store.note("researcher", "x", "y" * 5000)

    def free(self, store: Store) -> None:
        event.remove(store.database.engine, "connect", self._limit)
        store.database.engine.dispose()

    def _limit(self, connection: Any, _: object) -> None:
        connection.execute("PRAGMA max_page_count=1")


@pytest.fixture(params=["disk", "limit"])
def space(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Space]:
    if request.param == "limit":
        yield Limit(tmp_path / "limited")
        return
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.unmount()


def form(letter: str) -> dict[str, str]:
    """Return answers with a reason that no page with other rows has room for."""
    return {"criterion-1": "left", "criterion-2": "right", "reason": letter * 2000}


def test_a_full_disk_is_a_page_that_says_so_and_everything_before_it_stays(
    study: Path, space: Space
):
    path = space.folder / "study.json"
    path.write_bytes(study.read_bytes())
    store = opened(path)
    pseudonym, token = store.raters.new_link()
    rater = store.raters.named(pseudonym)
    browser = Browser(store)
    browser.get(f"/r/{token}")
    browser.consent()
    browser.answer("left")
    form_token = browser.client.get("/item/1").text.split('name="form_token" value="')[1][:64]
    stored = store.answers.of(rater)
    space.fill(store)
    for path in ("/item/1/answer", "/item/1"):
        answer = browser.client.post(path, data={"form_token": form_token, **form("\U0001f600")})
        assert answer.status_code == 503
        assert "Your last step could not be stored" in answer.text
        assert "Everything before it is kept" in answer.text
    # Help is there all the same.
    assert browser.client.get("/help").status_code == 200
    assert store.answers.of(rater) == stored
    space.free(store)
    page = browser.client.post("/item/1", data={"form_token": form_token, **form("\U0001f600")})
    assert page.status_code == 200
    assert {answer.reason for answer in store.answers.of(rater)} == {"\U0001f600" * 2000}
    browser.get("/study")
    browser.rate_all(store, pseudonym)
    browser.post("/finish")
    assert len(store.answers.of(rater)) == 8 * 2
    store.close()


def test_a_database_that_another_program_locks_is_said_and_answers_go_on_after_it(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "_BUSY", 50)
    path = tmp_path / "study.json"
    path.write_bytes(study.read_bytes())
    store = opened(path)
    pseudonym, token = store.raters.new_link()
    browser = Browser(store)
    browser.get(f"/r/{token}")
    browser.consent()
    other = sqlite3.connect(path.with_name(DATABASE), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    fields = {"form_token": browser.token(), **form("a")}
    assert browser.client.post("/item/1/answer", data=fields).status_code == 503
    assert store.answers.of(store.raters.named(pseudonym)) == []
    other.execute("ROLLBACK")
    other.close()
    assert browser.client.post("/item/1/answer", data=fields).json() == {"stored": True}
    assert len(store.answers.of(store.raters.named(pseudonym))) == 2
    store.close()


# --------------------------------------------------------------------------- together


def together(store: Store, works: list[Any]) -> tuple[list[BaseException | None], int]:
    """Make changes that come while another one is being made; return what each raised, and how many
    commits there were.
    """
    commits: list[object] = []
    count = commits.append
    event.listen(store.database.engine, "commit", count)
    errors: list[BaseException | None] = [None] * len(works)
    has_begun = threading.Event()
    may_end = threading.Event()

    def first() -> None:
        def work(connection: object) -> None:
            has_begun.set()
            may_end.wait(20)

        store.database.writing(work)

    def one(number: int) -> None:
        try:
            works[number](store)
        except Exception as error:
            errors[number] = error

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert has_begun.wait(20)
    threads += [threading.Thread(target=one, args=(number,)) for number in range(len(works))]
    for thread in threads[1:]:
        thread.start()
    end = time.monotonic() + 20
    while len(store.database._waiting) < len(works) and time.monotonic() < end:
        time.sleep(0.005)
    may_end.set()
    for thread in threads:
        thread.join()
    event.remove(store.database.engine, "commit", count)
    return errors, len(commits)


def note(detail: str) -> Any:
    return lambda store: store.note("researcher", "a note", detail)


def refused(store: Store) -> None:
    def work(connection: Any) -> None:
        connection.exec_driver_sql("INSERT INTO facts VALUES ('half', 'a change')")
        raise UserError("this one is refused")

    store.database.writing(work)


def test_changes_that_come_together_are_committed_together(store: Store):
    errors, commits = together(store, [note(str(number)) for number in range(6)])
    assert errors == [None] * 6
    assert commits == 2
    assert sorted(entry.detail for entry in store.audit()) == [str(number) for number in range(6)]


def test_a_change_that_fails_harms_none_that_came_with_it(store: Store):
    errors, _ = together(store, [note("before"), refused, note("after")])
    assert [type(error) for error in errors] == [type(None), UserError, type(None)]
    assert sorted(entry.detail for entry in store.audit()) == ["after", "before"]
    with store.database.engine.begin() as connection:
        rows = connection.exec_driver_sql("SELECT count(*) FROM facts WHERE name = 'half'")
        assert rows.scalar() == 0
