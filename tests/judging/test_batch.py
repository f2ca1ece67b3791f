"""The batch judge against a local Batch API that answers, expires, refuses, loses answers and is
left in mid-air.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from batch_requests import (
    CRITERIA,
    IDENTITY,
    SECRET,
    all_done,
    ask,
    body,
    make_judge,
    requests,
    statuses,
)
from batch_server import Lines, Outcome, Server, answered, failed, good, not_come_to

from jaxmodpo.errors import UserError
from jaxmodpo.judging import batch_api
from jaxmodpo.judging.batch import BatchJudge
from jaxmodpo.judging.batch_context import BatchContext
from jaxmodpo.judging.budget import Budget
from jaxmodpo.judging.collect import collect
from jaxmodpo.judging.endpoint import EndpointJudge
from jaxmodpo.judging.endpoint_settings import Endpoint
from jaxmodpo.judging.judge import Call, Request, call_key, vote_keys
from jaxmodpo.judging.ledger import Ledger

# --------------------------------------------------------------------------- what comes back


@pytest.fixture
def server(batch_server: Server) -> Server:
    return batch_server


def test_every_request_is_answered_at_half_the_price_by_what_the_endpoint_said(server, tmp_path):
    with Ledger(tmp_path / "votes.sqlite", "r") as ledger:
        assert ask(make_judge(server.url, ledger, tmp_path / "batches"), requests(10)) == 10
        votes = list(ledger.every_vote())
        assert len(votes) == 20 and {vote.status for vote in votes} == {"valid"}
        first = next(
            vote for vote in votes if vote.question_id == "q3" and vote.criterion == "safety"
        )
        key = call_key(requests(10)[3], IDENTITY)
        assert (first.order, first.shown, first.model) == (("b",), ("a", "b"), "m-2026")
        assert (first.cost, first.prompt_tokens, first.request_id) == (0.01, 50.0, f"req-{key}")
        assert first.key == vote_keys(Call(key, requests(10)[3]))[1]
        assert ledger.spent("r").dollars == pytest.approx(0.2)
        all_done(ledger, tmp_path / "batches")
    assert "file-0" in server.deleted


def test_batches_keep_to_both_limits_and_profiles_to_the_owners_files(
    server, tmp_path, monkeypatch
):
    folder, modes = tmp_path / "batches", set[int]()

    def script(number: int, lines: Lines) -> Outcome:
        modes.update(path.stat().st_mode & 0o777 for path in folder.glob("*.jsonl"))
        others = [
            path
            for path in tmp_path.rglob("*")
            if path.is_file() and SECRET.encode() in path.read_bytes()
        ]
        assert all(path.parent == folder and "requests" not in path.name for path in others)
        return good(number, lines)

    server.script = script
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        one = len(json.dumps(body(requests(1)[0]))) + 100
        ask(make_judge(server.url, ledger, folder, max_requests=7, max_bytes=one * 5), requests(40))
        ask(make_judge(server.url, ledger, folder, max_requests=3, max_bytes=10**6), requests(50))
        assert statuses(ledger) == {"valid": 100}
    sizes = [len(lines) for lines in server.asked]
    inputs = [data for name, data in server.files.items() if name.startswith("file-")]
    assert sum(sizes) == 50 and max(sizes[:-4]) <= 7 and sizes[-4:] == [3, 3, 3, 1]
    assert max(len(data) for data in inputs) <= one * 5
    assert modes == {0o600} and max(server.billed().values()) == 1


def test_a_request_larger_than_a_batch_is_an_error_and_the_others_are_asked(server, tmp_path):
    large = Request("compare", "large", "x" * 5000, "p", "", CRITERIA, requests(1)[0].responses)
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ask(make_judge(server.url, ledger, tmp_path / "b", max_bytes=2000), [*requests(3), large])
        assert statuses(ledger) == {"valid": 6, "error": 2}
        all_done(ledger, tmp_path / "b")


def test_every_line_of_both_files_ends_with_a_named_status(server, tmp_path):
    def script(number: int, lines: Lines) -> Outcome:
        if number > 1:
            return good(number, lines)
        cut = answered(lines[3])[:80]
        output = [
            answered(lines[0]),
            answered(lines[0]),
            answered(lines[1], "no JSON"),
            "",
            "[1]",
            cut,
        ]
        error = [
            failed(lines[2], 400, "context_length_exceeded"),
            failed(lines[4], 400, "content_filter"),
            failed(lines[5], 500, "server_error"),
            json.dumps({"custom_id": lines[6]["custom_id"], "response": None, "error": None}),
            json.dumps({"custom_id": "unknown", "response": None, "error": None}),
            not_come_to(lines[7]),
        ]
        return Outcome(status="completed", output=output, error=error)

    server.script = script
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        assert ask(make_judge(server.url, ledger, tmp_path / "b"), requests(9)) == 9
        vote_of = {
            (vote.question_id): vote for vote in ledger.every_vote() if vote.criterion == "empathy"
        }
        assert [vote_of[f"q{n}"].status for n in range(9)] == [
            "valid",
            "parse_error",
            "rejected",
            # A line that is missing, or says neither an answer nor an error, is asked again as what
            # failed is.
            "valid",
            "content_filter",
            "valid",
            "valid",
            "valid",
            "valid",
        ]
        assert "HTTP 400" in vote_of["q2"].raw and vote_of["q2"].model == "m"
        all_done(ledger, tmp_path / "b")
    assert [len(lines) for lines in server.asked] == [9, 5]


@pytest.mark.parametrize("kind", ["error", None])
def test_a_completed_batch_without_an_output_file_has_named_statuses(server, tmp_path, kind):
    def script(number: int, lines: Lines) -> Outcome:
        files = {} if kind is None else {"error": [failed(line, 400, "bad") for line in lines]}
        return Outcome(status="completed", **files)

    server.script = script
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ask(make_judge(server.url, ledger, tmp_path / "b"), requests(4))
        assert statuses(ledger) == {"error" if kind is None else "rejected": 8}
        all_done(ledger, tmp_path / "b")
    assert len(server.asked) == (3 if kind is None else 1)


def test_what_an_expired_batch_did_not_come_to_is_asked_again(server, tmp_path):
    def script(number: int, lines: Lines) -> Outcome:
        half = len(lines) // 2 if number < 3 else len(lines)
        return Outcome(
            status="expired" if number < 3 else "completed",
            output=[answered(line) for line in lines[:half]],
            error=[not_come_to(line) for line in lines[half + 1 :]],
        )

    server.script = script
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        assert ask(make_judge(server.url, ledger, tmp_path / "b"), requests(16)) == 16
        assert statuses(ledger) == {"valid": 32}
        all_done(ledger, tmp_path / "b")
    assert [len(lines) for lines in server.asked] == [16, 8, 4]
    assert max(server.billed().values()) == 1


@pytest.mark.parametrize(
    ("status", "votes", "batches"), [("expired", "expired", 3), ("cancelled", "error", 1)]
)
def test_requests_that_no_batch_comes_to_end_with_a_named_status(
    server, tmp_path, status, votes, batches
):
    server.script = lambda number, lines: Outcome(status=status, output=[answered(lines[0])])
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ask(make_judge(server.url, ledger, tmp_path / "b"), requests(10))
        assert statuses(ledger) == {"valid": 2 * batches, votes: 2 * (10 - batches)}
        all_done(ledger, tmp_path / "b")
    assert len(server.asked) == batches


def test_lines_that_fail_a_batch_are_errors_and_the_others_are_asked_again(server, tmp_path):
    def script(number: int, lines: Lines) -> Outcome:
        errors = [{"code": "invalid_json_line", "message": "bad", "line": 2}]
        return good(number, lines) if number > 1 else Outcome(status="failed", errors=errors)

    server.script = script
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ask(make_judge(server.url, ledger, tmp_path / "b"), requests(5))
        assert statuses(ledger) == {"valid": 8, "error": 2}
        assert (
            next(vote for vote in ledger.every_vote() if vote.status == "error").question_id == "q1"
        )
        all_done(ledger, tmp_path / "b")


# --------------------------------------------------------------------------- limits of the account

NO_ROOM = [
    {"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}
]


def test_a_batch_without_room_is_sent_again_when_another_has_ended(server, tmp_path):
    running = list[int]()

    def script(number: int, lines: Lines) -> Outcome:
        if number == 2:
            running.extend(
                b["looked"] for b in server.batches.values() if b["status"] == "in_progress"
            )
            return Outcome(status="failed", errors=NO_ROOM)
        return good(number, lines)

    server.script, server.looks = script, 4
    original = server.look
    # The second fails while it is validated, the first takes longer.
    server.look = lambda batch_id: _later(server, original, batch_id)
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ask(make_judge(server.url, ledger, tmp_path / "b", max_requests=5), requests(10))
        assert statuses(ledger) == {"valid": 20}
        all_done(ledger, tmp_path / "b")
    assert running and [len(lines) for lines in server.asked] == [5, 5, 5]
    assert server.asked[1] == server.asked[2] and max(server.billed().values()) == 1


def _later(
    server: Server, original: Callable[[str], dict[str, Any]], batch_id: str
) -> dict[str, Any]:
    server.looks = {"batch-1": 8, "batch-2": 1}.get(batch_id, 2)
    return original(batch_id)


def test_batches_become_smaller_where_the_account_has_room_for_small_ones_only(server, tmp_path):
    def script(number: int, lines: Lines) -> Outcome:
        return Outcome(status="failed", errors=NO_ROOM) if len(lines) > 3 else good(number, lines)

    server.script = script
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ask(make_judge(server.url, ledger, tmp_path / "b", max_requests=6), requests(8))
        assert statuses(ledger) == {"valid": 16}
        all_done(ledger, tmp_path / "b")
    assert max(server.billed().values()) == 1


def test_no_room_for_a_single_request_ends_the_run_and_keeps_what_there_is(server, tmp_path):
    def script(number: int, lines: Lines) -> Outcome:
        return good(number, lines) if number == 1 else Outcome(status="failed", errors=NO_ROOM)

    server.script = script
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        with pytest.raises(UserError, match="no room for a single request"):
            ask(make_judge(server.url, ledger, tmp_path / "b", max_requests=1), requests(2))
        assert statuses(ledger) == {"valid": 2}
        all_done(ledger, tmp_path / "b")


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(status="failed", errors=[{"code": "billing_hard_limit_reached"}]),
        Outcome(status="completed", error="unsupported_value"),
    ],
)
def test_what_holds_for_every_request_ends_the_run_with_a_sentence(server, tmp_path, outcome):
    def script(number: int, lines: Lines) -> Outcome:
        if "error" not in outcome:
            return outcome
        return Outcome(outcome, error=[failed(line, 400, outcome["error"]) for line in lines])

    server.script = script
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        with pytest.raises(UserError, match=r"billing_hard_limit_reached|unsupported_value"):
            ask(make_judge(server.url, ledger, tmp_path / "b", max_requests=3), requests(9))
        all_done(ledger, tmp_path / "b")
    assert len(server.asked) == 1


def test_a_spent_budget_sends_what_it_covers_reads_it_and_ends(server, tmp_path):
    budget = Budget(most_calls=7)
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        with pytest.raises(UserError, match="budget of 7 calls"):
            ask(
                make_judge(server.url, ledger, tmp_path / "b", max_requests=5, budget=budget),
                requests(9),
            )
        assert (
            statuses(ledger) == {"valid": 14}
            and budget.calls == 7
            and budget.dollars == pytest.approx(0.14)
        )
        all_done(ledger, tmp_path / "b")
    assert [len(lines) for lines in server.asked] == [5, 2]


def test_a_budget_in_dollars_holds_before_any_call_has_a_price(server, tmp_path):
    budget = Budget(most_dollars=0.1)
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        judge = make_judge(
            server.url, ledger, tmp_path / "b", budget=budget, price=lambda usage: 0.04
        )
        with pytest.raises(UserError, match=r"budget of \$0.10"):
            ask(judge, requests(9))
        assert statuses(ledger) == {"valid": 10} and budget.dollars == pytest.approx(0.1)
        all_done(ledger, tmp_path / "b")


def test_it_asks_what_the_endpoint_judge_would_ask_and_votes_are_interchangeable(server, tmp_path):
    def script(number: int, lines: Lines) -> Outcome:
        return Outcome(
            status="completed", output=[answered(line, '{"better": "B"}') for line in lines]
        )

    server.script = script
    judge = EndpointJudge(Endpoint(base_url=server.url, model="m"))
    wanted = [replace(request, criteria=CRITERIA[:1]) for request in requests(6)]
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        batches = BatchJudge(BatchContext.of(judge, ledger, tmp_path / "b", 0.5, poll_seconds=0.01))
        assert collect(lambda: wanted, batches, ledger, label="votes") == {"valid": 6}
        assert {vote.order for vote in ledger.every_vote()} == {("b",)}
        # The endpoint judge finds all of them, and asks nothing.
        assert collect(lambda: wanted, judge, ledger, label="votes") == {}
        all_done(ledger, tmp_path / "b")
    assert [line["body"] for line in server.asked[0]] == [judge.body(request) for request in wanted]


# --------------------------------------------------------------------------- a network that fails


def test_a_batch_whose_answer_was_lost_is_found_and_not_created_again(server, tmp_path):
    server.created = lambda: len(server.asked) != 1
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ask(make_judge(server.url, ledger, tmp_path / "b", max_requests=5), requests(10))
        assert statuses(ledger) == {"valid": 20}
        all_done(ledger, tmp_path / "b")
    assert [len(lines) for lines in server.asked] == [5, 5]
    assert max(server.billed().values()) == 1


def test_passing_failures_of_every_call_are_waited_out(server, tmp_path):
    calls = Counter[tuple[str, str]]()

    def statuses_of_calls(method: str, path: str) -> int:
        kind = (method, path.split("?")[0].rstrip("0123456789"))
        calls[kind] += 1
        return (200, 500, 429)[calls[kind] % 3]

    server.statuses = statuses_of_calls
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ask(make_judge(server.url, ledger, tmp_path / "b", max_requests=5), requests(10))
        assert statuses(ledger) == {"valid": 20}
        all_done(ledger, tmp_path / "b")
    assert [len(lines) for lines in server.asked] == [5, 5]


@pytest.mark.parametrize(("status", "words"), [(401, "refused the key"), (503, "does not answer")])
def test_an_endpoint_that_is_gone_leaves_its_batches_to_the_next_start(
    server, tmp_path, monkeypatch, status, words
):
    monkeypatch.setattr(batch_api, "ATTEMPTS", 3)
    server.statuses = lambda method, path: status if path.startswith("/v1/batches/") else 200
    folder = tmp_path / "b"
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        with pytest.raises(UserError, match=words):
            ask(make_judge(server.url, ledger, folder), requests(6))
        assert [batch.state for batch in ledger.batches.all()] == ["submitted"] and statuses(
            ledger
        ) == {}
    server.statuses = lambda method, path: 200
    with Ledger(tmp_path / "votes.sqlite") as ledger:
        ask(make_judge(server.url, ledger, folder), requests(6))
        assert statuses(ledger) == {"valid": 12}
        all_done(ledger, folder)
    assert len(server.asked) == 1


# --------------------------------------------------------------------------- answers of no use


def test_answers_that_cannot_be_read_end_the_run_before_the_next_batch_is_paid(server, tmp_path):
    server.script = lambda number, lines: Outcome(
        status="completed", output=[answered(line, "I prefer the first.") for line in lines]
    )
    with Ledger(tmp_path / "v.sqlite", "r") as ledger:
        asking = EndpointJudge(Endpoint(base_url=server.url, model="a-llama"))
        judge = BatchJudge(
            BatchContext.of(asking, ledger, tmp_path / "batches", 0.5, poll_seconds=0.01)
        )
        judge.context.max_requests = 40
        wanted = requests(200)
        with pytest.raises(
            UserError, match=r"30 answers in a row could not be read, the last with 'I prefer"
        ):
            collect(lambda: wanted, judge, ledger, label="t")
        assert sum(len(lines) for lines in server.asked) == 40
        assert statuses(ledger) == {"parse_error": 80}
        all_done(ledger, tmp_path / "batches")


def test_what_an_endpoint_repeats_of_a_profile_is_in_no_vote_of_a_batch(server, tmp_path):
    def script(number: int, lines: Lines) -> Outcome:
        message = (
            f"I cannot say more than this: {SECRET}, which was sent to me with a post and two"
            " replies."
        )
        refusals = [answered(line, message) for line in lines[::2]]
        errors = []
        for line in lines[1::2]:
            body = {"error": {"message": f"{message} The line is too long.", "code": None}}
            response = {"status_code": 400, "request_id": "r", "body": body}
            errors.append(
                json.dumps({"custom_id": line["custom_id"], "response": response, "error": None})
            )
        return Outcome(status="completed", output=refusals, error=errors)

    server.script = script
    with Ledger(tmp_path / "v.sqlite", "r") as ledger:
        asking = EndpointJudge(Endpoint(base_url=server.url, model="a-llama"))
        judge = BatchJudge(
            BatchContext.of(asking, ledger, tmp_path / "batches", 0.5, poll_seconds=0.01)
        )
        collect(lambda: requests(4), judge, ledger, label="t")
        votes = list(ledger.every_vote())
    assert {vote.status for vote in votes} == {"parse_error", "rejected"}
    assert all("I cannot say more" in vote.raw and SECRET not in vote.raw for vote in votes)


def test_a_key_that_a_server_puts_into_a_request_id_is_in_no_vote(server, tmp_path, monkeypatch):
    key = "sk-very-secret-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", key)

    def script(number: int, lines: Lines) -> Outcome:
        told = [json.loads(answered(line)) for line in lines[:2]]
        for answer in told:
            answer["response"]["request_id"] = f"r {key}"
        return Outcome(status="completed", output=[json.dumps(answer) for answer in told])

    server.script = script
    with Ledger(tmp_path / "v.sqlite", "r") as ledger:
        asking = EndpointJudge(Endpoint(base_url=server.url, model="a-llama"))
        judge = BatchJudge(
            BatchContext.of(asking, ledger, tmp_path / "batches", 0.5, poll_seconds=0.01)
        )
        collect(lambda: requests(2), judge, ledger, label="t")
        assert {vote.request_id for vote in ledger.every_vote()} == {"r [key]"}
