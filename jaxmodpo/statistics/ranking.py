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
        first_ranks = np.ones(models, np.int64)
        last_ranks = np.full(models, models, np.int64)
        return RankSets(first_ranks, last_ranks)
    # Row a, column b holds how far a is ahead of b, and in each resample how far it was.
    differences = averages[:, None] - averages[None, :]
    sampled = samples[:, :, None] - samples[:, None, :]
    errors = np.nanstd(sampled, axis=0)
    varies = errors > 1e-12
    # Each deviation in standard errors. The largest of a resample is what all of its differences
    # keep to, so that a quantile of the largest holds for all of them at once.
    deviations = ratio(np.abs(sampled - differences), errors)
    deviations = np.where(varies, deviations, 0.0)
    largest_deviations = np.nanmax(deviations, axis=(1, 2))  # [resamples]
    critical = float(np.nanquantile(largest_deviations, confidence))
    surely_by_resamples = differences > critical * errors
    # A model that wins every question does so in every resample, as if that were certain. The exact
    # sign test says from how many questions on it is.
    unanimity_is_enough = 2 * 0.5**questions < 1 - confidence
    surely_by_unanimity = unanimity_is_enough & (differences > 1e-9)
    surely_better = np.where(varies, surely_by_resamples, surely_by_unanimity)
    models_above = surely_better.sum(axis=0)
    models_below = surely_better.sum(axis=1)
    best = 1 + models_above
    worst = models - models_below
    return RankSets(best.astype(np.int64), worst.astype(np.int64))


def probability_of_best(samples: ArrayLike) -> Array:
    """Return how often each model is first among resamples: ``[resamples, models]`` to
    ``[models]``.

    Models that are first together share the resample. Resamples in which a model has no win rate do
    not count; NaN where none counts.
    """
    samples = np.asarray(samples, np.float64)
    is_complete = np.isfinite(samples).all(axis=1)
    samples = samples[is_complete]
    resamples, models = samples.shape
    highest = samples.max(axis=1, keepdims=True, initial=-np.inf)
    # Equal rates may differ by the rounding of their sums.
    is_first = samples > highest - 1e-9
    first_together = is_first.sum(axis=1, keepdims=True)
    shares = is_first / np.maximum(first_together, 1)
    return ratio(shares.sum(axis=0), np.full(models, resamples))


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
    wins = np.nansum(outcomes, axis=-1)  # [models, models, questions]
    valid = np.isfinite(outcomes).sum(axis=-1)
    first = int(np.argmax(averages))
    challenger: int | None = None
    fewest: int | None = None
    for rival in range(len(averages)):
        if rival == first:
            continue
        questions = _questions_to_overtake(wins, valid, first, rival)
        if questions is not None and (fewest is None or questions < fewest):
            fewest = questions
            challenger = rival
    return FirstPlace(first, challenger, fewest)


def _questions_to_overtake(
    wins: Array, valid: NDArray[np.int64], first: int, other: int
) -> int | None:
    """Return how many questions go until one model is ahead of another; None where it never is.

    Args:
        wins: ``[models, models, questions]``, over each opponent.
        valid: of the same shape, how many outcomes count.
        first: the model that is ahead.
        other: the one that is to overtake it.
    """
    # Each question's part of an average win rate is what goes with it: the question that speaks
    # most for the first model goes first.
    lead = _win_rate_by_question(wins, valid, first) - _win_rate_by_question(wins, valid, other)
    order = np.argsort(-lead, kind="stable")
    # How the averages develop while questions go one by one: from all of them to one.
    first_averages = _averages_left(wins, valid, first, order)
    other_averages = _averages_left(wins, valid, other, order)
    if abs(other_averages[0] - first_averages[0]) <= 1e-9:
        return 0
    is_ahead = other_averages > first_averages + 1e-9
    if not is_ahead.any():
        return None
    return int(np.argmax(is_ahead))


def _opponents(models: int, model: int) -> list[int]:
    return [number for number in range(models) if number != model]


def _win_rate_by_question(wins: Array, valid: NDArray[np.int64], model: int) -> Array:
    """Return what each question contributes to a model's win rates, summed over its opponents.

    Returns:
        ``[questions]``.
    """
    opponents = _opponents(len(wins), model)
    total = valid[model, opponents].sum(axis=-1, keepdims=True)
    contributions = ratio(wins[model, opponents], total)  # [opponents, questions]
    return contributions.sum(axis=0)


def _averages_left(
    wins: Array, valid: NDArray[np.int64], model: int, order: NDArray[np.int64]
) -> Array:
    """Return a model's average win rate over the questions left while they go in an order.

    Returns:
        ``[questions]``: the first entry of all questions, the last of only the last in the order.
    """
    opponents = _opponents(len(wins), model)
    wins_left = _sums_left(wins[model, opponents][:, order])
    valid_left = _sums_left(valid[model, opponents][:, order])
    rates = ratio(wins_left, valid_left)  # [opponents, questions]
    return rates.mean(axis=0)


def _sums_left(values: ArrayLike) -> Array:
    """Return what remains of sums when columns go one by one: ``[..., columns]``, none gone
    first.
    """
    values = np.asarray(values, np.float64)
    from_last = values[..., ::-1]
    return np.cumsum(from_last, axis=-1)[..., ::-1]
