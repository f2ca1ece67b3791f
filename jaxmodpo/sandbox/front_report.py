"""The table and the figure of ``sandbox fronts``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmodpo.evaluation.fronts import by_weights
from jaxmodpo.pages import MARKERS, PALETTE, drawing
from jaxmodpo.results.fronts import Arm, Fronts, MeanComparison, MeanPoint, SeedMean
from jaxmodpo.results.sweep import Method

LABELS: Mapping[Method, str] = {"modpo": "MODPO", "soup": "soups"}
ARMS = {"best_worst": "best-worst pairs", "all_pairs": "all pairs"}


# --------------------------------------------------------------------------- the table


def fronts_table(results: Fronts) -> str:
    """Lay out hypervolumes and the differences at each weight, as Markdown."""
    lines: list[str] = []
    for name, arm in results.arms.items():
        lines += _arm_lines(ARMS[name], arm)
    return "\n".join([*lines, *_between_lines(results)])


def _arm_lines(label: str, arm: Arm) -> list[str]:
    """Return an arm's hypervolumes, and a row for each weight."""
    volume = arm.hypervolume
    lines = [
        "",
        f"{label}, {arm.seeds} seeds: hypervolume MODPO {volume.modpo.mean:.4f}, soups"
        f" {volume.soup.mean:.4f}, difference {_estimate(volume.difference, 4)}; MODPO above on"
        f" {volume.difference.seeds_above} seeds",
        "",
        "| weights | MODPO - soup, weighted score | KL, nats | at matched KL | KL, nats |",
        "|---|---|---|---|---|",
    ]
    for equal, matched in by_weights([arm.equal_weights, arm.matched_kl]):
        cells = [_weights(equal)]
        for row in (equal, matched):
            cells.append(_estimate(row.differences["weighted"], 3))
            modpo = row.kl["modpo"].mean
            soup = row.kl["soup"].mean
            cells.append(f"{modpo:.2f} and {soup:.2f}")
        lines.append(_markdown_row(cells))
    return lines


def _between_lines(results: Fronts) -> list[str]:
    """Return MODPO of the second arm against both methods of the first."""
    # What the second way of making pairs buys: against MODPO from the first pairs, and against what
    # one could have had from those without MODPO.
    first, second = results.arms
    rows = results.arms[second].equal_weights
    heads = [f"MODPO from {ARMS[second]}", "hypervolume", *map(_weights, rows)]
    lines = ["", _markdown_row(heads), "|---" * len(heads) + "|"]
    for method, advantage in results.between.items():
        cells = [f"- {LABELS[method]} from {ARMS[first]}"]
        cells.append(_estimate(advantage.hypervolume, 4))
        cells += [_estimate(difference, 3) for difference in advantage.weighted]
        lines.append(_markdown_row(cells))
    return lines


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _weights(row: MeanComparison) -> str:
    """Return the weights of a row as they stand in the table: ``0.7/0.3``."""
    return "/".join(f"{weight:.1f}" for weight in row.weights)


def _estimate(estimate: SeedMean, digits: int) -> str:
    """Return a mean with its sign, and its interval where there is one."""
    mean = f"{estimate.mean:+.{digits}f}"
    if estimate.interval is None:
        return mean
    low, high = estimate.interval
    return f"{mean} ({low:+.{digits}f} to {high:+.{digits}f})"


# --------------------------------------------------------------------------- the figure


def figure(results: Fronts) -> Figure:
    """Draw the mean fronts of both arms with intervals over seeds: above at equal weights, below at
    matched KL.
    """
    with drawing(9.6, 8.4) as page:
        # One scale for all panels: what differs between them is what the figure is about.
        grid = page.subplots(2, len(results.arms), sharex=True, sharey=True)
        for column, (name, arm) in enumerate(results.arms.items()):
            panels = (("equal weights", arm.fronts), ("matched KL", arm.matched_fronts))
            for row, (title, fronts) in enumerate(panels):
                _draw_fronts(grid[row, column], arm, fronts)
                grid[row, column].set_title(f"{ARMS[name]}, {title}")
        return page


def _draw_fronts(axes: Axes, arm: Arm, fronts: Mapping[Method, Sequence[MeanPoint]]) -> None:
    """Draw both methods' fronts of an arm, and its base model."""
    x, y = arm.objectives
    for number, (method, points) in enumerate(fronts.items()):
        x_means = [point.scores[x].mean for point in points]
        y_means = [point.scores[y].mean for point in points]
        axes.errorbar(
            x_means,
            y_means,
            xerr=[_half_width(point.scores[x]) for point in points],
            yerr=[_half_width(point.scores[y]) for point in points],
            label=LABELS[method],
            marker=MARKERS[number],
            color=PALETTE[number],
            markersize=5,
            linewidth=1.2,
            elinewidth=0.6,
        )
        # Only the first weight: of two objectives it says the other one too.
        for point, x_mean, y_mean in zip(points, x_means, y_means, strict=True):
            position = (x_mean, y_mean)
            first_weight = f"{point.weights[0]:.1f}"
            axes.annotate(first_weight, position, (4, 4), textcoords="offset points", fontsize=6)
    axes.plot(arm.base[x].mean, arm.base[y].mean, "kx", label="base")
    axes.set(xlabel=f"true {x}", ylabel=f"true {y}")
    axes.legend(fontsize=7)


def _half_width(estimate: SeedMean) -> float:
    """Return half an interval's width; 0 where one seed gives none."""
    if estimate.interval is None:
        return 0.0
    _, high = estimate.interval
    return high - estimate.mean
