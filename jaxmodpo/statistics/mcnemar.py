"""McNemar's test of whether one model wins more questions than another."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jaxmodpo.statistics.arrays import Array

FEW_DISCORDANT = 25
"""Below so many questions won or lost the chi-square distribution is too rough, and the exact test
decides."""


class McNemar(NamedTuple):
    """McNemar's test of one model against another; see :func:`mcnemar`."""

    wins: int
    losses: int
    ties: int
    statistic: float
    p_value: float
    statistic_corrected: float
    p_value_corrected: float
    p_value_exact: float
    decisive: Literal["p_value", "p_value_exact"]
    """the field whose p value decides: ``p_value``, or ``p_value_exact`` of few discordant
    questions"""

    @property
    def decisive_p_value(self) -> float:
        """The p value that decides."""
        return self.p_value if self.decisive == "p_value" else self.p_value_exact


def question_majorities(outcomes: ArrayLike) -> Array:
    """Return one outcome per question: ``[questions, replies]`` to ``[questions]``.

    A question is won (1) with more replies won than lost, lost (0) with fewer, else a tie (0.5);
    NaN where no reply has a valid outcome.
    """
    outcomes = np.asarray(outcomes, dtype=np.float64)
    # Half a point for a win and half a point against it for a loss: a tie between replies moves
    # nothing, and so does a reply without a valid vote.
    balance = np.nansum(outcomes - 0.5, axis=-1)
    majority = (np.sign(balance) + 1) / 2
    is_judged = np.isfinite(outcomes).any(axis=-1)
    return np.where(is_judged, majority, np.nan)


def mcnemar(outcomes: ArrayLike) -> McNemar:
    """Test whether one model wins more questions than the other: ``[questions, replies]``.

    Each question gives one outcome, :func:`question_majorities`; ties and questions without one
    are left out. With b wins and c losses the statistic is (b − c)² / (b + c), referred to the
    chi-square distribution with one degree of freedom, as in the paper ("Statistical Analysis");
    the corrected one takes max(|b − c| − 1, 0)², and the exact p value is the two-sided binomial
    one. Without a win or a loss the p values are 1. ``decisive`` names the p value to read: of
    fewer than ``FEW_DISCORDANT`` questions won or lost the exact one.
    """
    majorities = question_majorities(outcomes)
    wins = int((majorities == 1.0).sum())
    losses = int((majorities == 0.0).sum())
    ties = int((majorities == 0.5).sum())
    return mcnemar_from_counts(wins, losses, ties)


def mcnemar_from_counts(wins: int, losses: int, ties: int = 0) -> McNemar:
    """McNemar's test from the number of questions won, lost and tied; see :func:`mcnemar`."""
    # Ties do not enter: the test asks which model wins the questions on which they differ.
    discordant = wins + losses
    if discordant == 0:
        return McNemar(wins, losses, ties, 0.0, 1.0, 0.0, 1.0, 1.0, "p_value_exact")
    difference = abs(wins - losses)
    statistic = difference**2 / discordant
    corrected = max(difference - 1, 0) ** 2 / discordant
    return McNemar(
        wins=wins,
        losses=losses,
        ties=ties,
        statistic=statistic,
        p_value=float(stats.chi2.sf(statistic, df=1)),
        statistic_corrected=corrected,
        p_value_corrected=float(stats.chi2.sf(corrected, df=1)),
        p_value_exact=float(stats.binomtest(wins, discordant).pvalue),
        decisive="p_value_exact" if discordant < FEW_DISCORDANT else "p_value",
    )
