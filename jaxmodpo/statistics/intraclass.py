"""The intraclass correlation of absolute agreement, of sums over items.

::

    sums = intraclass_sums([[9, 2, 5, 8], [6, 1, 3, 2], …])     # items by raters
    intraclass_of_sums(sums.sum(axis=0))
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxmodpo.statistics.arrays import Array, ratio


def intraclass_sums(scores: ArrayLike) -> Array:
    """Return what the coefficient is made of: ``[items, raters]`` to ``[items, 3 + raters]``.

    A one, the sum of squares, the square of the item's sum, and the scores. Zeros of an item that
    lacks a score (NaN).
    """
    scores = np.asarray(scores, np.float64)
    is_whole = np.asarray(np.isfinite(scores).all(axis=-1))
    whole = np.where(is_whole[..., None], scores, 0.0)
    item = is_whole.astype(np.float64)
    sum_of_squares = np.sum(whole**2, axis=-1)
    square_of_sum = whole.sum(axis=-1) ** 2
    head = np.stack([item, sum_of_squares, square_of_sum], axis=-1)
    return np.concatenate([head, whole], axis=-1)


def intraclass_of_sums(sums: ArrayLike) -> Array:
    """Return ICC(2,1) of summed :func:`intraclass_sums`: ``[..., 3 + raters]`` to ``[...]``.

    Two-way random effects, absolute agreement, a single rater: with n items, k raters and the mean
    squares of items (R), raters (C) and error (E),
    (MS_R − MS_E) / (MS_R + (k − 1) MS_E + k (MS_C − MS_E) / n). A rater who always scores higher
    than another lowers it, which a correlation would not show. NaN of fewer than two items, and
    where all scores are the same.

    References:
        Shrout and Fleiss, "Intraclass Correlations: Uses in Assessing Rater Reliability", 1979;
        McGraw and Wong call it ICC(A,1).
    """
    sums = np.asarray(sums, np.float64)
    of_raters = sums[..., 3:]
    raters = of_raters.shape[-1]
    items = sums[..., 0]
    squares = sums[..., 1]
    squares_of_items = sums[..., 2]
    # Zero or one item has no mean squares: ratio makes them NaN.
    square_of_total = of_raters.sum(axis=-1) ** 2
    correction = ratio(square_of_total, items * raters)
    between_items = squares_of_items / raters - correction
    squares_of_raters = np.sum(of_raters**2, axis=-1)
    between_raters = ratio(squares_of_raters, items) - correction
    error = squares - correction - between_items - between_raters
    mean_items = ratio(between_items, items - 1)
    mean_raters = between_raters / (raters - 1)
    mean_error = ratio(error, (items - 1) * (raters - 1))
    spread = mean_items + (raters - 1) * mean_error
    spread = spread + ratio(raters * (mean_raters - mean_error), items)
    # What cancels to a rounding error is nothing: all scores are the same.
    scale = np.maximum(squares, 1.0) * 1e-12
    spread = np.where(np.abs(spread) > scale, spread, 0.0)
    return ratio(mean_items - mean_error, spread)
