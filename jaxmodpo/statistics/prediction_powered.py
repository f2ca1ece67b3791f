"""Means of a few people's labels, made more precise by a judge's predictions for many more items.

People label n items, a judge predicts those and N more. The judge's mean over all of them may be
biased; how biased, the labeled items say::

    estimate = prediction_powered_mean(labels, predictions, further_predictions)
    estimate.value, estimate.low, estimate.high

References:
    Angelopoulos, Bates, Fannjiang, Jordan and Zrnic, "Prediction-Powered Inference", 2023;
    Angelopoulos, Duchi and Zrnic, "PPI++: Efficient Prediction-Powered Inference", 2023.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxmodpo.statistics.arrays import Array


class PoweredMean(NamedTuple):
    """A mean with its normal 95% interval."""

    value: float
    low: float
    high: float
    weight: float
    """λ, how much the predictions count: 0 not at all, 1 as plain prediction-powered inference has
    it"""


def prediction_powered_mean(
    labels: ArrayLike, predictions: ArrayLike, further: ArrayLike, *, confidence: float = 0.95
) -> PoweredMean | None:
    """Return the mean label of all items, from the labels of some and predictions of all.

    θ = λ mean(f') + mean(y − λ f) with labels y, their items' predictions f and further predictions
    f'; its variance is λ² var(f') / N + var(y − λ f) / n. λ = cov(y, f) / ((1 + n/N) var(f, f')),
    from 0 to 1, makes it smallest: with a judge who knows nothing the result is that of the labels
    alone. Without further items it is their mean.

    Args:
        labels: ``[n]``, of people.
        predictions: ``[n]``, of the same items.
        further: ``[N]``, of items that nobody labeled.
        confidence: of the interval.

    Returns:
        The mean; None of fewer than two labels.
    """
    labels = np.asarray(labels, np.float64)
    predictions = np.asarray(predictions, np.float64)
    further = np.asarray(further, np.float64)
    if len(labels) < 2:
        return None
    weight = 0.0
    variance_of_further = 0.0
    value = float(labels.mean())
    if len(further):
        weight = _weight(labels, predictions, further)
        # What the judge says of the further items, corrected by how far it is off on the labeled.
        mean_correction = float((labels - weight * predictions).mean())
        value = weight * float(further.mean()) + mean_correction
        variance_of_further = weight**2 * float(further.var()) / len(further)
    corrections = labels - weight * predictions
    variance_of_corrections = float(corrections.var()) / len(labels)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    half_width = z * math.sqrt(variance_of_further + variance_of_corrections)
    return PoweredMean(value, value - half_width, value + half_width, weight)


def _weight(labels: Array, predictions: Array, further: Array) -> float:
    """Return λ, by the rule of PPI++."""
    variance = _variance_of_predictions(predictions, further)
    if variance == 0:
        return 0.0
    covariance = _covariance(labels, predictions)
    weight = covariance / ((1 + len(labels) / len(further)) * variance)
    return min(max(weight, 0.0), 1.0)


def _covariance(labels: Array, predictions: Array) -> float:
    return float(((labels - labels.mean()) * (predictions - predictions.mean())).mean())


def _variance_of_predictions(predictions: Array, further: Array) -> float:
    return float(np.concatenate([predictions, further]).var(ddof=1))


def labels_to_halve(labels: ArrayLike, predictions: ArrayLike, further: ArrayLike) -> int | None:
    """Return how many more items people would have to label for an interval half as wide.

    The items are taken from those with predictions; λ is tuned anew for each number, with the
    variances and the covariance that the labels so far show.

    Returns:
        The number; None where even labels of all items would not do, or of fewer than two labels.
    """
    labels = np.asarray(labels, np.float64)
    predictions = np.asarray(predictions, np.float64)
    further = np.asarray(further, np.float64)
    labeled = len(labels)
    if labeled < 2:
        return None
    total = labeled + len(further)
    variances = _planned_variances(
        np.arange(labeled, total + 1, dtype=np.float64),
        total,
        variance_of_labels=float(labels.var()),
        variance=_variance_of_predictions(predictions, further),
        covariance=_covariance(labels, predictions),
    )
    # Half the width is a quarter of the variance.
    enough = np.flatnonzero(variances <= variances[0] / 4)
    return int(enough[0]) if len(enough) else None


def _planned_variances(
    counts: Array, total: int, *, variance_of_labels: float, variance: float, covariance: float
) -> Array:
    """Return the variance of the mean with each number of labels among all items."""
    # λ is 0 where all are labeled, and nothing is predicted; the maximum avoids a division by zero.
    rest = np.maximum(total - counts, 1.0)
    share = (total - counts) / total
    best = covariance / variance if variance > 0 else 0.0
    weights = np.clip(best * share, 0.0, 1.0)
    rectified = variance_of_labels - 2 * weights * covariance + weights**2 * variance
    return weights**2 * variance / rest + np.maximum(rectified, 0.0) / counts
