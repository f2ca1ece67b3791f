"""Trade-off fronts between objectives: what is not dominated, how much is covered, and a figure of
it.

Pure functions of points, one row per model and one column per objective, higher is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from jaxmodpo.errors import UserError
from jaxmodpo.pages import MARKERS, PALETTE, STYLE

Array = NDArray[np.float64]


def undominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Tell which of ``[points, objectives]`` no other point beats: as good everywhere and better
    somewhere.
    """
    points = np.asarray(points, np.float64)
    return np.array([not ((points >= p).all(1) & (points > p).any(1)).any() for p in points], bool)


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
    points, reference = np.asarray(points, np.float64), np.asarray(reference, np.float64)
    points = points[(points > reference).all(axis=1)]
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max() - reference[0])
    points = points[undominated(points)]
    points = points[np.argsort(-points[:, -1], kind="stable")]
    floors = np.append(points[1:, -1], reference[-1])
    return float(
        sum(
            (point[-1] - floor) * hypervolume(points[: n + 1, :-1], reference[:-1])
            for n, (point, floor) in enumerate(zip(points, floors, strict=True))
            if point[-1] > floor
        )
    )


def by_weights(rows: Sequence[Sequence[Mapping[str, Any]]]) -> list[tuple[Mapping[str, Any], ...]]:
    """Bring the rows of several lists that have the same ``weights`` together, in the first list's
    order.

    Raises:
        UserError: one has weights that another has not, or has some twice.
    """
    keyed = [{tuple(row["weights"]): row for row in some} for some in rows]
    if any(
        len(own) != len(some) or own.keys() != keyed[0].keys()
        for own, some in zip(keyed, rows, strict=True)
    ):
        raise UserError("results that are compared at equal weights were made at different ones")
    return [tuple(own[weights] for own in keyed) for weights in keyed[0]]


def front_figure(
    fronts: Mapping[str, Sequence[Mapping[str, Any]]],
    objectives: tuple[str, str],
    base: Mapping[str, Any],
) -> Figure:
    """Draw fronts between two objectives, and the weighted score against the divergence from the
    base.

    Args:
        fronts: by method, its points in the weights' order: ``weights``, ``scores`` by objective,
            ``kl``.
        objectives: along x and y.
        base: the base model's ``scores``.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for n, (name, points) in enumerate(fronts.items()):
            look = {
                "color": PALETTE[n % len(PALETTE)],
                "marker": MARKERS[n % len(MARKERS)],
                "markersize": 5,
            }
            xy = np.array(
                [[point["scores"][objective] for objective in objectives] for point in points]
            )
            left.plot(xy[:, 0], xy[:, 1], label=name, linewidth=1.2, **look)
            for point, (x, y) in zip(points, xy, strict=True):
                left.annotate(
                    f"{point['weights'][0]:.1f}",
                    (x, y),
                    (3, 3),
                    textcoords="offset points",
                    fontsize=6,
                )
            # By name: in a file the scores may stand in another order than the weights.
            over_base = xy - [base["scores"][objective] for objective in objectives]
            gained = [
                np.dot(point["weights"], over)
                for point, over in zip(points, over_base, strict=True)
            ]
            right.plot([point["kl"] for point in points], gained, linestyle="", label=name, **look)
        left.plot(
            *[[base["scores"][objective]] for objective in objectives],
            "x",
            color="black",
            label="base",
        )
        left.set(
            xlabel=objectives[0],
            ylabel=objectives[1],
            title="Front; numbers are the first objective's weight",
        )
        right.set(
            xlabel="divergence from the base, nats a reply", ylabel="weighted score over the base's"
        )
        right.set_title("What a divergence buys")
        left.legend(fontsize=7)
    return figure
