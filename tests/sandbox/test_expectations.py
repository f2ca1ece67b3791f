"""What the demo's outcome is held against, its table, and its exit code."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from right_results import EVALUATION

from jaxmodpo.results.demo import Expectation, WorldResults
from jaxmodpo.results.evaluation import EvaluationResults, PairTest
from jaxmodpo.results.measures import Divergence, Malformed
from jaxmodpo.results.versioned import read_result, write_result
from jaxmodpo.sandbox.demo import DemoConfig, collect_results, demo, demo_table, mean_of
from jaxmodpo.sandbox.expectations import (
    EMPATHY,
    SAFETY,
    comparisons,
    figure_2,
    required,
)
from jaxmodpo.statistics.mcnemar import mcnemar_from_counts

RATES = {
    "base": (0.15, 0.38),
    "sft_empathy": (0.21, 0.45),
    "dpo_empathy": (0.94, 0.48),
    "dpo_safety": (0.20, 0.90),
    "modpo_empathy": (0.78, 0.62),
    "dpo_soup": (0.53, 0.58),
    "joint_loss_dpo": (0.71, 0.62),
}
NONE_MALFORMED = dict.fromkeys(RATES, 0.0)


def outcome(**changed: tuple[float, float]) -> EvaluationResults:
    """Return an evaluation's results with the paper's average win rates, some of them changed.

    Of 100 questions two models win as many more or fewer as their rates differ.
    """
    rates = RATES | changed
    models = {name: {"empathy": e, "safety": s} for name, (e, s) in rates.items()}
    tests: dict[str, list[PairTest]] = {"empathy": [], "safety": []}
    for (a, of_a), (b, of_b) in itertools.combinations(models.items(), 2):
        for criterion, rows in tests.items():
            wins = round(50 + 150 * (of_a[criterion] - of_b[criterion]))
            wins = min(max(wins, 0), 100)
            rows.append(pair_test(a, b, wins, 100 - wins))
    intervals = {
        name: {criterion: (rate - 0.02, rate + 0.02) for criterion, rate in of_model.items()}
        for name, of_model in models.items()
    }
    pairwise = {a: {b: 0.5 for b in models if b != a} for a in models}
    return replace(
        EVALUATION,
        models=models,
        intervals=intervals,
        tests={criterion: tuple(rows) for criterion, rows in tests.items()},
        pairwise=dict.fromkeys(("empathy", "safety"), pairwise),
        criteria=("empathy", "safety"),
        empty_replies=dict.fromkeys(models, 0),
    )


def pair_test(a: str, b: str, wins: int, losses: int) -> PairTest:
    test = mcnemar_from_counts(wins, losses)
    return PairTest(
        a=a,
        b=b,
        **test._asdict(),
        p_value_holm=test.p_value,
        average_difference=0.0,
        average_difference_interval=None,
    )


def test_every_comparison_of_figure_2_is_stated():
    stated = comparisons()
    pairs = {frozenset(pair) for pair in itertools.combinations(EMPATHY, 2)}
    for criterion in ("empathy", "safety"):
        assert {frozenset((c.a, c.b)) for c in stated if c.criterion == criterion} == pairs
    assert len(stated) == 30
    kinds = {
        relation: [c for c in stated if c.relation == relation]
        for relation in ("above", "ahead", "level")
    }
    # On empathy all 15 are significant; on safety each of three methods is above each of three
    # others.
    assert (len(kinds["above"]), len(kinds["ahead"]), len(kinds["level"])) == (15 + 9, 4, 2)
    assert {(c.a, c.b) for c in kinds["level"]} == {
        ("joint_loss_dpo", "modpo_empathy"),
        ("dpo_empathy", "sft_empathy"),
    }
    for order in (EMPATHY, SAFETY):
        rates = [rate for rate in order.values() if rate is not None]
        assert rates == sorted(rates, reverse=True)


def missed(results: EvaluationResults) -> list[str]:
    return [e.statement for e in figure_2(results) if not e.holds]


def test_the_paper_s_own_outcome_holds_but_for_what_100_questions_cannot_show():
    # 21 to 15 is not significant in 100 questions.
    assert missed(outcome()) == ["empathy: sft_empathy significantly above base"]
    assert [e.statement for e in required(outcome(), NONE_MALFORMED) if not e.holds] == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"modpo_empathy": (0.71, 0.62)},
            ["empathy: modpo_empathy significantly above joint_loss_dpo"],
        ),
        ({"modpo_empathy": (0.78, 0.80)}, ["safety: joint_loss_dpo level with modpo_empathy"]),
        ({"base": (0.05, 0.46)}, ["safety: sft_empathy ahead of base"]),
    ],
)
def test_a_comparison_that_fails_is_named(changed, expected):
    base = {"base": (0.05, 0.38)}
    assert missed(outcome(**base)) == []
    assert missed(outcome(**base | changed)) == expected


def test_a_comparison_shows_its_questions_and_p_value():
    results = outcome()
    first = tuple(pair_test("modpo_empathy", name, 9, 3) for name in RATES)
    tests = {**results.tests, "empathy": first + tuple(results.tests["empathy"])}
    results = replace(results, tests=tests)
    shown = {e.statement: e.figures for e in figure_2(results)}
    # The binomial test of 9 in 12: 2 * (1 + 12 + 66 + 220) / 2^12.
    assert (
        shown["empathy: modpo_empathy significantly above joint_loss_dpo"]
        == "9 : 3 questions, p = 0.146"
    )
    assert (
        shown["empathy: dpo_empathy significantly above modpo_empathy"]
        == "3 : 9 questions, p = 0.146"
    )
    assert shown["empathy: dpo_empathy significantly above base"] == "100 : 0 questions, p < 0.001"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"base": (0.205, 0.38)}, [0]),
        ({"base": (0.15, 0.46)}, [0]),
        ({"modpo_empathy": (0.94, 0.62)}, []),
        ({"modpo_empathy": (0.99, 0.62), "dpo_empathy": (0.87, 0.48)}, [1]),
        ({"joint_loss_dpo": (0.90, 0.62)}, [1]),
        ({"joint_loss_dpo": (0.71, 0.475)}, [2]),
        ({"dpo_soup": (0.53, 0.91)}, [3]),
        ({"dpo_soup": (0.19, 0.58)}, [3]),
    ],
)
def test_each_thing_that_must_hold_can_fail(changed, expected):
    expectations = required(outcome(**changed), NONE_MALFORMED)
    assert [number for number, e in enumerate(expectations) if not e.holds] == expected


def test_too_many_malformed_replies_fail():
    last = required(outcome(), NONE_MALFORMED | {"dpo_safety": 0.051})[-1]
    assert not last.holds and last.figures == "most: dpo_safety, 5.1%"


def collected(seed: int, **changed: tuple[float, float]) -> WorldResults:
    results = outcome(**changed)
    return WorldResults(
        **vars(results),
        seed=seed,
        kl=dict.fromkeys(results.models, 0.0),
        malformed=NONE_MALFORMED,
        required=tuple(required(results, NONE_MALFORMED)),
        figure_2=tuple(figure_2(results)),
    )


def test_a_worlds_results_are_read_from_the_files_of_its_experiment(tmp_path):
    write_result(tmp_path / "evaluation" / "results.json", outcome())
    for name in RATES:
        malformed = Malformed(malformed=0.0, replies=1, sentences_per_reply={})
        write_result(tmp_path / "check" / name / "malformed.json", malformed)
        if name != "base":
            moved = Divergence(kl=1.5, standard_error=None, replies=1)
            write_result(tmp_path / "kl" / name / "kl.json", moved)
    results = collect_results(tmp_path, 7)
    moved = dict.fromkeys(RATES, 1.5) | {"base": 0.0}
    assert results == replace(collected(7), kl=moved)
    assert read_result(tmp_path / "results.json", WorldResults) == results


def test_over_seeds_an_expectation_holds_only_where_all_do():
    mean = mean_of([collected(0), collected(1, base=(0.205, 0.38))])
    assert mean.models["base"]["empathy"] == pytest.approx(0.1775)
    assert mean.intervals["base"]["empathy"] == pytest.approx((0.15, 0.205))
    assert [e.holds for e in mean.required] == [False, True, True, True, True]
    assert [e.figures for e in mean.required][:2] == ["on 1 of 2 seeds", "on 2 of 2 seeds"]
    shown = demo_table(mean)
    assert "seed 0, 1" in shown
    assert (
        "  does not hold here  every aligned model is ahead of base on both criteria (on 1 of 2"
        " seeds)\n" in shown
    )
    assert (
        "  holds               empathy: dpo_empathy significantly above base (on 2 of 2 seeds)\n"
        in shown
    )
    assert "of which 29 of 30 comparisons hold here" in shown


def test_a_rate_of_one_question_is_shown_without_an_interval():
    results = collected(0)
    intervals = {name: dict.fromkeys(rates) for name, rates in results.models.items()}
    assert "[" not in demo_table(replace(results, intervals=intervals))


@pytest.mark.parametrize(("holds", "ends"), [(True, False), (False, True)])
def test_the_demo_fails_where_something_that_must_hold_does_not(
    tmp_path, monkeypatch, capsys, holds, ends
):
    must_hold = Expectation(statement="what must hold", holds=holds, figures="")
    of_paper = Expectation(
        statement="what the paper found", holds=False, figures="3 : 9 questions, p = 0.146"
    )
    results = replace(collected(0), required=(must_hold,), figure_2=(of_paper,))
    monkeypatch.setattr("jaxmodpo.sandbox.demo.run_experiment", lambda *_: None)
    monkeypatch.setattr("jaxmodpo.sandbox.demo.collect_results", lambda *_: results)
    if ends:
        with pytest.raises(SystemExit, match="1"):
            demo(DemoConfig(output_dir=tmp_path))
    else:
        demo(DemoConfig(output_dir=tmp_path))
    printed = capsys.readouterr().out
    assert f"  {'holds' if holds else 'does not hold here':<20}what must hold\n" in printed
    assert "of which 0 of 1 comparisons hold here" in printed
    assert "  does not hold here  what the paper found (3 : 9 questions, p = 0.146)\n" in printed
