"""The draws of a bootstrap over questions, and estimates of sums."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodpo.statistics.bootstrap import estimate, resampled_questions, times_drawn
from jaxmodpo.statistics.intervals import percentile_interval


def test_bootstrap_samples_and_intervals_are_seeded():
    drawn = resampled_questions(30, 400)
    assert drawn.shape == (400, 30) and drawn.max() < 30
    np.testing.assert_array_equal(drawn, resampled_questions(30, 400))
    low, high = percentile_interval(np.random.default_rng(0).normal(size=20_000))
    assert low == pytest.approx(-1.96, abs=0.06) and high == pytest.approx(1.96, abs=0.06)


def test_times_drawn_holds_as_many_questions_as_there_are_and_is_shared_unchanged():
    drawn = times_drawn(7, 100, 3)
    assert drawn.shape == (100, 7) and (drawn.sum(axis=1) == 7).all()
    assert times_drawn(7, 100, 3) is drawn
    with pytest.raises(ValueError, match="read-only"):
        drawn[0, 0] = 1


def test_interval_of_a_mean_is_the_normal_one_and_reasons_are_said():
    rng = np.random.default_rng(3)
    values = rng.normal(size=400)
    said = estimate(
        np.stack([values, np.ones(400)], axis=1),
        lambda s: s[..., 0] / s[..., 1],
        "why",
        resamples=4000,
        seed=0,
    )
    error = values.std() / 20
    assert said["interval"] == pytest.approx(
        [values.mean() - 1.96 * error, values.mean() + 1.96 * error], abs=0.01
    )
    nan = estimate(
        np.zeros((3, 1)), lambda s: s[..., 0] * np.nan, "nothing met", resamples=10, seed=0
    )
    assert nan == {"value": None, "interval": None, "undefined": "nothing met"}
    assert (
        estimate(np.ones((1, 1)), lambda s: s[..., 0], "", resamples=10, seed=0)["interval"] is None
    )
