"""The bootstrap over questions: questions are drawn again with replacement.

It has two steps. Questions are drawn as rows (:func:`resampled_questions`) or as how often each one
was drawn (:func:`times_drawn`), and the statistic's values over these draws are cut at both ends
(:func:`jaxmodpo.statistics.intervals.percentile_interval`)::

    resamples = resampled_questions(len(scores))         # [resamples, questions]
    low, high = percentile_interval(scores[resamples].mean(axis=1))

A statistic of sums over questions needs neither: :func:`estimate` draws, computes and cuts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxmodpo.statistics.arrays import Array
from jaxmodpo.statistics.intervals import percentile_interval

RESAMPLES = 2000
"""draws of a bootstrap where nothing else is asked for"""

# Resamples that are multiplied with the sums at a time. All of them at once would hold
# [resamples, sums] numbers, and a statistic makes several temporaries of that size.
_RESAMPLES_AT_A_TIME = 200


def resampled_questions(
    questions: int, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.intp]:
    """Draw questions with replacement, as indices: ``[resamples, questions]``.

    For statistics that need every question's own values, such as the volume under a front.
    """
    generator = np.random.default_rng(seed)
    return generator.integers(questions, size=(resamples, questions))


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
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(questions, equal_chances, size=resamples)
    # No count exceeds the number of questions; 2,000 resamples of 10,000 questions are 40 MB
    # instead of 160.
    small_enough = np.uint16 if questions < 2**16 else np.uint32
    counts = counts.astype(small_enough)
    # Later callers get the same array, so none may write to it.
    counts.flags.writeable = False
    return counts


def estimate(
    sums: ArrayLike,
    statistic: Callable[[Array], Array],
    undefined: str,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Return a statistic of sums over questions, with a 95% interval over resampled questions.

    Questions are resampled and votes are not: the votes on one question resemble each other, so
    that an interval over votes would be too narrow by far.

    Args:
        sums: ``[questions, sums]``.
        statistic: ``[..., sums]`` to ``[...]``, NaN where it is undefined.
        undefined: why, where it is.
        resamples: of the questions, with replacement; percentile interval over those that define
            the statistic.
        seed: of the draws.

    Returns:
        ``value`` and ``interval``. Without a value both are None and ``undefined`` says why; of a
        single question there is no interval.
    """
    sums = np.asarray(sums, np.float64)
    value = float(statistic(sums.sum(axis=0)))
    if not np.isfinite(value):
        return {"value": None, "interval": None, "undefined": undefined}
    if len(sums) < 2:
        # One question is the same question in every resample, which would look like certainty.
        return {"value": value, "interval": None}
    samples = [statistic(resampled) for resampled in resampled_sums(sums, resamples, seed)]
    low, high = percentile_interval(np.concatenate(samples))
    # A statistic that hangs on one question is undefined in every resample without it.
    if not np.isfinite(low):
        return {"value": value, "interval": None}
    return {"value": value, "interval": [float(low), float(high)]}


def resampled_sums(sums: ArrayLike, resamples: int, seed: int) -> Iterator[Array]:
    """Yield the sums over each resample's questions, some resamples at a time.

    Sums add up, so that a resample's are a product with how often it holds each question, and no
    rows need to be copied.

    Args:
        sums: of each question, ``[questions, sums]``.
        resamples: of the questions, with replacement.
        seed: of the draws.

    Yields:
        ``[some resamples, sums]``.
    """
    sums = np.asarray(sums, np.float64)
    draw_counts = times_drawn(len(sums), resamples, seed)
    for begin in range(0, resamples, _RESAMPLES_AT_A_TIME):
        counts = draw_counts[begin : begin + _RESAMPLES_AT_A_TIME]
        # As they are, NumPy would multiply integers one by one, ten times as slowly as numbers that
        # its library of linear algebra takes.
        yield counts.astype(np.float64) @ sums
