"""Win rates as if both replies were equally long, since judges like long ones.

Source: Dubois and others, "Length-Controlled AlpacaEval", 2024, with the term for a question's
difficulty left out, which needs many models.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxmodpo.statistics.arrays import Array

_MOST_STEPS = 100
_LARGEST_COEFFICIENT = 15.0
"""in logits; beyond it a fit is on its way to infinity, since one side always wins"""


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
