"""Replies of an endpoint with every fault there is: nothing is lost, nothing is paid for twice, and
it is given its time.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from faulty_server import FAULTS, MODEL, PASSING, FaultyServer, reply_to
from killed_runs import Runs, check_kill

from jaxmodpo.endpoints.useless_row import FAILURES_IN_A_ROW
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json
from jaxmodpo.journals import Journal
from jaxmodpo.records import Question, read_responses, write_questions
from jaxmodpo.sampling import endpoint
from jaxmodpo.sampling.endpoint_settings import Endpoint
from jaxmodpo.sampling.journal import PlannedReply

KINDS = {
    "refusal": "refusal",
    "filtered answer": "content_filter",
    "filtered prompt": "content_filter",
    "empty answer": "empty",
}
"""the faults after which a reply has no text, and its kind"""


def planned_replies(count: int) -> list[PlannedReply]:
    return [PlannedReply(Question(f"q{n}", f"question-{n} persona-0"), 0) for n in range(count)]


def where(server: FaultyServer, **settings: Any) -> Endpoint:
    defaults: dict[str, Any] = {"base_url": server.url, "model": "m", "max_concurrency": 16}
    return Endpoint(**(defaults | settings))


def prompt(planned: PlannedReply, server: FaultyServer) -> str:
    return where(server).prompt(planned.question.question_text)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BACKOFF", 0.01)
    monkeypatch.setattr(endpoint, "TIMEOUT", 30.0)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_passes_or_is_named_and_costs_no_second_reply(tmp_path, monkeypatch, fault):
    """A quarter of the replies meet the fault at their first call."""
    if fault == "late":
        monkeypatch.setattr(endpoint, "TIMEOUT", 2.0)
    expected_replies = planned_replies(24)
    seen_ids = set[str]()
    journal = Journal(tmp_path / "sampled.jsonl")

    def script(number: int, asked: str) -> str:
        first, question = asked not in seen_ids, int(asked.split("question-")[1].split()[0])
        seen_ids.add(asked)
        return fault if first and question % 4 == 0 else ""

    with FaultyServer(script, late=2.5) as server:
        refused = fault == "too long"
        if refused:
            with pytest.raises(UserError, match=r"6 of 24 calls .* failed.*asks for those alone"):
                endpoint.ask(where(server), expected_replies, journal)
        rows = endpoint.ask(where(server), expected_replies, journal)
        calls = Counter(call.prompt for call in server.calls)
        for number, (planned, row) in enumerate(zip(expected_replies, rows, strict=True)):
            is_fourth = number % 4 == 0
            again = is_fourth and (fault in PASSING or refused)
            assert calls[prompt(planned, server)] == 1 + again
            kind = KINDS.get(fault, "") if is_fourth else ""
            assert row["kind"] == kind
            reason = "filter" if kind == "content_filter" else "end"
            expected = "" if kind else reply_to(prompt(planned, server))
            if is_fourth and fault == "answer truncated":
                expected, reason = expected[: len(expected) // 2], "length"
            if is_fourth and fault == "answer twice":
                expected += expected[:-1]
            if is_fourth and fault == "surrogate":
                expected = "What a nice reply \ufffd"
            if is_fourth and fault in ("answer no JSON", "wrong permutation"):
                expected = row["response_text"]  # words for judges
            assert (row["response_text"], row["finish_reason"]) == (expected, reason)
            assert row["model"] == ("m" if is_fourth and fault == "filtered prompt" else MODEL)
        assert set(server.answered.values()) == ({1, 2} if refused else {1})
        before = len(server.calls)
        assert endpoint.ask(where(server), expected_replies, journal) == rows
        assert len(server.calls) == before


@pytest.mark.slow(seconds=10)
def test_a_thousand_replies_under_passing_faults_all_come_and_none_twice(tmp_path):
    faults = tuple(PASSING - {"late"})
    expected_replies = planned_replies(1000)
    with FaultyServer(FaultyServer.by_chance(7, 0.2, faults), retry_after=0.02) as server:
        rows = endpoint.ask(where(server), expected_replies, Journal(tmp_path / "sampled.jsonl"))
        assert {call.fault for call in server.calls} == {*faults, ""}
        assert set(server.answered.values()) == {1} and len(server.answered) == 1000
        for planned, row in zip(expected_replies, rows, strict=True):
            assert row["response_text"] == reply_to(prompt(planned, server))
        assert max(call.at_once for call in server.calls) <= 16
    assert len(Journal(tmp_path / "sampled.jsonl").rows) == 1000


@pytest.mark.parametrize("fault", ["429 Retry-After", "429 retry-after-ms", "200 x-ratelimit"])
def test_the_wait_that_is_asked_for_is_honored_by_all_calls(tmp_path, fault):
    with FaultyServer(
        lambda number, asked: fault if number == 40 else "", retry_after=0.8, latency=0.005
    ) as server:
        endpoint.ask(
            where(server, max_concurrency=8),
            planned_replies(120),
            Journal(tmp_path / "sampled.jsonl"),
        )
    (pushed,) = (call for call in server.calls if call.fault == fault)
    # What was under way when it was said may still arrive.
    later = sorted(call.came for call in server.calls if call.came > pushed.left + 0.4)
    assert pushed.left + 0.79 <= later[0] < pushed.left + 3.8


@pytest.mark.slow(seconds=3)
def test_the_concurrency_falls_when_the_endpoint_pushes_back(tmp_path):
    with FaultyServer(latency=0.03, limit=6) as server:
        endpoint.ask(
            where(server, max_concurrency=64),
            planned_replies(400),
            Journal(tmp_path / "sampled.jsonl"),
        )
        at_once = [call.at_once for call in server.calls]
        pushed = [call.fault == "429" for call in server.calls]
    assert set(server.answered.values()) == {1} and len(server.answered) == 400
    late = at_once[len(at_once) // 2 :]
    assert max(at_once) <= 32 and 2 <= sum(late) / len(late) <= 8
    assert sum(pushed[len(pushed) // 2 :]) < 0.15 * len(late)


def test_a_refused_key_ends_the_run_at_once_with_one_sentence(tmp_path):
    with FaultyServer(lambda number, asked: "401", latency=0.01) as server:
        with pytest.raises(UserError, match=r"/v1 refused the key in OPENAI_API_KEY$"):
            endpoint.ask(where(server), planned_replies(500), Journal(tmp_path / "sampled.jsonl"))
        assert len(server.calls) <= 16


@pytest.mark.parametrize("fault", ["500", "cut before", "no completion", "truncated JSON"])
def test_an_endpoint_that_fails_throughout_ends_the_run_with_one_sentence(
    tmp_path, monkeypatch, fault
):
    monkeypatch.setattr(endpoint, "ATTEMPTS", 2)
    journal = Journal(tmp_path / "sampled.jsonl")
    with FaultyServer(lambda number, asked: fault) as server:
        with pytest.raises(
            UserError,
            match=rf"{FAILURES_IN_A_ROW} calls in a row to .* failed, the last one .* mend it",
        ):
            endpoint.ask(where(server), planned_replies(500), journal)
        assert not journal.rows and len(server.calls) <= 2 * (FAILURES_IN_A_ROW + 16)
        # It goes on once the endpoint is there.
        server.script = lambda number, asked: ""
        assert len(endpoint.ask(where(server), planned_replies(50), journal)) == 50


# --------------------------------------------------------------------------- SIGKILL

REPLIES, KILLS, CONCURRENCY = 600, 8, 16

PRELOADED = """
import httpx2, openai
from jaxmodpo.sampling import command
"""


def command(folder: Path, url: str) -> list[str]:
    flags = {
        "engine": "endpoint",
        "endpoint-model": "m",
        "base-url": url,
        "questions": folder / "q.csv",
        "samples": 1,
        "max-concurrency": CONCURRENCY,
        "output-dir": folder / "out",
    }
    arguments = ["responses"]
    for name, value in flags.items():
        arguments += [f"--{name}", str(value)]
    return arguments


def held(folder: Path) -> set[str]:
    """Return the questions whose replies the journal holds, read as any other process would."""
    path = folder / "out" / "sampled.jsonl"
    if not path.exists():
        return set()
    copy = folder / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    rows = Journal(copy).rows
    assert len(rows) == len({row["question_id"] for row in rows}), "a reply twice"
    return {row["question_id"] for row in rows}


@pytest.mark.slow(seconds=30)
def test_kills_lose_no_reply_and_ask_for_none_again(tmp_path):
    write_questions(tmp_path / "q.csv", [planned.question for planned in planned_replies(REPLIES)])
    chance, runs = random.Random(42), Runs(tmp_path / "said", PRELOADED)
    with FaultyServer(latency=0.02) as server:
        arguments = command(tmp_path, server.url)

        def start_and_kill(stored: set[str], kills_to_come: int) -> None:
            missing_count = REPLIES - len(stored)
            assert missing_count > 0, "all was asked before the last kill"
            calls = chance.randint(1, 2 * missing_count // (kills_to_come + 1))
            runs.kill_after_calls(arguments, server, calls, pause=chance.uniform(0, 0.01))

        for kill in range(KILLS):
            check_kill(
                server,
                functools.partial(start_and_kill, kills_to_come=KILLS - kill),
                lambda: held(tmp_path),
                _question,
                CONCURRENCY,
            )
        stored, before = held(tmp_path), len(server.calls)
        assert REPLIES // 3 < len(stored) < REPLIES
        assert runs.finish(arguments) == 0, runs.newest_output()
        assert not {_question(call.prompt) for call in server.calls[before:]} & stored
        again = sum(times - 1 for times in server.answered.values())
        assert again <= KILLS * CONCURRENCY and len(server.answered) == REPLIES
    runs.close()
    replies = read_responses(tmp_path / "out" / "responses.csv")
    assert [reply.question_id for reply in replies] == [f"q{n}" for n in range(REPLIES)]
    assert read_json(tmp_path / "out" / "manifest.json")["results"]["spent"]["calls"] == REPLIES
    assert not (tmp_path / "out" / "sampled.jsonl").exists()


def _question(asked: str) -> str:
    return f"q{asked.split('question-')[1].split()[0]}"
