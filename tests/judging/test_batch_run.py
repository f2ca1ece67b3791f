"""A batch judge that is stopped or killed anywhere goes on at its next start, pays nothing twice
and loses nothing.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from batch_requests import (
    IDENTITY,
    all_done,
    ask,
    make_judge,
    requests,
    statuses,
)
from batch_server import Lines, Outcome, Server, answered, failed

from jaxmodpo.errors import UserError
from jaxmodpo.judging import batch_api
from jaxmodpo.judging.collect import collect
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import votes_of


@pytest.fixture
def server(batch_server: Server) -> Server:
    return batch_server


def test_ctrl_c_leaves_batches_running_says_so_and_the_next_start_reads_them(
    server, tmp_path, caplog, monkeypatch
):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxmodpo.judging.batch.time.sleep", interrupt)
    with Ledger(tmp_path / "votes.sqlite") as ledger, caplog.at_level(logging.WARNING):
        with pytest.raises(KeyboardInterrupt):
            ask(make_judge(server.url, ledger, tmp_path / "b", max_requests=5), requests(8))
        assert "the endpoint goes on with what it has (batches: 1)" in caplog.text
    monkeypatch.undo()
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ask(make_judge(server.url, ledger, tmp_path / "b", max_requests=5), requests(8))
        assert statuses(ledger) == {"valid": 16}
        all_done(ledger, tmp_path / "b")
    assert [len(lines) for lines in server.asked] == [5, 3]


def test_what_was_put_before_a_death_is_not_put_again(server, tmp_path, monkeypatch):
    put, keep = 0, Ledger.add

    def dying(ledger: Ledger, votes: Any, released: Any = ()) -> None:
        nonlocal put
        put += bool(votes)
        if put > 20 and votes:
            raise RuntimeError("as if killed")
        keep(ledger, votes, released)

    server.script = lambda number, lines: Outcome(
        status="completed",
        output=[answered(lines[0])],
        error=[failed(line, 400, "bad") for line in lines[1:]],
    )
    monkeypatch.setattr(Ledger, "add", dying)
    with Ledger(tmp_path / "votes.sqlite") as ledger, pytest.raises(RuntimeError):
        ask(make_judge(server.url, ledger, tmp_path / "b"), requests(40))
    monkeypatch.undo()
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        assert 0 < len(list(ledger.every_vote())) < 80
        judge = make_judge(server.url, ledger, tmp_path / "b")
        judge.ask(
            iter([]),
            lambda a, answer: ledger.add(votes_of(a, answer, judge=IDENTITY, run=""), [a.key]),
        )
        assert statuses(ledger) == {"valid": 2, "rejected": 78}
        all_done(ledger, tmp_path / "b")
    assert len(server.asked) == 1


def test_a_lost_file_of_an_unread_batch_is_a_sentence(server, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_api, "ATTEMPTS", 1)
    server.statuses = lambda method, path: 500 if path.startswith("/v1/batches/") else 200
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        with pytest.raises(UserError):
            ask(make_judge(server.url, ledger, tmp_path / "b"), requests(3))
        with pytest.raises(
            UserError, match=r"requests.jsonl, which says what the batch batch-1 .* is gone"
        ):
            ask(make_judge(server.url, ledger, tmp_path / "elsewhere"), requests(3))


def test_votes_of_an_earlier_starts_batch_are_not_said_to_be_under_way_elsewhere(
    server, tmp_path, caplog
):
    """The batch of a start that ended is read by the next one, and nobody else asks what it
    asks.
    """
    caplog.set_level(logging.INFO)
    server.looks = 10_000
    with Ledger(tmp_path / "v.sqlite", "r") as ledger:
        judge = make_judge(server.url, ledger, tmp_path / "batches")

        def interrupted(_: float) -> None:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("jaxmodpo.judging.batch.time.sleep", interrupted)
            collect(lambda: requests(14), judge, ledger, label="t")
    server.looks = 1
    with Ledger(tmp_path / "v.sqlite", "r") as ledger:
        judge = make_judge(server.url, ledger, tmp_path / "batches")
        began = time.monotonic()
        assert collect(lambda: requests(14), judge, ledger, label="t") == {"valid": 28}
    assert "going on with 1 batches of an earlier start" in caplog.text
    assert "under way" not in caplog.text and time.monotonic() - began < 2


def interrupted_batch(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave a batch of eight requests at the endpoint, and return the file of what was sent."""

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, Ledger(folder / "votes.sqlite") as ledger:
        patch.setattr("jaxmodpo.judging.batch.time.sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ask(make_judge(server.url, ledger, folder / "b"), requests(8))
    (sent,) = (
        path for path in (folder / "b").iterdir() if not path.name.endswith(".requests.jsonl")
    )
    return sent


@pytest.mark.parametrize("left", [None, 0, 1000])
def test_paid_answers_are_read_though_the_file_of_what_was_sent_is_damaged(
    server, tmp_path, monkeypatch, left
):
    sent = interrupted_batch(server, tmp_path, monkeypatch)
    content = sent.read_bytes()
    assert len(content) > 1000
    sent.unlink() if left is None else sent.write_bytes(content[:left])
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ask(make_judge(server.url, ledger, tmp_path / "b"), requests(8))
        assert statuses(ledger) == {"valid": 16}
        all_done(ledger, tmp_path / "b")
    assert len(server.asked) == 1


@pytest.mark.parametrize("left", [None, 1000])
def test_requests_whose_lines_are_damaged_are_asked_anew_and_answered_ones_are_not(
    server, tmp_path, monkeypatch, left
):
    def script(number: int, lines: Lines) -> Outcome:
        come_to = lines[:3] if number == 1 else lines
        return Outcome(
            status="expired" if number == 1 else "completed",
            output=[answered(line) for line in come_to],
        )

    server.script = script
    sent = interrupted_batch(server, tmp_path, monkeypatch)
    content = sent.read_bytes()
    sent.unlink() if left is None else sent.write_bytes(content[:left])
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        with pytest.raises(
            UserError,
            match=r"batch-1 did not come to cannot be sent again: .*; its answers are kept",
        ):
            ask(make_judge(server.url, ledger, tmp_path / "b"), requests(8))
        assert statuses(ledger) == {"valid": 6}
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ask(make_judge(server.url, ledger, tmp_path / "b"), requests(8))
        assert statuses(ledger) == {"valid": 16}
        all_done(ledger, tmp_path / "b")
    assert [len(lines) for lines in server.asked] == [8, 5] and max(server.billed().values()) == 1


# --------------------------------------------------------------------------- kills and other
# processes

CHILD = textwrap.dedent("""
    import functools, importlib, json, os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import openai
    import batch_requests as tests
    from jaxmodpo.judging.ledger import Ledger
    url, folder, starts = sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])

    def killing(real, after):
        calls = 0
        def method(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls > after:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)
        return method

    def start(run, count, point, after):
        if point:
            module, _, path = point.partition(":")
            *owners, name = path.split(".")
            owner = functools.reduce(getattr, owners, importlib.import_module(module))
            setattr(owner, name, killing(getattr(owner, name), after))
        with Ledger(folder / "votes.sqlite", run) as ledger:
            tests.ask(tests.make_judge(url, ledger, folder / "b", max_requests=6, rounds=9), tests.requests(count))

    def ended(pid):
        print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)

    # A process for each, without importing everything anew.
    pids = []
    for one in starts:
        pid = os.fork()
        if pid == 0:
            print("pid", os.getpid(), flush=True)
            start(*one)
            os._exit(0)
        pids.append(pid)
        if sys.argv[5] != "together":
            ended(pids.pop())
    for pid in pids:
        ended(pid)
    """)

Start = tuple[str, int, str, int]


def start_child(
    server: Server, folder: Path, *starts: Start, how: str = "in turn"
) -> subprocess.Popen[str]:
    """Start the judge several times over: of a run, on so many requests, killed at a point after so
    many calls.
    """
    arguments = [str(Path(__file__).parent), server.url, str(folder), json.dumps(starts), how]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def endings(process: subprocess.Popen[str]) -> list[int]:
    out, error_output = process.communicate(timeout=200)
    assert process.returncode == 0, error_output[-2000:]
    ended = [int(line.split()[1]) for line in out.splitlines() if line.startswith("ended")]
    assert set(ended) <= {0, -signal.SIGKILL}, error_output[-2000:]
    return ended


@pytest.mark.slow(seconds=20)
def test_a_judge_killed_anywhere_goes_on_and_pays_nothing_twice(server, tmp_path):
    def script(number: int, lines: Lines) -> Outcome:
        # Every third expires, so that kills also fall between two rounds.
        come_to = lines if number % 3 else lines[:2]
        return Outcome(
            status="completed" if number % 3 else "expired",
            output=[answered(line) for line in come_to],
        )

    server.script = script
    methods = ["batch_files:Draft.close", "batch_api:BatchAPI.upload", "batch_api:BatchAPI.create"]
    methods += [
        "batch_run:BatchRun._settle",
        "batch_run:BatchRun._forget",
        "batch_run:BatchRun._is_running",
        "batch_run:BatchRun._again",
    ]
    methods += [
        "batch_run:BatchRun._read",
        "batch_records:BatchRecords.record",
        "claims:Claims.give_to_batch",
    ]
    points = ["time:sleep", *(f"jaxmodpo.judging.{method}" for method in methods)]
    # Each has new requests to ask, so that it does not end before its kill.
    starts = [("r", 8 * number, point, number % 2) for number, point in enumerate(points, 1)]
    assert endings(start_child(server, tmp_path, *starts)).count(-signal.SIGKILL) >= 10
    with Ledger(tmp_path / "votes.sqlite", "r") as ledger:
        ask(make_judge(server.url, ledger, tmp_path / "b", max_requests=6, rounds=9), requests(90))
        assert statuses(ledger) == {"valid": 180}
        all_done(ledger, tmp_path / "b")
    assert max(server.billed().values()) == 1 and len(server.billed()) == 90


@pytest.mark.slow(seconds=5)
def test_a_batch_created_while_the_process_dies_is_found_by_its_tag(server, tmp_path):
    pids = list[int]()

    def created() -> bool:
        if len(server.asked) == 1:
            os.kill(pids[0], signal.SIGKILL)
        return len(server.asked) > 1

    server.created = created
    process = start_child(server, tmp_path, ("r", 6, "", 0))
    assert process.stdout is not None
    pids.append(int(process.stdout.readline().split()[1]))
    assert endings(process) == [-signal.SIGKILL]
    with Ledger(tmp_path / "votes.sqlite", "r") as ledger:
        assert [batch.state for batch in ledger.batches.all()] == ["prepared"]
        ask(make_judge(server.url, ledger, tmp_path / "b", max_requests=6), requests(20))
        assert statuses(ledger) == {"valid": 40}
        all_done(ledger, tmp_path / "b")
    assert [len(lines) for lines in server.asked] == [6, 6, 6, 2]
    assert max(server.billed().values()) == 1


@pytest.mark.slow(seconds=10)
@pytest.mark.parametrize("runs", [("one", "two"), ("same", "same")])
def test_two_runs_that_share_a_ledger_ask_nothing_twice(server, tmp_path, runs):
    server.looks = 2
    starts = [(run, 30, "", 0) for run in runs]
    assert endings(start_child(server, tmp_path, *starts, how="together")) == [0, 0]
    with Ledger(tmp_path / "votes.sqlite", runs[0]) as ledger:
        assert statuses(ledger) == {"valid": 60}
        all_done(ledger, tmp_path / "b")
    assert max(server.billed().values()) == 1 and len(server.billed()) == 30
