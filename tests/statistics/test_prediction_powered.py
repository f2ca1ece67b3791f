"""Prediction-powered means against ppi-python 0.2.3, and over many draws of a known truth."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodpo.statistics.prediction_powered import labels_to_halve, prediction_powered_mean

# What ppi_py.ppi_mean_pointestimate and ppi_mean_ci (alpha=0.05, lam=None) return of these twelve
# labels, their predictions and thirty further ones, all in halves. The package is no dependency of
# the tests, since it brings numba and a downloader along.
LABELS = np.array([2, 1, 1, 2, 1, 2, 2, 0, 0, 0, 0, 0]) / 2
PREDICTIONS = np.array([2, 1, 2, 2, 1, 2, 2, 0, 0, 0, 0, 2]) / 2
FURTHER = (
    np.array(
        [1, 0, 0, 1, 2, 1, 2, 2, 2, 1, 1, 1, 0, 1, 1, 0, 2, 0, 0, 0, 2, 2, 2, 0, 2, 1, 1, 0, 1, 2]
    )
    / 2
)


def test_mean_and_interval_are_ppi_pythons():
    estimate = prediction_powered_mean(LABELS, PREDICTIONS, FURTHER)
    assert estimate is not None
    assert estimate.value == pytest.approx(0.41782694605275245, rel=1e-12)
    assert estimate.low == pytest.approx(0.23711282929593971, rel=1e-12)
    assert estimate.high == pytest.approx(0.5985410628095652, rel=1e-12)
    assert 0 < estimate.weight < 1


def test_without_further_items_or_with_a_judge_who_never_varies_it_is_the_mean_of_the_labels():
    alone = prediction_powered_mean(LABELS, PREDICTIONS, [])
    constant = prediction_powered_mean(LABELS, np.ones(12), np.ones(30))
    assert alone is not None and constant is not None
    assert alone[:3] == pytest.approx(constant[:3])
    assert alone.value == pytest.approx(LABELS.mean())
    half_width = 1.959964 * LABELS.std() / np.sqrt(12)
    assert alone.high - alone.value == pytest.approx(half_width, rel=1e-6)
    assert prediction_powered_mean([1.0], [1.0], FURTHER) is None


def draw(rng: np.random.Generator, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of which 0.6 are 1, and predictions of a judge who overrates."""
    labels = (rng.random(items) < 0.6).astype(float)
    predictions = np.where(rng.random(items) < 0.85, labels, 1.0)
    return labels, predictions


def test_the_interval_covers_the_truth_and_is_narrower_than_that_of_the_labels_alone():
    rng = np.random.default_rng(1)
    covered = 0
    narrower: list[float] = []
    for _ in range(400):
        labels, predictions = draw(rng, 600)
        estimate = prediction_powered_mean(labels[:100], predictions[:100], predictions[100:])
        alone = prediction_powered_mean(labels[:100], predictions[:100], [])
        assert estimate is not None and alone is not None
        covered += estimate.low <= 0.6 <= estimate.high
        narrower.append((estimate.high - estimate.low) / (alone.high - alone.low))
    # 95% of 400, with four standard errors of a binomial on either side.
    assert 0.906 <= covered / 400 <= 0.985
    assert np.mean(narrower) < 0.75


def test_so_many_more_labels_do_halve_the_interval():
    rng = np.random.default_rng(2)
    labels, predictions = draw(rng, 4000)
    more = labels_to_halve(labels[:100], predictions[:100], predictions[100:])
    assert more is not None
    widths = []
    for labeled in (100, 100 + more):
        estimate = prediction_powered_mean(
            labels[:labeled], predictions[:labeled], predictions[labeled:]
        )
        assert estimate is not None
        widths.append(estimate.high - estimate.low)
    assert widths[1] / widths[0] == pytest.approx(0.5, abs=0.05)


def test_where_all_labels_there_are_would_not_halve_it_there_is_no_number():
    assert labels_to_halve(LABELS, PREDICTIONS, FURTHER[:5]) is None
    assert labels_to_halve([1.0], [1.0], FURTHER) is None
