"""Sweeps of several seeds put together: mean fronts, and MODPO's difference from soups.

A seed is one synthetic world, and the unit of the statistics: a difference is taken within a seed,
and its interval is over seeds. An arm is one way of making pairs, whose sweep trains both methods
over the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from jaxmodpo.evaluation.fronts import by_weights, hypervolume, in_order_of
from jaxmodpo.results.fronts import (
    Advantage,
    Arm,
    Fronts,
    MeanComparison,
    MeanHypervolumes,
    MeanPoint,
    SeedDifference,
    SeedMean,
)
from jaxmodpo.results.sweep import Comparison, Method, Point, Sweep

METHODS: tuple[Method, ...] = ("modpo", "soup")

ArmAndMethod = tuple[str, Method]


@dataclass(frozen=True)
class MatchedPoint:
    """A point as it is once one of two models has been scaled back to the other's divergence."""

    weights: tuple[float, ...]
    scores: Mapping[str, float]
    kl: float


def combine(sweeps: Mapping[str, Sequence[Sweep]]) -> Fronts:
    """Put the sweeps of several seeds together: means with 95% t intervals over seeds.

    The arms of a seed share their reference point, the lowest score of each objective in any of
    them, so that hypervolumes of different arms can be compared.

    Args:
        sweeps: of two arms, by seed in the same order and over the same weights.
    """
    first, second = sweeps
    scores = _front_scores(sweeps)
    volumes = _hypervolumes(sweeps, scores)
    weighted = _weighted_scores(sweeps, scores)
    arms: dict[str, Arm] = {}
    for arm, sweeps_of_arm in sweeps.items():
        arms[arm] = _summarize_arm(sweeps_of_arm, volumes[arm, "modpo"], volumes[arm, "soup"])
    between: dict[Method, Advantage] = {}
    for method in METHODS:
        # A row for each weight, a column for each seed.
        scores_by_weight = zip(weighted[second, "modpo"], weighted[first, method], strict=True)
        between[method] = Advantage(
            hypervolume=_difference(volumes[second, "modpo"], volumes[first, method]),
            weighted=tuple(_difference(ours, theirs) for ours, theirs in scores_by_weight),
        )
    return Fronts(arms=arms, between=between)


# --------------------------------------------------------------------------- both arms


def _any_sweep(sweeps: Mapping[str, Sequence[Sweep]]) -> Sweep:
    """Return the first arm's first sweep; all have its objectives and its weights."""
    first_arm, *_ = sweeps.values()
    return first_arm[0]


def _front_scores(
    sweeps: Mapping[str, Sequence[Sweep]],
) -> dict[ArmAndMethod, NDArray[np.float64]]:
    """Return the scores of every front, ``[seeds, points, objectives]``, by arm and method.

    All have the points in the order of the first arm's weights, since sweeps may list them in any.
    """
    objectives = _any_sweep(sweeps).objectives
    order = _any_sweep(sweeps).fronts["modpo"]
    scores: dict[ArmAndMethod, NDArray[np.float64]] = {}
    for arm, sweeps_of_arm in sweeps.items():
        for method in METHODS:
            fronts: list[list[list[float]]] = []
            for sweep in sweeps_of_arm:
                points = in_order_of(order, sweep.fronts[method])
                fronts.append([_scores_of(point, objectives) for point in points])
            scores[arm, method] = np.array(fronts)
    return scores


def _scores_of(point: Point, objectives: Sequence[str]) -> list[float]:
    return [point.scores[name] for name in objectives]


def _hypervolumes(
    sweeps: Mapping[str, Sequence[Sweep]], scores: Mapping[ArmAndMethod, NDArray[np.float64]]
) -> dict[ArmAndMethod, list[float]]:
    """Return the hypervolume of each seed's front, by arm and method."""
    # Each sweep was measured above a corner of its own. What the arms of a seed share is the corner
    # below all of them: above it their volumes are the same quantity.
    references: list[list[float]] = []
    for sweeps_of_seed in zip(*sweeps.values(), strict=True):
        reference: list[float] = []
        for name in _any_sweep(sweeps).objectives:
            reference.append(min(sweep.reference_point[name] for sweep in sweeps_of_seed))
        references.append(reference)
    volumes: dict[ArmAndMethod, list[float]] = {}
    for arm_and_method, fronts in scores.items():
        volume_of_each_seed: list[float] = []
        for front, reference in zip(fronts, references, strict=True):
            volume_of_each_seed.append(hypervolume(front, reference))
        volumes[arm_and_method] = volume_of_each_seed
    return volumes


def _weighted_scores(
    sweeps: Mapping[str, Sequence[Sweep]], scores: Mapping[ArmAndMethod, NDArray[np.float64]]
) -> dict[ArmAndMethod, list[list[float]]]:
    """Return each model's scores weighted as it was trained, ``[points, seeds]``, by arm and
    method.
    """
    weights = [point.weights for point in _any_sweep(sweeps).fronts["modpo"]]
    weighted: dict[ArmAndMethod, list[list[float]]] = {}
    for key, fronts in scores.items():
        # s: seeds, p: points, o: objectives.
        weighted[key] = np.einsum("spo,po->ps", fronts, weights).tolist()
    return weighted


# --------------------------------------------------------------------------- one arm


def _summarize_arm(
    sweeps: Sequence[Sweep], modpo_volumes: Sequence[float], soup_volumes: Sequence[float]
) -> Arm:
    """Return one arm's results over its seeds.

    Args:
        sweeps: the arm's, one for each seed.
        modpo_volumes: the hypervolume of each seed's MODPO front.
        soup_volumes: that of its soups.
    """
    objectives = sweeps[0].objectives
    matched = [matched_fronts(sweep) for sweep in sweeps]
    fronts: dict[Method, tuple[MeanPoint, ...]] = {}
    mean_matched_fronts: dict[Method, tuple[MeanPoint, ...]] = {}
    for method in METHODS:
        front_of_each_seed = [sweep.fronts[method] for sweep in sweeps]
        fronts[method] = _mean_front(front_of_each_seed, objectives)
        matched_of_each_seed = [fronts_of_seed[method] for fronts_of_seed in matched]
        mean_matched_fronts[method] = _mean_front(matched_of_each_seed, objectives)
    equal_weights: list[tuple[Comparison, ...]] = []
    matched_kl: list[tuple[Comparison, ...]] = []
    for sweep in sweeps:
        equal_weights.append(_rows(sweep.equal_weights))
        matched_kl.append(_rows(sweep.matched_kl))
    return Arm(
        objectives=objectives,
        seeds=len(sweeps),
        base=_means_by_name([sweep.base.scores for sweep in sweeps], objectives),
        fronts=fronts,
        matched_fronts=mean_matched_fronts,
        hypervolume=MeanHypervolumes(
            modpo=_mean(modpo_volumes),
            soup=_mean(soup_volumes),
            difference=_difference(modpo_volumes, soup_volumes),
        ),
        equal_weights=_mean_comparisons(equal_weights, objectives),
        matched_kl=_mean_comparisons(matched_kl, objectives),
    )


def _rows(comparisons: tuple[Comparison, ...] | None) -> tuple[Comparison, ...]:
    """Return a sweep's comparisons, which every sweep of the sandbox has: it makes soups."""
    assert comparisons is not None
    return comparisons


def _mean_front(
    fronts: Sequence[Sequence[Point | MatchedPoint]], objectives: Sequence[str]
) -> tuple[MeanPoint, ...]:
    """Return the mean of each point of a front over seeds."""
    mean_points: list[MeanPoint] = []
    for points in by_weights(fronts):
        mean_point = MeanPoint(
            weights=points[0].weights,
            scores=_means_by_name([point.scores for point in points], objectives),
            kl=_mean([point.kl for point in points]),
        )
        mean_points.append(mean_point)
    return tuple(mean_points)


def _mean_comparisons(
    comparisons: Sequence[Sequence[Comparison]], objectives: Sequence[str]
) -> tuple[MeanComparison, ...]:
    """Return MODPO minus soup at each weight, as a mean over seeds.

    Args:
        comparisons: a sweep's rows for each seed, at equal weights or at matched KL.
        objectives: the names of the scores.
    """
    mean_rows: list[MeanComparison] = []
    for rows in by_weights(comparisons):
        differences: dict[str, SeedMean] = {}
        for name in ("weighted", *objectives):
            differences[name] = _mean([row.differences[name].value for row in rows])
        divergences: dict[Method, SeedMean] = {}
        for method in METHODS:
            divergences[method] = _mean([row.kl[method] for row in rows])
        mean_row = MeanComparison(weights=rows[0].weights, kl=divergences, differences=differences)
        mean_rows.append(mean_row)
    return tuple(mean_rows)


def matched_fronts(sweep: Sweep) -> dict[Method, list[MatchedPoint]]:
    """Return both methods' points at matched KL, in the weights' order.

    A sweep keeps what two models differ by once the one that moved further is scaled back. The
    other one is where it was, so that the scaled one's scores follow from the difference.
    """
    rows = _rows(sweep.matched_kl)
    modpo_points = in_order_of(rows, sweep.fronts["modpo"])
    soup_points = in_order_of(rows, sweep.fronts["soup"])
    fronts: dict[Method, list[MatchedPoint]] = {"modpo": [], "soup": []}
    for row, modpo, soup in zip(rows, modpo_points, soup_points, strict=True):
        modpo_scores = dict(modpo.scores)
        soup_scores = dict(soup.scores)
        modpo_is_scaled = row.scale["modpo"] < 1
        for name in sweep.objectives:
            # MODPO minus soup, of the two models as they were compared: one of them scaled back.
            difference = row.differences[name].value
            if modpo_is_scaled:
                modpo_scores[name] = soup_scores[name] + difference
            else:
                soup_scores[name] = modpo_scores[name] - difference
        fronts["modpo"].append(MatchedPoint(row.weights, modpo_scores, row.kl["modpo"]))
        fronts["soup"].append(MatchedPoint(row.weights, soup_scores, row.kl["soup"]))
    return fronts


# --------------------------------------------------------------------------- over seeds


def _means_by_name(
    rows: Sequence[Mapping[str, float]], names: Sequence[str]
) -> dict[str, SeedMean]:
    """Return the mean of each named number over seeds."""
    means: dict[str, SeedMean] = {}
    for name in names:
        means[name] = _mean([row[name] for row in rows])
    return means


def _difference(ours: Iterable[float], theirs: Iterable[float]) -> SeedDifference:
    """Return the mean difference over seeds, and on how many it is positive."""
    differences = [our - their for our, their in zip(ours, theirs, strict=True)]
    seeds_above = sum(difference > 0 for difference in differences)
    return SeedDifference(**vars(_mean(differences)), seeds_above=seeds_above)


def _mean(values: Sequence[float]) -> SeedMean:
    """Return the mean of a number over seeds, and its 95% t interval; one seed gives none."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return SeedMean(mean=mean, interval=None)
    standard_error = np.std(values, ddof=1) / math.sqrt(len(values))
    # Student's t and not the normal distribution: three seeds say little of their own spread.
    t = stats.t.ppf(0.975, df=len(values) - 1)
    half_width = float(t * standard_error)
    return SeedMean(mean=mean, interval=(mean - half_width, mean + half_width))
