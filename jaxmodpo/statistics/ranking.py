"""Which model is best, and how sure that is: ranks, chances, and what a first place hangs on.

Models are ranked by their average win rate over opponents, :func:`average_win_rates`. Where every
two models met equally often, Bradley-Terry ratings have the same order, and unlike ratings a win
rate is there in every resample.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxmodpo.statistics.arrays import Array, ratio
from jaxmodpo.statistics.win_rates import average_win_rates, win_rate


class RankSets(NamedTuple):
    """For each model the ranks that it may have, 1 the best: two arrays ``[models]``."""

    best: NDArray[np.int64]
    worst: NDArray[np.int64]


class FirstPlace(NamedTuple):
    """Who is first, and how few questions would have to go for another model to be."""

    first: int
    challenger: int | None
    """who would then be first; None where nobody would, whatever goes"""
    questions: int | None
    """how many would have to go, 0 for a first place that is shared; None likewise"""


def rank_sets(
    averages: ArrayLike, samples: ArrayLike, questions: int, *, confidence: float = 0.95
) -> RankSets:
    """Return the ranks that models may have, all of them at once with the given confidence.

    A model's ranks reach from 1 + how many are surely better to models − how many are surely worse.
    Surely is a difference larger than c standard errors, with c the quantile over resamples of the
    largest deviation of any difference, so that all sets hold together.

    Args:
        averages: average win rates, ``[models]``.
        samples: the same under resampled questions, ``[resamples, models]``.
        questions: how many there are; with one every model may have every rank.
        confidence: that all true ranks lie in their sets.

    References:
        Mogstad, Romano, Shaikh and Wilhelm, "Inference for Ranks with Applications to Mobility
        across Neighbourhoods and Academic Achievement across Countries", 2024.
    """
    averages = np.asarray(averages, np.float64)
    samples = np.asarray(samples, np.float64)
    models = len(averages)
    if questions < 2:
        return RankSets(np.ones(models, np.int64), np.full(models, models, np.int64))
    differences = averages[:, None] - averages[None, :]
    sampled = samples[:, :, None] - samples[:, None, :]
    errors = np.nanstd(sampled, axis=0)
    varies = errors > 1e-12
    deviations = np.where(varies, ratio(np.abs(sampled - differences), errors), 0.0)
    critical = float(np.nanquantile(np.nanmax(deviations, axis=(1, 2)), confidence))
    # A model that wins every question does so in every resample, as if that were certain. The exact
    # sign test says from how many questions on it is.
    unanimity_is_enough = 2 * 0.5**questions < 1 - confidence
    surely_better = np.where(
        varies, differences > critical * errors, unanimity_is_enough & (differences > 1e-9)
    )
    best = 1 + surely_better.sum(axis=0)
    worst = models - surely_better.sum(axis=1)
    return RankSets(best.astype(np.int64), worst.astype(np.int64))


def probability_of_best(samples: ArrayLike) -> Array:
    """Return how often each model is first among resamples: ``[resamples, models]`` to
    ``[models]``.

    Models that are first together share the resample. Resamples in which a model has no win rate do
    not count; NaN where none counts.
    """
    samples = np.asarray(samples, np.float64)
    samples = samples[np.isfinite(samples).all(axis=1)]
    highest = samples.max(axis=1, keepdims=True, initial=-np.inf)
    # Equal rates may differ by the rounding of their sums.
    is_first = samples > highest - 1e-9
    shares = is_first / np.maximum(is_first.sum(axis=1, keepdims=True), 1)
    return ratio(shares.sum(axis=0), np.full(samples.shape[1], len(samples)))


def turn_first_place(outcomes: ArrayLike) -> FirstPlace:
    """Return how few questions would have to go for another model to come first.

    For every other model, questions go in the order of how much they speak for the first one
    against it, until the other is ahead. Where all comparisons have the same questions, no fewer
    would do; where some lack questions, a smaller number may exist.

    Args:
        outcomes: ``[models, models, questions, replies]``.
    """
    outcomes = np.asarray(outcomes, np.float64)
    averages = average_win_rates(win_rate(outcomes))
    won = np.nansum(outcomes, axis=-1)  # [models, models, questions]
    valid = np.isfinite(outcomes).sum(axis=-1)
    first = int(np.argmax(averages))
    challenger: int | None = None
    fewest: int | None = None
    for other in range(len(averages)):
        if other == first:
            continue
        questions = _questions_to_overtake(won, valid, first, other)
        if questions is not None and (fewest is None or questions < fewest):
            fewest = questions
            challenger = other
    return FirstPlace(first, challenger, fewest)


def _questions_to_overtake(
    won: Array, valid: NDArray[np.int64], first: int, other: int
) -> int | None:
    """Return how many questions go until one model is ahead of another; None where it never is."""
    models = len(won)
    lead = np.zeros(won.shape[-1])
    for model, sign in ((first, 1.0), (other, -1.0)):
        opponents = [number for number in range(models) if number != model]
        total = valid[model, opponents].sum(axis=-1, keepdims=True)
        # Each question's share of the average win rate, which is what goes with it.
        lead += sign * ratio(won[model, opponents], total).sum(axis=0)
    order = np.argsort(-lead, kind="stable")
    # Of each number of questions gone, what is left: [questions left, ...] from all to one.
    averages: list[Array] = []
    for model in (first, other):
        opponents = [number for number in range(models) if number != model]
        left_won = _left(won[model, opponents][:, order])
        left_valid = _left(valid[model, opponents][:, order])
        averages.append(ratio(left_won, left_valid).mean(axis=0))
    is_level = np.abs(averages[1] - averages[0]) <= 1e-9
    is_ahead = averages[1] > averages[0] + 1e-9
    if is_level[0]:
        return 0
    gone = np.flatnonzero(is_ahead)
    return int(gone[0]) if len(gone) else None


def _left(values: ArrayLike) -> Array:
    """Return what remains of sums when columns go one by one: ``[..., columns]``, none gone
    first.
    """
    values = np.asarray(values, np.float64)
    return np.cumsum(values[..., ::-1], axis=-1)[..., ::-1]
