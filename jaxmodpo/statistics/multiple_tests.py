"""Several tests at once: p values adjusted for how many questions are put to the same data."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxmodpo.statistics.arrays import Array


def holm(p_values: ArrayLike) -> Array:
    """Return Holm's adjusted p values: ``[tests]`` to ``[tests]``.

    Sorted from the smallest, the i-th of m p values is multiplied by m − i + 1; none may be smaller
    than one before it, and none exceeds 1. Calling every test significant whose adjusted value lies
    below 0.05 finds any difference that is not there in at most 5% of families, whatever the tests
    have to do with each other.

    A p value that is NaN belongs to a test that could not be made: it stays NaN, and does not count
    among the m.

    Raises:
        ValueError: not one axis, or a p value outside 0–1.

    References:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1:
        raise ValueError(f"a family of p values has one axis, not the shape {p_values.shape}")
    is_defined = np.isfinite(p_values)
    family = p_values[is_defined]
    is_outside = (family < 0) | (family > 1)
    if is_outside.any():
        raise ValueError("p values lie from 0 to 1")
    order = np.argsort(family, kind="stable")
    tests_left = len(family) - np.arange(len(family))
    # A test is rejected only after all those with smaller p values are, so no adjusted value may
    # lie below an earlier one.
    in_order = np.maximum.accumulate(family[order] * tests_left)
    # Back from the order of size to that in which they were given.
    adjusted_family = np.empty(len(family))
    adjusted_family[order] = np.minimum(in_order, 1.0)
    adjusted = np.full(p_values.shape, np.nan)
    adjusted[is_defined] = adjusted_family
    return adjusted
