"""Head-to-head evaluation with judges whose verdicts are known."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation import head_to_head
from jaxmodpo.evaluation.head_to_head import EvaluateConfig, evaluate
from jaxmodpo.files import write_json
from jaxmodpo.judging.judge import Answer, Call, Request, call_key
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.judging.votes import Vote
from jaxmodpo.records import Response, write_responses
from jaxmodpo.statistics.intervals import wilson_interval

QUESTIONS, REPLIES, PERSONAS = 6, 2, 4
# Each reply's text states its worth on two criteria.
WORTH = {"good": (9, 2), "fair": (5, 5), "poor": (1, 8)}
WORDS = {str(quality): name for name, (quality, _) in WORTH.items()}


class KnownOrder:
    """Prefers the reply that states the higher worth on the criterion; equal worth is a tie."""

    identity = "known-order:1"
    costs = False

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def verdict(self, request: Request, criterion: str) -> tuple[str, ...] | None:
        n = ["quality", "safety"].index(criterion)
        worth = {r.response_id: int(r.response_text.split()[n]) for r in request.responses}
        best = [name for name, value in worth.items() if value == max(worth.values())]
        return tuple(best) if len(best) == 1 else ()

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        orders = {c.name: self.verdict(request, c.name) for c in request.criteria}
        if None in orders.values():
            return Answer("refusal", "no", model="known")
        return Answer(
            "valid",
            "yes",
            {name: order for name, order in orders.items() if order is not None},
            "known",
        )

    def ask(self, requests: Iterator[Call], put: Callable[[Call, Answer], None]) -> None:
        for asked in requests:
            put(asked, self.answer(asked.request))


class FirstShown(KnownOrder):
    """Always prefers what it is shown first."""

    def verdict(self, request: Request, criterion: str) -> tuple[str, ...] | None:
        return (request.responses[0].response_id,)


class Refuses(KnownOrder):
    """Refuses where a reply holds a given word, for the first ``personas`` personas."""

    def __init__(self, word: str, personas: int = PERSONAS) -> None:
        super().__init__()
        self.word, self.refusing = word, {f"p{n}" for n in range(personas)}

    def verdict(self, request: Request, criterion: str) -> tuple[str, ...] | None:
        if request.persona_id in self.refusing and any(
            self.word in r.response_text for r in request.responses
        ):
            return None
        return super().verdict(request, criterion)


def reply(name: str, question: int, n: int) -> Response:
    worth = " ".join(map(str, WORTH[name]))
    return Response(
        f"q{question}", f"post {question}", f"r{n}", f"{worth} reply {n} to q{question}"
    )


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for name in WORTH:
        replies = [reply(name, q, n) for q in range(QUESTIONS) for n in range(REPLIES)]
        write_responses(tmp_path / f"{name}.csv", replies)
    write_json(tmp_path / "personas.json", {f"p{n}": f"persona {n}" for n in range(PERSONAS)})
    (tmp_path / "criteria.yaml").write_text(
        "criteria:\n"
        + "".join(
            f"  - {{name: {name}, description: d, better_when: b, worse_when: w}}\n"
            for name in ("quality", "safety")
        )
    )
    return tmp_path


def config_for(work: Path, out: str = "out", **settings) -> EvaluateConfig:
    names = settings.pop("names", list(WORTH))
    fields: dict[str, Any] = {
        "judge": "rubric",
        "responses": tuple(f"{name}={work / name}.csv" for name in names),
        "personas": work / "personas.json",
        "criteria": str(work / "criteria.yaml"),
        "output_dir": work / out,
        "bootstrap": 50,
        **settings,
    }
    return EvaluateConfig(**fields)


def run(
    work: Path, monkeypatch: pytest.MonkeyPatch, voter: KnownOrder, out: str = "out", **settings
) -> dict:
    monkeypatch.setattr(head_to_head, "make_judge", lambda *_: voter)
    evaluate(config_for(work, out, **settings))
    return json.loads((work / out / "results.json").read_text())


def rewrite(work: Path, name: str, change) -> None:
    """Write a model's replies again with ``change`` applied to each; None leaves it out."""
    replies = [change(reply(name, q, n), q, n) for q in range(QUESTIONS) for n in range(REPLIES)]
    write_responses(work / f"{name}.csv", [r for r in replies if r is not None])


def counted(work: Path, out: str) -> list[Vote]:
    """The votes that count, without the calls' names and times, which differ between any two
    runs.
    """
    with Ledger(work / out / "votes.sqlite") as ledger:
        votes = [
            dataclasses.replace(vote, call="", time="")
            for vote in ledger.every_vote(effective_only=True)
        ]
    return sorted(votes, key=lambda vote: vote.key)


def outcomes(work: Path, out: str = "out") -> list[dict[str, str]]:
    with (work / out / "outcomes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_known_order_comes_out_on_each_criterion(work, monkeypatch):
    results = run(work, monkeypatch, KnownOrder())
    assert results["models"] == {
        "good": {"quality": 1.0, "safety": 0.0},
        "fair": {"quality": 0.5, "safety": 0.5},
        "poor": {"quality": 0.0, "safety": 1.0},
    }
    assert results["intervals"]["good"]["quality"] == pytest.approx(
        wilson_interval(QUESTIONS, QUESTIONS)
    )
    assert results["tests"]["quality"][0]["decisive"] == "p_value_exact"
    assert (results["questions_judged"], results["questions_judged_by_comparison"]) == (
        QUESTIONS,
        [],
    )
    assert results["pairwise"]["quality"]["good"] == {"fair": 1.0, "poor": 1.0}
    assert (results["criteria"], results["questions"], results["replies_per_question"]) == (
        ["quality", "safety"], QUESTIONS, REPLIES
    )  # fmt: skip
    test = results["tests"]["quality"][0]
    assert (test["a"], test["b"], test["wins"], test["losses"], test["ties"]) == (
        "good",
        "fair",
        QUESTIONS,
        0,
        0,
    )
    assert test["p_value_exact"] == pytest.approx(2 / 2**QUESTIONS)
    assert test["average_difference"] == pytest.approx(0.5)
    # Three pairs, all won on every question: the smallest of three equal p values counts thrice.
    assert test["p_value_holm"] == pytest.approx(3 * 2 / 2**QUESTIONS)


def test_pairwise_is_symmetric_and_averages_are_its_means(work, monkeypatch):
    class Noisy(KnownOrder):
        def verdict(self, request, criterion):
            tossed = int(call_key(request, "noise"), 16) % 3
            return [(request.responses[0].response_id,), (request.responses[1].response_id,), ()][
                tossed
            ]

    results = run(work, monkeypatch, Noisy())
    for criterion, square in results["pairwise"].items():
        for a, b in itertools.permutations(WORTH, 2):
            assert square[a][b] == pytest.approx(1 - square[b][a], abs=1e-12)
            low, high = results["pairwise_intervals"][criterion][a][b]
            assert low <= square[a][b] <= high
        for a in WORTH:
            average = results["models"][a][criterion]
            assert average == pytest.approx(np.mean(list(square[a].values())))
            low, high = results["intervals"][a][criterion]
            assert low <= average <= high and low < high


def test_intervals_over_questions_and_personas_stand_beside_those_over_questions(work, monkeypatch):
    class Noisy(KnownOrder):
        def verdict(self, request, criterion):
            tossed = int(call_key(request, "noise"), 16) % 2
            return (request.responses[tossed].response_id,)

    results = run(work, monkeypatch, Noisy())
    for criterion in ("quality", "safety"):
        panel = results["panels"][criterion]
        assert panel["personas"] == PERSONAS and "undefined" not in panel
        for a, b in itertools.permutations(WORTH, 2):
            rate = results["pairwise"][criterion][a][b]
            low, high = panel["pairwise"][a][b]
            assert low <= rate <= high and low < high
            assert [1 - high, 1 - low] == pytest.approx(panel["pairwise"][b][a])
            difference = results["models"][a][criterion] - results["models"][b][criterion]
            assert panel["differences"][a][b][0] <= difference <= panel["differences"][a][b][1]
        for a in WORTH:
            low, high = panel["models"][a]
            assert low <= results["models"][a][criterion] <= high


def test_ratings_name_the_model_that_never_loses_and_rank_it_first(work, monkeypatch):
    ratings = run(work, monkeypatch, KnownOrder())["ratings"]["quality"]
    assert ratings["undefined"] == (
        "good never loses to fair or poor, so that no finite rating fits"
    )
    assert ratings["first"] == "good"
    assert (ratings["challenger"], ratings["questions_to_turn"]) == (None, None)
    assert ratings["models"]["good"] == {
        "rating": None, "interval": None, "best_rank": 1, "worst_rank": 1, "probability_of_best": 1.0
    }  # fmt: skip


def test_ratings_follow_the_win_rates_and_hang_on_few_questions(work, monkeypatch):
    class Mixed(KnownOrder):
        def verdict(self, request, criterion):
            order = super().verdict(request, criterion)
            if int(request.question_id[1:]) < 4:
                return order
            return tuple(r.response_id for r in request.responses if (r.response_id,) != order)

    ratings = run(work, monkeypatch, Mixed(), names=["good", "poor"])["ratings"]["quality"]
    assert "undefined" not in ratings
    # Four questions won and two lost; three of the four must go.
    assert ratings["models"]["good"]["rating"] == pytest.approx(np.log(2) / 2)
    low, high = ratings["models"]["good"]["interval"]
    assert low < 0 < high
    assert (ratings["challenger"], ratings["questions_to_turn"]) == ("poor", 3)
    assert (ratings["models"]["good"]["best_rank"], ratings["models"]["good"]["worst_rank"]) == (
        1,
        2,
    )


def test_lengths_are_read_from_the_files_and_win_rates_controlled_for_them(work, monkeypatch):
    class LongerWinsMostly(KnownOrder):
        def verdict(self, request, criterion):
            longest = max(request.responses, key=lambda r: int(r.response_text.split()[0]))
            question = int(request.question_id[1:])
            others = [r for r in request.responses if r is not longest]
            return ((longest if question % 3 else others[0]).response_id,)

    def with_tokens(name):
        def change(response, question, n):
            longer = {"good": 40, "fair": 20, "poor": 0}[name]
            return dataclasses.replace(response, tokens=30 + longer + question * (n + 1))

        return change

    for name in WORTH:
        rewrite(work, name, with_tokens(name))
    rewrite(work, "poor", lambda response, question, n: response)
    results = run(work, monkeypatch, LongerWinsMostly())
    # Questions 0 to 5 times one and two: 2.5 and 5 on average.
    assert results["mean_tokens"] == {"good": 73.75, "fair": 53.75}
    [row] = results["length_controlled"]["quality"]
    assert (row["a"], row["b"]) == ("good", "fair")
    # Every reply of one is 20 tokens longer, so that length and model cannot be told apart.
    assert (row["win_rate"], row["undefined"]) == (None, "all replies differ by the same length")
    # All twelve units differ by 20 tokens; the longer one wins on four questions of six.
    bins = [row for row in results["length_bins"]["quality"] if row["units"]]
    assert [(b["low"], b["units"], b["rate"]) for b in bins] == [(20, 12, pytest.approx(2 / 3))]
    assert bins[0]["interval"][0] < 2 / 3 < bins[0]["interval"][1]


def test_uneven_questions_are_refused_with_counts_or_cut_to_the_common_ones(
    work, monkeypatch, caplog
):
    rewrite(work, "fair", lambda response, question, n: response if question != 1 else None)
    rewrite(work, "poor", lambda response, question, n: response if question < 4 else None)
    with pytest.raises(
        UserError,
        match=re.escape(
            "fair has no reply to question q1, which good has; all models must answer the same"
            " questions (questions answered: good 6, fair 5, poor 4; by all 3, which"
            " --uneven-questions common compares)"
        ),
    ):
        run(work, monkeypatch, KnownOrder())
    results = run(work, monkeypatch, KnownOrder(), uneven_questions="common")
    assert results["questions"] == results["questions_judged"] == 3
    assert {row["question_id"] for row in outcomes(work)} == {"q0", "q2", "q3"}
    assert (
        "evaluate: good answers 6 questions, of which 3 are compared: those that all models answer"
        in caplog.messages
    )


def test_models_without_a_common_question_are_refused(work, monkeypatch):
    rewrite(work, "good", lambda response, question, n: response if question < 2 else None)
    rewrite(work, "poor", lambda response, question, n: response if question > 3 else None)
    with pytest.raises(
        UserError,
        match=re.escape(
            "--responses: no question is answered by all models (questions answered: good 2, poor"
            " 2; by all 0); give files of replies to the same questions"
        ),
    ):
        run(work, monkeypatch, KnownOrder(), names=["good", "poor"], uneven_questions="common")


def test_groups_of_personas_are_read_from_their_texts_and_small_ones_hidden(work, monkeypatch):
    class OlderOnesDisagree(KnownOrder):
        def verdict(self, request, criterion):
            order = super().verdict(request, criterion)
            if "Age: 3" in request.persona_text:
                return order
            return tuple(r.response_id for r in request.responses if (r.response_id,) != order)

    def persona(number):
        age = 30 + number if number < 6 else 60
        return (
            f"- Age: {age}\n- Trust: 4.0/5 importance\n- Empathy: {3 + number % 2}.0/5 importance"
        )

    write_json(work / "personas.json", {f"p{n}": persona(n) for n in range(9)})
    results = run(work, monkeypatch, OlderOnesDisagree(), names=["good", "poor"])
    rows = {
        (row["dimension"], row["group"], row["model"]): row for row in results["groups"]["quality"]
    }
    young = rows["age", "30–39", "good"]
    assert (young["rate"], young["personas"], young["votes"]) == (1.0, 6, 6 * QUESTIONS * REPLIES)
    assert rows["age", "30–39", "poor"]["rate"] == 0.0
    old = rows["age", "60–69", "good"]
    assert (old["rate"], old["personas"], old["hidden"]) == (None, 3, "fewer than 5 personas")
    # Every other persona rates empathy as high as trust, and has no top preference.
    assert rows["top preference", "Trust", "good"]["personas"] == 5
    assert {key[0] for key in rows} == {"age", "top preference"}


def test_what_a_group_decides_otherwise_than_all_is_written_by_comparison(work, monkeypatch):
    class OlderOnesDisagree(KnownOrder):
        def verdict(self, request, criterion):
            order = super().verdict(request, criterion)
            if "Age: 3" in request.persona_text or request.question_id == "q4":
                return order
            return tuple(r.response_id for r in request.responses if (r.response_id,) != order)

    ages = [31, 32, 33, 34, 35, 61, 62, 63]
    write_json(work / "personas.json", {f"p{n}": f"- Age: {age}" for n, age in enumerate(ages)})
    settings = {"names": ["good", "poor"], "smallest_group": 3}
    run(work, monkeypatch, OlderOnesDisagree(), **settings)
    with (work / "out" / "group_differences.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["criterion"] == "quality"]
    assert {(row["dimension"], row["group"]) for row in rows} == {("age", "60–69")}
    assert len(rows) == (QUESTIONS - 1) * REPLIES and "q4" not in {r["question_id"] for r in rows}
    assert {(row["a"], row["b"], row["votes_a"], row["votes_b"]) for row in rows} == {
        ("good", "poor", "0", "3")
    }
    # Of a smaller group nothing is said, here and in results.json.
    run(work, monkeypatch, OlderOnesDisagree(), "strict", names=["good", "poor"])
    with (work / "strict" / "group_differences.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == []


def test_the_least_size_of_groups_is_a_setting_and_populations_come_from_the_participants(
    work, monkeypatch
):
    write_json(work / "personas.json", {f"p{n}": f"- Age: {30 + n}" for n in range(6)})
    everybody = work / "all_personas.json"
    rows = [{"persona_id": f"p{n}", "population": "AAAABBBBB"[n]} for n in range(9)]
    write_json(everybody, rows)
    settings = {"names": ["good", "poor"], "smallest_group": 3, "participants": everybody}
    results = run(work, monkeypatch, KnownOrder(), **settings)
    groups = {(r["dimension"], r["group"]): r for r in results["groups"]["quality"]}
    assert set(groups) == {("age", "30–39"), ("population", "A"), ("population", "B")}
    assert groups["population", "A"]["personas"] == 4 and groups["population", "A"]["rate"] == 0.0
    assert groups["population", "B"]["hidden"] == "fewer than 3 personas"
    write_json(everybody, rows[:5])
    with pytest.raises(UserError, match=r"all_personas.json: nothing says which population perso"):
        run(work, monkeypatch, KnownOrder(), "other", **settings)


def test_one_persona_has_no_interval_over_personas_and_says_why(work, monkeypatch):
    results = run(work, monkeypatch, KnownOrder(), personas_per_question=1, names=["good", "poor"])
    panels = results["panels"]
    assert panels["quality"]["personas"] > 1  # each question has one, but not the same
    write_json(work / "personas.json", {"p0": "persona 0"})
    panel = run(work, monkeypatch, KnownOrder(), "alone")["panels"]["quality"]
    assert panel["undefined"] == "one persona says nothing of others"
    assert panel["models"] == dict.fromkeys(WORTH)


def test_ties_left_out_count_for_no_win_rate_and_for_the_tests_as_before(work, monkeypatch):
    class TiesOnOddQuestions(KnownOrder):
        def verdict(self, request, criterion):
            is_odd = int(request.question_id[1:]) % 2
            return () if is_odd else super().verdict(request, criterion)

    half = run(work, monkeypatch, TiesOnOddQuestions(), "half", allow_ties=True)
    left_out = run(work, monkeypatch, TiesOnOddQuestions(), "out", allow_ties=True, ties="left-out")
    assert half["pairwise"]["quality"]["good"]["fair"] == 0.75
    assert left_out["pairwise"]["quality"]["good"]["fair"] == 1.0
    assert "ties" not in half and left_out["ties"] == "left-out"
    for before, after in zip(half["tests"]["quality"], left_out["tests"]["quality"], strict=True):
        assert (before["wins"], before["ties"]) == (after["wins"], after["ties"])
        assert before["p_value_holm"] == after["p_value_holm"]


def test_two_models_that_only_tie_are_refused_where_ties_are_left_out(work, monkeypatch):
    class OnlyTies(KnownOrder):
        def verdict(self, request, criterion):
            return ()

    with pytest.raises(
        UserError,
        match="quality: good and fair tie on every question, so that nothing is left where ties"
        " are left out; use --ties half",
    ):
        run(work, monkeypatch, OnlyTies(), allow_ties=True, ties="left-out")


def test_every_unit_has_each_model_first_for_exactly_half_of_the_personas(work, monkeypatch):
    judge = FirstShown()
    run(work, monkeypatch, judge)
    first = Counter()
    for request in judge.requests:
        shown = [r.response_text for r in request.responses]
        first[request.criteria[0].name, tuple(sorted(shown)), shown[0]] += 1
    assert len(first) == 2 * 2 * 3 * QUESTIONS * REPLIES
    assert set(first.values()) == {PERSONAS // 2}


def test_a_judge_that_only_looks_at_positions_gives_every_model_one_half(work, monkeypatch):
    results = run(work, monkeypatch, FirstShown())
    assert {rate for rates in results["models"].values() for rate in rates.values()} == {0.5}


def test_no_persona_sees_a_model_in_the_same_place_throughout(work, monkeypatch):
    judge = FirstShown()
    run(work, monkeypatch, judge, names=["good", "poor"])
    places = Counter(
        (r.persona_id, r.responses[0].response_text.startswith("9")) for r in judge.requests
    )
    assert set(places) == {(f"p{n}", first) for n in range(PERSONAS) for first in (True, False)}


def test_the_judge_never_sees_a_models_name_or_its_own_response_ids(work, monkeypatch):
    judge = KnownOrder()
    rewrite(
        work,
        "good",
        lambda r, q, n: Response(
            r.question_id, r.question_text, f"good_{n}", r.response_text, "good"
        ),
    )
    run(work, monkeypatch, judge)
    for request in judge.requests:
        ids = [r.response_id for r in request.responses]
        assert all(re.fullmatch("[0-9a-f]{16}", name) for name in ids)
        assert not any(model in repr(request) for model in WORTH)


def test_order_and_names_of_the_models_do_not_change_what_is_asked_or_found(work, monkeypatch):
    judges = [Refuses("reply 0", 2), Refuses("reply 0", 2)]
    first = run(work, monkeypatch, judges[0])
    second = run(work, monkeypatch, judges[1], out="reversed", names=list(WORTH)[::-1])
    assert set(judges[0].requests) == set(judges[1].requests)
    for part in ("models", "intervals", "pairwise", "pairwise_intervals", "counts"):
        assert first[part] == second[part]


def test_identical_texts_are_a_tie_without_asking(work, monkeypatch):
    judge = KnownOrder()
    rewrite(work, "fair", lambda r, q, n: reply("good", q, n) if q == 0 else r)
    results = run(work, monkeypatch, judge, names=["good", "fair"])
    assert results["counts"]["identical_replies"] == 2 * REPLIES
    assert (
        results["counts"]["votes_asked"]
        == len(judge.requests)
        == 2 * (QUESTIONS - 1) * REPLIES * PERSONAS
    )
    assert results["pairwise"]["quality"]["good"]["fair"] == pytest.approx(
        (QUESTIONS - 1 + 0.5) / QUESTIONS
    )
    assert [row["outcome"] for row in outcomes(work) if row["identical"] == "1"] == [
        "0.5"
    ] * 2 * REPLIES


def test_questions_judged_are_counted_of_those_asked(work, monkeypatch):
    results = run(work, monkeypatch, Refuses("to q0"), names=["good", "poor"])
    assert (results["questions_judged"], results["questions"]) == (QUESTIONS - 1, QUESTIONS)
    assert results["questions_judged_by_comparison"] == [
        {"criterion": c, "a": "good", "b": "poor", "judged": QUESTIONS - 1}
        for c in ("quality", "safety")
    ]


def test_one_judged_question_gives_rates_without_intervals(work, monkeypatch):
    class OnlyTheFirst(KnownOrder):
        def verdict(self, request, criterion):
            return (
                super().verdict(request, criterion)
                if request.responses[0].response_text.endswith("q0")
                else None
            )

    results = run(work, monkeypatch, OnlyTheFirst(), names=["good", "poor"])
    assert results["models"]["good"]["quality"] == 1.0
    assert results["intervals"]["good"] == {"quality": None, "safety": None}
    assert results["tests"]["quality"][0]["average_difference_interval"] is None


def test_a_dry_run_says_which_difference_can_be_seen(work, monkeypatch, capsys):
    evaluate(config_for(work, dry_run=True))
    assert (
        "power: with 6 questions, a win rate this far from 50% is seen four times of five at"
        " p < 0.05: 46.3 points for the personas asked, none (there are too few) where it is the"
        " smallest p of 3 adjusted by Holm, and none (there are too few) over new personas as well"
        " (4 are asked; one persona's taste is taken to move a win rate by 20 points)"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_model_without_any_text_is_refused_before_anything_is_judged(work, monkeypatch, dry_run):
    for name in ("fair", "poor"):
        rewrite(
            work, name, lambda r, q, n: dataclasses.replace(r, response_text=" \n" if n else "")
        )
    judge = KnownOrder()
    with pytest.raises(
        UserError, match=re.escape(f"{work / 'fair'}.csv: every reply of fair is empty")
    ):
        run(work, monkeypatch, judge, dry_run=dry_run)
    assert not judge.requests and not (work / "out").exists()


def test_models_with_the_same_reply_meet_a_third_alike(work, monkeypatch):
    rewrite(work, "fair", lambda r, q, n: reply("good", q, n))
    results = run(work, monkeypatch, KnownOrder())
    assert results["pairwise"]["quality"]["good"] == {"fair": 0.5, "poor": 1.0}
    assert results["pairwise"]["quality"]["fair"] == {"good": 0.5, "poor": 1.0}


def test_failed_votes_are_counted_and_the_others_decide(work, monkeypatch):
    results = run(work, monkeypatch, Refuses("reply 1", PERSONAS - 1), names=["good", "poor"])
    assert results["models"]["good"] == {"quality": 1.0, "safety": 0.0}
    refused = 2 * QUESTIONS * (PERSONAS - 1)
    assert results["counts"]["failed"] == {"refusal": refused}
    assert results["counts"]["valid"] == results["counts"]["votes_asked"] - refused
    assert results["counts"]["units_without_valid_vote"] == 0
    row = next(row for row in outcomes(work) if row["reply"] == "2")
    assert (row["votes_a"], row["votes_b"], row["failed"], row["outcome"]) == ("1", "0", "3", "1.0")


def test_units_without_a_valid_vote_have_no_winner(work, monkeypatch):
    results = run(work, monkeypatch, Refuses("reply 1 to q2"), names=["good", "poor"])
    assert results["counts"]["units_without_valid_vote"] == 2
    assert results["counts"]["by_criterion"]["safety"]["units_without_valid_vote"] == 1
    assert results["models"]["good"]["quality"] == 1.0
    assert [(r["question_id"], r["reply"]) for r in outcomes(work) if r["outcome"] == ""] == [
        ("q2", "2")
    ] * 2


def test_a_pair_without_any_valid_vote_is_named(work, monkeypatch):
    with pytest.raises(
        UserError,
        match=r"quality: not one vote on good against poor is valid; 'jaxmodpo votes' shows",
    ):
        run(work, monkeypatch, Refuses("8"), names=["good", "poor"])
    assert not (work / "out" / "results.json").exists()


def test_outcomes_file_suffices_to_recompute_the_win_rates(work, monkeypatch):
    results = run(work, monkeypatch, Refuses("reply 0", 3))
    rows = outcomes(work)
    assert len(rows) == 2 * 3 * QUESTIONS * REPLIES
    for criterion, square in results["pairwise"].items():
        for a, b in itertools.combinations(WORTH, 2):
            own = [r for r in rows if (r["criterion"], r["a"], r["b"]) == (criterion, a, b)]
            assert square[a][b] == pytest.approx(np.mean([float(r["outcome"]) for r in own]))


def test_only_some_criteria_and_personas_are_asked_when_so_set(work, monkeypatch):
    judge = KnownOrder()
    results = run(work, monkeypatch, judge, only=("safety",), personas_per_question=2)
    assert results["criteria"] == ["safety"] and list(results["models"]["good"]) == ["safety"]
    per_question = Counter((r.question_id, r.persona_id) for r in judge.requests)
    assert set(per_question.values()) == {3 * REPLIES}
    assert len(per_question) == 2 * QUESTIONS


def test_all_criteria_in_one_call_give_the_same_results(work, monkeypatch):
    run(work, monkeypatch, KnownOrder(), out="one")
    judge = KnownOrder()
    run(work, monkeypatch, judge, out="all", criteria_per_call="all")
    assert len(judge.requests) == 3 * QUESTIONS * REPLIES * PERSONAS
    assert {tuple(c.name for c in r.criteria) for r in judge.requests} == {("quality", "safety")}
    for name in ("results.json", "outcomes.csv"):
        assert (work / "all" / name).read_bytes() == (work / "one" / name).read_bytes()


def test_ties_are_allowed_only_where_so_set_and_count_for_neither(work, monkeypatch):
    class Ties(KnownOrder):
        """A tie for all personas but the first, where one may be answered."""

        def verdict(self, request, criterion):
            tied = request.ties and request.persona_id != "p0"
            return () if tied else super().verdict(request, criterion)

    judge = Ties()
    run(work, monkeypatch, judge, names=["good", "poor"])
    assert not any(r.ties for r in judge.requests)
    results = run(work, monkeypatch, Ties(), out="ties", names=["good", "poor"], allow_ties=True)
    assert results["models"]["good"] == {"quality": 1.0, "safety": 0.0}
    assert {(r["votes_a"], r["votes_b"], r["ties"]) for r in outcomes(work, "ties")} == {
        ("1", "0", "3"), ("0", "1", "3")
    }  # fmt: skip


def test_with_both_orders_each_persona_sees_both_and_what_turns_with_them_is_a_tie(
    work, monkeypatch
):
    judge = FirstShown()
    results = run(work, monkeypatch, judge, both_orders=True)
    seen = Counter(
        (r.criteria[0].name, r.persona_id, frozenset(r.responses)) for r in judge.requests
    )
    assert (
        set(seen.values()) == {2}
        and len(judge.requests) == 2 * 2 * 3 * QUESTIONS * REPLIES * PERSONAS
    )
    assert {(r["votes_a"], r["votes_b"], r["ties"], r["outcome"]) for r in outcomes(work)} == {
        ("0", "0", "4", "0.5")
    }
    assert results["counts"]["votes_asked"] == len(judge.requests)
    known = run(work, monkeypatch, KnownOrder(), out="known", both_orders=True)
    assert known["models"]["good"] == {"quality": 1.0, "safety": 0.0}
    assert {r["votes_a"] for r in outcomes(work, "known")} == {"0", "4"}


def test_the_official_protocol_shows_all_personas_the_same_first_by_one_draw_a_question(
    work, monkeypatch
):
    judge = FirstShown()
    run(work, monkeypatch, judge, protocol="official-code")
    first: dict[str, set[bool]] = {}
    for r in judge.requests:
        names = [WORDS[reply.response_text[0]] for reply in r.responses]
        first.setdefault(r.question_id, set()).add(names == sorted(names))
    assert all(len(sides) == 1 for sides in first.values())
    assert {next(iter(sides)) for sides in first.values()} == {True, False}


def test_second_askings_change_no_result(work, monkeypatch):
    class Fickle(KnownOrder):
        def verdict(self, request, criterion):
            return (
                (request.responses[0].response_id,)
                if request.repeat
                else super().verdict(request, criterion)
            )

    run(work, monkeypatch, Fickle(), out="once")
    judge = Fickle()
    run(work, monkeypatch, judge, out="twice", repeat_share=0.5)
    repeats = sum(r.repeat for r in judge.requests)
    # Standard deviation of a binomial(288, 1/2): 8.5.
    assert abs(repeats - 144) < 5 * 8.5
    assert (work / "once" / "outcomes.csv").read_bytes() == (
        work / "twice" / "outcomes.csv"
    ).read_bytes()


def test_failed_votes_of_a_finished_evaluation_are_asked_again_when_told_to(work, monkeypatch):
    run(work, monkeypatch, KnownOrder(), out="whole")
    run(work, monkeypatch, Refuses("reply 1 to q2"))
    judge = KnownOrder()
    run(work, monkeypatch, judge, retry_errors=True)
    assert len(judge.requests) == 2 * 3 * PERSONAS
    for name in ("results.json", "outcomes.csv"):
        assert (work / "out" / name).read_bytes() == (work / "whole" / name).read_bytes()


def test_a_finished_evaluation_that_asked_again_does_not_end_with_nothing_to_do(work, monkeypatch):
    run(work, monkeypatch, Refuses("reply 1 to q2"))
    monkeypatch.setattr(head_to_head, "make_judge", lambda *_: KnownOrder())
    phase = evaluate(config_for(work, retry_errors=True))
    assert phase is not None and phase.ending.startswith(f"finished: {work / 'out'}; questions 6")
    phase = evaluate(config_for(work))
    assert phase is not None and phase.ending.endswith(
        "was finished before; there is nothing to do"
    )


def test_stand_in_judge_is_labeled_and_another_is_not(work, monkeypatch):
    assert "no clinical meaning" in run(work, monkeypatch, KnownOrder())["note"]
    local = {"judge": "endpoint", "base_url": "http://127.0.0.1:1/v1", "judge_model": "m"}
    assert run(work, monkeypatch, KnownOrder(), out="endpoint", **local)["note"] == ""


def test_killed_in_the_middle_it_goes_on_and_gives_the_same_bytes(work, monkeypatch):
    class Killed(BaseException):
        pass

    class Dies(KnownOrder):
        def answer(self, request):
            if len(self.requests) == 150:
                raise Killed
            return super().answer(request)

    run(work, monkeypatch, KnownOrder(), out="whole")
    with pytest.raises(Killed):
        run(work, monkeypatch, Dies(), out="resumed", max_concurrency=1)
    rest = KnownOrder()
    run(work, monkeypatch, rest, out="resumed", max_concurrency=1)
    assert len(rest.requests) == 2 * 3 * QUESTIONS * REPLIES * PERSONAS - 150
    for name in ("results.json", "outcomes.csv"):
        assert (work / "resumed" / name).read_bytes() == (work / "whole" / name).read_bytes()
    assert counted(work, "resumed") == counted(work, "whole")


def test_finished_evaluation_asks_nothing_again(work, monkeypatch):
    first = run(work, monkeypatch, KnownOrder())
    again = KnownOrder()
    assert run(work, monkeypatch, again) == first and again.requests == []


def test_cut_replies_are_counted_for_the_models_whose_files_tell(work, monkeypatch):
    def ended(response: Response, question: int, n: int) -> Response:
        reasons = ("length", "end") if question % 2 else ("stop", "filter")
        return dataclasses.replace(response, finish_reason=reasons[n % 2])

    rewrite(work, "good", ended)
    rewrite(work, "fair", lambda r, q, n: dataclasses.replace(r, finish_reason="end"))
    results = run(work, monkeypatch, KnownOrder())
    cut_of_each_question = sum(n % 2 == 0 for n in range(REPLIES))
    cut = QUESTIONS // 2 * cut_of_each_question
    total = QUESTIONS * REPLIES
    assert results["cut_replies"] == {
        "good": {"cut": cut, "replies": total},
        "fair": {"cut": 0, "replies": total},
    }
    assert cut > 0
    # Where nobody knows, nothing is said.
    for name in ("good", "fair"):
        rewrite(work, name, lambda r, q, n: r)
    assert "cut_replies" not in run(work, monkeypatch, KnownOrder(), "elsewhere")


def test_manifest_states_the_counts(work, monkeypatch):
    results = run(work, monkeypatch, KnownOrder())
    manifest = json.loads((work / "out" / "manifest.json").read_text())
    assert (
        manifest["results"]["votes_asked"]
        == results["counts"]["votes_asked"]
        == 2 * 3 * QUESTIONS * REPLIES * PERSONAS
    )
    assert set(manifest["outputs"]) == {
        "results.json",
        "outcomes.csv",
    }, "votes of a ledger may still be added to"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r, q, n: None if q == 3 else r, "poor has no reply to question q3, which good has"),
        (lambda r, q, n: None if (q, n) == (2, 1) else r, "poor has 1 replies to question q2, not 2 as good"),
        (
            lambda r, q, n: Response(r.question_id, "else", r.response_id, r.response_text) if q == 4 else r,
            "poor and good have different texts for question q4",
        ),
        (
            lambda r, q, n: Response(r.question_id, f"{n}", r.response_id, r.response_text),
            "question q0 stands there with two different texts",
        ),
    ],
)  # fmt: skip
def test_models_that_do_not_answer_the_same_are_named_with_the_question(
    work, monkeypatch, change, says
):
    rewrite(work, "poor", change)
    with pytest.raises(UserError, match=re.escape(says)) as raised:
        run(work, monkeypatch, KnownOrder())
    assert str(work / "poor.csv") in str(raised.value)
    assert not (work / "out").exists()


def test_a_question_that_only_a_later_model_answers_is_named(work, monkeypatch):
    rewrite(work, "good", lambda r, q, n: None if q == 5 else r)
    with pytest.raises(UserError, match="fair has a reply to question q5, which good has not"):
        run(work, monkeypatch, KnownOrder())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"names": ["good"]}, "at least two models"),
        ({"bootstrap": 0}, "--bootstrap must be at least 1, not 0"),
        ({"only": ("warmth",)}, "warmth"),
        ({"personas_per_question": 9}, "9"),
        ({"responses": ("good.csv", "b=b.csv")}, "'good.csv' must be NAME=VALUE"),
    ],
)
def test_bad_settings_are_named(work, monkeypatch, settings, says):
    with pytest.raises(UserError, match=re.escape(says)):
        run(work, monkeypatch, KnownOrder(), **settings)
