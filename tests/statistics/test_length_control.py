"""Length-controlled win rates against statsmodels, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from jaxmodpo.statistics.bootstrap import times_drawn
from jaxmodpo.statistics.intervals import percentile_interval
from jaxmodpo.statistics.length_control import (
    length_controlled_interval,
    length_controlled_win_rate,
)

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


def test_its_interval_is_of_statsmodels_logits_of_the_same_draws_of_questions():
    random = np.random.default_rng(2)
    differences = random.normal(40, 60, size=(60, 2))
    chance = 1 / (1 + np.exp(-(0.3 + 1.2 * np.tanh(differences / differences.std()))))
    outcomes = (random.random((60, 2)) < chance).astype(float)
    outcomes[3, 0] = NAN
    interval = length_controlled_interval(outcomes, differences, resamples=40, seed=5)
    usable = np.isfinite(outcomes)
    predictor = np.tanh(differences / differences[usable].std())[usable]
    question, _ = np.nonzero(usable)
    rates: list[float] = []
    for counts in times_drawn(60, 40, 5):
        design = sm.add_constant(predictor)
        model = sm.GLM(
            outcomes[usable],
            design,
            family=sm.families.Binomial(),
            freq_weights=counts[question].astype(float),
        )
        rates.append(1 / (1 + np.exp(-np.asarray(model.fit(tol=1e-14).params)[0])))
    low, high = percentile_interval(rates)
    assert interval == pytest.approx((float(low), float(high)), rel=1e-7)


@pytest.mark.parametrize(
    ("outcomes", "differences"),
    [
        ([[1.0, 0.0, 1.0]], [[3.0, -2.0, -1.0]]),  # one question
        ([[1.0], [1.0], [0.0], [0.0]], [[5.0], [6.0], [-5.0], [-6.0]]),  # no finite fit
        # One unit alone keeps winners and lengths apart, and is in two resamples of three.
        ([[1.0], [1.0], [0.0], [0.0], [1.0]], [[5.0], [6.0], [-5.0], [-6.0], [-7.0]]),
    ],
)
def test_there_is_no_interval_where_resamples_have_no_fit(outcomes, differences):
    assert length_controlled_interval(outcomes, differences, resamples=200) is None
