"""What a sweep's measurements say: the fronts' hypervolumes, MODPO against soups, and a table of
both.

Pure functions of the measured points, so that the figures of a sweep can be computed again from its
files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.fronts import by_weights, hypervolume, undominated
from jaxmodpo.intervals import percentile_interval, resampled_questions
from jaxmodpo.search.sweep_settings import point_name

Point = Mapping[str, Any]
"""what was measured of one model, as its file in ``points/`` holds it"""

HYPERVOLUME_RESAMPLES = 500


def compare(
    names: Sequence[str],
    base: Point,
    fronts: Mapping[str, Sequence[Point]],
    matched: Sequence[tuple[Point, Point]] = (),
) -> dict[str, Any]:
    """Return a sweep's figures; intervals are 95% bootstrap intervals over questions.

    The reference point of the hypervolumes is the lowest score of each objective over all points
    and the base.

    Args:
        names: of the objectives.
        base: the base's measurements.
        fronts: measurements of each method's points.
        matched: points of MODPO and of the soups, brought to the same divergence.
    """
    questions = list(base["per_question"][names[0]])
    scores = {method: _scores(points, names, questions) for method, points in fronts.items()}
    means = {method: front.mean(axis=-1) for method, front in scores.items()}
    base_means = _scores([base], names, questions).mean(axis=-1)
    # One reference for all methods, since a volume above another corner is another quantity.
    reference = np.concatenate([*means.values(), base_means]).min(axis=0)
    # The same draws for every method, so that differences between them are paired.
    resamples = resampled_questions(len(questions))
    volume_samples: dict[str, np.ndarray] = {}
    volumes: dict[str, dict[str, Any]] = {}
    for method, front in scores.items():
        volume_samples[method] = _hypervolume_samples(front, reference, resamples)
        volumes[method] = {
            "value": hypervolume(means[method], reference),
            "interval": _interval(volume_samples[method]),
            "undominated": int(undominated(means[method]).sum()),
        }
    results: dict[str, Any] = {
        "objectives": list(names),
        "base": _without_questions(base),
        "fronts": {},
        "reference_point": dict(zip(names, reference.tolist(), strict=True)),
        "hypervolume": volumes,
    }
    for method, points in fronts.items():
        results["fronts"][method] = [_without_questions(point) for point in points]
    if set(fronts) == {"modpo", "soup"}:
        difference = volume_samples["modpo"] - volume_samples["soup"]
        volumes["modpo - soup"] = {
            "value": volumes["modpo"]["value"] - volumes["soup"]["value"],
            "interval": _interval(difference),
        }
        equal_weights = by_weights([fronts["modpo"], fronts["soup"]])
        results["equal_weights"] = _differences(equal_weights, names, questions, resamples)
        results["matched_kl"] = _differences(matched, names, questions, resamples)
    return results


def _hypervolume_samples(
    front: np.ndarray, reference: np.ndarray, resamples: np.ndarray
) -> np.ndarray:
    """Return a front's hypervolume in each resample of the questions."""
    # A hypervolume takes longer than a mean, so it makes do with fewer draws.
    few_resamples = resamples[:HYPERVOLUME_RESAMPLES]
    samples = [hypervolume(front[:, :, rows].mean(axis=-1), reference) for rows in few_resamples]
    return np.array(samples)


def _scores(points: Sequence[Point], names: Sequence[str], questions: Sequence[str]) -> np.ndarray:
    """Return the points' scores: ``[points, objectives, questions]``."""
    by_point: list[list[list[float]]] = []
    for point in points:
        by_point.append([_scores_of(point, name, questions) for name in names])
    return np.array(by_point)


def _interval(samples: np.ndarray) -> list[float]:
    """Return both ends of the 95% interval of bootstrap samples, as JSON takes them."""
    low, high = percentile_interval(samples)
    return [float(low), float(high)]


def _scores_of(point: Point, name: str, questions: Sequence[str]) -> list[float]:
    """Return a point's scores of these questions, in their order.

    Raises:
        UserError: it has another set of questions.
    """
    values = point["per_question"][name]
    if values.keys() != set(questions):
        raise UserError(
            f"{point['label']} was measured on other questions than the base; remove its file in"
            " points/"
        )
    return [values[question] for question in questions]


def _without_questions(point: Point) -> dict[str, Any]:
    """Return a point without what makes its file long, and without where its adapter lay."""
    return {key: value for key, value in point.items() if key not in ("per_question", "adapter")}


def _differences(
    pairs: Iterable[Sequence[Point]],
    names: Sequence[str],
    questions: Sequence[str],
    resamples: np.ndarray,
) -> list[dict[str, Any]]:
    """Compare pairs of a MODPO point and a soup of the same weights."""
    rows: list[dict[str, Any]] = []
    for modpo_point, soup_point in pairs:
        rows.append(_difference(modpo_point, soup_point, names, questions, resamples))
    return rows


def _difference(
    modpo_point: Point,
    soup_point: Point,
    names: Sequence[str],
    questions: Sequence[str],
    resamples: np.ndarray,
) -> dict[str, Any]:
    """Return MODPO's score minus the soup's, of each objective and weighted, with intervals."""
    weights = modpo_point["weights"]
    assert weights == soup_point["weights"], (weights, soup_point["weights"])
    # Both models answered the same questions, so the differences of single questions are resampled:
    # hard questions are hard for both, and drop out.
    modpo_scores, soup_scores = _scores([modpo_point, soup_point], names, questions)
    differences = modpo_scores - soup_scores  # [objectives, questions]
    by_name = dict(zip(names, differences, strict=True))
    by_name["weighted"] = np.asarray(weights) @ differences
    intervals: dict[str, dict[str, Any]] = {}
    for name, values in by_name.items():
        intervals[name] = {
            "value": float(values.mean()),
            "interval": _interval(values[resamples].mean(axis=1)),
        }
    return {
        "weights": list(weights),
        "kl": {"modpo": modpo_point["kl"], "soup": soup_point["kl"]},
        "scale": {"modpo": modpo_point["scale"], "soup": soup_point["scale"]},
        "modpo - soup": intervals,
    }


def table(results: Mapping[str, Any]) -> str:
    """Lay out the points and the comparisons."""
    names = results["objectives"]
    header = f"{'':<26}" + "".join(f"{name:>14}" for name in names) + f"{'KL, nats':>10}"
    lines = ["", header, _point_line("base", results["base"], names)]
    for method, points in results["fronts"].items():
        for point in points:
            label = f"{method} {point_name(point['weights'], '/')}"
            lines.append(_point_line(label, point, names))
    lines.append("")
    for method, volume in results["hypervolume"].items():
        low, high = volume["interval"]
        lines.append(f"hypervolume, {method:<13}{volume['value']:9.4f} [{low:.4f}, {high:.4f}]")
    for kind in ("equal_weights", "matched_kl"):
        for row in results.get(kind, []):
            lines.append(_difference_line(kind.replace("_", " "), row))
    return "\n".join(lines)


def _point_line(label: str, point: Point, names: Sequence[str]) -> str:
    scores = "".join(f"{point['scores'][name]:14.3f}" for name in names)
    return f"{label:<26}{scores}{point['kl']:10.2f}"


def _difference_line(kind: str, row: Mapping[str, Any]) -> str:
    difference = row["modpo - soup"]["weighted"]
    low, high = difference["interval"]
    weights = point_name(row["weights"], "/")
    kl = row["kl"]
    return (
        f"{kind} {weights}: weighted score, modpo - soup"
        f" {difference['value']:+.3f} [{low:+.3f}, {high:+.3f}], KL {kl['modpo']:.2f} and"
        f" {kl['soup']:.2f}"
    )
