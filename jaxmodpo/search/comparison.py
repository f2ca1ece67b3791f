"""What a sweep's measurements say: the fronts' hypervolumes, MODPO against soups, and a table of
both.

Pure functions of the measured points, so that the figures of a sweep can be computed again from its
files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.fronts import by_weights, hypervolume, undominated
from jaxmodpo.results.sweep import (
    MODPO_MINUS_SOUP,
    Comparison,
    Hypervolume,
    Measured,
    Model,
    Point,
    ScoreDifference,
    Sweep,
)
from jaxmodpo.search.sweep_settings import point_name
from jaxmodpo.statistics.bootstrap import resampled_questions
from jaxmodpo.statistics.intervals import percentile_interval

HYPERVOLUME_RESAMPLES = 500


def compare(
    names: Sequence[str],
    base: Measured,
    fronts: Mapping[str, Sequence[Measured]],
    matched: Sequence[tuple[Measured, Measured]] = (),
) -> Sweep:
    """Return a sweep's figures; intervals are 95% bootstrap intervals over questions.

    The reference point of the hypervolumes is the lowest score of each objective over all points
    and the base.

    Args:
        names: of the objectives.
        base: the base's measurements.
        fronts: measurements of each method's points.
        matched: points of MODPO and of the soups, brought to the same divergence.
    """
    questions = list(base.per_question[names[0]])
    scores: dict[str, np.ndarray] = {}
    means: dict[str, np.ndarray] = {}
    for method, points in fronts.items():
        scores[method] = _scores(points, names, questions)
        means[method] = scores[method].mean(axis=-1)
    base_means = _scores([base], names, questions).mean(axis=-1)
    # One reference for all methods, since a volume above another corner is another quantity.
    reference = np.concatenate([*means.values(), base_means]).min(axis=0)
    # The same draws for every method, so that differences between them are paired.
    resamples = resampled_questions(len(questions))
    volume_samples: dict[str, np.ndarray] = {}
    volumes: dict[str, Hypervolume] = {}
    for method, front in scores.items():
        volume_samples[method] = _hypervolume_samples(front, reference, resamples)
        volumes[method] = Hypervolume(
            value=hypervolume(means[method], reference),
            interval=_interval(volume_samples[method]),
            undominated=int(undominated(means[method]).sum()),
        )
    equal_weights: tuple[Comparison, ...] | None = None
    matched_kl: tuple[Comparison, ...] | None = None
    if set(fronts) == {"modpo", "soup"}:
        volumes[MODPO_MINUS_SOUP] = Hypervolume(
            value=volumes["modpo"].value - volumes["soup"].value,
            interval=_interval(volume_samples["modpo"] - volume_samples["soup"]),
        )
        pairs = by_weights([fronts["modpo"], fronts["soup"]])
        equal_weights = _compare_pairs(pairs, names, questions, resamples)
        matched_kl = _compare_pairs(matched, names, questions, resamples)
    # Without the scores of single questions, which stay in the files of the points.
    short_fronts: dict[str, tuple[Point, ...]] = {}
    for method, points in fronts.items():
        short_fronts[method] = tuple(point.as_point() for point in points)
    return Sweep(
        objectives=tuple(names),
        base=base.as_model(),
        fronts=short_fronts,
        reference_point=dict(zip(names, reference.tolist(), strict=True)),
        hypervolume=volumes,
        equal_weights=equal_weights,
        matched_kl=matched_kl,
    )


def _hypervolume_samples(
    front: np.ndarray, reference: np.ndarray, resamples: np.ndarray
) -> np.ndarray:
    """Return a front's hypervolume in each resample of the questions."""
    # A hypervolume takes longer than a mean, so it makes do with fewer draws.
    few_resamples = resamples[:HYPERVOLUME_RESAMPLES]
    samples: list[float] = []
    for question_numbers in few_resamples:
        means = front[:, :, question_numbers].mean(axis=-1)  # [points, objectives]
        samples.append(hypervolume(means, reference))
    return np.array(samples)


def _scores(
    points: Sequence[Measured], names: Sequence[str], questions: Sequence[str]
) -> np.ndarray:
    """Return the points' scores: ``[points, objectives, questions]``."""
    by_point: list[list[list[float]]] = []
    for point in points:
        by_point.append([_scores_of(point, name, questions) for name in names])
    return np.array(by_point)


def _interval(samples: np.ndarray) -> tuple[float, float]:
    """Return both ends of the 95% interval of bootstrap samples, as JSON takes them."""
    low, high = percentile_interval(samples)
    return float(low), float(high)


def _scores_of(point: Measured, name: str, questions: Sequence[str]) -> list[float]:
    """Return a point's scores of these questions, in their order.

    Raises:
        UserError: it has another set of questions.
    """
    values = point.per_question[name]
    if values.keys() != set(questions):
        raise UserError(
            f"{point.label} was measured on other questions than the base; remove its file in"
            " points/"
        )
    return [values[question] for question in questions]


def _compare_pairs(
    pairs: Iterable[Sequence[Measured]],
    names: Sequence[str],
    questions: Sequence[str],
    resamples: np.ndarray,
) -> tuple[Comparison, ...]:
    """Compare pairs of a MODPO point and a soup of the same weights."""
    rows: list[Comparison] = []
    for modpo_point, soup_point in pairs:
        rows.append(_compare_pair(modpo_point, soup_point, names, questions, resamples))
    return tuple(rows)


def _compare_pair(
    modpo_point: Measured,
    soup_point: Measured,
    names: Sequence[str],
    questions: Sequence[str],
    resamples: np.ndarray,
) -> Comparison:
    """Return MODPO's score minus the soup's, of each objective and weighted, with intervals."""
    weights = modpo_point.weights
    assert weights is not None and weights == soup_point.weights, (weights, soup_point.weights)
    # Both models answered the same questions, so the differences of single questions are resampled:
    # hard questions are hard for both, and drop out.
    modpo_scores, soup_scores = _scores([modpo_point, soup_point], names, questions)
    score_differences = modpo_scores - soup_scores  # [objectives, questions]
    by_name = dict(zip(names, score_differences, strict=True))
    by_name["weighted"] = np.asarray(weights) @ score_differences
    differences: dict[str, ScoreDifference] = {}
    for name, values in by_name.items():
        samples = values[resamples].mean(axis=1)
        differences[name] = ScoreDifference(
            value=float(values.mean()),
            interval=_interval(samples),
        )
    return Comparison(
        weights=weights,
        kl={"modpo": modpo_point.kl, "soup": soup_point.kl},
        scale={"modpo": modpo_point.scale, "soup": soup_point.scale},
        differences=differences,
    )


# --------------------------------------------------------------------------- the table


def sweep_table(results: Sweep) -> str:
    """Lay out the points and the comparisons."""
    names = results.objectives
    name_cells = "".join(f"{name:>14}" for name in names)
    header = f"{'':<26}{name_cells}{'KL, nats':>10}"
    lines = ["", header, _point_line("base", results.base, names)]
    for method, points in results.fronts.items():
        for point in points:
            label = f"{method} {point_name(point.weights, '/')}"
            lines.append(_point_line(label, point, names))
    lines.append("")
    for method, volume in results.hypervolume.items():
        low, high = volume.interval
        lines.append(f"hypervolume, {method:<13}{volume.value:9.4f} [{low:.4f}, {high:.4f}]")
    for row in results.equal_weights or ():
        lines.append(_comparison_line("equal weights", row))
    for row in results.matched_kl or ():
        lines.append(_comparison_line("matched kl", row))
    return "\n".join(lines)


def _point_line(label: str, point: Model, names: Sequence[str]) -> str:
    scores = "".join(f"{point.scores[name]:14.3f}" for name in names)
    return f"{label:<26}{scores}{point.kl:10.2f}"


def _comparison_line(kind: str, row: Comparison) -> str:
    weighted = row.differences["weighted"]
    low, high = weighted.interval
    return (
        f"{kind} {point_name(row.weights, '/')}: weighted score, modpo - soup"
        f" {weighted.value:+.3f} [{low:+.3f}, {high:+.3f}], KL {row.kl['modpo']:.2f} and"
        f" {row.kl['soup']:.2f}"
    )
