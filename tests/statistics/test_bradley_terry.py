"""Bradley-Terry ratings against statsmodels' logit with clustered covariance, and separation."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from jaxmodpo.statistics.bradley_terry import (
    estimate_ratings,
    fit_ratings,
    groups_without_upsets,
    win_counts,
)

NAN = float("nan")


def some_outcomes(models: int, questions: int, replies: int, seed: int = 0) -> np.ndarray:
    """Outcomes in which later models are better, questions differ, and some units are missing."""
    random = np.random.default_rng(seed)
    table = np.full((models, models, questions, replies), NAN)
    difficulty = random.normal(0, 0.8, size=questions)
    for a in range(models):
        for b in range(a + 1, models):
            chance = 1 / (1 + np.exp(0.5 * (b - a) + difficulty))[:, None]
            outcomes = (random.random((questions, replies)) < chance).astype(float)
            outcomes[random.random(outcomes.shape) < 0.15] = 0.5
            outcomes[random.random(outcomes.shape) < 0.1] = NAN
            table[a, b] = outcomes
            table[b, a] = 1 - outcomes
    return table


def statsmodels_ratings(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratings and half widths of their intervals, of a logit without a column for model 0."""
    models = len(table)
    rows: list[np.ndarray] = []
    outcomes: list[float] = []
    groups: list[int] = []
    for a in range(models):
        for b in range(a + 1, models):
            for question, reply in zip(*np.nonzero(np.isfinite(table[a, b])), strict=True):
                row = np.zeros(models)
                row[[a, b]] = 1, -1
                rows.append(row)
                outcomes.append(table[a, b, question, reply])
                groups.append(question)
    fitted = sm.GLM(outcomes, np.array(rows)[:, 1:], family=sm.families.Binomial()).fit(
        tol=1e-14,
        cov_type="cluster",
        cov_kwds={"groups": np.array(groups), "use_correction": False},
    )
    # From ratings against model 0 to ratings against the mean.
    against_mean = (np.eye(models) - 1 / models)[:, 1:]
    ratings = against_mean @ np.asarray(fitted.params)
    covariance = against_mean @ np.asarray(fitted.cov_params()) @ against_mean.T
    judged = len(set(groups))
    return ratings, 1.959964 * np.sqrt(np.diag(covariance) * judged / (judged - 1))


@pytest.mark.parametrize(("models", "replies"), [(2, 1), (5, 2)])
def test_ratings_and_their_intervals_equal_statsmodels_clustered_logit(models, replies):
    table = some_outcomes(models, 60, replies)
    estimate = estimate_ratings(table)
    ratings, half_widths = statsmodels_ratings(table)
    np.testing.assert_allclose(estimate.value, ratings, atol=1e-8)
    np.testing.assert_allclose(estimate.high - estimate.value, half_widths, rtol=1e-5)
    np.testing.assert_allclose(estimate.value - estimate.low, half_widths, rtol=1e-5)
    assert estimate.value.sum() == pytest.approx(0, abs=1e-12)


def test_two_models_are_the_log_odds_of_their_wins_apart():
    ratings = fit_ratings(np.array([[0, 30], [10, 0]]))
    assert ratings.tolist() == pytest.approx([np.log(3) / 2, -np.log(3) / 2])


def test_ratings_of_lopsided_wins_are_found_and_equal_models_have_none_between_them():
    ratings = fit_ratings(np.array([[0, 99_999], [1, 0]]))
    assert ratings[0] - ratings[1] == pytest.approx(np.log(99_999))
    assert fit_ratings(np.full((3, 3), 0.5)).tolist() == [0, 0, 0]


def test_replies_to_one_question_are_one_cluster():
    once = some_outcomes(3, 40, 1)
    five_times = np.repeat(once, 5, axis=-1)
    np.testing.assert_allclose(estimate_ratings(once), estimate_ratings(five_times), rtol=1e-6)


def test_one_question_gives_ratings_without_intervals():
    table = np.full((2, 2, 1, 3), NAN)
    table[0, 1] = [[1, 1, 0]]
    table[1, 0] = [[0, 0, 1]]
    estimate = estimate_ratings(table)
    assert estimate.value[0] == pytest.approx(np.log(2) / 2)
    assert np.isnan([estimate.low, estimate.high]).all()


def test_models_that_never_lose_are_a_group_of_their_own_and_no_ratings_are_made():
    # Model 2 beats all always; 0 and 1 beat each other; 3 loses to all.
    wins = np.array([[0, 4, 0, 9], [5, 0, 0, 9], [9, 9, 0, 9], [0, 0, 0, 0]])
    assert groups_without_upsets(wins) == [[2], [0, 1], [3]]
    with pytest.raises(ValueError, match="no finite ratings fit"):
        fit_ratings(wins)


def test_a_half_win_is_enough_for_a_rating():
    table = np.full((2, 2, 10, 1), NAN)
    table[0, 1] = np.array([1.0] * 9 + [0.5])[:, None]
    table[1, 0] = 1 - table[0, 1]
    assert groups_without_upsets(win_counts(table)) == [[0, 1]]
    assert fit_ratings(win_counts(table))[0] == pytest.approx(np.log(9.5 / 0.5) / 2)
