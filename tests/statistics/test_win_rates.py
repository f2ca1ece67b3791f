"""Win rates and their intervals against closed forms and scipy's own bootstrap."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxmodpo.statistics.win_rates import (
    average_win_rates,
    bootstrap_win_rates,
    estimate_average_differences,
    estimate_average_win_rates,
    estimate_win_rate,
    win_rate,
    without_ties,
)

NAN = float("nan")


def table_of_pairs(models: int, questions: int, replies: int, seed: int = 0) -> np.ndarray:
    """Random outcomes of all pairs, as the convention has them."""
    random = np.random.default_rng(seed)
    table = np.full((models, models, questions, replies), NAN)
    for a in range(models):
        for b in range(a + 1, models):
            table[a, b] = random.choice([0, 0.5, 1], size=(questions, replies), p=[0.3, 0.1, 0.6])
            table[b, a] = 1 - table[a, b]
    return table


def test_win_rate_counts_ties_half_and_leaves_out_units_without_a_vote():
    assert win_rate([[1, 0.5], [0, NAN], [1, NAN]]) == pytest.approx(2.5 / 4)


def test_ties_left_out_leave_wins_over_wins_and_losses():
    outcomes = np.array([[1.0], [1.0], [0.0], [0.5], [NAN]])
    assert win_rate(without_ties(outcomes)) == pytest.approx(2 / 3)
    assert np.isnan(win_rate(without_ties(np.full((3, 1), 0.5))))


def test_win_rate_without_any_valid_unit_is_nan_and_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(win_rate([[NAN, NAN]]))
        assert np.isnan(estimate_win_rate([[NAN], [NAN]], resamples=10)).all()


def test_average_win_rate_is_the_mean_over_opponents():
    rates = [[NAN, 0.8, 0.6], [0.2, NAN, 0.1], [0.4, 0.9, NAN]]
    np.testing.assert_allclose(average_win_rates(rates), [0.7, 0.15, 0.65])


def test_average_win_rate_over_a_missing_pair_is_not_an_average_over_the_rest():
    averages = average_win_rates([[NAN, 0.8, NAN], [0.2, NAN, 0.1], [NAN, 0.9, NAN]])
    assert np.isnan(averages).tolist() == [True, False, True]


def test_average_win_rate_refuses_what_is_not_a_square_of_models():
    with pytest.raises(ValueError, match="square"):
        average_win_rates(np.zeros((2, 3)))


@given(st.integers(2, 6), st.integers(2, 8), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_average_win_rates_of_all_models_sum_to_half_their_number(models, questions, replies, seed):
    averages = estimate_average_win_rates(
        table_of_pairs(models, questions, replies, seed), resamples=20
    )
    assert averages.value.sum() == pytest.approx(models / 2)
    assert (averages.low <= averages.high).all()


def test_interval_agrees_with_scipys_percentile_bootstrap():
    outcomes = np.random.default_rng(3).choice([0, 0.5, 1], size=(120, 1), p=[0.3, 0.2, 0.5])
    ours = estimate_win_rate(outcomes, resamples=20_000)
    theirs = stats.bootstrap(
        (outcomes[:, 0],),
        np.mean,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(9),
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.005)
    assert ours.high == pytest.approx(theirs.high, abs=0.005)


def test_interval_width_agrees_with_the_normal_approximation():
    outcomes = np.repeat([1.0, 0.0], [240, 160])[:, None]
    estimate = estimate_win_rate(outcomes, resamples=20_000)
    standard_error = np.sqrt(0.6 * 0.4 / 400)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * standard_error, rel=0.03)


def test_interval_treats_replies_to_a_question_as_one_cluster():
    once = np.random.default_rng(1).integers(0, 2, size=(50, 1)).astype(float)
    np.testing.assert_allclose(
        estimate_win_rate(np.repeat(once, 5, axis=1)), estimate_win_rate(once)
    )


def test_bootstrap_equals_drawing_the_questions_one_by_one():
    outcomes = np.array([[1.0, NAN], [0.0, 0.5], [NAN, NAN], [1.0, 1.0]])
    samples = bootstrap_win_rates(outcomes, resamples=50, seed=4)
    draws = np.random.default_rng(4).multinomial(4, [0.25] * 4, size=50)
    for sample, times in zip(samples, draws, strict=True):
        resampled = np.repeat(outcomes, times, axis=0)
        expected = np.nanmean(resampled) if np.isfinite(resampled).any() else NAN
        np.testing.assert_allclose(sample, expected)


def test_bootstrap_is_the_same_for_a_seed_and_another_for_another():
    outcomes = table_of_pairs(2, 30, 1)
    first = bootstrap_win_rates(outcomes, resamples=10, seed=1)
    np.testing.assert_array_equal(first, bootstrap_win_rates(outcomes, resamples=10, seed=1))
    assert (first[:, 0, 1] != bootstrap_win_rates(outcomes, resamples=10, seed=2)[:, 0, 1]).any()


@pytest.mark.parametrize("won", [0, 30])
def test_equal_outcomes_of_all_questions_have_wilsons_interval(won):
    wilson = stats.binomtest(won, 30).proportion_ci(method="wilson")
    expected = pytest.approx((won / 30, wilson.low, wilson.high))
    outcomes = np.full((30, 2), won / 30)
    assert tuple(map(float, estimate_win_rate(outcomes))) == expected
    pair = np.full((2, 2, 30, 1), NAN)
    pair[0, 1], pair[1, 0] = won / 30, 1 - won / 30
    average = estimate_average_win_rates(pair)
    assert tuple(float(part[0]) for part in average) == expected


def test_only_judged_questions_are_trials_of_wilsons_interval():
    outcomes = np.repeat([1.0, NAN], [5, 25])[:, None]
    assert float(estimate_win_rate(outcomes).low) == pytest.approx(
        stats.binomtest(5, 5).proportion_ci(method="wilson").low
    )


def test_one_question_has_no_interval():
    one = np.concatenate([np.ones((1, 3)), np.full((4, 3), NAN)])
    estimate = estimate_win_rate(one)
    assert float(estimate.value) == 1.0 and np.isnan([estimate.low, estimate.high]).all()
    table = table_of_pairs(3, 1, 2)
    for estimate in (estimate_average_win_rates(table), estimate_average_differences(table)):
        assert np.isfinite(estimate.value).all() and np.isnan([estimate.low, estimate.high]).all()


def test_differences_are_antisymmetric_and_of_the_averages():
    table = table_of_pairs(4, 40, 2)
    differences = estimate_average_differences(table, resamples=200)
    averages = estimate_average_win_rates(table, resamples=200).value
    np.testing.assert_allclose(differences.value, averages[:, None] - averages[None, :])
    np.testing.assert_allclose(differences.low, -differences.high.T, atol=1e-12)


def test_interval_of_a_difference_uses_the_same_questions_for_both_models():
    """Two models with equal outcomes against a third, who tie with each other, never differ."""
    against_third = np.random.default_rng(0).integers(0, 2, size=(40, 1)).astype(float)
    table = np.full((3, 3, 40, 1), NAN)
    table[0, 1] = table[1, 0] = 0.5
    table[0, 2] = table[1, 2] = against_third
    table[2, 0] = table[2, 1] = 1 - against_third
    difference = estimate_average_differences(table, resamples=100)
    assert [float(part[0, 1]) for part in difference] == [0.0, 0.0, 0.0]
