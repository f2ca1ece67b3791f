"""Confidence intervals: Wilson's interval of a share, and the percentiles of a bootstrap.

Everything that has an interval takes it from here; the draws that percentiles are taken of stand in
:mod:`jaxmodpo.statistics.bootstrap`.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from jaxmodpo.statistics.arrays import Array


class Estimate(NamedTuple):
    """A value with its interval; three arrays of one shape. The ends are NaN where there is no
    interval.
    """

    value: Array
    low: Array
    high: Array


def wilson_interval(
    successes: float, trials: float, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Return Wilson's score interval of a share of independent trials; None of no trials.

    Args:
        successes: from 0 to ``trials``; halves, such as ties, are taken as they are and not
            rounded.
        trials: how many there were.
        confidence: the share of such intervals that hold the true value.

    References:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    if trials <= 0:
        return None
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    # Wilson draws the observed share towards one half, by as much as z² further trials would of
    # which half succeeded. This keeps a width where all trials, or none, succeeded.
    shrinkage = 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / shrinkage
    variance_of_share = share * (1 - share) / trials
    variance_of_further_trials = z**2 / (4 * trials**2)
    variance = variance_of_share + variance_of_further_trials
    half_width = z * math.sqrt(variance) / shrinkage
    low = max(middle - half_width, 0.0)
    high = min(middle + half_width, 1.0)
    return low, high


def student_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return Student's interval of the mean of independent values; None of fewer than two.

    Args:
        values: ``[values]``, finite.
        confidence: the share of such intervals that hold the true mean, of normal values.

    References:
        Student, "The Probable Error of a Mean", 1908.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        return None
    mean = float(sample.mean())
    standard_error = float(sample.std(ddof=1)) / math.sqrt(len(sample))
    degrees_of_freedom = len(sample) - 1
    t = float(stdtrit(degrees_of_freedom, (1 + confidence) / 2))
    half_width = t * standard_error
    return mean - half_width, mean + half_width


def percentile_interval(samples: ArrayLike, *, confidence: float = 0.95) -> tuple[Array, Array]:
    """Return the percentile interval over the first axis: ``[resamples, ...]`` to two of ``[...]``.

    Resamples in which the statistic is undefined (NaN) do not count; the ends are NaN where none
    defines it.
    """
    samples = np.asarray(samples, dtype=np.float64)
    tail = (1 - confidence) / 2
    is_defined = np.isfinite(samples).any(axis=0)
    # A statistic that no resample defines would make nanquantile warn; zeros stand in for it, and
    # its ends become NaN again below.
    without_undefined = np.where(is_defined, samples, 0.0)
    low, high = np.nanquantile(without_undefined, [tail, 1 - tail], axis=0)
    low = np.where(is_defined, low, np.nan)
    high = np.where(is_defined, high, np.nan)
    return low, high
