"""Power: how large a difference must be for a planned evaluation to see it."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from scipy import stats

from jaxmodpo.statistics.mcnemar import mcnemar_from_counts

PERSONA_SPREAD = 0.2
"""standard deviation of what a single persona's taste moves a win rate by, where none is known"""


def detectable_over_questions(
    questions: int, *, level: float = 0.05, power: float = 0.8
) -> float | None:
    """Return the smallest difference of a win rate from one half that McNemar's test sees.

    For the personas that are asked, one reply a question and no ties: wins are binomial, the
    decisive p value is computed of every number of wins, and their probabilities are added up where
    it lies below ``level``.

    Returns:
        The difference; None where even a model that wins everything would not be seen.
    """
    wins = np.arange(questions + 1)
    p_values = [mcnemar_from_counts(won, questions - won).decisive_p_value for won in wins.tolist()]
    # Only wins of the better model count as seeing it.
    is_seen = (np.array(p_values) < level) & (wins > questions / 2)

    def power_at(difference: float) -> float:
        return float(stats.binom.pmf(wins, questions, 0.5 + difference)[is_seen].sum())

    return _smallest(power_at, power)


def detectable_over_panels(
    questions: int,
    personas: int,
    *,
    spread: float = PERSONA_SPREAD,
    level: float = 0.05,
    power: float = 0.8,
) -> float | None:
    """Return the smallest difference of a win rate from one half that is seen over new personas
    too.

    The win rate is taken as normal with the variance w (1 − w) / questions + spread² / personas,
    and one half is refused where it lies further away than chance has it.

    Args:
        questions: how many both models answer.
        personas: how many there are in all.
        spread: standard deviation over personas of what one persona's taste moves the rate by.
        level: of the test.
        power: how often a difference of this size is to be seen.

    Returns:
        The difference; None where even a model that wins everything would not be seen.
    """
    panel_variance = spread**2 / personas
    # As the test has it, which supposes that neither model is better: w = 1/2.
    deviation_by_chance = math.sqrt(0.25 / questions + panel_variance)
    critical = NormalDist().inv_cdf(1 - level / 2) * deviation_by_chance

    def power_at(difference: float) -> float:
        question_variance = (0.25 - difference**2) / questions
        deviation = math.sqrt(question_variance + panel_variance)
        if deviation == 0:
            return float(difference > critical)
        return NormalDist().cdf((difference - critical) / deviation)

    return _smallest(power_at, power)


def _smallest(power_at: Callable[[float], float], power: float) -> float | None:
    """Return the smallest difference from 0 to one half with enough power, by bisection."""
    if power_at(0.5) < power:
        return None
    low = 0.0
    high = 0.5
    while high - low > 1e-9:
        middle = (low + high) / 2
        if power_at(middle) < power:
            low = middle
        else:
            high = middle
    return high
