"""Confidence intervals: Wilson's interval of a share, and the bootstrap over questions.

A bootstrap has two steps, which stand here once for everything that has an interval. Questions are
drawn again with replacement, as rows (:func:`resampled_questions`) or as how often each one was
drawn (:func:`times_drawn`), and the statistic's values over these draws are cut at both ends
(:func:`percentile_interval`)::

    drawn = resampled_questions(len(scores))             # [resamples, questions]
    low, high = percentile_interval(scores[drawn].mean(axis=1))

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
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = (
        z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    )
    return max(middle - half, 0.0), min(middle + half, 1.0)


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
    drawn = np.random.default_rng(seed).multinomial(
        questions, np.full(questions, 1 / questions), size=resamples
    )
    # No count exceeds the number of questions; 2,000 resamples of 10,000 questions are 40 MB
    # instead of 160.
    drawn = drawn.astype(np.uint16 if questions < 2**16 else np.uint32)
    # Later callers get the same array, so none may write to it.
    drawn.flags.writeable = False
    return drawn


def percentile_interval(samples: ArrayLike, *, confidence: float = 0.95) -> tuple[Array, Array]:
    """Return the percentile interval over the first axis: ``[resamples, ...]`` to two of ``[...]``.

    Resamples in which the statistic is undefined (NaN) do not count; the ends are NaN where none
    defines it.
    """
    samples = np.asarray(samples, dtype=np.float64)
    tail = (1 - confidence) / 2
    defined = np.isfinite(samples).any(axis=0)
    low, high = np.nanquantile(np.where(defined, samples, 0.0), [tail, 1 - tail], axis=0)
    return np.where(defined, low, np.nan), np.where(defined, high, np.nan)
