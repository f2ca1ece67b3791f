"""Win rates as if both replies were equally long, since judges like long ones.

Source: Dubois and others, "Length-Controlled AlpacaEval", 2024, with the term for a question's
difficulty left out, which needs many models.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from jaxmodpo.statistics.arrays import Array, ratio
from jaxmodpo.statistics.bootstrap import RESAMPLES, times_drawn
from jaxmodpo.statistics.intervals import percentile_interval

_MOST_STEPS = 100
_LARGEST_COEFFICIENT = 15.0
"""in logits; beyond it a fit is on its way to infinity, since one side always wins"""
_FEWEST_FITS = 0.95
"""share of resamples with a finite fit below which there is no interval"""
_SETTLED = 1e-5
"""a step of Newton's method after which what is left to go is of the order of its square"""
# Resamples that are fitted at a time, so that their units stay in a core's cache.
_RESAMPLES_AT_A_TIME = 100


class LengthControlled(NamedTuple):
    """A win rate at equal length; see :func:`length_controlled_win_rate`."""

    win_rate: float
    """σ(intercept), the win rate where both replies are equally long"""
    intercept: float
    slope: float
    """of tanh(difference of length / its standard deviation), in logits"""
    undefined: str
    """why there is none, with NaN for the others; empty where there is one"""


def length_controlled_win_rate(
    outcomes: ArrayLike, length_differences: ArrayLike
) -> LengthControlled:
    """Fit outcomes by a logistic function of the difference in length, and read it at 0.

    logit P(a wins) = θ + φ · tanh((length_a − length_b) / s), with s the standard deviation of the
    differences; the length-controlled win rate is σ(θ). The hyperbolic tangent keeps a few very
    long replies from deciding the slope. A tie is half a win.

    Args:
        outcomes: of one pair of models, ``[units]``, NaN where none is valid.
        length_differences: tokens of the first model's reply minus the second's, ``[units]``, NaN
            where unknown; such units are left out.

    Returns:
        The fit. It is undefined without a valid unit, where all differences are the same, and where
        lengths or the models alone tell every winner.
    """
    outcomes = np.asarray(outcomes, np.float64)
    differences = np.asarray(length_differences, np.float64)
    usable = np.isfinite(outcomes) & np.isfinite(differences)
    won = outcomes[usable]
    difference = differences[usable]
    if not len(won):
        return _undefined("no unit has both an outcome and the lengths of its replies")
    deviation = float(difference.std())
    if deviation == 0:
        return _undefined("all replies differ by the same length")
    design = np.stack([np.ones(len(won)), np.tanh(difference / deviation)], axis=1)
    coefficients = fit_logistic(design, won)
    if coefficients is None:
        return _undefined("lengths, or the models alone, tell every winner")
    intercept, slope = (float(coefficient) for coefficient in coefficients)
    return LengthControlled(1 / (1 + float(np.exp(-intercept))), intercept, slope, "")


def length_controlled_interval(
    outcomes: ArrayLike,
    length_differences: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the 95% interval of a length-controlled win rate over resampled questions.

    The regression is fitted anew to each resample. Questions are drawn as
    :func:`jaxmodpo.statistics.bootstrap.times_drawn` draws them for this seed, as for win rates
    themselves; all replies to a question move together. s stays that of all questions, since it is
    only the scale on which lengths are measured.

    Args:
        outcomes: of one pair of models, ``[questions, replies]``, NaN where none is valid.
        length_differences: ``[questions, replies]``, as for :func:`length_controlled_win_rate`.
        resamples: how many.
        seed: of the draws.

    Returns:
        Both ends. None where there is no length-controlled win rate, of fewer than two questions,
        and where more than one resample of twenty has no finite fit: without them the interval
        would be too narrow.
    """
    outcomes = np.asarray(outcomes, np.float64)
    differences = np.asarray(length_differences, np.float64)
    fit = length_controlled_win_rate(outcomes.ravel(), differences.ravel())
    usable = np.isfinite(outcomes) & np.isfinite(differences)
    if fit.undefined or usable.any(axis=1).sum() < 2:
        return None
    deviation = float(differences[usable].std())
    question_of_unit, _ = np.nonzero(usable)
    won = outcomes[usable]
    predictor = np.tanh(differences[usable] / deviation)
    draw_counts = times_drawn(len(outcomes), resamples, seed)
    start = np.array([fit.intercept, fit.slope])
    rates: list[Array] = []
    for begin in range(0, resamples, _RESAMPLES_AT_A_TIME):
        counts = draw_counts[begin : begin + _RESAMPLES_AT_A_TIME, question_of_unit]
        rates.append(_rates_at_zero(counts.astype(np.float64), won, predictor, start))
    samples = np.concatenate(rates)
    if np.isfinite(samples).mean() < _FEWEST_FITS:
        return None
    low, high = percentile_interval(samples)
    return float(low), float(high)


def _rates_at_zero(counts: Array, won: Array, predictor: Array, start: Array) -> Array:
    """Fit a logistic regression to each resample by Newton's method, and return σ(intercept).

    Args:
        counts: how often each resample holds each unit, ``[resamples, units]``.
        won: outcomes, ``[units]``.
        predictor: ``[units]``.
        start: intercept and slope of the fit to all units, from which few steps are left.

    Returns:
        ``[resamples]``, NaN where no finite coefficients fit.
    """
    design = np.stack([np.ones_like(predictor), predictor], axis=1)
    # The distinct entries of the 2 x 2 matrix of information: of 1, x and x².
    products = np.stack([np.ones_like(predictor), predictor, predictor**2], axis=1)
    won_sums = (counts * won) @ design
    coefficients = np.tile(start, (len(counts), 1))
    longest = np.full(len(counts), np.inf)
    for _ in range(_MOST_STEPS):
        probability = expit(coefficients @ design.T)
        weighted = counts * probability
        gradient = won_sums - weighted @ design
        ones, cross, squares = ((weighted * (1 - probability)) @ products).T
        determinant = ones * squares - cross**2
        first = ratio(squares * gradient[:, 0] - cross * gradient[:, 1], determinant)
        second = ratio(ones * gradient[:, 1] - cross * gradient[:, 0], determinant)
        steps = np.stack([first, second], axis=1)
        # NaN of a resample whose lengths are all the same; it stays where it is.
        longest = np.abs(steps).max(axis=1)
        coefficients += np.nan_to_num(steps / np.maximum(longest, 1.0)[:, None])
        # Held where it is surely too far, so that its logits stay finite.
        np.clip(coefficients, -2 * _LARGEST_COEFFICIENT, 2 * _LARGEST_COEFFICIENT, coefficients)
        has_escaped = np.abs(coefficients).max(axis=1) > _LARGEST_COEFFICIENT
        if np.all(has_escaped | ~(longest >= _SETTLED)):
            break
    is_finite = (np.abs(coefficients).max(axis=1) <= _LARGEST_COEFFICIENT) & (longest < _SETTLED)
    return np.where(is_finite, expit(coefficients[:, 0]), np.nan)


def fit_logistic(design: Array, outcomes: Array) -> Array | None:
    """Return a logistic regression's coefficients by Newton's method; None where none are finite.

    Args:
        design: ``[units, coefficients]``.
        outcomes: ``[units]`` from 0 to 1.
    """
    coefficients = np.zeros(design.shape[1])
    for _ in range(_MOST_STEPS):
        probability = 1 / (1 + np.exp(-design @ coefficients))
        weight = probability * (1 - probability)
        information = design.T @ (design * weight[:, None])
        gradient = design.T @ (outcomes - probability)
        step = np.linalg.pinv(information, hermitian=True) @ gradient
        longest = float(np.abs(step).max())
        coefficients += step / max(longest, 1.0)
        if np.abs(coefficients).max() > _LARGEST_COEFFICIENT:
            return None
        if longest < 1e-10:
            return coefficients
    return None


def _undefined(reason: str) -> LengthControlled:
    nothing = float("nan")
    return LengthControlled(nothing, nothing, nothing, reason)
