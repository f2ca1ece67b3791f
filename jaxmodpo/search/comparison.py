"""What a sweep's measurements say: the fronts' hypervolumes, MODPO against soups, and a table of
both.

Pure functions of the measured points, so that the figures of a sweep can be computed again from its
files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.fronts import by_weights, hypervolume, undominated
from jaxmodpo.intervals import percentile_interval, resampled_questions
from jaxmodpo.search.sweep_settings import point_name


def compare(
    names: Sequence[str],
    base: Mapping[str, Any],
    fronts: Mapping[str, Sequence[Mapping[str, Any]]],
    matched: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (),
) -> dict[str, Any]:
    """Return a sweep's figures; intervals are 95% bootstrap intervals over questions.

    The reference point of the hypervolumes is the lowest score of each objective over all points
    and the base.
    """
    questions = list(base["per_question"][names[0]])

    def arrays(points: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """``[points, objectives, questions]``."""
        return np.array(
            [[_scores_of(point, name, questions) for name in names] for point in points]
        )

    values = {method: arrays(points) for method, points in fronts.items()}
    means = {method: front.mean(-1) for method, front in values.items()}
    reference = np.concatenate([*means.values(), arrays([base]).mean(-1)]).min(0)
    drawn = resampled_questions(len(questions))
    volumes: dict[str, np.ndarray] = {}
    for method, front in values.items():
        # A hypervolume takes longer than a mean, so it makes do with fewer draws.
        samples = [hypervolume(front[:, :, rows].mean(-1), reference) for rows in drawn[:500]]
        volumes[method] = np.array(samples)
    results: dict[str, Any] = {
        "objectives": list(names),
        "base": _without_questions(base),
        "fronts": {
            method: [_without_questions(point) for point in points]
            for method, points in fronts.items()
        },
        "reference_point": dict(zip(names, reference.tolist(), strict=True)),
        "hypervolume": {
            method: {
                "value": hypervolume(points, reference),
                "interval": _interval(volumes[method]),
                "undominated": int(undominated(points).sum()),
            }
            for method, points in means.items()
        },
    }
    if set(values) == {"modpo", "soup"}:
        difference = volumes["modpo"] - volumes["soup"]
        results["hypervolume"]["modpo - soup"] = {
            "value": (
                results["hypervolume"]["modpo"]["value"] - results["hypervolume"]["soup"]["value"]
            ),
            "interval": _interval(difference),
        }
        results["equal_weights"] = [
            _difference(one, other, names, questions, drawn)
            for one, other in by_weights([fronts["modpo"], fronts["soup"]])
        ]
        results["matched_kl"] = [
            _difference(one, other, names, questions, drawn) for one, other in matched
        ]
    return results


def _interval(samples: np.ndarray) -> list[float]:
    """Return both ends of the 95% interval of bootstrap samples, as JSON takes them."""
    low, high = percentile_interval(samples)
    return [float(low), float(high)]


def _scores_of(point: Mapping[str, Any], name: str, questions: Sequence[str]) -> list[float]:
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


def _without_questions(point: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in point.items() if key not in ("per_question", "adapter")}


def _difference(
    modpo_point: Mapping[str, Any],
    soup_point: Mapping[str, Any],
    names: Sequence[str],
    questions: Sequence[str],
    drawn: np.ndarray,
) -> dict[str, Any]:
    """Return MODPO's score minus the soup's, of each objective and weighted, with intervals."""
    weights = modpo_point["weights"]
    assert weights == soup_point["weights"], (weights, soup_point["weights"])
    modpo_scores = np.array([_scores_of(modpo_point, name, questions) for name in names])
    soup_scores = np.array([_scores_of(soup_point, name, questions) for name in names])
    differences = modpo_scores - soup_scores  # [objectives, questions]
    rows = dict(zip(names, differences, strict=True)) | {
        "weighted": np.asarray(weights) @ differences
    }
    return {
        "weights": list(weights),
        "kl": {"modpo": modpo_point["kl"], "soup": soup_point["kl"]},
        "scale": {"modpo": modpo_point["scale"], "soup": soup_point["scale"]},
        "modpo - soup": {
            name: {"value": float(values.mean()), "interval": _interval(values[drawn].mean(1))}
            for name, values in rows.items()
        },
    }


def table(results: Mapping[str, Any]) -> str:
    """Lay out the points and the comparisons."""
    names = results["objectives"]
    lines = ["", f"{'':<26}" + "".join(f"{name:>14}" for name in names) + f"{'KL, nats':>10}"]
    rows = [("base", results["base"])]
    for method, points in results["fronts"].items():
        rows += [(f"{method} " + point_name(point["weights"], "/"), point) for point in points]
    for label, point in rows:
        lines.append(
            f"{label:<26}"
            + "".join(f"{point['scores'][n]:14.3f}" for n in names)
            + f"{point['kl']:10.2f}"
        )
    lines.append("")
    for method, volume in results["hypervolume"].items():
        low, high = volume["interval"]
        lines.append(f"hypervolume, {method:<13}{volume['value']:9.4f} [{low:.4f}, {high:.4f}]")
    for kind in ("equal_weights", "matched_kl"):
        for row in results.get(kind, []):
            difference = row["modpo - soup"]["weighted"]
            low, high = difference["interval"]
            weights = point_name(row["weights"], "/")
            kl = row["kl"]
            lines.append(
                f"{kind.replace('_', ' ')} {weights}: weighted score, modpo - soup"
                f" {difference['value']:+.3f} [{low:+.3f}, {high:+.3f}], KL {kl['modpo']:.2f} and"
                f" {kl['soup']:.2f}"
            )
    return "\n".join(lines)
