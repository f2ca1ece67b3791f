"""How a cost grows with a size: the exponent p of cost = c sizeᵖ.

Example: ``fitted_exponent([1, 10, 100], [3, 30, 300])`` is 1, in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def fitted_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """Return the slope of the costs' logarithm over the sizes', by least squares.

    Args:
        sizes: above 0.
        costs: above 0, one for each.

    Returns:
        The exponent; None where there are fewer than two different sizes, or a cost is 0, which no
        power of a size is.
    """
    if len(set(sizes)) < 2 or min(costs) <= 0:
        return None
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])
