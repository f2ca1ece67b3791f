"""Uncertainty over questions and personas at once: both are drawn again, and votes counted anew.

A win rate is of a panel: other personas would decide some questions otherwise, and with few
personas that moves a rate more than other questions would. Here a resample draws questions with
replacement and, apart from them, personas; every unit's majority is decided again by the personas
drawn, each counted as often as it was drawn. Source: Owen, "The Pigeonhole Bootstrap", 2007, with a
majority in the middle.

Votes lie in a sparse matrix of units by personas, so that a resample of all majorities is one
product of matrices: memory and time grow with the votes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from jaxmodpo.statistics.arrays import Array, ratio
from jaxmodpo.statistics.bootstrap import RESAMPLES, times_drawn
from jaxmodpo.statistics.intervals import percentile_interval

# Resamples that are counted at a time. All of them at once would hold [units, resamples] numbers,
# which are 100 MB for 12,600 units and 2,000 resamples, several times over.
_RESAMPLES_AT_A_TIME = 100


@dataclass(frozen=True)
class PanelVotes:
    """The valid votes on one criterion, as columns, and what they decided.

    Attributes:
        unit: of each vote, its unit's place in ``outcomes`` flattened.
        persona: of each vote, who gave it, from 0 to ``personas`` − 1.
        verdict: of each vote, 1 for the unit's first model, −1 for the second, 0 for a tie.
        personas: how many personas there are.
        outcomes: ``[pairs, questions, replies]``, as in :mod:`jaxmodpo.statistics.win_rates`. A
            unit with an outcome and no votes, such as one of identical replies, keeps it in every
            resample.
    """

    unit: NDArray[np.integer]
    persona: NDArray[np.integer]
    verdict: NDArray[np.integer]
    personas: int
    outcomes: Array


def bootstrap_panel(
    votes: PanelVotes,
    *,
    ties_count_half: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Array:
    """Return pairs' win rates under resampled questions and personas: ``[resamples, pairs]``.

    Questions are drawn as :func:`jaxmodpo.statistics.bootstrap.times_drawn` draws them for this
    seed. Units on which no persona drawn has voted do not count in a resample; a rate is NaN where
    none is left.

    Args:
        votes: on one criterion.
        ties_count_half: whether a unit with as many votes for either model is half a win, or does
            not count.
        resamples: how many.
        seed: of the draws.
    """
    pairs, questions, replies = votes.outcomes.shape
    shape = (votes.outcomes.size, votes.personas)
    cells = (votes.unit, votes.persona)
    # float32 holds sums of votes exactly up to 16 million.
    verdict_of_vote = votes.verdict.astype(np.float32)
    one_of_vote = np.ones(len(votes.unit), np.float32)
    verdicts = sparse.csr_array((verdict_of_vote, cells), shape)  # [units, personas]
    vote_counts = sparse.csr_array((one_of_vote, cells), shape)
    # What no vote decided, such as identical replies, no draw of personas decides otherwise.
    has_no_vote = vote_counts.sum(axis=1) == 0
    fixed_outcomes = np.where(has_no_vote, votes.outcomes.ravel(), np.nan)[:, None]
    question_draws = times_drawn(questions, resamples, seed)
    # Another seed than the questions', or as many personas would be drawn in step with them.
    persona_draws = times_drawn(votes.personas, resamples, seed + 1)
    rates = np.empty((resamples, pairs))
    for begin in range(0, resamples, _RESAMPLES_AT_A_TIME):
        batch = slice(begin, begin + _RESAMPLES_AT_A_TIME)
        panels = persona_draws[batch].T.astype(np.float32)  # [personas, resamples]
        balance = verdicts @ panels  # [units, resamples]
        has_votes = (vote_counts @ panels) > 0
        # The sign of the balance, as an outcome: 1 won, 0.5 a tie, 0 lost.
        majority = (np.sign(balance) + 1) / 2
        outcomes = np.where(has_votes, majority, fixed_outcomes)
        if not ties_count_half:
            outcomes[outcomes == 0.5] = np.nan
        by_question = outcomes.reshape(pairs, questions, replies, -1)
        wins = np.nansum(by_question, axis=2)  # [pairs, questions, resamples]
        valid = np.isfinite(by_question).sum(axis=2)
        weights = question_draws[batch].T.astype(np.float64)  # [questions, resamples]
        weighted_wins = np.einsum("pqr,qr->rp", wins, weights)
        weighted_valid = np.einsum("pqr,qr->rp", valid, weights)
        rates[batch] = ratio(weighted_wins, weighted_valid)
    return rates


def recentered_interval(
    value: ArrayLike,
    samples: ArrayLike,
    *,
    bounds: tuple[float, float],
    fewest: int,
    confidence: float = 0.95,
) -> tuple[Array, Array]:
    """Return an interval around a value from samples around another: ``[...]`` and ``[resamples,
    ...]``.

    Drawing personas again adds noise to majorities that were noisy before, which draws every win
    rate towards one half: the samples lie around another value than the one to be judged. Their
    spread is what is wanted, so they are moved to have the value for their mean. Without that,
    or with the percentiles corrected for their median, intervals cover less evenly.

    A sample of n persons spreads around its own mean by √((n − 1) / n) of what it does around the
    population's, which the bootstrap inherits, and which is made up for.

    Args:
        value: the estimates.
        samples: under resampling.
        bounds: what the true value cannot exceed.
        fewest: the smaller of the numbers of questions and of personas, at least 2.
        confidence: of the interval.
    """
    value = np.asarray(value, np.float64)
    samples = np.asarray(samples, np.float64)
    is_defined = np.isfinite(samples)
    sums = np.where(is_defined, samples, 0.0).sum(axis=0)
    mean = ratio(sums, is_defined.sum(axis=0))
    widening = np.sqrt(fewest / (fewest - 1))
    deviations = (samples - mean) * widening
    low, high = percentile_interval(deviations + value, confidence=confidence)
    return np.clip(low, *bounds), np.clip(high, *bounds)


def square_of_pairs(rates: Array, models: int) -> Array:
    """Arrange win rates of pairs a square: ``[..., pairs]`` to ``[..., models, models]``.

    Pairs stand in the order of ``itertools.combinations``; the other direction is 1 minus a rate,
    and the diagonal is NaN.
    """
    first, second = np.triu_indices(models, k=1)
    square = np.full((*rates.shape[:-1], models, models), np.nan)
    square[..., first, second] = rates
    square[..., second, first] = 1 - rates
    return square
