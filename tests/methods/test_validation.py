"""A reward model's figures against numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from jaxmodpo.methods.validation import accuracy, calibration, interval, sentence, validate


def test_accuracy_counts_equal_rewards_half_and_the_interval_is_wilsons():
    differences = np.array([1.0, -1.0, 0.0, 2.0])
    assert accuracy(differences) == pytest.approx(0.625)
    right = np.array([1.0] * 8 + [-1.0] * 2)
    expected = stats.binomtest(8, 10).proportion_ci(0.95, method="wilson")
    assert interval(right, [str(n) for n in range(10)]) == pytest.approx(
        [expected.low, expected.high]
    )


def test_pairs_of_one_question_widen_the_interval():
    generator = np.random.default_rng(0)
    right = np.repeat(np.where(generator.random(40) < 0.7, 1.0, -1.0), 10)
    apart = interval(right, [str(n) for n in range(400)])
    together = interval(right, [str(n // 10) for n in range(400)])
    assert apart is not None and together is not None
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])


def test_one_question_has_no_interval_and_equal_ones_have_wilsons():
    assert interval(np.ones(10), ["q"] * 10) is None
    expected = stats.binomtest(30, 30).proportion_ci(0.95, method="wilson")
    assert interval(np.ones(60), [str(n // 2) for n in range(60)]) == pytest.approx(
        [expected.low, expected.high]
    )


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated():
    generator = np.random.default_rng(0)
    certainty = generator.uniform(0, 4, 40_000)
    right = generator.random(40_000) < 1 / (1 + np.exp(-certainty))
    bins = calibration(np.where(right, certainty, -certainty))
    assert bins.expected_calibration_error < 0.02
    assert sum(row.pairs for row in bins.bins) == 40_000
    sure = calibration(np.where(generator.random(1000) < 0.5, 5.0, -5.0))
    assert sure.expected_calibration_error == pytest.approx(1 / (1 + np.exp(-5)) - 0.5, abs=0.05)


def test_rankings_are_validated_on_their_ends_and_on_all_pairs():
    rewards = np.array([[3.0, 2.0, 1.0], [1.0, 5.0, 0.0], [2.0, 1.0, 9.0]])
    validation = validate(rewards, np.array([[1, 2, 3], [1, 2, 3], [1, 2, 0]]), ["a", "b", "c"])
    assert validation.all_pairs is not None
    assert validation.pairs == 3 and validation.accuracy == 1.0  # the third ranking has two places
    assert validation.all_pairs.pairs == 7 and validation.all_pairs.accuracy == pytest.approx(6 / 7)
    assert validation.loss == pytest.approx(np.mean(np.log1p(np.exp([-2.0, -1.0, -1.0]))))
    assert sum(validation.rewards.worst.histogram) == 3
    assert "100.0%" in sentence(validation) and "all 7 pairs" in sentence(validation)


def test_tied_replies_are_no_pair():
    rewards = np.array([[1.0, 2.0, 0.0, 3.0], [0.0, 5.0, 1.0, 9.0]])
    validation = validate(rewards, np.array([[1, 1, 3, 3], [1, 2, 2, 0]]), ["a", "b"])
    assert validation.tied_pairs_left_out == 3 and validation.all_pairs is not None
    # Of the first: 1 > 0, 1 > 3, 2 > 0, 2 > 3; of the second 0 > 5 and 0 > 1.
    assert validation.all_pairs.pairs == 6 and validation.all_pairs.accuracy == pytest.approx(2 / 6)
    assert validation.pairs == 2 and validation.accuracy == 0.0
    assert sum(row.pairs for row in validation.calibration.bins) == 6
