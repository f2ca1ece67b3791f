"""Wilson's interval and the percentiles of a bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from jaxmodpo.statistics.intervals import percentile_interval, wilson_interval


@pytest.mark.parametrize(("won", "of"), [(0, 5), (5, 5), (37, 50), (5012, 10000)])
def test_wilson_interval_equals_scipys(won, of):
    ours, theirs = wilson_interval(won, of), stats.binomtest(won, of).proportion_ci(method="wilson")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert wilson_interval(0, 0) is None


def test_percentile_interval_of_known_samples():
    low, high = percentile_interval(np.linspace(0, 1, 101), confidence=0.9)
    assert (low, high) == (pytest.approx(0.05), pytest.approx(0.95))


def test_percentile_interval_leaves_out_resamples_that_define_nothing():
    samples = np.stack([np.linspace(0, 1, 101), np.full(101, np.nan)], axis=1)
    samples = np.concatenate([samples, np.full((50, 2), np.nan)])
    low, high = percentile_interval(samples)
    np.testing.assert_allclose(low, [0.025, np.nan])
    np.testing.assert_allclose(high, [0.975, np.nan])
