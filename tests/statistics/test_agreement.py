"""Coefficients of agreement against published values, other implementations and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from brute_force import alpha_by_pairs, tau_of
from scipy import stats
from sklearn.metrics import cohen_kappa_score, confusion_matrix
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss

from jaxmodpo.statistics import agreement

# Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, example C: four observers,
# twelve units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def alpha(counts: np.ndarray, level: str) -> float:
    return float(agreement.krippendorff_alpha(agreement.coincidences(counts).sum(axis=0), level))  # type: ignore[arg-type]


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_alpha_of_krippendorffs_own_example(level, published):
    counts = np.array(
        [[sum(o[u] == value for o in OBSERVERS) for value in range(1, 6)] for u in range(12)]
    )
    assert alpha(counts, level) == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
def test_alpha_equals_the_pairwise_definition_with_missing_votes(level):
    rng = np.random.default_rng(0)
    for _ in range(20):
        units = [list(rng.integers(4, size=rng.integers(0, 6))) for _ in range(12)]
        counts = np.array([[unit.count(value) for value in range(4)] for unit in units])
        assert alpha(counts, level) == pytest.approx(alpha_by_pairs(units, level), rel=1e-12)


def test_alpha_is_one_of_agreement_and_undefined_of_one_value():
    assert alpha(np.array([[3, 0], [0, 5]]), "nominal") == 1
    assert math.isnan(alpha(np.array([[3, 0], [5, 0]]), "nominal"))
    assert math.isnan(alpha(np.array([[1, 0], [0, 1]]), "ordinal"))


def test_kappa_and_ac1_against_other_implementations_and_gwets_example():
    rng = np.random.default_rng(1)
    a, b = rng.integers(3, size=200), rng.integers(3, size=200)
    b[:90] = a[:90]
    confusion = agreement.confusion(a, b, range(3))
    assert agreement.cohen_kappa(confusion) == pytest.approx(cohen_kappa_score(a, b), rel=1e-12)
    # Gwet 2008: 125 subjects, 118 and 0 agreed on, 5 and 2 not.
    skewed = [[118, 5], [2, 0]]
    assert agreement.cohen_kappa(skewed) == pytest.approx(-0.0234, abs=1e-4)
    assert agreement.gwet_ac1(skewed) == pytest.approx(0.9408, abs=1e-4)


def test_confusion_equals_scikit_learns():
    rng = np.random.default_rng(5)
    a = rng.choice(["first", "second", "tie"], size=80)
    b = rng.choice(["first", "second", "tie"], size=80)
    values = ["second", "tie", "first"]
    np.testing.assert_array_equal(
        agreement.confusion(a, b, values), confusion_matrix(a, b, labels=values)
    )


def test_confusion_leaves_out_items_that_a_judge_did_not_value():
    table = agreement.confusion(["x", None, "y", "x"], ["x", "x", np.nan, "y"], ["x", "y"])
    assert table.tolist() == [[1, 1], [0, 0]]
    assert agreement.confusion([], [], ["x", "y"]).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("a", "b", "values", "sentence"),
    [
        ([0, 1], [0], [0, 1], "one judge has 2 items and the other 1"),
        ([0, 2], [0, 1], [0, 1], r"2 is none of the values \[0, 1\]"),
        ([0], [0], [0, 0], r"a value stands twice among \[0, 0\]"),
    ],
)
def test_confusion_refuses_what_it_cannot_place(a, b, values, sentence):
    with pytest.raises(ValueError, match=sentence):
        agreement.confusion(a, b, values)


# Fleiss 1971, as reprinted in many textbooks: ten subjects, fourteen raters, five categories.
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def test_fleiss_kappa_of_the_worked_example_and_statsmodels():
    assert agreement.fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)
    assert agreement.fleiss_kappa(FLEISS) == pytest.approx(statsmodels_fleiss(FLEISS), rel=1e-12)


def test_fleiss_kappa_of_unequal_raters_is_what_its_pairs_say():
    rng = np.random.default_rng(7)
    units = [list(rng.integers(3, size=rng.integers(0, 7))) for _ in range(30)]
    counts = np.array([[unit.count(value) for value in range(3)] for unit in units])
    agreeing: list[float] = []
    pooled: list[int] = []
    for unit in units:
        if len(unit) > 1:
            pairs = list(itertools.permutations(unit, 2))
            agreeing.append(sum(a == b for a, b in pairs) / len(pairs))
            pooled += unit
    by_chance = sum((pooled.count(value) / len(pooled)) ** 2 for value in range(3))
    expected = (np.mean(agreeing) - by_chance) / (1 - by_chance)
    assert agreement.fleiss_kappa(counts) == pytest.approx(expected, rel=1e-12)


def test_fleiss_kappa_is_undefined_where_nobody_meets_or_nothing_varies():
    assert np.isnan(agreement.fleiss_kappa([[1, 0], [0, 1]]))
    assert np.isnan(agreement.fleiss_kappa([[3, 0], [2, 0]]))
    assert np.isnan(agreement.fleiss_kappa(np.zeros((0, 3))))
    assert agreement.fleiss_kappa([[3, 0], [0, 2], [1, 0]]) == 1


def test_kappa_is_zero_of_one_constant_judge_and_undefined_of_two():
    assert agreement.cohen_kappa([[70, 30], [0, 0]]) == 0
    assert math.isnan(agreement.cohen_kappa([[100, 0], [0, 0]]))
    assert agreement.gwet_ac1([[100, 0], [0, 0]]) == 1
    assert math.isnan(agreement.gwet_ac1([[0, 0], [0, 0]]))


def test_both_ways_makes_chance_a_fair_coin():
    two = agreement.both_ways([[60, 15], [5, 20]])
    assert agreement.raw_agreement(two) == 0.8
    assert agreement.cohen_kappa(two) == pytest.approx(0.6) == agreement.gwet_ac1(two)


def test_orientations_multiply_to_kendalls_tau():
    rng = np.random.default_rng(2)
    for _ in range(10):
        a, b = rng.permutation(5), rng.permutation(5)
        tau = float((agreement.orientations(a) * agreement.orientations(b)).mean())
        assert tau == pytest.approx(tau_of(a, b), abs=1e-12)


def test_friedman_equals_scipys():
    ranks = np.array([np.random.default_rng(n).permutation(4) + 1 for n in range(30)])
    statistic, p = agreement.friedman(ranks.mean(axis=0), 30)
    theirs = stats.friedmanchisquare(*ranks.T)
    assert (statistic, p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-10)
