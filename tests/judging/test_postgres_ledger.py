"""What a ledger on a database server has to bear beyond what a file has: passwords, restarts,
missing drivers.

The contract that both kinds keep is tested in ``test_ledger.py``, two processes that share one
included.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Any

import pytest
from faulty_server import FaultyServer
from postgres_server import PASSWORD, Postgres

from jaxmodpo.criteria import Criterion
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json, write_json
from jaxmodpo.judging import store
from jaxmodpo.judging.judge import Answer, Call, Request, call_key
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.preferences import PreferencesConfig, preferences
from jaxmodpo.judging.votes import Vote, votes_of
from jaxmodpo.records import Candidate, Response, write_responses


def vote(name: str) -> Vote:
    shown = (Candidate("a", "x"), Candidate("b", "y"))
    request = Request(
        "compare", name, "post", "p", "profile", (Criterion("empathy", "d", "b", "w"),), shown
    )
    answer = Answer("valid", "", {"empathy": ("a",)}, "m")
    return votes_of(Call(call_key(request, "j"), request), answer, judge="j", run="")[0]


def config_for(
    folder, server: FaultyServer, url: str, out: str = "out", **settings
) -> PreferencesConfig:
    rows = [
        Response(f"q{q}", f"question-{q}", f"r{n}", f"reply {n}")
        for q in range(10)
        for n in range(3)
    ]
    write_responses(folder / "responses.csv", rows)
    write_json(folder / "personas.json", {f"p{n}": f"persona-{n}" for n in range(12)})
    fields: dict[str, Any] = {
        "judge": "endpoint",
        "base_url": server.url,
        "judge_model": "m",
        "responses": folder / "responses.csv",
        "personas": folder / "personas.json",
        "output_dir": folder / out,
        "only": ("empathy",),
        "personas_per_question": 0,
        "ledger": url,
        **settings,
    }
    return PreferencesConfig(**fields)


def test_a_run_keeps_its_votes_in_the_database_and_its_password_nowhere(
    postgres, tmp_path, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    url = postgres.new_place()
    with FaultyServer() as server:
        assert preferences(config_for(tmp_path, server, url)) is not None
    with Ledger(url) as ledger:
        assert len(list(ledger.every_vote())) == 120
        assert ledger.shown_location.startswith(
            f"postgresql+psycopg://tester:***@127.0.0.1:{postgres.port}/"
        )
        assert PASSWORD not in repr(ledger)
    assert not (tmp_path / "out" / "votes.sqlite").exists()
    assert read_json(tmp_path / "out" / "manifest.json")["results"]["votes_valid"] == 120
    assert "".join(capfd.readouterr()).count(PASSWORD) == caplog.text.count(PASSWORD) == 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written and not any(PASSWORD.encode() in path.read_bytes() for path in written)


def test_the_password_may_come_from_the_environment(postgres, monkeypatch):
    url = postgres.new_place()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with Ledger(url.replace(f":{PASSWORD}", "")) as ledger:
        assert list(ledger.every_vote()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace(PASSWORD, "wrong"), "password authentication failed"),
        (lambda url: url.replace("/postgres?", "/nowhere?"), 'database "nowhere" does not exist'),
        (lambda url: url.replace("127.0.0.1:", "127.0.0.1:1"), "."),
    ],
)
def test_a_database_that_cannot_be_opened_is_told_in_a_sentence_without_the_password(
    postgres, change, words
):
    url = change(postgres.new_place())
    with pytest.raises(UserError, match=words) as caught:
        Ledger(url)
    message = str(caught.value)
    assert "cannot be opened" in message and "\n" not in message
    assert PASSWORD not in message and ":wrong" not in message


def test_a_missing_driver_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        UserError,
        match=r"needs the package psycopg; for Postgres: pip install 'jaxmodpo\[postgres\]'",
    ):
        Ledger("postgresql://somebody@host/name")


def test_a_commit_whose_outcome_is_unknown_is_not_written_twice(postgres, monkeypatch):
    from sqlalchemy import event

    with Ledger(postgres.new_place()) as ledger:
        cut = [True]

        @event.listens_for(ledger._store.engine, "commit")
        def commit_and_lose_the_connection(connection) -> None:
            if cut:
                cut.pop()
                connection.connection.driver_connection.commit()
                pid = connection.connection.driver_connection.info.backend_pid
                postgres.execute(f"select pg_terminate_backend({pid})")
                time.sleep(0.1)
                connection.exec_driver_sql("select 1")  # finds it gone

        monkeypatch.setattr(store, "RECONNECT", (0.1,))
        votes = [vote(str(n)) for n in range(3)]
        ledger.add(votes)
        assert not cut and list(ledger.every_vote()) == votes


@pytest.mark.slow(seconds=15)
def test_a_server_that_restarts_in_the_middle_of_a_run_costs_no_vote(tmp_path, monkeypatch):
    """A server of its own, since others are using the shared one."""
    from postgres_server import Missing

    monkeypatch.setattr(store, "RECONNECT", (0.5, 1.0, 2.0, 4.0))
    try:
        postgres = Postgres()
    except Missing as reason:
        pytest.skip(str(reason))
    try:
        url = postgres.new_place()
        with FaultyServer(latency=0.02) as server:

            def restart() -> None:
                while len(server.calls) < 30:
                    time.sleep(0.005)
                postgres.restart(down=0.5)

            helper = threading.Thread(target=restart)
            helper.start()
            phase = preferences(config_for(tmp_path, server, url, max_concurrency=4))
            helper.join()
            assert phase is not None and phase.results["votes_valid"] == 120
            assert set(server.answered.values()) == {1} and len(server.answered) == 120
        with Ledger(url) as ledger:
            keys = [v.key for v in ledger.every_vote()]
            assert len(keys) == len(set(keys)) == 120, (
                "each once, whatever became of the last commit"
            )
    finally:
        postgres.close()
