"""Coefficients of agreement from their words, pair by pair."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import stats


def alpha_by_pairs(units: Sequence[Sequence[int]], level: str) -> float:
    """Krippendorff's α from its words: within-unit pairs over all pairs, one by one."""
    units = [unit for unit in units if len(unit) > 1]
    pooled = [value for unit in units for value in unit]
    held = Counter(pooled)

    def distance(a: int, b: int) -> float:
        if level == "nominal":
            return float(a != b)
        low, high = min(a, b), max(a, b)
        return (
            (sum(held[v] for v in range(low, high + 1)) - (held[low] + held[high]) / 2) ** 2
            if a != b
            else 0.0
        )

    observed = sum(
        sum(distance(a, b) for a, b in itertools.permutations(u, 2)) / (len(u) - 1) for u in units
    )
    expected = sum(distance(a, b) for a, b in itertools.permutations(pooled, 2)) / (len(pooled) - 1)
    return 1 - observed / expected


def tau_of(a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray) -> float:
    return float(stats.kendalltau(a, b)[0])  # type: ignore[arg-type]
