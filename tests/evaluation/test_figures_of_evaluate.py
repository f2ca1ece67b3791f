"""What evaluate computes from votes: win rates, intervals, ratings, groups, lengths."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import re

import numpy as np
import pytest
from known_order import (
    PERSONAS,
    QUESTIONS,
    REPLIES,
    WORTH,
    KnownOrder,
    outcomes,
    rewrite,
    run,
)

from jaxmodpo.errors import UserError
from jaxmodpo.files import write_json
from jaxmodpo.judging.judge import call_key
from jaxmodpo.statistics.intervals import wilson_interval


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
