"""An endpoint with every fault there is: nothing is lost, nothing is asked twice, and it is given
its time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_server import FAULTS, MODEL, OUTCOMES, PASSING, FaultyServer, marked, ranking_of

from jaxmodpo.criteria import Criterion
from jaxmodpo.endpoints.useless_row import FAILURES_IN_A_ROW
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.judging.budget import Budget
from jaxmodpo.judging.collect import collect, votes_by_request
from jaxmodpo.judging.endpoint import EndpointJudge
from jaxmodpo.judging.endpoint_settings import Endpoint
from jaxmodpo.judging.judge import Answer, Request
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import Vote
from jaxmodpo.records import Candidate, Response, write_responses

CRITERION = Criterion("empathy", "d", "b", "w")
SHOWN = tuple(Candidate(f"r{n}", f"reply {n}") for n in range(3))


def requests(count: int) -> Iterator[Request]:
    for n in range(count):
        yield Request(
            "rank", f"q{n}", f"question-{n}", f"p{n % 7}", f"persona-{n % 7}", (CRITERION,), SHOWN
        )


def judge(server: FaultyServer, **settings: Any) -> EndpointJudge:
    settings: dict[str, Any] = {"max_concurrency": 16, "timeout": 30.0} | settings
    budget = settings.pop("budget", Budget())
    return EndpointJudge(
        Endpoint(base_url=server.url, model="gpt-5-mini", **settings), budget, backoff=0.01
    )


def votes_of_run(server: FaultyServer, ledger: Ledger, count: int, **settings: Any) -> list[Vote]:
    """Collect, and return the votes in the requests' order."""
    asking = judge(server, **{k: v for k, v in settings.items() if k != "retry"})
    collect(lambda: requests(count), asking, ledger, label="t", retry=settings.get("retry", False))
    return [
        votes[0] for _, votes in votes_by_request(lambda: requests(count), asking.identity, ledger)
    ]


def rightly_answered(server: FaultyServer, votes: list[Vote]) -> None:
    """Every valid vote is the answer to its own prompt."""
    prompts = {marked(call.prompt)[0]: call.prompt for call in server.calls}
    for vote in votes:
        if vote.status == "valid":
            ranking = ranking_of(prompts[vote.question_id[1:]], 3)
            assert vote.order == tuple(f"r{n - 1}" for n in ranking), vote.question_id


# --------------------------------------------------------------------------- all at once


@pytest.mark.slow(seconds=25)
def test_thousands_of_requests_under_every_fault_end_valid_or_with_a_named_status(tmp_path):
    count = 3000
    # One call in eight fails; the late ones, of which each takes four seconds of a worker's time,
    # are rarer.
    faults = tuple(f for f in FAULTS if f != "late") * 8 + ("late",)
    with (
        FaultyServer(
            FaultyServer.by_chance(7, 0.125, faults), retry_after=0.03, late=4.5
        ) as server,
        Ledger(tmp_path / "v.sqlite", "r") as ledger,
    ):
        votes = votes_of_run(server, ledger, count, max_concurrency=24, timeout=4.0)
        stored = list(ledger.every_vote())
        spent = ledger.spent("r")
    assert {call.fault for call in server.calls} == {*FAULTS, ""}
    # Each request has one vote, with the status that the last thing said to it has.
    last: dict[str, str] = {}
    tries = Counter(call.prompt for call in server.calls)
    for call in server.calls:
        last[marked(call.prompt)[0]] = call.fault
    assert len(votes) == len(stored) == count and len(tries) == count
    for vote in votes:
        fault = last[vote.question_id[1:]]
        assert vote.status == ("error" if fault in PASSING else OUTCOMES.get(fault, "valid")), fault
        assert (vote.order is None) == (vote.status != "valid")
    assert Counter(v.status for v in votes)["valid"] > 0.9 * count
    # The two sides' counts are equal: what was answered is in the ledger, and was not asked for
    # again.
    answered = {marked(prompt)[0]: times for prompt, times in server.answered.items()}
    assert set(answered.values()) == {1}
    given_up = sum(fault in PASSING for fault in last.values())
    assert len(answered) + given_up == count
    assert sum(v.prompt_tokens is not None for v in votes) == spent.counted_calls
    assert {v.model for v in votes if v.prompt_tokens is not None} == {MODEL}
    rightly_answered(server, votes)
    assert len({v.call for v in votes}) == count
    names = Counter(
        v.request_id for v in votes if v.status == "valid" and v.request_id != "chatcmpl-0"
    )
    assert set(names.values()) == {1}, "each vote names its own call"
    assert max(call.at_once for call in server.calls) <= 24


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_passes_or_ends_with_its_status_and_costs_no_second_answer(tmp_path, fault):
    """A quarter of the requests meet the fault at their first call."""
    seen = set[str]()

    def script(number: int, prompt: str) -> str:
        first, question = prompt not in seen, int(marked(prompt)[0])
        seen.add(prompt)
        return fault if first and question % 4 == 0 else ""

    with FaultyServer(script, late=2.5) as server, Ledger(tmp_path / "v.sqlite") as ledger:
        votes = votes_of_run(server, ledger, 24, timeout=2.0 if fault == "late" else 30.0)
        calls = Counter(marked(call.prompt)[0] for call in server.calls)
        expected = "valid" if fault in PASSING else OUTCOMES.get(fault, "valid")
        assert [v.status for v in votes] == [expected if n % 4 == 0 else "valid" for n in range(24)]
        assert [calls[str(n)] for n in range(24)] == [
            2 if n % 4 == 0 and fault in PASSING else 1 for n in range(24)
        ]
        assert set(server.answered.values()) == {1}
        rightly_answered(server, votes)
        before = len(server.calls)
        again = votes_of_run(server, ledger, 24)
        # Where nobody answered, it is asked again; what was answered is not.
        assert len(server.calls) - before == (6 if expected == "error" else 0)
        assert [v.status for v in again] == [
            "valid" if expected == "error" else v.status for v in votes
        ]
        retried = votes_of_run(server, ledger, 24, retry=True)
        assert {v.status for v in retried} == {"valid"}


# --------------------------------------------------------------------------- rate limits


@pytest.mark.parametrize(
    "fault",
    [
        "429 Retry-After",
        "429 retry-after-ms",
        "429 Retry-After date",
        "503 Retry-After",
        "200 x-ratelimit",
    ],
)
def test_the_wait_that_is_asked_for_is_honored_by_all_calls(tmp_path, fault):
    wait = 2.0 if fault.endswith("date") else 0.8

    def script(number: int, prompt: str) -> str:
        return fault if number == 40 else ""

    with (
        FaultyServer(script, retry_after=wait, latency=0.005) as server,
        Ledger(tmp_path / "v.sqlite") as ledger,
    ):
        votes = votes_of_run(server, ledger, 120, max_concurrency=8)
    assert {v.status for v in votes} == {"valid"}
    (pushed,) = (call for call in server.calls if call.fault == fault)
    # A date has whole seconds. What was under way when it was said may still arrive.
    least = wait - 1.05 if fault.endswith("date") else wait
    asked_at = sorted(call.came for call in server.calls if call.came > pushed.left + 0.4)
    assert asked_at[0] >= pushed.left + least - 0.01
    assert asked_at[0] < pushed.left + wait + 3.0, "and hardly longer"


def test_without_a_wait_named_the_pauses_grow(tmp_path):
    with FaultyServer(lambda number, prompt: "429" if number < 6 else "") as server:
        asking = judge(server)
        asking.calls.backoff = 0.04
        answer = asking.answer(next(requests(1)))
    assert answer is not None and answer.status == "valid"
    gaps = [b.came - a.left for a, b in zip(server.calls, server.calls[1:], strict=False)]
    assert len(gaps) == 6
    for times, gap in enumerate(gaps):
        assert gap >= 0.04 * 2**times * 0.5 - 0.005


@pytest.mark.slow(seconds=2)
def test_the_concurrency_never_exceeds_what_is_set_and_falls_when_the_endpoint_pushes_back(
    tmp_path,
):
    with FaultyServer(latency=0.06) as server, Ledger(tmp_path / "free.sqlite") as ledger:
        votes_of_run(server, ledger, 300, max_concurrency=20)
        free = [call.at_once for call in server.calls]
    assert max(free[:8]) <= 8, "it begins with a few"
    assert 15 < max(free) <= 20
    with (
        FaultyServer(latency=0.03, limit=6) as server,
        Ledger(tmp_path / "limited.sqlite") as ledger,
    ):
        votes = votes_of_run(server, ledger, 400, max_concurrency=64)
        pushed = [call.fault == "429" for call in server.calls]
        at_once = [call.at_once for call in server.calls]
    assert {v.status for v in votes} == {"valid"}
    # It never grows to 64, and finds its place near what the server bears.
    assert max(at_once) <= 32
    late = at_once[len(at_once) // 2 :]
    assert 2 <= sum(late) / len(late) <= 8
    assert sum(pushed[len(pushed) // 2 :]) < 0.15 * len(late)


# --------------------------------------------------------------------------- ends


@pytest.mark.parametrize("fault", ["500", "cut before", "no completion", "truncated JSON"])
def test_an_endpoint_that_fails_throughout_ends_the_run_with_one_sentence(tmp_path, fault):
    with (
        FaultyServer(lambda number, prompt: fault) as server,
        Ledger(tmp_path / "v.sqlite") as ledger,
    ):
        with pytest.raises(
            UserError,
            match=rf"failed {FAILURES_IN_A_ROW} requests in a row, the last with .*mend it",
        ):
            votes_of_run(server, ledger, 500, attempts=2)
        stored = list(ledger.every_vote())
        assert {v.status for v in stored} == {"error"} and len(stored) < FAILURES_IN_A_ROW + 16
        # It goes on once the endpoint is there.
        server.script = lambda number, prompt: ""
        assert {v.status for v in votes_of_run(server, ledger, 50)} == {"valid"}


def test_failures_that_are_not_in_a_row_end_nothing(tmp_path):
    def script(number: int, prompt: str) -> str:
        return "too long" if int(marked(prompt)[0]) % FAILURES_IN_A_ROW else ""

    with FaultyServer(script) as server, Ledger(tmp_path / "v.sqlite") as ledger:
        votes = votes_of_run(server, ledger, 200, max_concurrency=1)
    assert Counter(v.status for v in votes) == {"valid": 10, "rejected": 190}


def test_a_budget_of_calls_is_used_up_exactly_and_the_run_continues(tmp_path):
    failing = FaultyServer.by_chance(3, 0.3, ("500", "cut before", "429"))
    with FaultyServer(failing) as server, Ledger(tmp_path / "v.sqlite", "r") as ledger:
        with pytest.raises(
            UserError, match="the budget of 60 calls is spent; raise --budget-calls"
        ):
            votes_of_run(server, ledger, 200, budget=Budget(most_calls=60))
        assert ledger.spent("r").calls == sum(server.answered.values()) == 60
        server.script = lambda number, prompt: ""
        votes = votes_of_run(server, ledger, 200, budget=Budget(most_calls=200, calls=60))
    assert {v.status for v in votes} == {"valid"}
    assert set(server.answered.values()) == {1} and len(server.answered) == 200


def test_a_budget_of_dollars_is_not_exceeded(tmp_path):
    # 50 fresh tokens at 0.25, 50 cached at 0.025, 10 of the answer at 2.00 dollars a million.
    each = (50 * 0.25 + 50 * 0.025 + 10 * 2.0) / 1e6
    with FaultyServer(latency=0.005) as server, Ledger(tmp_path / "v.sqlite", "r") as ledger:
        with pytest.raises(
            UserError, match=r"the budget of \$0.00 is spent \(\$0.0008 in 25 calls\)"
        ):
            votes_of_run(server, ledger, 200, budget=Budget(most_dollars=25.5 * each))
        spent = ledger.spent("r")
    assert spent.calls == 25 and spent.dollars == pytest.approx(25 * each, rel=1e-9)


# --------------------------------------------------------------------------- Ctrl-C


def inputs(folder: Path, questions: int, personas: int) -> list[str]:
    rows = [
        Response(f"q{q}", f"question-{q}", f"r{n}", f"reply {n}")
        for q in range(questions)
        for n in range(3)
    ]
    write_responses(folder / "responses.csv", rows)
    write_json(folder / "personas.json", {f"p{n}": f"persona-{n}" for n in range(personas)})
    flags = [
        "--responses",
        str(folder / "responses.csv"),
        "--personas",
        str(folder / "personas.json"),
    ]
    return [
        "preferences",
        *flags,
        "--only",
        "empathy",
        "--personas-per-question",
        "0",
        "--judge",
        "endpoint",
    ]


def started(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "jaxmodpo.cli", *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow(seconds=12)
def test_ctrl_c_ends_with_130_keeps_the_answers_under_way_and_only_the_rest_is_asked_later(
    tmp_path,
):
    questions, personas = 10, 30
    with FaultyServer(latency=0.15) as server:
        out = str(tmp_path / "out")
        flags = [
            *inputs(tmp_path, questions, personas),
            "--base-url",
            server.url,
            "--judge-model",
            "m",
        ]
        process = started([*flags, "--output-dir", out])
        end = time.monotonic() + 60
        while len(server.calls) < 40 and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        _, error_output = process.communicate(timeout=60)
        assert process.returncode == 130, error_output[-2000:]
        assert time.monotonic() - sent < 10
        assert (
            "interrupted; the same command goes on from here" in error_output
            and "Traceback" not in error_output
        )
        answered = Counter(server.answered)
        with Ledger(tmp_path / "out" / "votes.sqlite") as ledger:
            stored = {(v.question_id[1:], v.persona_id[1:]) for v in ledger.every_vote()}
        assert stored == {marked(prompt) for prompt in answered}, (
            "what was under way was waited for and kept"
        )
        assert 40 <= len(stored) < questions * personas
        server.latency = 0.0
        process = started([*flags, "--output-dir", out])
        _, error_output = process.communicate(timeout=120)
        assert process.returncode == 0, error_output[-2000:]
        assert set(server.answered.values()) == {1} and len(server.answered) == questions * personas


def test_an_interrupted_run_in_this_process_leaves_nothing_claimed(tmp_path):
    """Ctrl-C reaches the main thread while sixteen calls are under way."""
    with FaultyServer(latency=0.1) as server, Ledger(tmp_path / "v.sqlite") as ledger:
        asking, put_after = judge(server), defaultdict[str, int](int)
        real = asking.answer

        def answer(request: Request) -> Answer | None:
            put_after[request.question_id] += 1
            if len(put_after) == 12:
                os.kill(os.getpid(), signal.SIGINT)
            return real(request)

        asking.answer = answer  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            collect(lambda: requests(200), asking, ledger, label="t")
        stored = list(ledger.every_vote())
        # The server counts an answer once it is sent, a moment after the client may have it.
        until = time.monotonic() + 10
        while len(server.answered) < len(stored) and time.monotonic() < until:
            time.sleep(0.01)
        assert {v.question_id[1:] for v in stored} == {
            marked(prompt)[0] for prompt in server.answered
        }
        assert len({v._replace(time="") for v in stored}) == len(stored) < 60
        again = judge(server)
        collect(lambda: requests(200), again, ledger, label="t")
        assert set(server.answered.values()) == {1} and len(server.answered) == 200
