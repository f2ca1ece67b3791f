"""Trade-off fronts between objectives: what is not dominated, how much is covered, and a figure of
it.

Pure functions of points, one row per model and one column per objective, higher is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from jaxmodpo.errors import UserError
from jaxmodpo.pages import Look, drawing, look_of
from jaxmodpo.results.sweep import Model, Point

Array = NDArray[np.float64]

_MARKER_SIZE = 5
"""points of a marker's width"""


class Weighted(Protocol):
    """A result of one combination of weights."""

    @property
    def weights(self) -> tuple[float, ...] | None: ...


Row = TypeVar("Row", bound=Weighted)


def undominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Tell which of ``[points, objectives]`` no other point beats: as good everywhere and better
    somewhere.
    """
    points = np.asarray(points, np.float64)
    is_beaten: list[bool] = []
    for point in points:
        as_good_everywhere = (points >= point).all(axis=1)
        better_somewhere = (points > point).any(axis=1)
        beats_point = as_good_everywhere & better_somewhere
        is_beaten.append(bool(beats_point.any()))
    return ~np.array(is_beaten, bool)


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume that points dominate above a reference point; exact, for any number of
    objectives.

    Slices along the last objective, from the best point down, and adds each slice's volume in the
    others.

    Args:
        points: ``[points, objectives]``; those not above the reference in every objective add
            nothing.
        reference: ``[objectives]``.

    References:
        Zitzler and Thiele, *Multiobjective Optimization Using Evolutionary Algorithms*, 1998.
    """
    points = np.asarray(points, np.float64)
    reference = np.asarray(reference, np.float64)
    points = points[(points > reference).all(axis=1)]
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max() - reference[0])
    points = points[undominated(points)]
    # Stable, so that equal points keep their order and sums their rounding.
    points = points[np.argsort(-points[:, -1], kind="stable")]
    # A slice reaches from one point's height down to the next one's. Within it the points above
    # dominate, and their volume there is that of the objectives before the last.
    floors = np.append(points[1:, -1], reference[-1])
    volume = 0.0
    for number, floor in enumerate(floors, 1):
        # Between points of equal height there is no slice.
        height = points[number - 1, -1] - floor
        points_above = points[:number, :-1]
        if height > 0:
            volume += height * hypervolume(points_above, reference[:-1])
    return float(volume)


# --------------------------------------------------------------------------- equal weights


def by_weights(lists: Sequence[Sequence[Row]]) -> list[tuple[Row, ...]]:
    """Bring the rows of several lists that have the same ``weights`` together, in the first list's
    order.

    Raises:
        UserError: one has weights that another has not, or has some twice.
    """
    first = lists[0]
    aligned = [in_order_of(first, rows) for rows in lists]
    return list(zip(*aligned, strict=True))


def in_order_of(order: Sequence[Weighted], rows: Sequence[Row]) -> list[Row]:
    """Return rows in the order that other rows of the same weights stand in.

    Raises:
        UserError: one list has weights that the other has not, or has some twice.
    """
    row_of = {row.weights: row for row in rows}
    weights_in_order = [row.weights for row in order]
    # Weights that stand twice are one key of the mapping, and the list is longer than it.
    have_doubles = not len(row_of) == len(rows) == len(order)
    if have_doubles or row_of.keys() != set(weights_in_order):
        raise UserError("results that are compared at equal weights were made at different ones")
    return [row_of[weights] for weights in weights_in_order]


# --------------------------------------------------------------------------- the figure


def front_figure(
    fronts: Mapping[str, Sequence[Point]], objectives: tuple[str, str], base: Model
) -> Figure:
    """Draw fronts between two objectives, and the weighted score against the divergence from the
    base.

    Args:
        fronts: by method, its points in the weights' order.
        objectives: along x and y.
        base: the base model.
    """
    base_scores = _scores(base, objectives)
    with drawing(9.6, 4.4) as figure:
        scores_panel, divergence_panel = figure.subplots(1, 2)
        for number, (name, points) in enumerate(fronts.items()):
            scores = np.array([_scores(point, objectives) for point in points])
            _draw_front(scores_panel, name, points, scores, look_of(number))
            gains = _gains(points, scores - base_scores)
            _draw_gains(divergence_panel, name, points, gains, look_of(number))
        base_x, base_y = base_scores
        scores_panel.plot([base_x], [base_y], "x", color="black", label="base")
        scores_panel.set(
            xlabel=objectives[0],
            ylabel=objectives[1],
            title="Front; numbers are the first objective's weight",
        )
        divergence_panel.set(
            xlabel="divergence from the base, nats a reply", ylabel="weighted score over the base's"
        )
        divergence_panel.set_title("What a divergence buys")
        scores_panel.legend(fontsize=7)
    return figure


def _scores(model: Model, objectives: Sequence[str]) -> list[float]:
    """Return a model's scores in the objectives' order, which a file need not have."""
    return [model.scores[objective] for objective in objectives]


def _gains(points: Sequence[Point], over_base: Array) -> list[float]:
    """Return what each model gains over the base: its differences, weighted as it was trained.

    Args:
        points: the models.
        over_base: ``[points, objectives]``, their scores less the base's.
    """
    gains: list[float] = []
    for point, differences in zip(points, over_base, strict=True):
        gains.append(float(np.dot(point.weights, differences)))
    return gains


def _draw_front(axes: Axes, name: str, points: Sequence[Point], scores: Array, look: Look) -> None:
    """Draw one method's front, with the first objective's weight beside each point."""
    axes.plot(
        scores[:, 0], scores[:, 1], label=name, linewidth=1.2, markersize=_MARKER_SIZE, **look
    )
    for point, position in zip(points, scores, strict=True):
        x, y = position
        first_weight = f"{point.weights[0]:.1f}"
        axes.annotate(first_weight, (x, y), (3, 3), textcoords="offset points", fontsize=6)


def _draw_gains(
    axes: Axes, name: str, points: Sequence[Point], gains: Sequence[float], look: Look
) -> None:
    """Draw what each model of a method gains, against how far it moved from the base."""
    divergences = [point.kl for point in points]
    # No line: the order of the weights is not that of the divergences.
    axes.plot(divergences, gains, linestyle="", label=name, markersize=_MARKER_SIZE, **look)
