"""The paired permutation test against scipy's, and where there is little or nothing to test."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import pytest
from scipy import stats

from jaxmodpo.statistics.permutation import paired_permutation_p_value


@pytest.mark.parametrize("pairs", [1, 2, 7, 12])
def test_of_few_pairs_it_is_scipys_exact_one(pairs):
    differences = np.random.default_rng(pairs).normal(0.5, 1.0, pairs)
    expected = 1.0
    if pairs > 1:
        expected = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=cast(int, np.inf)
        ).pvalue
    assert paired_permutation_p_value(differences) == pytest.approx(expected, abs=1e-12)


def test_of_many_pairs_it_agrees_with_scipys_draws():
    differences = np.random.default_rng(0).normal(0.2, 1.0, 80)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1
    ).pvalue
    assert paired_permutation_p_value(differences) == pytest.approx(expected, abs=0.015)


def test_without_any_difference_it_is_1_and_of_a_clear_one_never_0():
    assert paired_permutation_p_value(np.zeros(40)) == 1.0
    assert paired_permutation_p_value([0.0]) == 1.0
    assert paired_permutation_p_value(np.ones(200)) == pytest.approx(1 / 10_000)


@pytest.mark.parametrize("differences", [[], [math.nan, 1.0], [[1.0]]])
def test_what_has_no_differences_is_refused(differences):
    with pytest.raises(ValueError, match="at least one difference"):
        paired_permutation_p_value(differences)
