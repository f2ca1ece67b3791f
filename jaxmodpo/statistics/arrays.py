"""What all statistics share: the type of their arrays, and a division that may be undefined."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """Divide, giving NaN and no warning where the denominator is zero."""
    numerator = np.asarray(numerator, np.float64)
    denominator = np.asarray(denominator, np.float64)
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    undefined = np.full(shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)
