"""What a study stores: its tables, its file, its troubles."""

from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from app_world import Browser, opened, write_study
from postgres_server import Missing, Postgres

from jaxmodpo.errors import UserError
from jaxmodpo.study.app import database
from jaxmodpo.study.app.store import DATABASE, open_store
from jaxmodpo.study.app.tables import METADATA, RATERS


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path)


def test_migrations_make_the_tables_that_the_code_works_with(study: Path):
    store = opened(study)
    with store.database.engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    store.close()


def test_the_database_is_for_its_owners_eyes_alone_and_syncs_each_commit(study: Path):
    store = opened(study)
    path = study.with_name(DATABASE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with store.database.engine.begin() as connection:
        for pragma, value in (("synchronous", 2), ("foreign_keys", 1), ("journal_mode", "wal")):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value
    store.close()


def test_a_study_file_that_changes_under_its_study_is_refused(study: Path):
    opened(study).close()
    study.write_text(study.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(UserError, match="is not the study file"):
        opened(study)


def test_a_database_of_a_newer_version_or_none_is_refused(study: Path):
    with pytest.raises(UserError, match="there is no database"):
        open_store(study, None)
    opened(study).close()
    with sqlite3.connect(study.with_name(DATABASE)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UserError, match="newer version"):
        opened(study)


def test_no_link_and_no_address_can_be_read_from_the_database(study: Path):
    store = opened(study)
    _, token = store.raters.new_link()
    browser = Browser(store)
    browser.get(f"/r/{token}")
    session = browser.client.cookies["study"]
    store.close()
    content = study.with_name(DATABASE).read_bytes()
    assert token.encode() not in content and session.encode() not in content
    assert b"testclient" not in content


def test_many_raters_at_once_get_a_place_each_and_no_more(study: Path):
    store = opened(study)
    results: list[str] = []

    def invite() -> None:
        try:
            results.append(store.raters.new_link()[0])
        except UserError:
            results.append("")

    threads = [threading.Thread(target=invite) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bool(result) for result in results) == [False] * 5 + [True] * 3
    numbers = [rater.assignment for rater in store.raters.all()]
    assert sorted(filter(None, numbers)) == [1, 2, 3]
    store.close()


@pytest.fixture(scope="module")
def postgres():
    try:
        server = Postgres()
    except Missing as error:
        pytest.skip(str(error))
    yield server
    server.close()


def test_a_study_in_postgres_outlives_restarts_of_the_server(study: Path, postgres, monkeypatch):
    store = open_store(study, postgres.new_place(), create=True)
    pseudonym, token = store.raters.new_link()
    browser = Browser(store)
    browser.get(f"/r/{token}")
    browser.consent()
    browser.answer("left")
    postgres.restart(0.3)
    browser.get("/item/1")
    browser.answer("right")
    assert browser.page.status_code == 200
    answers = store.answers.of(store.raters.named(pseudonym))
    assert {answer.side for answer in answers} == {"right"} and len(answers) == 2
    # Away for longer than is waited for.
    browser.get("/item/1")
    postgres.stop()
    monkeypatch.setattr(database, "_WAITS", (0.01, 0.01))
    browser.post("/item/1", **{"criterion-1": "equal"})
    assert browser.page.status_code == 503 and "Everything before it is kept" in browser.page.text
    postgres.restart(0)
    assert store.answers.of(store.raters.named(pseudonym)) == answers
    browser.get("/item/1")
    browser.answer("equal")
    answers = store.answers.of(store.raters.named(pseudonym))
    assert {answer.side for answer in answers} == {"equal"}
    with store.database.engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        assert connection.execute(sql.select(sql.func.count()).select_from(RATERS)).scalar() == 1
    store.close()
