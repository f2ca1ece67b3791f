"""Win rates and their bootstrap intervals: pure functions of outcome arrays.

An outcome array holds one number per unit, 1 where the first model won, 0 where it lost, 0.5 for a
tie and NaN where no vote was valid; its last two axes are ``[questions, replies]``. A table of all
pairs is ``[models, models, questions, replies]`` with ``outcomes[b, a] = 1 - outcomes[a, b]`` and a
NaN diagonal. The module is apart so that every number of an evaluation can be recomputed from the
outcomes file alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxmodpo.statistics.arrays import Array, ratio
from jaxmodpo.statistics.bootstrap import resampled_sums
from jaxmodpo.statistics.intervals import Estimate, percentile_interval, wilson_interval


def without_ties(outcomes: ArrayLike) -> Array:
    """Return outcomes in which ties are as good as not judged: NaN instead of 0.5.

    Win rates of these are the paper's, wins / (wins + losses).
    """
    outcomes = np.asarray(outcomes, dtype=np.float64)
    return np.where(outcomes == 0.5, np.nan, outcomes)


def win_rate(outcomes: ArrayLike) -> Array:
    """Return the mean outcome over the valid units, a tie counting half: ``[..., questions,
    replies]`` to ``[...]``.

    NaN where no unit is valid.
    """
    outcomes = np.asarray(outcomes, dtype=np.float64)
    won = np.nansum(outcomes, axis=(-2, -1))
    valid = np.isfinite(outcomes).sum(axis=(-2, -1))
    return ratio(won, valid)


def average_win_rates(win_rates: ArrayLike) -> Array:
    """Return each model's mean win rate over its opponents: ``[..., models, models]`` to ``[...,
    models]``.

    Row a, column b holds the win rate of a over b; the diagonal does not count. NaN where one of
    the pairs has no rate: an average over fewer opponents would not compare with the others.
    Source: the paper, figure 2.
    """
    win_rates = np.asarray(win_rates, dtype=np.float64)
    models, opponents = win_rates.shape[-2:]
    if models != opponents or models < 2:
        raise ValueError(f"win rates need a square of at least two models, not {win_rates.shape}")
    # The NaN of the diagonal becomes 0, so that any NaN left is a pair without votes and spreads.
    on_diagonal = np.eye(models, dtype=bool)
    rates_of_opponents = np.where(on_diagonal, 0.0, win_rates)
    return rates_of_opponents.sum(axis=-1) / (models - 1)


def bootstrap_win_rates(outcomes: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Array:
    """Return win rates under resampled questions: ``[..., questions, replies]`` to ``[resamples,
    ...]``.

    Questions are drawn with replacement; all replies to a question move together, since they are
    not independent, and every comparison sees the same draws, so that differences are paired.
    """
    outcomes = np.asarray(outcomes, dtype=np.float64)
    *comparisons, questions, _ = outcomes.shape
    wins = np.nansum(outcomes, axis=-1)
    valid = np.isfinite(outcomes).sum(axis=-1)
    # Wins and valid units are added up apart and divided last: a question with more valid replies
    # weighs more in a resample, as it does in the win rate itself.
    wins_by_question = wins.reshape(-1, questions).T
    valid_by_question = valid.reshape(-1, questions).T
    sampled_wins = np.concatenate(list(resampled_sums(wins_by_question, resamples, seed)))
    sampled_valid = np.concatenate(list(resampled_sums(valid_by_question, resamples, seed)))
    rates = ratio(sampled_wins, sampled_valid)  # [resamples, comparisons]
    return rates.reshape(resamples, *comparisons)


def estimate_win_rate(
    outcomes: ArrayLike, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Estimate:
    """Return win rates with bootstrap intervals: ``[..., questions, replies]`` to ``[...]``; see
    :func:`widened`.
    """
    samples = bootstrap_win_rates(outcomes, resamples=resamples, seed=seed)
    low, high = percentile_interval(samples, confidence=confidence)
    estimate = Estimate(win_rate(outcomes), low, high)
    return widened(estimate, questions_judged(outcomes), confidence)


def estimate_average_win_rates(
    outcomes: ArrayLike, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Estimate:
    """Return each model's average win rate with a bootstrap interval.

    Args:
        outcomes: ``[models, models, questions, replies]``.

    Returns:
        Arrays ``[models]``.
    """
    averages = average_win_rates(win_rate(outcomes))
    sampled_rates = bootstrap_win_rates(outcomes, resamples=resamples, seed=seed)
    samples = average_win_rates(sampled_rates)
    low, high = percentile_interval(samples, confidence=confidence)
    estimate = Estimate(averages, low, high)
    return widened(estimate, fewest_questions(outcomes), confidence)


def estimate_average_differences(
    outcomes: ArrayLike, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Estimate:
    """Return the differences between models' average win rates with bootstrap intervals.

    The interval is of the difference itself, over the same draws of questions for both models: it
    is the one to read when asking whether two models differ, since two overlapping intervals do
    not mean that they do not.

    Args:
        outcomes: ``[models, models, questions, replies]``.

    Returns:
        Arrays ``[models, models]``: row a, column b holds the average of a minus that of b.
    """
    averages = average_win_rates(win_rate(outcomes))
    differences = averages[:, None] - averages[None, :]
    sampled_rates = bootstrap_win_rates(outcomes, resamples=resamples, seed=seed)
    samples = average_win_rates(sampled_rates)  # [resamples, models]
    sampled_differences = samples[:, :, None] - samples[:, None, :]
    low, high = percentile_interval(sampled_differences, confidence=confidence)
    # A difference is no share of trials, so Wilson's interval says nothing of it: two models whose
    # replies are the same differ by exactly 0. One question alone has no interval here either.
    has_few_questions = fewest_questions(outcomes) < 2  # [models]
    is_undefined = has_few_questions[:, None] | has_few_questions[None, :]
    low = np.where(is_undefined, np.nan, low)
    high = np.where(is_undefined, np.nan, high)
    return Estimate(differences, low, high)


def questions_judged(outcomes: ArrayLike) -> NDArray[np.int64]:
    """Return how many questions have a valid outcome: ``[..., questions, replies]`` to
    ``[...]``.
    """
    outcomes = np.asarray(outcomes, dtype=np.float64)
    is_judged = np.isfinite(outcomes).any(axis=-1)  # [..., questions]
    return is_judged.sum(axis=-1)


def fewest_questions(outcomes: ArrayLike) -> NDArray[np.int64]:
    """Return the fewest questions judged in any of a model's comparisons: ``[models, models, …]``
    to ``[models]``.
    """
    judged = questions_judged(outcomes)
    # A model is not compared with itself, and the 0 there must not be the fewest.
    on_diagonal = np.eye(len(judged), dtype=bool)
    never_fewest = np.iinfo(np.int64).max
    judged_with_opponents = np.where(on_diagonal, never_fewest, judged)
    return judged_with_opponents.min(axis=-1)


def widened(estimate: Estimate, questions: NDArray[np.int64], confidence: float) -> Estimate:
    """Replace bootstrap intervals that say too much: none of one question, Wilson's where there is
    no width.

    Equal outcomes of all questions, such as 10 wins of 10, are equal in every resample, so that the
    bootstrap says ± 0 of what 10 questions cannot know. Wilson's interval counts each question as
    one trial.
    """
    value = np.array(estimate.value, dtype=np.float64)
    low = np.array(estimate.low, dtype=np.float64)
    high = np.array(estimate.high, dtype=np.float64)
    question_counts = np.broadcast_to(questions, value.shape)
    for index in np.ndindex(value.shape):
        count = int(question_counts[index])
        if count < 2:
            low[index] = np.nan
            high[index] = np.nan
        elif np.isfinite(value[index]) and high[index] - low[index] < 1e-12:
            # A mean of ones may be 1 + 2e-16, which is no share of anything.
            fraction = float(np.clip(value[index], 0, 1))
            interval = wilson_interval(fraction * count, count, confidence)
            assert interval is not None
            low[index], high[index] = interval
    return Estimate(value, low, high)
