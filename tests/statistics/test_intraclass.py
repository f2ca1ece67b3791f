"""The intraclass correlation against the example that defined it, and its definition."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.formula.api import ols

from jaxmodpo.statistics.intraclass import intraclass_of_sums, intraclass_sums

# Shrout and Fleiss 1979, table 2: six targets, four judges. Their table 4 has ICC(2,1) = .29, and
# pingouin 0.7.0 has 0.2898.
SHROUT_FLEISS = [
    [9, 2, 5, 8],
    [6, 1, 3, 2],
    [8, 4, 6, 8],
    [7, 1, 2, 6],
    [10, 5, 6, 9],
    [6, 2, 4, 7],
]


def icc(scores) -> float:
    return float(intraclass_of_sums(intraclass_sums(scores).sum(axis=0)))


def test_shrout_and_fleiss_example():
    assert icc(SHROUT_FLEISS) == pytest.approx(0.2898, abs=5e-5)


def test_it_is_the_ratio_of_mean_squares_of_an_analysis_of_variance():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20, 1)) + rng.normal(size=(20, 3)) + [0.0, 0.4, -0.3]
    item, rater = np.indices(scores.shape)
    data = {"score": scores.ravel(), "item": item.ravel(), "rater": rater.ravel()}
    table = sm.stats.anova_lm(ols("score ~ C(item) + C(rater)", data).fit())
    items, raters, error = table["mean_sq"]
    expected = (items - error) / (items + 2 * error + 3 * (raters - error) / 20)
    assert icc(scores) == pytest.approx(expected, rel=1e-9)


def test_items_that_lack_a_score_are_left_out_and_a_shift_lowers_it():
    with_gaps = [*SHROUT_FLEISS, [np.nan, 2, 3, 4]]
    assert icc(with_gaps) == icc(SHROUT_FLEISS)
    scores = np.array([0.0, 0.5, 1.0, 0.5, 1.0])
    assert icc(np.stack([scores, scores], axis=1)) == pytest.approx(1)
    assert icc(np.stack([scores, scores + 0.4], axis=1)) < 0.7


def test_it_is_undefined_of_one_item_and_of_scores_that_are_all_the_same():
    assert np.isnan(icc([[1.0, 0.5]]))
    assert np.isnan(icc([[0.7, 0.7]] * 5))
