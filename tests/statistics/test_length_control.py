"""Length-controlled win rates against statsmodels, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from jaxmodpo.statistics.length_control import length_controlled_win_rate

NAN = float("nan")


def test_it_is_statsmodels_logit_at_equal_length():
    random = np.random.default_rng(0)
    differences = random.normal(40, 60, size=500)
    chance = 1 / (1 + np.exp(-(0.3 + 1.2 * np.tanh(differences / differences.std()))))
    outcomes = (random.random(500) < chance).astype(float)
    outcomes[::10] = 0.5
    fit = length_controlled_win_rate(outcomes, differences)
    design = sm.add_constant(np.tanh(differences / differences.std()))
    theirs = np.asarray(
        sm.GLM(outcomes, design, family=sm.families.Binomial()).fit(tol=1e-14).params
    )
    assert [fit.intercept, fit.slope] == pytest.approx(theirs.tolist(), rel=1e-7)
    assert fit.win_rate == pytest.approx(1 / (1 + np.exp(-theirs[0])))


def test_a_model_that_wins_by_length_alone_has_half_at_equal_length():
    random = np.random.default_rng(1)
    differences = random.normal(50, 50, size=20_000)
    chance = 1 / (1 + np.exp(-1.5 * np.tanh(differences / differences.std())))
    outcomes = (random.random(20_000) < chance).astype(float)
    assert outcomes.mean() > 0.65
    assert length_controlled_win_rate(outcomes, differences).win_rate == pytest.approx(
        0.5, abs=0.02
    )


@pytest.mark.parametrize(
    ("outcomes", "differences", "reason"),
    [
        ([], [], "no unit has both an outcome and the lengths of its replies"),
        ([NAN, 1], [3, NAN], "no unit has both an outcome and the lengths of its replies"),
        ([1, 0, 1], [5, 5, 5], "all replies differ by the same length"),
        ([1, 1, 0, 0], [5, 6, -5, -6], "lengths, or the models alone, tell every winner"),
        ([1, 1, 1, 1], [5, -6, -5, 6], "lengths, or the models alone, tell every winner"),
    ],
)
def test_where_nothing_can_be_fitted_the_reason_is_said(outcomes, differences, reason):
    fit = length_controlled_win_rate(outcomes, differences)
    assert fit.undefined == reason and np.isnan(fit.win_rate)


def test_units_without_an_outcome_or_a_length_are_left_out():
    outcomes = [1, 0, 1, 0, 1, NAN, 0.5]
    differences = [3, 2, -1, -4, 5, 9, NAN]
    assert length_controlled_win_rate(outcomes, differences) == length_controlled_win_rate(
        outcomes[:5], differences[:5]
    )
