"""Votes survive, claims keep processes apart, keys hold everything an answer depends on, no private
text is written.

What a ledger promises it promises in a file and in a Postgres database alike.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
import sqlalchemy as sql
from some_votes import EMPATHY, REQUEST, SAFETY, asked, keys, vote

from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.errors import UserError
from jaxmodpo.judging import claims
from jaxmodpo.judging.batch_records import Batch
from jaxmodpo.judging.judge import Answer, Status, vote_keys
from jaxmodpo.judging.ledger import Ledger, Spent, import_votes
from jaxmodpo.judging.tables import TABLES, create_tables
from jaxmodpo.judging.votes import as_record, from_record, votes_of

# --------------------------------------------------------------------------- votes


def test_a_vote_reads_back_as_it_was_written(place):
    votes = [vote("1"), vote("2", order=()), vote("3", "refusal")]
    with Ledger(place) as ledger:
        ledger.add(votes)
    with Ledger(place) as ledger:
        assert ledger.votes([v.key for v in votes]) == {v.key: v for v in votes}
        assert ledger.statuses(keys("1", "3", "4")) == dict(
            zip(keys("1", "3"), ["valid", "refusal"], strict=True)
        )
        assert ledger.votes(keys("4")) == {} and list(ledger.every_vote()) == votes


def test_votes_newer_than_a_number_are_told_apart(place):
    with Ledger(place) as ledger:
        assert ledger.newest() == 0
        ledger.add([vote("1"), vote("2", "refusal")])
        before = ledger.newest()
        assert ledger.voted_since(before, keys("1", "2")) == set()
        ledger.add([vote("2", "error"), vote("3")])
        assert ledger.newest() > before
        assert ledger.voted_since(before, keys("1", "2", "3", "4")) == set(keys("2", "3"))


def test_every_field_of_a_vote_is_kept(place):
    request = dataclasses.replace(REQUEST, kind="rank", criteria=(EMPATHY, SAFETY), repeat=1)
    answer = Answer(
        "valid", "wörds", {"empathy": ("b", "a")}, "m-1", Usage(100, 40, 10), 0.5, "req-1"
    )
    votes = votes_of(asked("1", request), answer, judge="j", run="r")
    first, second = votes
    assert (first.key, second.key) == tuple(vote_keys(asked("1", request)))
    assert (first.order, first.status, second.order, second.status) == (
        ("b", "a"),
        "valid",
        None,
        "parse_error",
    )
    assert (first.kind, first.question_id, first.persona_id, first.criterion) == (
        "rank",
        "q1",
        "p1",
        "empathy",
    )
    assert (first.repeat, first.shown, first.raw, first.model) == (1, ("a", "b"), "wörds", "m-1")
    assert (first.judge, first.run, first.request_id, first.call) == (
        "j",
        "r",
        "req-1",
        second.call,
    )
    # A call's tokens and cost are shared out among its votes.
    assert (first.prompt_tokens, first.cached_tokens, first.completion_tokens, first.cost) == (
        50,
        20,
        5,
        0.25,
    )
    assert len(first.time) == 20 and first.time.endswith("Z")
    with Ledger(place) as ledger:
        ledger.add(votes)
        assert list(ledger.every_vote()) == votes


def test_an_answer_that_failed_gives_no_order_to_any_criterion():
    request = dataclasses.replace(REQUEST, criteria=(EMPATHY, SAFETY))
    answer = Answer("refusal", "no", {"empathy": ("a",)}, "m")
    assert [
        (v.status, v.order) for v in votes_of(asked("1", request), answer, judge="j", run="")
    ] == [("refusal", None)] * 2


def test_a_vote_is_seen_by_others_once_it_is_added(place):
    with Ledger(place) as ledger, Ledger(place) as other_ledger:
        ledger.add([vote("1")])
        assert other_ledger.statuses(keys("1")) == {keys("1")[0]: "valid"}


def test_a_vote_in_a_file_is_synced_before_it_counts(tmp_path):
    with Ledger(tmp_path / "v.sqlite") as ledger, ledger._store.engine.connect() as connection:
        assert connection.execute(sql.text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(sql.text("PRAGMA synchronous")).scalar() == 2, "FULL"


def test_rows_hold_neither_profiles_nor_replies_nor_posts(place):
    with Ledger(place) as ledger:
        ledger.add([vote("1")])
        ledger.claims.take(keys("2"))
        with ledger._store.engine.connect() as connection:
            tables = [
                row
                for table in TABLES.sorted_tables
                for row in connection.execute(sql.select(table))
            ]
    text = repr(tables)
    assert "said" in text
    assert not any(
        private in text for private in ("a post", "a private profile", "first text", "second text")
    )


@pytest.mark.parametrize(
    "said", ["\x00 zero", "half a pair \ud83d", "\U0001f600 whole", "\udcff", "'; drop table votes"]
)
def test_whatever_a_server_said_can_be_kept(place, said):
    answer = Answer("valid", said, {"empathy": ("a",)}, f"m {said}", request_id=f"r {said}")
    with Ledger(place) as ledger:
        ledger.add(votes_of(asked(), answer, judge="j", run=""))
        (stored_vote,) = ledger.every_vote()
        assert stored_vote.order == ("a",) and stored_vote.status == "valid"
        if said.isprintable():
            assert (stored_vote.raw, stored_vote.model, stored_vote.request_id) == (
                said,
                f"m {said}",
                f"r {said}",
            )
        json.dumps(as_record(stored_vote), ensure_ascii=False).encode()


STATUSES: list[Status] = ["valid", "refusal", "error"]


def test_the_newest_valid_vote_counts_or_the_newest_where_none_is(place):
    """Every sequence of up to three votes under one key, against the rule written out."""
    sequences = [s for n in (1, 2, 3) for s in itertools.product(STATUSES, repeat=n)]
    expected, expected_keys = {}, [hashlib.md5(repr(s).encode()).hexdigest() for s in sequences]
    with Ledger(place) as ledger:
        for position in range(3):
            for sequence, key in zip(sequences, expected_keys, strict=True):
                if position < len(sequence):
                    voted = vote("1", sequence[position])._replace(
                        key=key, call=f"{key[:20]} {position}"
                    )
                    ledger.add([voted])
                    before = expected.get(key)
                    if before is None or voted.status == "valid" or before.status != "valid":
                        expected[key] = voted
        assert ledger.votes(expected_keys) == expected
        assert ledger.statuses(expected_keys) == {key: v.status for key, v in expected.items()}
        effective_votes = list(ledger.every_vote(effective_only=True))
        assert {v.key: v for v in effective_votes} == expected and len(effective_votes) == len(
            expected
        )
        assert len(list(ledger.every_vote())) == sum(map(len, sequences)), "superseded ones stay"


def test_what_counts_in_a_run_hangs_on_its_own_votes_alone(place):
    with Ledger(place) as ledger:
        ledger.add([vote("1", "refusal", run="one"), vote("1", run="two"), vote("2", run="two")])
        assert [v.status for v in ledger.every_vote("one", effective_only=True)] == ["refusal"]
        assert [v.status for v in ledger.every_vote(effective_only=True)] == ["valid", "valid"]
        assert [v.run for v in ledger.every_vote("two")] == ["two", "two"]
        assert list(ledger.every_vote("none")) == [] and ledger.runs() == ["one", "two"]
        assert ledger.identities() == ["j"]


def test_more_keys_than_a_database_takes_parameters_are_looked_up(place):
    votes = [vote(str(n)) for n in range(1203)]
    with Ledger(place) as ledger:
        ledger.add(votes)
        expected_keys = [v.key for v in votes]
        assert len(ledger.votes(expected_keys)) == len(ledger.statuses(expected_keys)) == 1203
        assert ledger.claims.take(expected_keys) == set(expected_keys)
        ledger.claims.release(expected_keys)


def test_what_was_spent_is_counted_by_call_and_by_run(place):
    request = dataclasses.replace(REQUEST, criteria=(EMPATHY, SAFETY))
    orders = {"empathy": ("a",), "safety": ("b",)}
    with Ledger(place, "r") as ledger:
        for n, (usage, cost) in enumerate(
            [(Usage(100, 40, 11), 0.25), (Usage(50, 0, 4), None), (None, None)]
        ):
            answer = Answer("valid", "", orders, "m", usage, cost)
            ledger.add(votes_of(asked(str(n), request), answer, judge="j", run="r"))
        ledger.add(
            votes_of(
                asked("9"),
                Answer("valid", "", orders, "m", Usage(1, 0, 1), 1.0),
                judge="k",
                run="other",
            )
        )
        assert ledger.spent("r") == ledger.spent_by("j") == Spent(3, 0.25, 2, 150.0, 40.0, 15.0)
        assert ledger.spent("nobody") == Spent(0, 0.0, 0, 0.0, 0.0, 0.0)


def test_an_export_reads_back_into_another_ledger(place, tmp_path):
    votes = [vote(str(n), "refusal" if n % 3 == 0 else "valid", run="r") for n in range(20)]
    with Ledger(place) as ledger, Ledger(tmp_path / "other.sqlite") as other_ledger:
        ledger.add(votes)
        records = [json.loads(json.dumps(as_record(v))) for v in ledger.every_vote()]
        assert import_votes(other_ledger, (from_record(r, "here") for r in records)) == 20
        assert list(other_ledger.every_vote()) == votes
    for wrong in ({}, [], {**records[0], "more": 1}):
        with pytest.raises(UserError, match="here: not a vote"):
            from_record(wrong, "here")  # type: ignore[arg-type]


# --------------------------------------------------------------------------- many threads


def test_votes_of_many_threads_are_committed_together_and_each_is_durable_when_told_so(
    place, monkeypatch
):
    commits = []
    real = Ledger._write

    def counted(self, rows, released):
        commits.append(len(rows))
        time.sleep(0.002)  # as long as a disk takes
        real(self, rows, released)

    monkeypatch.setattr(Ledger, "_write", counted)
    with Ledger(place) as ledger, Ledger(place) as reader:
        problems = []

        def add(thread: int) -> None:
            for n in range(15):
                new_vote = vote(f"{thread} {n}")
                ledger.add([new_vote])
                if reader.votes([new_vote.key]) != {new_vote.key: new_vote}:
                    problems.append(new_vote)

        threads = [threading.Thread(target=add, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        assert len({v.key for v in ledger.every_vote()}) == 240
    assert sum(commits) == 240 and max(commits) > 1 and len(commits) < 200


def test_a_commit_that_fails_is_told_to_every_thread_whose_votes_were_in_it(place, monkeypatch):
    entered, go = threading.Semaphore(0), threading.Event()

    def failing(self, rows, released):
        entered.release()
        assert go.wait(10)
        raise OSError("no space")

    with Ledger(place) as ledger:
        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "_write", failing)
            errors = []

            def add(n: int) -> None:
                try:
                    ledger.add([vote(str(n))])
                except OSError as error:
                    errors.append(error)

            threads = [threading.Thread(target=add, args=(n,)) for n in range(5)]
            for thread in threads:
                thread.start()
            assert entered.acquire(timeout=10)
            time.sleep(0.1)
            go.set()
            for thread in threads:
                thread.join()
        assert len(errors) == 5
        ledger.add([vote("later")])
        assert len(list(ledger.every_vote())) == 1


# --------------------------------------------------------------------------- claims


def test_a_claim_keeps_others_out_until_it_is_released_or_answered(place):
    with Ledger(place) as first_ledger, Ledger(place) as two:
        assert first_ledger.claims.take(keys("1", "2", "3")) == set(keys("1", "2", "3"))
        assert two.claims.take(keys("2", "3", "4")) == set(keys("4"))
        assert first_ledger.claims.take(keys("1", "4")) == set(), (
            "neither one's own again nor another's"
        )
        first_ledger.claims.release(keys("2"))
        first_ledger.add([vote("3")], keys("3"))
        assert two.claims.take(keys("1", "2", "3")) == set(keys("2", "3"))
        first_ledger.claims.release_all()
        assert two.claims.take(keys("1")) == set(keys("1"))


def test_closing_gives_back_what_is_claimed(place):
    with Ledger(place) as first_ledger:
        first_ledger.claims.take(keys("1"))
    with Ledger(place) as two:
        assert two.claims.take(keys("1")) == set(keys("1"))


def test_of_many_threads_and_ledgers_that_claim_the_same_each_key_goes_to_one(place):
    expected_keys = keys(*map(str, range(60)))
    with Ledger(place) as first_ledger, Ledger(place) as two:
        got: list[set[str]] = []

        def claim(ledger: Ledger, turn: int) -> None:
            for start in range(0, 60, 10):
                at = (start + 10 * turn) % 60
                got.append(ledger.claims.take(expected_keys[at : at + 10]))

        threads = [
            threading.Thread(target=claim, args=((first_ledger, two)[n % 2], n)) for n in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert Counter(key for keys_of_thread in got for key in keys_of_thread) == dict.fromkeys(
        expected_keys, 1
    )


def test_a_lease_that_is_not_renewed_runs_out_and_one_that_is_does_not(place, monkeypatch):
    monkeypatch.setattr(claims, "LEASE", 0.4)
    with Ledger(place) as renewing, Ledger(place) as lost, Ledger(place) as other_ledger:
        monkeypatch.setattr(lost.claims, "_start_renewing", lambda: None)
        assert renewing.claims.take(keys("1")) and lost.claims.take(keys("2"))
        assert other_ledger.claims.take(keys("1", "2")) == set()
        time.sleep(1.0)
        assert other_ledger.claims.take(keys("1", "2")) == set(keys("2"))
        # Who lost it gives back nothing that is another's.
        lost.claims.release(keys("2"))
        with Ledger(place) as third:
            assert third.claims.take(keys("2")) == set()


def test_claims_of_a_batch_outlive_their_process_and_can_be_taken_back(place):
    with Ledger(place) as first_ledger:
        first_ledger.claims.take(keys("1", "2", "3"))
        first_ledger.claims.give_to_batch(keys("1", "2"), "tag", 60.0)
    with Ledger(place) as two, Ledger(place) as three:
        assert two.claims.take(keys("1", "2", "3")) == set(keys("3"))
        assert three.claims.take_from_batch("tag") == set(keys("1", "2"))
        three.add([vote("1")], keys("1"))
        assert two.claims.take(keys("1", "2")) == set(keys("1"))
        three.claims.give_to_batch(keys("2"), "other", 60.0)
        three.claims.release_batch("other")
        assert two.claims.take(keys("2")) == set(keys("2"))


def test_batches_are_kept_by_run_with_their_newest_state(place):
    with Ledger(place, "r") as ledger, Ledger(place, "other") as other_ledger:
        ledger.batches.record(Batch("a", "", "prepared", 5))
        ledger.batches.record(Batch("a", "batch-1", "submitted", 5))
        other_ledger.batches.record(Batch("b", "", "prepared", 1))
        assert ledger.batches.all() == [Batch("a", "batch-1", "submitted", 5)]
        assert other_ledger.batches.all() == [Batch("b", "", "prepared", 1)]


CLAIMS_AND_WAITS = """
import sys, time
from jaxmodpo.judging.ledger import Ledger
ledger = Ledger(sys.argv[1])
print(len(ledger.claims.take(sys.argv[2:])), flush=True)
time.sleep(600)
"""


def child(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_claims_of_a_process_that_was_killed_are_free_at_once(place):
    expected_keys = keys("1", "2", "3")
    process = child(CLAIMS_AND_WAITS, place, *expected_keys)
    assert first_line(process) == "3"
    with Ledger(place) as ledger:
        assert ledger.claims.take([*expected_keys, *keys("4")]) == set(keys("4")), "it lives"
        process.kill()
        process.communicate()
        # The ledger was open before: what is dead is seen whenever it stands in the way.
        assert ledger.claims.take(expected_keys[:1]) == set(expected_keys[:1])
        assert ledger.claims.take(expected_keys) == set(expected_keys[1:])


SHARES = """
import sys, threading, time
from pathlib import Path
from jaxmodpo.records import Candidate
from jaxmodpo.judging import collect as module
from jaxmodpo.criteria import Criterion
from jaxmodpo.judging.judge import Answer, Request
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.endpoints.pool import drain
module._LOOK_AGAIN = 0.1
place, name, start = sys.argv[1], sys.argv[2], Path(sys.argv[3])
shown = (Candidate("a", "x"), Candidate("b", "y"))
criteria = (Criterion("empathy", "d", "b", "w"), Criterion("safety", "d", "b", "w"))
def requests():
    return (Request("compare", f"q{n}", "post", "p", "profile", criteria, shown) for n in range(700))
class Judge:
    identity, costs = "shared", True
    def ask(self, requests, put):
        def work(asked):
            asked_here.append(asked.key)
            time.sleep(0.002)
            put(asked, Answer("valid", "", {c.name: ("a",) for c in criteria}, name))
        drain(requests, work, workers=4, stop=threading.Event())
asked_here = []
with Ledger(place, name) as ledger:
    print("ready", flush=True)
    while not start.exists():
        time.sleep(0.01)
    module.collect(requests, Judge(), ledger, label=name)
    votes = [v for _, some in module.votes_by_request(requests, "shared", ledger) for v in some]
print(len(asked_here), len(votes), sum(v.status == "valid" for v in votes), flush=True)
"""


@pytest.mark.slow(seconds=3)
def test_two_processes_that_share_a_ledger_ask_each_request_once_in_total(place, tmp_path):
    processes = [child(SHARES, place, name, tmp_path / "go") for name in ("one", "two")]
    assert [first_line(p) for p in processes] == ["ready", "ready"]
    (tmp_path / "go").touch()
    outputs = [p.communicate(timeout=120) for p in processes]
    assert all(p.returncode == 0 for p in processes), outputs[0][1][-2000:] + outputs[1][1][-2000:]
    counts = [[int(n) for n in out.split()] for out, _ in outputs]
    assert counts[0][0] + counts[1][0] == 700 and min(counts[0][0], counts[1][0]) > 100, "both work"
    assert all(count[1:] == [1400, 1400] for count in counts), "each ends with all votes"
    with Ledger(place) as ledger:
        votes = list(ledger.every_vote())
        assert len(votes) == len({v.key for v in votes}) == 1400
        assert (
            ledger.spent("one").calls == counts[0][0] and ledger.spent("two").calls == counts[1][0]
        )


# --------------------------------------------------------------------------- keys


def test_a_database_that_refuses_is_told_in_a_sentence_whatever_was_wanted_of_it(place):
    with Ledger(place) as ledger, Ledger(place) as other_ledger:
        ledger.claims.take(keys("1"))
        with other_ledger._store.engine.begin() as connection:
            for table in TABLES.sorted_tables:
                connection.execute(sql.text(f"drop table {table.name}"))
        for use in (
            lambda: ledger.add([vote("1")]),
            lambda: ledger.statuses(keys("1")),
            lambda: ledger.votes(keys("1")),
            lambda: ledger.claims.take(keys("2")),
            lambda: ledger.spent("r"),
            ledger.batches.all,
        ):
            with pytest.raises(
                UserError, match=r"cannot be used: .*; mend it and run the same"
            ) as caught:
                use()
            assert "\n" not in str(caught.value)
        create_tables(other_ledger._store.engine)


def test_a_ledger_whose_tables_are_damaged_is_refused_in_a_sentence(tmp_path):
    place = tmp_path / "votes.sqlite"
    Ledger(place).close()
    place.write_bytes(
        place.read_bytes().replace(b"CREATE TABLE votes", b"CREATE \xf2\x28BLE votes")
    )
    for read_only in (True, False):
        with pytest.raises(UserError, match=r"votes\.sqlite cannot be opened: "):
            Ledger(place, read_only=read_only)


@pytest.mark.parametrize("shown", ["5", "x", '["a", 1]'])
def test_a_vote_whose_ids_are_no_list_of_texts_is_named(tmp_path, shown):
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ledger.add([vote("1")])
        with ledger._store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE votes SET shown = ?", (shown,))
        with pytest.raises(
            UserError, match="a vote of the ledger is damaged: the ids in it are no list of texts"
        ):
            list(ledger.every_vote())
