"""Bradley-Terry ratings: one number a model, from which every win rate between two follows.

The probability that a beats b is σ(θ_a − θ_b). Ratings are in logits and add up to 0, so that 1 is
odds of 2.7 over the average model. Outcomes are those of :mod:`jaxmodpo.statistics.win_rates`; a
tie is half a win and half a loss.

Source: Bradley and Terry, "Rank Analysis of Incomplete Block Designs", 1952.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from jaxmodpo.statistics.arrays import Array
from jaxmodpo.statistics.intervals import Estimate

_MOST_STEPS = 100
"""Newton's method takes about six; damped steps of lopsided data some more"""


def win_counts(outcomes: ArrayLike) -> Array:
    """Return how often each model won against each other, ties half: ``[models, models, questions,
    replies]`` to ``[models, models]``.
    """
    outcomes = np.asarray(outcomes, np.float64)
    return np.nansum(outcomes, axis=(-2, -1))


def groups_without_upsets(wins: ArrayLike) -> list[list[int]]:
    """Return groups of models of which every earlier one never lost to a later one.

    One group means that ratings exist. Where there are several, no finite ratings fit: a model that
    never loses would have to be rated ever higher (Ford 1957). Two models that never met, directly
    or through others, fall into groups of their own too.

    Args:
        wins: of :func:`win_counts`.

    Returns:
        The numbers of the models, the group first that wins most.

    References:
        Ford, "Solution of a Ranking Problem from Binary Comparisons", 1957.
    """
    wins = np.asarray(wins, np.float64)
    # Ratings exist where a chain of wins leads from every model to every other.
    count, labels = connected_components(csr_array(wins > 0), connection="strong")
    groups = [np.flatnonzero(labels == label).tolist() for label in range(count)]
    return sorted(groups, key=lambda group: -_share_won(wins, group))


def _share_won(wins: Array, group: list[int]) -> float:
    """Return the share of their comparisons with others that a group's models won."""
    models = np.arange(len(wins))
    others = np.setdiff1d(models, group)
    wins_over_others = wins[group][:, others].sum()
    losses_to_others = wins[others][:, group].sum()
    comparisons = wins_over_others + losses_to_others
    if not comparisons:
        return 0.0
    return float(wins_over_others / comparisons)


def fit_ratings(wins: ArrayLike) -> Array:
    """Return the maximum-likelihood ratings: ``[models, models]`` wins to ``[models]``, sum 0.

    Raises:
        ValueError: there are none, since :func:`groups_without_upsets` has several groups.
    """
    wins = np.array(wins, np.float64)
    np.fill_diagonal(wins, 0.0)
    if len(groups_without_upsets(wins)) > 1:
        raise ValueError("no finite ratings fit: a model or a group of them never loses")
    comparisons = wins + wins.T
    ratings = np.zeros(len(wins))
    for _ in range(_MOST_STEPS):
        expected_wins = comparisons * _win_probability(ratings)
        gradient = (wins - expected_wins).sum(axis=1)
        step = _inverse_information(ratings, comparisons) @ gradient
        # A whole Newton step from far away may overshoot; one logit at a time does not.
        longest = float(np.abs(step).max())
        ratings += step / max(longest, 1.0)
        if longest < 1e-12:
            break
    return ratings - ratings.mean()


def _win_probability(ratings: Array) -> Array:
    """Return σ(θ_a − θ_b): ``[models]`` to ``[models, models]``."""
    lead_of_column = ratings[None, :] - ratings[:, None]
    return 1 / (1 + np.exp(lead_of_column))


def _inverse_information(ratings: Array, comparisons: Array) -> Array:
    """Return the pseudo-inverse of Fisher's information of the ratings: ``[models, models]``.

    The information's rows add up to 0, since only differences of ratings are known: ratings have
    one direction less than there are models, and the pseudo-inverse leaves it out.
    """
    probability = _win_probability(ratings)
    weight = comparisons * probability * (1 - probability)
    information = np.diag(weight.sum(axis=1)) - weight
    return np.asarray(np.linalg.pinv(information, hermitian=True), np.float64)


def estimate_ratings(outcomes: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return ratings with intervals that respect questions: ``[models, models, questions,
    replies]`` to ``[models]``.

    All outcomes on one question resemble each other, so the covariance is the sandwich over
    questions, H⁻¹ (Σ_q s_q s_qᵀ) H⁻¹ · Q / (Q − 1), with s_q the score of question q and H the
    information. The interval of a model's rating is against the average model's. With one question
    its ends are NaN.

    Raises:
        ValueError: no finite ratings fit; see :func:`groups_without_upsets`.

    References:
        Liang and Zeger, "Longitudinal Data Analysis Using Generalized Linear Models", 1986.
    """
    outcomes = np.asarray(outcomes, np.float64)
    wins = win_counts(outcomes)
    ratings = fit_ratings(wins)
    valid = np.isfinite(outcomes)
    is_judged = valid.any(axis=(0, 1, 3))  # [questions]
    judged = int(is_judged.sum())
    if judged < 2:
        undefined = np.full(len(ratings), np.nan)
        return Estimate(ratings, undefined, undefined)
    expected = _win_probability(ratings)
    residuals = np.where(valid, outcomes - expected[:, :, None, None], 0.0)
    scores = residuals.sum(axis=(1, 3))  # [models, questions]
    # The sandwich: how much scores vary over questions, between two slices of what they tell.
    comparisons = wins + wins.T
    bread = _inverse_information(ratings, comparisons)
    filling = scores @ scores.T
    covariance = bread @ filling @ bread * judged / (judged - 1)
    # Rounding may leave a variance of zero just below it.
    variances = np.maximum(np.diag(covariance), 0.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    half_width = z * np.sqrt(variances)
    return Estimate(ratings, ratings - half_width, ratings + half_width)
