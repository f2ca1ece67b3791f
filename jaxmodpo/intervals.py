"""Confidence intervals: Wilson's interval of a share, and the bootstrap over questions.

A bootstrap has two steps, which stand here once for everything that has an interval. Questions are
drawn again with replacement, as rows (:func:`resampled_questions`) or as how often each one was
drawn (:func:`times_drawn`), and the statistic's values over these draws are cut at both ends
(:func:`percentile_interval`)::

    resamples = resampled_questions(len(scores))         # [resamples, questions]
    low, high = percentile_interval(scores[resamples].mean(axis=1))

The module stands apart from the evaluation, and needs no scipy, because methods and searches use it
too.
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

RESAMPLES = 2000
"""draws of a bootstrap where nothing else is asked for"""


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
    variance = share * (1 - share) / trials + z**2 / (4 * trials**2)
    half_width = z * math.sqrt(variance) / shrinkage
    return max(middle - half_width, 0.0), min(middle + half_width, 1.0)


def resampled_questions(
    questions: int, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.intp]:
    """Draw questions with replacement, as indices: ``[resamples, questions]``.

    For statistics that need every question's own values, such as the volume under a front.
    """
    return np.random.default_rng(seed).integers(questions, size=(resamples, questions))


@functools.lru_cache(maxsize=4)
def times_drawn(questions: int, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[Any]:
    """Draw questions with replacement, as how often each resample holds each one: ``[resamples,
    questions]``.

    For statistics of sums over questions: all resamples are then one product of matrices.
    Statistics with the same number of questions and the same seed share their draws, so that their
    differences are paired.
    """
    # Drawing n questions of n and counting them is one draw of a multinomial distribution.
    equal_chances = np.full(questions, 1 / questions)
    counts = np.random.default_rng(seed).multinomial(questions, equal_chances, size=resamples)
    # No count exceeds the number of questions; 2,000 resamples of 10,000 questions are 40 MB
    # instead of 160.
    counts = counts.astype(np.uint16 if questions < 2**16 else np.uint32)
    # Later callers get the same array, so none may write to it.
    counts.flags.writeable = False
    return counts


def percentile_interval(samples: ArrayLike, *, confidence: float = 0.95) -> tuple[Array, Array]:
    """Return the percentile interval over the first axis: ``[resamples, ...]`` to two of ``[...]``.

    Resamples in which the statistic is undefined (NaN) do not count; the ends are NaN where none
    defines it.
    """
    samples = np.asarray(samples, dtype=np.float64)
    tail = (1 - confidence) / 2
    defined = np.isfinite(samples).any(axis=0)
    # A statistic that no resample defines would make nanquantile warn; zeros stand in for it, and
    # its ends become NaN again below.
    quantiles = np.nanquantile(np.where(defined, samples, 0.0), [tail, 1 - tail], axis=0)
    low, high = quantiles
    return np.where(defined, low, np.nan), np.where(defined, high, np.nan)
