"""A recorded run is answered again as it was, from a ledger or a file; nothing else is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jaxmodpo.criteria import Criterion
from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.errors import UserError
from jaxmodpo.judging.export import VotesConfig, votes
from jaxmodpo.judging.judge import Answer, Call, Request, call_key, vote_keys
from jaxmodpo.judging.ledger import Ledger, import_votes
from jaxmodpo.judging.replay import ReplayJudge, checked_recording
from jaxmodpo.judging.votes import Vote, as_record, votes_of
from jaxmodpo.records import Candidate

IDENTITY = "endpoint u; model gpt"
CRITERIA = (Criterion("empathy", "d", "b", "w"), Criterion("safety", "d", "b", "w"))
KINDS = [".sqlite", ".jsonl", ".parquet"]


def request(question: str, criteria: tuple[Criterion, ...] = CRITERIA) -> Request:
    candidates = (Candidate("a", "one"), Candidate("b", "two"))
    return Request("compare", question, "post", "p", "profile", criteria, candidates, ties=True)


def votes_on(asked: Request, answer: Answer, identity: str = IDENTITY) -> list[Vote]:
    return votes_of(Call(call_key(asked, identity), asked), answer, judge=identity, run="then")


BOTH = Answer(
    "valid", "both", {"empathy": ("a",), "safety": ()}, "gpt-2026", Usage(100, 0, 7), 0.01, "id"
)
HALF = Answer("valid", "half", {"empathy": ("b",)}, "gpt-2026")
# In the ledger's order; what counts on q4 stems from two calls.
RECORDED = [
    (request("q1"), BOTH),
    (request("q2"), HALF),
    (request("q3"), Answer("refusal", "I cannot.", model="gpt-2026")),
    (request("q4"), HALF),
    (request("q4"), Answer("content_filter", "filtered")),
    (request("q5", CRITERIA[:1]), Answer("expired", "late")),
    (request("q6"), Answer("parse_error", "no JSON")),
]


@pytest.fixture(params=KINDS)
def recorded(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    ledger_path = tmp_path / "then.sqlite"
    with Ledger(ledger_path) as ledger:
        import_votes(
            ledger,
            [
                vote
                for asked_request, answer in RECORDED
                for vote in votes_on(asked_request, answer)
            ],
        )
    if request.param == ".sqlite":
        return ledger_path
    votes(VotesConfig(ledger=str(ledger_path), output=tmp_path / f"then{request.param}"))
    ledger_path.unlink()
    return tmp_path / f"then{request.param}"


def replayed(judge: ReplayJudge, wanted: list[Request], place: Path) -> dict[str, Vote]:
    """Ask the judge, keep its answers in a new ledger as a run does, and return the votes that
    count.
    """
    with Ledger(place, "now") as ledger:

        def put(asked: Call, answer: Answer) -> None:
            ledger.add(votes_of(asked, answer, judge=judge.identity, run="now"))

        judge.ask(
            (Call(call_key(each_request, judge.identity), each_request) for each_request in wanted),
            put,
        )
        keys = [
            key
            for each_request in wanted
            for key in vote_keys(Call(call_key(each_request, judge.identity), each_request))
        ]
        return ledger.votes(keys)


def test_every_vote_is_replayed_as_it_counted(recorded, tmp_path):
    with Ledger(tmp_path / "expected.sqlite") as ledger:
        recorded_votes = [
            vote for asked_request, answer in RECORDED for vote in votes_on(asked_request, answer)
        ]
        import_votes(ledger, recorded_votes)
        expected = ledger.votes([vote.key for vote in recorded_votes])
    judge = ReplayJudge(recorded)
    replayed_votes = replayed(
        judge, [asked_request for asked_request, _ in RECORDED], tmp_path / "now.sqlite"
    )
    judge.close()
    # What happened then has been paid; who asked, when, and in which call is of now.
    changed_fields: dict[str, Any] = {
        "run": "",
        "call": "",
        "time": "",
        "cost": None,
        "usage": None,
    }
    changed_fields |= dict.fromkeys(["prompt_tokens", "cached_tokens", "completion_tokens"])
    del changed_fields["usage"]
    assert {key: vote._replace(**changed_fields) for key, vote in replayed_votes.items()} == {
        key: vote._replace(**changed_fields) for key, vote in expected.items()
    }
    statuses = {(vote.question_id, vote.criterion): vote.status for vote in replayed_votes.values()}
    assert statuses["q4", "empathy"] == "valid" and statuses["q4", "safety"] == "content_filter"
    assert statuses["q2", "safety"] == "parse_error" and statuses["q5", "empathy"] == "expired"
    assert all(vote.cost is None and vote.prompt_tokens is None for vote in replayed_votes.values())


def test_votes_of_one_call_stay_together(recorded, tmp_path):
    replayed_votes = replayed(ReplayJudge(recorded), [request("q1")], tmp_path / "now.sqlite")
    assert len({vote.call for vote in replayed_votes.values()}) == 1 and len(replayed_votes) == 2


def test_what_was_not_recorded_is_an_error_and_asked_of_nobody(recorded, tmp_path):
    reversed_request = replace(request("q1"), responses=request("q1").responses[::-1])
    # One of its two criteria was recorded, in a call of its own.
    partly = request("q5", CRITERIA[:1])
    replayed_votes = replayed(
        ReplayJudge(recorded), [request("q9"), reversed_request, partly], tmp_path / "now.sqlite"
    )
    unknown = [vote for vote in replayed_votes.values() if vote.question_id != "q5"]
    assert len(unknown) == 4 and {(vote.status, vote.raw) for vote in unknown} == {
        ("error", "not recorded")
    }
    assert [vote.status for vote in replayed_votes.values() if vote.question_id == "q5"] == [
        "expired"
    ]


def test_a_criterion_that_was_not_recorded_is_an_error_beside_one_that_was(tmp_path):
    with Ledger(tmp_path / "then.sqlite") as ledger:
        ledger.add(votes_on(request("q1"), BOTH)[:1])
    replayed_votes = replayed(
        ReplayJudge(tmp_path / "then.sqlite"), [request("q1")], tmp_path / "now.sqlite"
    )
    statuses = {
        vote.criterion: (vote.status, vote.raw, vote.order) for vote in replayed_votes.values()
    }
    assert statuses == {
        "empathy": ("valid", "both", ("a",)),
        "safety": ("error", "not recorded", None),
    }


def test_requests_are_drawn_a_few_at_a_time(recorded):
    judge, requests_drawn, put = ReplayJudge(recorded), 0, 0

    def draw() -> Iterator[Call]:
        nonlocal requests_drawn
        for _ in range(1000):
            requests_drawn += 1
            yield Call(call_key(request("q1"), judge.identity), request("q1"))

    def count(asked: Call, answer: Answer) -> None:
        nonlocal put
        put += 1
        assert requests_drawn - put <= 256

    judge.ask(draw(), count)
    assert put == 1000 and judge.costs is False


def test_of_several_judges_one_must_be_named(tmp_path):
    with Ledger(tmp_path / "then.sqlite") as ledger:
        for identity in ("model gpt", "model gpt-mini", "rubric"):
            ledger.add(votes_on(request("q1"), BOTH, identity))
    ledger_path = tmp_path / "then.sqlite"
    with pytest.raises(UserError, match=r"several judges.*'model gpt'; 'model gpt-mini'; 'rubric'"):
        ReplayJudge(ledger_path)
    with pytest.raises(UserError, match=r"several judges.*: 'model gpt'; 'model gpt-mini'$"):
        ReplayJudge(ledger_path, "gpt")
    with pytest.raises(UserError, match="no votes of a judge 'llama', only of 'model gpt'"):
        ReplayJudge(ledger_path, "llama")
    assert ReplayJudge(ledger_path, "mini").identity == "model gpt-mini"
    assert ReplayJudge(ledger_path, "model gpt").identity == "model gpt"
    replayed_votes = replayed(
        ReplayJudge(ledger_path, "rubric"), [request("q1")], tmp_path / "now.sqlite"
    )
    assert {vote.judge for vote in replayed_votes.values()} == {"rubric"} and len(
        replayed_votes
    ) == 2


def test_nothing_to_replay_is_a_sentence_and_makes_no_file(tmp_path):
    for name in ("then.sqlite", "then.jsonl", "then.parquet"):
        with pytest.raises(UserError, match=name):
            ReplayJudge(tmp_path / name)
        with pytest.raises(UserError, match=name):
            checked_recording(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    Ledger(tmp_path / "empty.sqlite").close()
    with pytest.raises(UserError, match=r"empty.sqlite holds no votes"):
        ReplayJudge(tmp_path / "empty.sqlite")
    (tmp_path / "empty.jsonl").touch()
    for name in ("empty.sqlite", "empty.jsonl"):
        with pytest.raises(UserError, match=rf"{name} holds no votes to replay"):
            checked_recording(tmp_path / name)


def test_a_recording_is_checked_without_being_imported(recorded, monkeypatch):
    monkeypatch.setattr("jaxmodpo.judging.replay.import_votes", None)
    checked_recording(recorded)


def test_an_index_of_a_file_is_deleted_when_it_is_closed(recorded, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    judge = ReplayJudge(recorded)
    judge.close()
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("suffix", [".sqlite", ".jsonl"])
def test_a_vote_that_cannot_be_one_is_not_replayed(tmp_path, suffix, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    wrong = [vote._replace(order=("zzz",)) for vote in votes_on(request("q1"), BOTH)]
    ledger_path = tmp_path / f"then{suffix}"
    if suffix == ".sqlite":
        with Ledger(ledger_path) as ledger:
            ledger.add(wrong)
    else:
        ledger_path.write_text("".join(json.dumps(as_record(vote)) + "\n" for vote in wrong))
    with pytest.raises(UserError, match=r"order \['zzz'\] does not answer 'compare' for a, b"):
        replayed(ReplayJudge(ledger_path), [request("q1")], tmp_path / "now.sqlite")
    assert list((tmp_path / "temporary").iterdir()) == [], "no index of half a file is left"
