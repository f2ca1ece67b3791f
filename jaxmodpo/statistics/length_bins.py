"""How often the longer of two replies wins, by how much longer it is.

A length-controlled win rate is one number of a fitted curve; the bins show what the curve is fitted
to. Units of all pairs are put together, each seen from its longer reply.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxmodpo.statistics.arrays import Array, ratio
from jaxmodpo.statistics.bootstrap import RESAMPLES, estimate

FEWEST_UNITS = 5
"""units of a bin below which nothing but their number is shown"""

_BINS = 5


class LengthBin(NamedTuple):
    """Units whose longer reply is longer by a number of tokens in one range."""

    low: float
    """tokens, inclusive"""
    high: float | None
    """tokens, exclusive; None of the last bin, which has no end"""
    units: int
    rate: float | None
    """share of the units that the longer reply wins, a tie counting half; None of few units"""
    interval: tuple[float, float] | None
    """95% over questions; None where there is none"""


def rates_by_length(
    outcomes: ArrayLike,
    length_differences: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[LengthBin]:
    """Return how often the longer reply wins in bins of its lead in tokens.

    Bins are equally wide, by a round number of tokens that puts nine leads of ten into all bins but
    the last, which has no end. Replies of equal length are in none.

    Args:
        outcomes: ``[pairs, questions, replies]``, NaN where none is valid.
        length_differences: tokens of the first reply minus the second's, likewise.
        resamples: of the questions.
        seed: of the draws.

    Returns:
        The bins from the shortest lead on; none where no unit has a longer reply.
    """
    outcomes = np.asarray(outcomes, np.float64)
    differences = np.asarray(length_differences, np.float64)
    is_usable = np.isfinite(outcomes) & np.isfinite(differences) & (differences != 0)
    if not is_usable.any():
        return []
    lead = np.abs(differences)
    longer_wins = np.where(differences > 0, outcomes, 1 - outcomes)
    long_lead = float(np.quantile(lead[is_usable], 0.9))
    width = _round_width(long_lead / (_BINS - 1))
    bins: list[LengthBin] = []
    for number in range(_BINS):
        low = number * width
        high = low + width if number < _BINS - 1 else math.inf
        in_bin = is_usable & (lead >= low) & (lead < high)
        units = int(in_bin.sum())
        end = high if math.isfinite(high) else None
        if units < FEWEST_UNITS:
            bins.append(LengthBin(low, end, units, None, None))
            continue
        # By question, since all of a question's units are drawn together.
        wins_in_bin = np.where(in_bin, longer_wins, 0.0)
        wins = wins_in_bin.sum(axis=(0, 2))  # [questions]
        counts = in_bin.sum(axis=(0, 2))
        sums = np.stack([wins, counts], axis=1)
        # Questions without a unit in the bin are drawn too: how many units it has is chance.
        rate = estimate(sums, _rate, "", resamples=resamples, seed=seed)
        interval = rate["interval"]
        ends = (interval[0], interval[1]) if interval else None
        bins.append(LengthBin(low, end, units, rate["value"], ends))
    return bins


def _rate(sums: Array) -> Array:
    """Return the share of units won: ``[..., 2]`` wins and units to ``[...]``."""
    wins = sums[..., 0]
    units = sums[..., 1]
    return ratio(wins, units)


def _round_width(width: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, 50, … that is not below a width."""
    if width <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(width))
    for factor in (1, 2, 5):
        if factor * power >= width:
            return factor * power
    return 10 * power
