"""Hypervolumes against counting, and fronts against their definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jaxmodpo.evaluation.fronts import front_figure, hypervolume, undominated
from jaxmodpo.results.sweep import Point


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_hypervolume_is_the_union_of_boxes(objectives: int):
    generator = np.random.default_rng(objectives)
    points = generator.integers(0, 6, (7, objectives)).astype(float)
    cells = np.array(list(itertools.product(range(6), repeat=objectives)))
    covered = (points[:, None] >= cells[None] + 1).all(-1).any(0).sum()
    assert hypervolume(points, np.zeros(objectives)) == pytest.approx(covered)


def test_points_that_do_not_beat_the_reference_add_nothing():
    assert hypervolume([[1.0, 5.0], [3.0, 2.0]], [1.0, 1.0]) == pytest.approx(2.0)
    assert hypervolume([[0.0, 9.0]], [1.0, 1.0]) == 0.0


def test_only_undominated_points_remain():
    points = [[1.0, 3.0], [2.0, 2.0], [1.0, 2.0], [3.0, 1.0], [2.0, 2.0]]
    assert undominated(points).tolist() == [True, True, False, True, True]


def point(weights: tuple[float, float], scores: dict[str, float], kl: float) -> Point:
    return Point(
        label="x", scale=1.0, weights=weights, scores=scores, kl=kl, kl_standard_error=None
    )


def test_fronts_are_drawn():
    points = [point((w, 1 - w), {"a": w, "b": 1 - w}, kl=w) for w in (0.9, 0.1)]
    base = point((0.5, 0.5), {"a": 0.0, "b": 0.0}, kl=0.0)
    figure = front_figure({"modpo": points, "soup": points}, ("a", "b"), base)
    left, right = figure.axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("a", "b") and len(right.lines) == 2


def test_a_points_scores_are_weighted_by_name_in_whatever_order_they_stand():
    points = [point((0.9, 0.1), {"b": 1.0, "a": 2.0}, kl=0.5)]
    base = point((0.5, 0.5), {"b": 0.5, "a": 1.0}, kl=0.0)
    figure = front_figure({"modpo": points}, ("a", "b"), base)
    (line,) = figure.axes[1].lines
    assert np.asarray(line.get_ydata()) == pytest.approx([0.9 * 1.0 + 0.1 * 0.5])
