"""The table and the figure of ``sandbox fronts``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmodpo.evaluation.fronts import by_weights
from jaxmodpo.pages import MARKERS, PALETTE, STYLE

LABELS = {"modpo": "MODPO", "soup": "soups"}
ARMS = {"best_worst": "best-worst pairs", "all_pairs": "all pairs"}
KINDS = {"fronts": "equal weights", "matched_fronts": "matched KL"}

Estimate = Mapping[str, Any]
"""a mean over seeds and its interval, which one seed does not give"""


def table(results: Mapping[str, Any]) -> str:
    """Lay out hypervolumes and the differences at each weight, as Markdown."""
    lines: list[str] = []
    for arm, arm_results in results["arms"].items():
        lines += _arm_lines(ARMS[arm], arm_results)
    return "\n".join([*lines, *_between_lines(results)])


def _arm_lines(label: str, arm: Mapping[str, Any]) -> list[str]:
    """Return an arm's hypervolumes, and a row for each weight."""
    volume = arm["hypervolume"]
    difference = volume["modpo - soup"]
    lines = [
        "",
        f"{label}, {arm['seeds']} seeds: hypervolume MODPO {volume['modpo']['mean']:.4f}, soups"
        f" {volume['soup']['mean']:.4f}, difference {_estimate(difference, 4)}; MODPO above on"
        f" {difference['seeds_above']} seeds",
        "",
        "| weights | MODPO - soup, weighted score | KL, nats | at matched KL | KL, nats |",
        "|---|---|---|---|---|",
    ]
    for equal, matched in by_weights([arm["equal_weights"], arm["matched_kl"]]):
        cells = [_weights(equal)]
        for row in (equal, matched):
            divergence = row["kl"]
            cells.append(_estimate(row["weighted"], 3))
            cells.append(f"{divergence['modpo']['mean']:.2f} and {divergence['soup']['mean']:.2f}")
        lines.append(_markdown_row(cells))
    return lines


def _between_lines(results: Mapping[str, Any]) -> list[str]:
    """Return MODPO of the second arm against both methods of the first."""
    first, second = results["arms"]
    rows = results["arms"][second]["equal_weights"]
    heads = [f"MODPO from {ARMS[second]}", "hypervolume", *map(_weights, rows)]
    lines = ["", _markdown_row(heads), "|---" * len(heads) + "|"]
    for method, differences in results["between"].items():
        cells = [f"- {LABELS[method]} from {ARMS[first]}"]
        cells.append(_estimate(differences["hypervolume"], 4))
        cells += [_estimate(difference, 3) for difference in differences["weighted"]]
        lines.append(_markdown_row(cells))
    return lines


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _weights(row: Mapping[str, Any]) -> str:
    """Return the weights of a row as they stand in the table: ``0.7/0.3``."""
    return "/".join(f"{weight:.1f}" for weight in row["weights"])


def _estimate(estimate: Estimate, digits: int) -> str:
    """Return a mean with its sign, and its interval where there is one."""
    mean = f"{estimate['mean']:+.{digits}f}"
    if estimate["interval"] is None:
        return mean
    low, high = estimate["interval"]
    return f"{mean} ({low:+.{digits}f} to {high:+.{digits}f})"


def figure(results: Mapping[str, Any]) -> Figure:
    """Draw the mean fronts of both arms with intervals over seeds: above at equal weights, below at
    matched KL.
    """
    arms = results["arms"]
    with matplotlib.rc_context(STYLE):
        page = Figure(figsize=(9.6, 8.4), layout="constrained")
        grid = page.subplots(2, len(arms), sharex=True, sharey=True)
        for row, (kind, title) in zip(grid, KINDS.items(), strict=True):
            for axes, (arm, arm_results) in zip(row, arms.items(), strict=True):
                _draw_fronts(axes, arm_results, kind)
                axes.set_title(f"{ARMS[arm]}, {title}")
        return page


def _draw_fronts(axes: Axes, arm: Mapping[str, Any], kind: str) -> None:
    """Draw both methods' fronts of an arm, and its base model."""
    x, y = arm["objectives"]
    for number, (method, points) in enumerate(arm[kind].items()):
        scores = [point["scores"] for point in points]
        x_means = [score[x]["mean"] for score in scores]
        y_means = [score[y]["mean"] for score in scores]
        axes.errorbar(
            x_means,
            y_means,
            xerr=[_half_width(score[x]) for score in scores],
            yerr=[_half_width(score[y]) for score in scores],
            label=LABELS[method],
            marker=MARKERS[number],
            color=PALETTE[number],
            markersize=5,
            linewidth=1.2,
            elinewidth=0.6,
        )
        for point, position in zip(points, zip(x_means, y_means, strict=True), strict=True):
            first_weight = f"{point['weights'][0]:.1f}"
            axes.annotate(first_weight, position, (4, 4), textcoords="offset points", fontsize=6)
    axes.plot(arm["base"][x]["mean"], arm["base"][y]["mean"], "kx", label="base")
    axes.set(xlabel=f"true {x}", ylabel=f"true {y}")
    axes.legend(fontsize=7)


def _half_width(estimate: Estimate) -> float:
    """Return half an interval's width; 0 where one seed gives none."""
    if estimate["interval"] is None:
        return 0.0
    return estimate["interval"][1] - estimate["mean"]
