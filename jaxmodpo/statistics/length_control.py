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
    is_usable = np.isfinite(outcomes) & np.isfinite(differences)
    usable_outcomes = outcomes[is_usable]
    usable_differences = differences[is_usable]
    if not len(usable_outcomes):
        return _undefined("no unit has both an outcome and the lengths of its replies")
    deviation = float(usable_differences.std())
    if deviation == 0:
        return _undefined("all replies differ by the same length")
    predictor = np.tanh(usable_differences / deviation)
    design = np.stack([np.ones_like(predictor), predictor], axis=1)
    coefficients = fit_logistic(design, usable_outcomes)
    if coefficients is None:
        return _undefined("lengths, or the models alone, tell every winner")
    intercept, slope = coefficients.tolist()
    win_rate = 1 / (1 + float(np.exp(-intercept)))
    return LengthControlled(win_rate, intercept, slope, undefined="")


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
    is_usable = np.isfinite(outcomes) & np.isfinite(differences)
    usable_questions = is_usable.any(axis=1).sum()
    if fit.undefined or usable_questions < 2:
        return None
    # From here on, arrays have one entry a usable unit.
    question_of_unit, _ = np.nonzero(is_usable)
    usable_outcomes = outcomes[is_usable]
    usable_differences = differences[is_usable]
    deviation = float(usable_differences.std())
    predictor = np.tanh(usable_differences / deviation)
    draw_counts = times_drawn(len(outcomes), resamples, seed)  # [resamples, questions]
    start = np.array([fit.intercept, fit.slope])
    rates: list[Array] = []
    for begin in range(0, resamples, _RESAMPLES_AT_A_TIME):
        end = begin + _RESAMPLES_AT_A_TIME
        counts = draw_counts[begin:end, question_of_unit].astype(np.float64)
        rates.append(_rates_at_zero(counts, usable_outcomes, predictor, start))
    samples = np.concatenate(rates)
    share_of_fits = np.isfinite(samples).mean()
    if share_of_fits < _FEWEST_FITS:
        return None
    low, high = percentile_interval(samples)
    return float(low), float(high)


def _rates_at_zero(counts: Array, outcomes: Array, predictor: Array, start: Array) -> Array:
    """Fit a logistic regression to each resample by Newton's method, and return σ(intercept).

    Args:
        counts: how often each resample holds each unit, ``[resamples, units]``.
        outcomes: ``[units]``.
        predictor: ``[units]``.
        start: intercept and slope of the fit to all units, from which few steps are left.

    Returns:
        ``[resamples]``, NaN where no finite coefficients fit.
    """
    ones = np.ones_like(predictor)
    design = np.stack([ones, predictor], axis=1)  # [units, 2]
    # The distinct entries of the 2 x 2 matrix of information: of 1, x and x².
    products = np.stack([ones, predictor, predictor**2], axis=1)  # [units, 3]
    outcome_sums = (counts * outcomes) @ design
    coefficients = np.tile(start, (len(counts), 1))  # [resamples, 2]
    largest_steps = np.full(len(counts), np.inf)
    for _ in range(_MOST_STEPS):
        probability = expit(coefficients @ design.T)
        weighted = counts * probability
        gradient = outcome_sums - weighted @ design
        information = (weighted * (1 - probability)) @ products
        steps = _solve_two_by_two(information, gradient)
        # NaN of a resample whose lengths are all the same; it stays where it is.
        largest_steps = np.abs(steps).max(axis=1)
        # A whole Newton step from far away may overshoot; one logit at a time does not.
        divisor = np.maximum(largest_steps, 1.0)
        coefficients += np.nan_to_num(steps / divisor[:, None])
        # Held where it is surely too far, so that its logits stay finite.
        np.clip(coefficients, -2 * _LARGEST_COEFFICIENT, 2 * _LARGEST_COEFFICIENT, coefficients)
        has_escaped = _largest_of(coefficients) > _LARGEST_COEFFICIENT
        # A step that is NaN is not under way either, hence not written as "< _SETTLED".
        is_under_way = largest_steps >= _SETTLED
        if np.all(has_escaped | ~is_under_way):
            break
    is_bounded = _largest_of(coefficients) <= _LARGEST_COEFFICIENT
    is_settled = largest_steps < _SETTLED
    rates = expit(coefficients[:, 0])
    return np.where(is_bounded & is_settled, rates, np.nan)


def _largest_of(coefficients: Array) -> Array:
    """Return the largest absolute value of each line."""
    return np.abs(coefficients).max(axis=1)


def _solve_two_by_two(matrices: Array, right_sides: Array) -> Array:
    """Solve many systems of two equations at once by Cramer's rule; NaN where there is no solution.

    Args:
        matrices: symmetric and positive, ``[systems, 3]``: upper left, off the diagonal, lower
            right.
        right_sides: ``[systems, 2]``.

    Returns:
        ``[systems, 2]``.
    """
    upper, cross, lower = matrices.T
    first_side, second_side = right_sides.T
    determinant = upper * lower - cross**2
    first = ratio(lower * first_side - cross * second_side, determinant)
    second = ratio(upper * second_side - cross * first_side, determinant)
    return np.stack([first, second], axis=1)


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
        largest_step = float(np.abs(step).max())
        coefficients += step / max(largest_step, 1.0)
        if np.abs(coefficients).max() > _LARGEST_COEFFICIENT:
            return None
        if largest_step < 1e-10:
            return coefficients
    return None


def _undefined(reason: str) -> LengthControlled:
    nothing = float("nan")
    return LengthControlled(nothing, nothing, nothing, reason)
