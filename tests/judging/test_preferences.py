"""``preferences`` end to end: known rankings, counts, ties, resume and the user's mistakes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.flags.parse import parse
from jaxmodpo.judging import preferences as module
from jaxmodpo.judging.judge import Answer, Call, Request
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.preferences import PreferencesConfig, preferences
from jaxmodpo.judging.votes import Vote
from jaxmodpo.records import Response, read_rankings, write_responses

QUESTIONS, REPLIES, PERSONAS = 6, 5, 8


class KnownOrder:
    """Ranks by the number each reply states for the criterion, higher first; equal ones by a
    persona's whim.
    """

    identity, costs = "known order", False

    def __init__(self, refuses: tuple[str, ...] = (), stop_after: int | None = None) -> None:
        self.refuses, self.stop_after = refuses, stop_after
        self.requests: list[Request] = []

    def answer(self, request: Request) -> Answer:
        if len(self.requests) == self.stop_after:
            raise KeyboardInterrupt
        self.requests.append(request)
        if request.question_id in self.refuses:
            return Answer("refusal", "no", model="known")
        orders = {c.name: self.order(request, c.name) for c in request.criteria}
        return Answer("valid", "", orders, "known")

    def order(self, request: Request, criterion: str) -> tuple[str, ...]:
        at = 1 if criterion == "safety" else 0
        even = int(request.persona_id[1:]) % 2 == 0

        def worth(response) -> tuple[int, str]:
            name = response.response_id
            return int(response.response_text.split()[at]), (
                name if even else "~" * (9 - int(name[1:]))
            )

        return tuple(r.response_id for r in sorted(request.responses, key=worth, reverse=True))

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        for call in requests:
            put(call, self.answer(call.request))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Reply n is worth n on empathy and -n on safety."""
    write_rows(tmp_path, [reply(q, n, n) for q in range(QUESTIONS) for n in range(REPLIES)])
    write_json(tmp_path / "personas.json", {f"p{n}": f"profile {n}" for n in range(PERSONAS)})
    return tmp_path


def reply(question: int, n: int, worth: int) -> Response:
    return Response(f"q{question}", f"post {question}", f"r{n}", f"{worth} {-worth} reply {n}")


def write_rows(work: Path, rows: list[Response]) -> None:
    write_responses(work / "responses.csv", rows)


def config_for(work: Path, out: str = "out", **settings) -> PreferencesConfig:
    fields: dict[str, Any] = {
        "judge": "rubric",
        "responses": work / "responses.csv",
        "personas": work / "personas.json",
        "output_dir": work / out,
        "only": ("empathy", "safety"),
        "personas_per_question": 4,
        **settings,
    }
    return PreferencesConfig(**fields)


def run(
    work: Path, monkeypatch: pytest.MonkeyPatch, judge: KnownOrder, out: str = "out", **settings
) -> dict:
    monkeypatch.setattr(module, "make_judge", lambda *_: judge)
    phase = preferences(config_for(work, out, **settings))
    assert phase is not None
    return dict(phase.results)


def votes(work: Path, out: str = "out") -> list[Vote]:
    with Ledger(work / out / "votes.sqlite") as ledger:
        return list(ledger.every_vote())


def pairs(work: Path, criterion: str, out: str = "out") -> list[tuple[str, str, str]]:
    return [
        (p.question_id, p.chosen.response_id, p.rejected.response_id)
        for p in load_pairs(work / out / f"{criterion}_pairs.json")
    ]


def files(folder: Path) -> dict[str, bytes]:
    """All outputs but the manifest and the ledger, whose rows hold times and stand in the order of
    the answers.
    """
    return {
        p.name: p.read_bytes()
        for p in folder.iterdir()
        if p.suffix == ".json" and p.name != "manifest.json"
    }


def counted(work: Path, out: str = "out") -> list[Vote]:
    """The votes that count, without what differs between two runs."""
    with Ledger(work / out / "votes.sqlite") as ledger:
        votes = [
            v._replace(call="", time="", run="") for v in ledger.every_vote(effective_only=True)
        ]
    return sorted(votes, key=lambda vote: vote.key)


def test_a_known_ranking_comes_out_by_criterion(work, monkeypatch):
    results = run(work, monkeypatch, KnownOrder())
    assert pairs(work, "empathy") == [(f"q{q}", "r4", "r0") for q in range(QUESTIONS)]
    assert pairs(work, "safety") == [(f"q{q}", "r0", "r4") for q in range(QUESTIONS)]
    ranking = read_rankings(work / "out" / "empathy_rankings.json")[0]
    assert [c.response_id for c in ranking.candidates] == ["r4", "r3", "r2", "r1", "r0"]
    assert results["votes_asked"] == results["votes_valid"] == 2 * QUESTIONS * 4
    assert results["judge"] == "known order"
    assert results["criteria"]["safety"] == {
        "asked": QUESTIONS * 4,
        "valid": QUESTIONS * 4,
        "failed": {},
        "pairs": QUESTIONS,
        "rankings": QUESTIONS,
        "questions_below_min_valid_votes": 0,
        "questions_with_ties": 0,
        "questions_all_tied": 0,
        "identical_pairs_dropped": 0,
        "questions_without_pair": 0,
    }


def test_every_persona_serves_equally_often_and_sees_an_order_of_its_own(work, monkeypatch):
    judge = KnownOrder()
    run(work, monkeypatch, judge)
    served = Counter(r.persona_id for r in judge.requests)
    assert served == dict.fromkeys(served, 2 * QUESTIONS * 4 // PERSONAS)
    shown: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for r in judge.requests:
        shown.setdefault((r.question_id, r.persona_id), set()).add(
            tuple(c.response_id for c in r.responses)
        )
    # The same order for both criteria; hardly ever that of another persona or question.
    assert all(len(orders) == 1 for orders in shown.values())
    assert len({order for orders in shown.values() for order in orders}) > 15


def test_the_ledger_holds_what_was_shown(work, monkeypatch):
    judge = KnownOrder()
    run(work, monkeypatch, judge)
    shown = [tuple(c.response_id for c in r.responses) for r in judge.requests]
    assert [vote.shown for vote in votes(work)] == shown


def test_all_pairs_of_the_ranking(work, monkeypatch):
    results = run(work, monkeypatch, KnownOrder(), pairs="all")
    assert results["criteria"]["empathy"]["pairs"] == QUESTIONS * 10
    assert ("q0", "r2", "r1") in pairs(work, "empathy")


def test_failed_votes_are_counted_and_a_question_without_any_gives_nothing(
    work, monkeypatch, caplog
):
    results = run(work, monkeypatch, KnownOrder(refuses=("q2",)))
    counts = results["criteria"]["empathy"]
    assert (counts["asked"], counts["valid"], counts["failed"]) == (24, 20, {"refusal": 4})
    assert (counts["questions_below_min_valid_votes"], counts["questions_without_pair"]) == (1, 1)
    assert "q2" not in {q for q, *_ in pairs(work, "empathy")}
    assert "preferences: 8 votes failed (8 refusal); --retry-errors asks them again" in caplog.text


def test_a_finished_run_asks_its_failed_votes_again_and_nothing_else_when_told_to(
    work, monkeypatch
):
    run(work, monkeypatch, KnownOrder(), "whole")
    run(work, monkeypatch, KnownOrder(refuses=("q2",)))
    judge = KnownOrder()
    results = run(work, monkeypatch, judge, retry_errors=True)
    assert Counter(r.question_id for r in judge.requests) == {"q2": 8}
    assert results["criteria"]["empathy"]["pairs"] == QUESTIONS
    assert files(work / "out") == files(work / "whole") and counted(work) == counted(work, "whole")
    again = KnownOrder()
    run(work, monkeypatch, again, retry_errors=True)
    assert again.requests == []


def test_a_finished_run_that_asked_again_does_not_end_with_nothing_to_do(work, monkeypatch):
    run(work, monkeypatch, KnownOrder(refuses=("q2",)))
    monkeypatch.setattr(module, "make_judge", lambda *_: KnownOrder())
    phase = preferences(config_for(work, retry_errors=True))
    assert phase is not None
    votes_asked = 2 * 6 * 4
    assert (
        phase.ending
        == f"finished: {work / 'out'}; questions 6, votes {votes_asked}, valid votes {votes_asked}"
    )
    phase = preferences(config_for(work))
    assert phase is not None and phase.ending.endswith(
        "was finished before; there is nothing to do"
    )


def test_refusals_of_an_unfinished_run_are_asked_again_only_when_told_to(work, monkeypatch):
    run(work, monkeypatch, KnownOrder(refuses=("q2",)))
    (work / "out" / "manifest.json").unlink()
    judge = KnownOrder()
    run(work, monkeypatch, judge)
    assert judge.requests == []


def test_ties_are_counted_and_dropped_only_if_told_to(work, monkeypatch):
    # In q0 replies 3 and 4 are worth the same, and the personas are evenly split about them.
    write_rows(
        work,
        [reply(q, n, min(n, 3) if q == 0 else n) for q in range(QUESTIONS) for n in range(REPLIES)],
    )
    settings = {"only": ("empathy",), "personas_per_question": 0}
    ties_counted = run(work, monkeypatch, KnownOrder(), "kept", **settings)["criteria"]["empathy"]
    dropped = run(work, monkeypatch, KnownOrder(), "dropped", ties="drop", **settings)["criteria"][
        "empathy"
    ]
    assert (
        ties_counted["questions_with_ties"],
        ties_counted["pairs"],
        ties_counted["rankings"],
    ) == (
        1,
        QUESTIONS,
        QUESTIONS,
    )
    assert dropped["questions_with_ties"] == dropped["questions_without_pair"] == 1
    assert (dropped["pairs"], dropped["rankings"]) == (
        QUESTIONS - 1,
        QUESTIONS,
    ), "a ranking keeps its ties"
    assert pairs(work, "empathy", "kept")[0][1] in ("r3", "r4")


def test_a_pair_of_identical_texts_is_dropped_and_counted(work, monkeypatch):
    rows = [
        Response("q0", "post", "r0", "1 1"),
        Response("q0", "post", "r1", "1 1"),
        reply(1, 0, 0),
        reply(1, 1, 1),
    ]
    write_rows(work, rows)

    class Whim(KnownOrder):
        def order(self, request: Request, criterion: str) -> tuple[str, ...]:
            return tuple(sorted((r.response_id for r in request.responses), reverse=True))

    counts = run(work, monkeypatch, Whim(), only=("empathy",))["criteria"]["empathy"]
    assert (
        counts["identical_pairs_dropped"],
        counts["questions_without_pair"],
        counts["pairs"],
    ) == (1, 1, 1)
    assert pairs(work, "empathy") == [("q1", "r1", "r0")]


def test_questions_with_one_reply_are_left_out_and_counted(work, monkeypatch):
    write_rows(work, [reply(0, 0, 0), reply(1, 0, 0), reply(1, 1, 1), reply(1, 2, 2)])
    results = run(work, monkeypatch, KnownOrder(), only=("empathy",))
    assert (results["questions"], results["questions_with_fewer_than_two_replies"]) == (1, 1)
    assert pairs(work, "empathy") == [("q1", "r2", "r0")]


def test_a_stopped_run_goes_on_and_ends_with_the_same_files(work, monkeypatch):
    run(work, monkeypatch, KnownOrder(), "whole")
    with pytest.raises(KeyboardInterrupt):
        run(work, monkeypatch, KnownOrder(stop_after=29))
    judge = KnownOrder()
    run(work, monkeypatch, judge)
    assert len(judge.requests) == 2 * QUESTIONS * 4 - 29
    assert files(work / "out") == files(work / "whole")
    assert counted(work) == counted(work, "whole") and len(votes(work)) == 2 * QUESTIONS * 4


def test_a_finished_run_asks_nothing(work, monkeypatch):
    run(work, monkeypatch, KnownOrder())
    judge = KnownOrder()
    run(work, monkeypatch, judge)
    assert judge.requests == []


def test_the_rubric_judge_prefers_what_it_scores_and_repeats_itself(work):
    texts = ["I am so sorry. That sounds hard.", "Try music.", "Get over it. Others have it worse."]
    write_rows(
        work, [Response(f"q{q}", "post", f"r{n}", t) for q in range(3) for n, t in enumerate(texts)]
    )
    for out in ("one", "two"):
        preferences(config_for(work, out, only=("empathy",), personas_per_question=0))
    assert pairs(work, "empathy", "one") == [(f"q{q}", "r0", "r2") for q in range(3)]
    assert files(work / "one") == files(work / "two")
    assert (
        "without clinical meaning"
        in json.loads((work / "one" / "manifest.json").read_text())["results"]["judge"]
    )


def test_the_command_line_makes_the_settings(work):
    arguments = [
        "--judge",
        "rubric",
        "--responses",
        "r.csv",
        "--personas",
        "p.json",
        "--output-dir",
        "out",
    ]
    config = parse(
        PreferencesConfig,
        [*arguments, "--only", "safety", "empathy", "--pairs", "all"],
        "preferences",
    )
    assert (config.judge, config.only, config.pairs) == ("rubric", ("safety", "empathy"), "all")
    assert (config.personas_per_question, config.seed, config.temperature) == (50, 42, None)


# --------------------------------------------------------------------------- several criteria,
# repeats, protocols


def write_criteria(work: Path) -> str:
    rows = [("empathy", "b", "w"), ("overall", "", ""), ("safety", "b", "w")]
    lines = [
        f'  - {{name: {n}, description: d, better_when: "{b}", worse_when: "{w}"}}\n'
        for n, b, w in rows
    ]
    (work / "criteria.yaml").write_text("criteria:\n" + "".join(lines))
    return str(work / "criteria.yaml")


def test_all_criteria_in_one_call_give_the_same_files_and_overall_is_asked_alone(work, monkeypatch):
    settings = {"criteria": write_criteria(work), "only": ()}
    run(work, monkeypatch, KnownOrder(), "one", **settings)
    judge = KnownOrder()
    results = run(work, monkeypatch, judge, "all", criteria_per_call="all", **settings)
    assert Counter(tuple(c.name for c in r.criteria) for r in judge.requests) == {
        ("empathy", "safety"): QUESTIONS * 4,
        ("overall",): QUESTIONS * 4,
    }
    assert files(work / "all") == files(work / "one") and len(files(work / "all")) == 6
    assert results["votes_asked"] == 3 * QUESTIONS * 4
    assert results["spent"]["calls"] == 2 * QUESTIONS * 4, "a call by two criteria is one call"
    # Both votes of a call tell what was shown, to whom, in which call.
    calls: dict[str, list[Vote]] = {}
    for vote in votes(work, "all"):
        calls.setdefault(vote.call, []).append(vote)
    assert sorted(len(of_call) for of_call in calls.values()) == [1] * 24 + [2] * 24
    assert all(
        len({(v.question_id, v.persona_id, v.shown) for v in of_call}) == 1
        for of_call in calls.values()
    )


def test_second_askings_are_kept_and_never_counted(work, monkeypatch):
    class Fickle(KnownOrder):
        def order(self, request: Request, criterion: str) -> tuple[str, ...]:
            order = super().order(request, criterion)
            return order[::-1] if request.repeat else order

    once = run(work, monkeypatch, Fickle(), "once")
    judge = Fickle()
    twice = run(work, monkeypatch, judge, "twice", repeat_share=1.0)
    assert len(judge.requests) == 2 * 2 * QUESTIONS * 4
    assert Counter(v.repeat for v in votes(work, "twice")) == {0: 48, 1: 48}
    assert files(work / "once") == files(work / "twice")
    assert once["criteria"] == twice["criteria"] and twice["votes_asked"] == 48


def test_the_official_protocol_shows_the_files_order_and_breaks_ties_by_it(work, monkeypatch):
    # Replies 3 and 4 are worth the same, and the personas are evenly split about them.
    rows = [reply(q, n, min(n, 3)) for q in range(QUESTIONS) for n in (2, 0, 4, 1, 3)]
    write_rows(work, rows)
    judge = KnownOrder()
    run(
        work,
        monkeypatch,
        judge,
        only=("empathy",),
        personas_per_question=0,
        protocol="official-code",
    )
    assert {tuple(c.response_id for c in r.responses) for r in judge.requests} == {
        ("r2", "r0", "r4", "r1", "r3")
    }
    assert pairs(work, "empathy") == [(f"q{q}", "r4", "r0") for q in range(QUESTIONS)]
    run(
        work, monkeypatch, KnownOrder(), "paper", only=("empathy",), personas_per_question=0, seed=1
    )
    assert {chosen for _, chosen, _ in pairs(work, "empathy", "paper")} == {
        "r3",
        "r4",
    }, "here the seed breaks them"


def test_weights_of_ones_own_decide(work, monkeypatch):
    class Split(KnownOrder):
        # Half of the personas love r0 and put r1 second, the others hate r0 and put r1 first.
        def order(self, request: Request, criterion: str) -> tuple[str, ...]:
            even = int(request.persona_id[1:]) % 2 == 0
            return ("r0", "r1", "r2", "r3", "r4") if even else ("r2", "r1", "r3", "r4", "r0")

    settings = {"only": ("empathy",), "personas_per_question": 0}
    run(work, monkeypatch, Split(), "linear", **settings)
    run(work, monkeypatch, Split(), "first", position_weights=(1.0, 0.0, 0.0, 0.0, 0.0), **settings)
    # By hand, linear, four of each: r1 5 + 5, r0 10 - 10, r2 0 + 10 (a tie with r1), r3 -5 + 0, r4
    # -10 - 5.
    assert {(c, r) for _, c, r in pairs(work, "empathy", "linear")} <= {("r1", "r4"), ("r2", "r4")}
    # First places alone: r0 and r2 have four each, the others none.
    assert {c for _, c, _ in pairs(work, "empathy", "first")} <= {"r0", "r2"}
    assert {r for _, _, r in pairs(work, "empathy", "first")} <= {"r1", "r3", "r4"}


def test_ties_share_a_rank_in_the_rankings_file(work, monkeypatch):
    write_rows(work, [reply(q, n, min(n, 3)) for q in range(QUESTIONS) for n in range(REPLIES)])
    run(work, monkeypatch, KnownOrder(), only=("empathy",), personas_per_question=0)
    for ranking in read_rankings(work / "out" / "empathy_rankings.json"):
        assert ranking.ranks == (1, 1, 3, 4, 5)
        assert {c.response_id for c in ranking.candidates[:2]} == {"r3", "r4"}


def test_what_is_missing_is_reported_by_persona_and_model(work, monkeypatch):
    results = run(work, monkeypatch, KnownOrder(refuses=("q2",)))
    models = results["missing"]["models"]
    assert models == {"known": {"asked": 48, "valid": 40, "failed": {"refusal": 8}}}
    by_persona = results["missing"]["personas_with_failed_votes"]
    assert sum(counts["failed"]["refusal"] for counts in by_persona.values()) == 8
    assert all(counts["asked"] == 2 * QUESTIONS * 4 // PERSONAS for counts in by_persona.values())


def test_runs_that_share_a_ledger_share_its_votes_and_count_apart(work, monkeypatch):
    shared = str(work / "shared.sqlite")
    run(work, monkeypatch, KnownOrder(), "one", only=("empathy",), ledger=shared)
    judge = KnownOrder()
    results = run(work, monkeypatch, judge, "two", ledger=shared)
    assert {c.name for r in judge.requests for c in r.criteria} == {"safety"}
    assert results["votes_valid"] == 48 and results["spent"]["calls"] == 24
    assert not (work / "two" / "votes.sqlite").exists()


# --------------------------------------------------------------------------- the user's mistakes


def test_no_question_with_two_replies_is_refused(work, monkeypatch):
    write_rows(work, [reply(0, 0, 0), reply(1, 0, 0)])
    with pytest.raises(UserError, match=r"responses\.csv: no question has two replies"):
        run(work, monkeypatch, KnownOrder())


def test_a_question_with_two_texts_is_refused_by_name(work, monkeypatch):
    write_rows(work, [reply(0, 0, 0), Response("q0", "another post", "r1", "1 1")])
    with pytest.raises(
        UserError, match=r"responses\.csv: the question q0 stands there with two different texts"
    ):
        run(work, monkeypatch, KnownOrder())


def test_more_personas_than_there_are_is_refused(work, monkeypatch):
    with pytest.raises(UserError, match="--personas-per-question is 9, but there are 8"):
        run(work, monkeypatch, KnownOrder(), personas_per_question=9)


def test_a_minimum_of_no_votes_is_refused(work):
    with pytest.raises(UserError, match="--min-valid-votes must be at least 1, not 0"):
        preferences(config_for(work, min_valid_votes=0))


def test_no_calls_at_once_is_refused(work):
    with pytest.raises(UserError, match="--max-concurrency must be at least 1, not 0"):
        preferences(config_for(work, max_concurrency=0))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"repeat_share": 1.5}, "--repeat-share must be from 0 to 1, not 1.5"),
        ({"budget": 0.0}, "--budget must be above 0, not 0"),
        ({"budget_calls": 0}, "--budget-calls must be at least 1, not 0"),
        ({"max_answer_tokens": 0}, "--max-answer-tokens must be at least 1, not 0"),
        ({"timeout": 0.0}, "--timeout must be above 0, not 0"),
        (
            {"position_weights": (1.0, 0.0)},
            "--position-weights has 2 numbers, but a question has 5 responses",
        ),
        ({"position_weights": (1.0, 2.0, 3.0, 4.0, 5.0)}, "--position-weights must fall"),
        (
            {
                "judge": "endpoint",
                "base_url": "http://localhost/v1",
                "judge_model": "a-llama",
                "budget": 5.0,
            },
            "--budget needs the price of a-llama",
        ),
    ],
)
def test_settings_out_of_range_are_refused_by_their_flags(work, settings, words):
    with pytest.raises(UserError, match=words):
        preferences(config_for(work, **settings))


def test_an_endpoint_without_a_model_is_refused_before_anything_is_written(work):
    with pytest.raises(UserError, match="--judge endpoint needs --judge-model"):
        preferences(config_for(work, judge="endpoint"))
    assert not (work / "out").exists()


def test_a_criterion_without_a_pair_leaves_the_run_unfinished_and_says_why(work, monkeypatch):
    refuses = tuple(f"q{q}" for q in range(QUESTIONS))
    with pytest.raises(
        UserError, match=r"empathy: no question gave a pair \(24 votes, 0 valid, 24 refusal"
    ):
        run(work, monkeypatch, KnownOrder(refuses=refuses))
    results = run(work, monkeypatch, KnownOrder(), retry_errors=True)
    assert results["criteria"]["empathy"]["pairs"] == QUESTIONS
