"""A permutation test of paired values: whether the mean of their differences is 0."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike

from jaxmodpo.statistics.arrays import Array

_MOST_EXACT = 13
"""Up to so many pairs all 2^n changes of signs are counted, which are no more than are drawn."""

DRAWS = 9_999
"""changes of signs that are drawn of more pairs"""

# Signs that are drawn at a time: all at once would hold [draws, pairs] numbers.
_DRAWS_AT_A_TIME = 500
# Sums of the same numbers in another order differ in their last digits, and are equal all the same.
_TOLERANCE = 1e-12


def paired_permutation_p_value(
    differences: ArrayLike, *, draws: int = DRAWS, seed: int = 0
) -> float:
    """Return the two-sided p value of the mean of paired differences, ``[pairs]``.

    If nothing tells the two values of a pair apart, each difference may as well have the other
    sign. The p value is the share of changes of signs whose mean is as far from 0 as the observed
    one or further: counted of up to 13 pairs, and drawn of more, where the observed one counts as
    one of the draws, so that no p value is 0.

    Raises:
        ValueError: no pair, or a difference that is no number.

    References:
        Fisher, "The Design of Experiments", 1935; Phipson and Smyth, "Permutation P-values Should
        Never Be Zero", 2010.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError("a permutation test needs at least one difference, and numbers alone")
    observed = abs(values.sum())
    # Sums of the same numbers in another order differ by rounding, and are as far from 0 all the
    # same.
    rounding = _TOLERANCE * max(np.abs(values).sum(), 1.0)
    threshold = observed - rounding
    if len(values) <= _MOST_EXACT:
        every_choice = itertools.product((-1.0, 1.0), repeat=len(values))
        signs = np.array(list(every_choice))  # [choices, pairs]
        is_extreme = np.abs(signs @ values) >= threshold
        return float(is_extreme.mean())
    generator = np.random.default_rng(seed)
    extreme = 1
    for begin in range(0, draws, _DRAWS_AT_A_TIME):
        count = min(_DRAWS_AT_A_TIME, draws - begin)
        sums = _signs(generator, count, len(values)) @ values
        extreme += int(np.sum(np.abs(sums) >= threshold))
    return extreme / (draws + 1)


def _signs(generator: np.random.Generator, draws: int, pairs: int) -> Array:
    return generator.choice(np.array([-1.0, 1.0]), size=(draws, pairs))
