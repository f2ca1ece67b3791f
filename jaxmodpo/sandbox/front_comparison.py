"""Sweeps of several seeds put together: mean fronts, and MODPO's difference from soups.

A seed is one synthetic world, and the unit of the statistics: a difference is taken within a seed,
and its interval is over seeds. An arm is one way of making pairs, whose sweep trains both methods
over the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from jaxmodpo.evaluation.fronts import by_weights, hypervolume

METHODS = ("modpo", "soup")

Sweep = Mapping[str, Any]
"""the content of a sweep.json"""

Points = Sequence[Mapping[str, Any]]
"""points of a front, each with weights, scores and kl"""


def combine(sweeps: Mapping[str, Sequence[Sweep]]) -> dict[str, Any]:
    """Put the sweeps of several seeds together: means with 95% t intervals over seeds.

    The arms of a seed share their reference point, the lowest score of each objective in any of
    them, so that hypervolumes of different arms can be compared.

    Args:
        sweeps: of two arms, by seed in the same order and over the same weights.

    Returns:
        ``arms``, by name: fronts at equal weights and at matched KL, hypervolumes, and MODPO minus
        soup at either. ``between``: MODPO of the second arm minus either method of the first, by
        hypervolume and weighted score.
    """
    first, second = sweeps
    volumes = _hypervolumes(sweeps)
    weighted = _weighted_scores(sweeps)
    arms: dict[str, Any] = {}
    for arm, sweeps_of_arm in sweeps.items():
        volumes_of_arm = {method: volumes[arm, method] for method in METHODS}
        arms[arm] = _arm_results(sweeps_of_arm, volumes_of_arm)
    between: dict[str, Any] = {}
    for method in METHODS:
        # A row for each weight, a column for each seed.
        scores_by_weight = zip(weighted[second, "modpo"], weighted[first, method], strict=True)
        between[method] = {
            "hypervolume": _difference(volumes[second, "modpo"], volumes[first, method]),
            "weighted": [_difference(ours, theirs) for ours, theirs in scores_by_weight],
        }
    return {"arms": arms, "between": between}


def _objectives(sweeps: Mapping[str, Sequence[Sweep]]) -> list[str]:
    """Return the objectives, which are the same in all sweeps."""
    first_arm = next(iter(sweeps.values()))
    return first_arm[0]["objectives"]


def _front_scores(
    sweeps: Mapping[str, Sequence[Sweep]],
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Return the scores of every front, ``[seeds, points, objectives]``, by arm and method.

    All have the points in the order of the first arm's weights, since sweeps may list them in any.
    """
    objectives = _objectives(sweeps)
    first_arm = next(iter(sweeps.values()))
    points_in_order = first_arm[0]["fronts"]["modpo"]
    scores: dict[tuple[str, str], NDArray[np.float64]] = {}
    for arm, sweeps_of_arm in sweeps.items():
        for method in METHODS:
            fronts: list[list[list[float]]] = []
            for sweep in sweeps_of_arm:
                rows = by_weights([points_in_order, sweep["fronts"][method]])
                fronts.append([_scores_of(point, objectives) for _, point in rows])
            scores[arm, method] = np.array(fronts)
    return scores


def _scores_of(point: Mapping[str, Any], objectives: Sequence[str]) -> list[float]:
    return [point["scores"][name] for name in objectives]


def _hypervolumes(sweeps: Mapping[str, Sequence[Sweep]]) -> dict[tuple[str, str], list[float]]:
    """Return the hypervolume of each seed's front, by arm and method."""
    objectives = _objectives(sweeps)
    references: list[list[float]] = []
    for sweeps_of_seed in zip(*sweeps.values(), strict=True):
        points = [sweep["reference_point"] for sweep in sweeps_of_seed]
        references.append([min(point[name] for point in points) for name in objectives])
    volumes: dict[tuple[str, str], list[float]] = {}
    for key, fronts in _front_scores(sweeps).items():
        volumes[key] = [
            hypervolume(front, reference)
            for front, reference in zip(fronts, references, strict=True)
        ]
    return volumes


def _weighted_scores(
    sweeps: Mapping[str, Sequence[Sweep]],
) -> dict[tuple[str, str], list[list[float]]]:
    """Return each model's scores weighted as it was trained, ``[points, seeds]``, by arm and
    method.
    """
    first_arm = next(iter(sweeps.values()))
    weights = [point["weights"] for point in first_arm[0]["fronts"]["modpo"]]
    weighted: dict[tuple[str, str], list[list[float]]] = {}
    for key, fronts in _front_scores(sweeps).items():
        weighted[key] = np.einsum("spo,po->ps", fronts, weights).tolist()
    return weighted


def _arm_results(sweeps: Sequence[Sweep], volumes: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return one arm's results over its seeds.

    Args:
        sweeps: the arm's, one for each seed.
        volumes: the hypervolume of each seed, by method.
    """
    objectives = sweeps[0]["objectives"]
    base = [sweep["base"]["scores"] for sweep in sweeps]
    matched = [matched_fronts(sweep) for sweep in sweeps]
    hypervolumes = {method: _mean(values) for method, values in volumes.items()}
    hypervolumes["modpo - soup"] = _difference(volumes["modpo"], volumes["soup"])
    return {
        "objectives": objectives,
        "seeds": len(sweeps),
        "base": _means_by_name(base, objectives),
        "fronts": {
            method: _mean_front([sweep["fronts"][method] for sweep in sweeps], objectives)
            for method in METHODS
        },
        "matched_fronts": {
            method: _mean_front([fronts[method] for fronts in matched], objectives)
            for method in METHODS
        },
        "hypervolume": hypervolumes,
        "equal_weights": _mean_differences([s["equal_weights"] for s in sweeps], objectives),
        "matched_kl": _mean_differences([s["matched_kl"] for s in sweeps], objectives),
    }


def _mean_front(fronts: Sequence[Points], objectives: Sequence[str]) -> list[dict[str, Any]]:
    """Return the mean of each point of a front over seeds."""
    mean_points: list[dict[str, Any]] = []
    for points in by_weights(fronts):
        mean_point = {
            "weights": points[0]["weights"],
            "scores": _means_by_name([point["scores"] for point in points], objectives),
            "kl": _mean([point["kl"] for point in points]),
        }
        mean_points.append(mean_point)
    return mean_points


def _mean_differences(
    comparisons: Sequence[Points], objectives: Sequence[str]
) -> list[dict[str, Any]]:
    """Return MODPO minus soup at each weight, as a mean over seeds.

    Args:
        comparisons: a sweep's rows for each seed, at equal weights or at matched KL.
        objectives: the names of the scores.
    """
    mean_rows: list[dict[str, Any]] = []
    for rows in by_weights(comparisons):
        differences = [row["modpo - soup"] for row in rows]
        mean_row: dict[str, Any] = {"weights": rows[0]["weights"]}
        for name in ("weighted", *objectives):
            mean_row[name] = _mean([difference[name]["value"] for difference in differences])
        mean_row["kl"] = _means_by_name([row["kl"] for row in rows], METHODS)
        mean_rows.append(mean_row)
    return mean_rows


def matched_fronts(sweep: Sweep) -> dict[str, list[dict[str, Any]]]:
    """Return both methods' points at matched KL: ``weights``, ``scores`` and ``kl``, in the
    weights' order.

    A sweep keeps what two models differ by once the one that moved further is scaled back. The
    other one is where it was, so that the scaled one's scores follow from the difference.
    """
    fronts: dict[str, list[dict[str, Any]]] = {"modpo": [], "soup": []}
    rows = by_weights([sweep["matched_kl"], sweep["fronts"]["modpo"], sweep["fronts"]["soup"]])
    for matched, modpo, soup in rows:
        scores = {"modpo": dict(modpo["scores"]), "soup": dict(soup["scores"])}
        modpo_is_scaled = matched["scale"]["modpo"] < 1
        for name in sweep["objectives"]:
            difference = matched["modpo - soup"][name]["value"]
            if modpo_is_scaled:
                scores["modpo"][name] = scores["soup"][name] + difference
            else:
                scores["soup"][name] = scores["modpo"][name] - difference
        for method, points in fronts.items():
            point = {"weights": matched["weights"], "scores": scores[method]}
            points.append(point | {"kl": matched["kl"][method]})
    return fronts


def _means_by_name(
    rows: Sequence[Mapping[str, float]], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the mean of each named number over seeds."""
    return {name: _mean([row[name] for row in rows]) for name in names}


def _difference(ours: Iterable[float], theirs: Iterable[float]) -> dict[str, Any]:
    """Return the mean difference over seeds, and on how many it is positive."""
    differences = [our - their for our, their in zip(ours, theirs, strict=True)]
    seeds_above = sum(difference > 0 for difference in differences)
    return _mean(differences) | {"seeds_above": seeds_above}


def _mean(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean of a number over seeds, and its 95% t interval; one seed gives none."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "interval": None}
    standard_error = np.std(values, ddof=1) / math.sqrt(len(values))
    half_width = float(stats.t.ppf(0.975, len(values) - 1) * standard_error)
    return {"mean": mean, "interval": [mean - half_width, mean + half_width]}
