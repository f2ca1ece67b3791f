"""Wilson's interval of a share: one function for rates of right pairs, of votes and of won questions.

It is a module of its own, and needs no scipy, because methods and evaluation both use it and neither
imports the other.
"""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(successes: float, trials: float, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return Wilson's score interval of a share of independent trials; None of no trials.

    Args:
        successes: from 0 to ``trials``; halves, such as ties, are taken as they are and not rounded.
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
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return max(middle - half, 0.0), min(middle + half, 1.0)
