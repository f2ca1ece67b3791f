"""The figures of an evaluation, each a function from numbers to a matplotlib figure.

Figures are drawn on :class:`matplotlib.figure.Figure` objects with one fixed style and no global
state, so that equal numbers give equal bytes. The module
is apart from the report so that a notebook can draw the same figures from a results file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from jaxmodpo.pages import MARKERS, PALETTE, STYLE
from jaxmodpo.results.evaluation import PairTest
from jaxmodpo.results.judges import Estimate, Mean
from jaxmodpo.results.reward import Validation

# Orange (loss) through white to blue (win): no red against green, and readable in grey by its
# numbers.
_DIVERGING = LinearSegmentedColormap.from_list("loss_win", ["#D55E00", "#FAFAFA", "#0072B2"])

Intervals = Mapping[str, Mapping[str, Sequence[float] | None]]
Panel = tuple[Mapping[tuple[str, str], Estimate], float | None]
"""estimates by judge and criterion, and the value of no effect, if there is one"""


def win_rate_scatter(
    models: Mapping[str, Mapping[str, float]], intervals: Intervals, horizontal: str, vertical: str
) -> Figure:
    """Draw each model at its average win rates on two criteria, with interval bars (the paper's
    figure 2).

    Args:
        models: win rates in 0–1 by model and criterion.
        intervals: ``[low, high]`` in the same layout.
        horizontal: the criterion along the x axis.
        vertical: the criterion along the y axis.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 5.2), layout="constrained")
        axes = figure.add_subplot()
        points, arms = {}, []
        for n, (name, rates) in enumerate(models.items()):
            x, y = points[name] = 100 * rates[horizontal], 100 * rates[vertical]
            # Without an interval the bar has no length.
            left, right = (
                100 * limit for limit in intervals[name][horizontal] or [rates[horizontal]] * 2
            )
            low, high = (
                100 * limit for limit in intervals[name][vertical] or [rates[vertical]] * 2
            )
            arms += [((left, y), (right, y)), ((x, low), (x, high))]
            axes.errorbar(
                x,
                y,
                xerr=[[max(x - left, 0)], [max(right - x, 0)]],
                yerr=[[max(y - low, 0)], [max(high - y, 0)]],
                fmt=MARKERS[n % len(MARKERS)],
                color=PALETTE[n % len(PALETTE)],
                markersize=7,
                elinewidth=1,
                capsize=2,
            )
        axes.set(
            xlabel=f"{_title(horizontal)}: average win rate, %",
            ylabel=f"{_title(vertical)}: average win rate, %",
        )
        axes.margins(0.12)
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()  # fixes the layout, which the names' places depend on
        _label_points(axes, points, arms)
        return figure


Point = tuple[float, float]


def _label_points(
    axes: Axes, points: Mapping[str, Point], arms: Sequence[tuple[Point, Point]]
) -> None:
    """Write each point's name where it covers least of the points, interval bars and other
    names.
    """
    places = [
        (5, 5),
        (-5, 5),
        (5, -5),
        (-5, -5),
        (16, 0),
        (-16, 0),
        (5, 16),
        (-5, 16),
        (5, -16),
        (-5, -16),
    ]
    to_pixels = axes.transData.transform
    taken = [Bbox.from_bounds(x - 9, y - 9, 18, 18) for x, y in to_pixels(list(points.values()))]
    taken += [Bbox.from_extents(*to_pixels(ends).ravel()).padded(3) for ends in arms]
    inside = axes.get_window_extent()
    for name, point in points.items():
        tries = []
        for rank, (right, up) in enumerate(places):
            text = axes.annotate(
                name,
                point,
                (right, up),
                textcoords="offset points",
                ha="left" if right > 0 else "right",
                va="bottom" if up > 0 else "top" if up < 0 else "center",
                color="#1a1a1a",
                annotation_clip=False,
                in_layout=False,
            )
            box = text.get_window_extent()
            covered = sum(_shared_area(box, other) for other in taken)
            outside = box.width * box.height - _shared_area(box, inside)
            tries.append((covered + outside, rank, text, box))
        tries.sort(key=lambda entry: entry[:2])
        for _, _, text, _ in tries[1:]:
            text.remove()
        taken.append(tries[0][3])


def _shared_area(one: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(one, other)
    return shared.width * shared.height if shared is not None else 0.0


def pairwise_matrix(pairwise: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Draw the win rate of the row's model over the column's, models from best to worst, in per
    cent.

    Args:
        pairwise: win rates in 0–1, ``pairwise[row][column]``, without a diagonal.
        title: the figure's title.
    """
    names = best_first(pairwise)
    rates = [[100 * pairwise[row].get(column, np.nan) for column in names] for row in names]
    words = [["" if np.isnan(rate) else f"{rate:.0f}" for rate in row] for row in rates]
    return _matrix(names, np.array(rates), words, (0, 100), title, "win rate of row over column, %")


def significance_matrix(
    pairwise: Mapping[str, Mapping[str, float]],
    tests: Sequence[PairTest],
    title: str,
    level: float = 0.05,
) -> Figure:
    """Draw who wins significantly by McNemar's test (the paper's figure 3): ▲ row, ▼ column, =
    neither.

    Args:
        pairwise: win rates, which order the models from best to worst.
        tests: one for each pair of models.
        title: the figure's title.
        level: the significance level.
    """
    names = best_first(pairwise)
    signs = np.full((len(names), len(names)), np.nan)
    for test in tests:
        is_significant = test.decisive_p_value < level
        sign = np.sign(test.wins - test.losses) if is_significant else 0.0
        a, b = names.index(test.a), names.index(test.b)
        signs[a, b], signs[b, a] = sign, -sign
    words = [["" if np.isnan(sign) else "▼=▲"[int(sign) + 1] for sign in row] for row in signs]
    caption = f"▲ row wins, ▼ column wins, = no difference at p < {level:g}"
    return _matrix(names, 0.7 * signs, words, (-1, 1), title, caption)


def best_first(pairwise: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Order models by their mean win rate over the others, ties by name."""
    return sorted(pairwise, key=lambda name: (-float(np.mean(list(pairwise[name].values()))), name))


def _matrix(
    names: Sequence[str],
    values: np.ndarray,
    words: Sequence[Sequence[str]],
    limits: tuple[float, float],
    title: str,
    caption: str,
) -> Figure:
    """Draw a square of coloured cells with a word in each; NaN cells stay blank."""
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        side = 2.6 + 0.5 * len(names)
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(values, cmap=_DIVERGING, vmin=limits[0], vmax=limits[1])
        axes.set_facecolor("#dcdcdc")  # shows through the blank diagonal
        axes.spines[:].set_visible(False)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        edges = np.arange(1, len(names)) - 0.5
        axes.hlines(edges, -0.5, len(names) - 0.5, color="white", linewidth=1.5)
        axes.vlines(edges, -0.5, len(names) - 0.5, color="white", linewidth=1.5)
        axes.tick_params(length=0)
        axes.set_title(title)
        axes.set_xlabel(caption)
        middle, half = sum(limits) / 2, (limits[1] - limits[0]) / 2
        for row, line in enumerate(words):
            for column, word in enumerate(line):
                strong = abs(values[row, column] - middle) > 0.65 * half
                axes.text(
                    column,
                    row,
                    word,
                    ha="center",
                    va="center",
                    color="white" if strong else "#1a1a1a",
                )
        return figure


# Metric names are TRL's; the second of each pair is the held-out one.
CURVES = {
    "loss": ("loss", "eval_loss"),
    "accuracy": ("rewards/accuracies", "eval_rewards/accuracies"),
    "margin": ("rewards/margins", "eval_rewards/margins"),
}


def training_curves(metrics: Sequence[Mapping[str, Any]], title: str) -> Figure | None:
    """Draw loss, accuracy and margin against the step, on training and on held-out data.

    Args:
        metrics: the rows of a run's ``metrics.jsonl``, each with ``step`` and TRL's metric names.
        title: the figure's title.

    Returns:
        None where the rows hold none of these metrics.
    """
    series = {
        panel: {
            name: [
                (row["step"], row[name])
                for row in metrics
                if "step" in row and row.get(name) is not None
            ]
            for name in names
        }
        for panel, names in CURVES.items()
    }
    panels = [panel for panel, named in series.items() if any(named.values())]
    if not panels:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.9 * len(panels) + 0.3, 2.6), layout="constrained")
        for axes, panel in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
            for name, points in series[panel].items():
                if points:
                    held_out = name.startswith("eval_")
                    axes.plot(
                        *zip(*points, strict=True),
                        color=PALETTE[int(held_out)],
                        marker="o" if held_out else None,
                        markersize=4,
                        linewidth=1.4,
                        label="held out" if held_out else "training",
                    )
            axes.set(title=panel, xlabel="step")
            axes.legend(fontsize=8)
        figure.suptitle(title, fontsize=10)
        return figure


def reward_validation(validation: Validation, title: str) -> Figure:
    """Draw how far a reward model's probabilities can be believed, and the rewards of the best and
    worst responses.

    Args:
        validation: the model's figures.
        title: the figure's title.
    """
    bins = validation.calibration.bins
    rewards = validation.rewards
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot([0.5, 1], [0.5, 1], color="#999999", linewidth=1, linestyle="--")
        left.plot(
            [row.probability for row in bins],
            [row.agreement for row in bins],
            marker="o",
            color=PALETTE[0],
        )
        for row in bins:
            left.annotate(
                str(row.pairs),
                (row.probability, row.agreement),
                (4, -9),
                textcoords="offset points",
                fontsize=7,
            )
        left.set(
            xlabel="probability the model gives its preference",
            ylabel="agreement",
            title="Calibration; pairs",
        )
        for n, (name, summary) in enumerate((("best", rewards.best), ("worst", rewards.worst))):
            right.stairs(
                summary.histogram,
                rewards.histogram_edges,
                color=PALETTE[n],
                label=name,
                fill=True,
                alpha=0.45,
            )
        right.set(xlabel="reward", ylabel="responses", title="Rewards")
        right.legend(fontsize=8)
        figure.suptitle(title, fontsize=10)
        return figure


def forest(panels: Mapping[str, Panel]) -> Figure:
    """Draw estimates with their intervals, a row per criterion and a colour per judge or pair of
    judges.

    Args:
        panels: by title; a panel without a value is left out.
    """
    panels = {
        title: panel
        for title, panel in panels.items()
        if any(estimate.value is not None for estimate in panel[0].values())
    }
    keys = dict.fromkeys(key for series, _ in panels.values() for key in series)
    who, criteria = (list(dict.fromkeys(key[part] for key in keys)) for part in (0, 1))
    with matplotlib.rc_context(STYLE):
        height = 1.2 + len(criteria) * max(0.3, 0.16 * len(who)) + 0.2 * len(who)
        figure = Figure(figsize=(1.6 + 2.3 * max(len(panels), 1), height), layout="constrained")
        drawn = figure.subplots(1, max(len(panels), 1), sharey=True, squeeze=False)[0]
        for axes, (title, (series, mark)) in zip(drawn, panels.items(), strict=False):
            if mark is not None:
                axes.axvline(mark, color="#999999", linewidth=1, linestyle="--")
            for (name, criterion), estimate in series.items():
                n, middle = who.index(name), (len(who) - 1) / 2
                row = criteria.index(criterion) + 0.6 * (n - middle) / max(len(who), 1)
                _bar(axes, estimate, row, n)
            axes.set_title(title, fontsize=9)
            axes.margins(x=0.15)
        if panels:
            drawn[0].set_yticks(range(len(criteria)), criteria)
            drawn[0].set_ylim(len(criteria) - 0.5, -0.5)
        marks = [
            Line2D(
                [],
                [],
                color=PALETTE[n % len(PALETTE)],
                marker=MARKERS[n % len(MARKERS)],
                linestyle="",
                label=name,
            )
            for n, name in enumerate(who)
        ]
        figure.legend(handles=marks, loc="outside lower center", ncols=1, fontsize=8)
        return figure


def _bar(axes: Axes, estimate: Estimate, row: float, n: int) -> None:
    """Draw one value with its interval; nothing where it is undefined."""
    value = estimate.value
    if value is None:
        return
    low, high = estimate.interval or (value, value)
    look: dict[str, Any] = {"color": PALETTE[n % len(PALETTE)], "marker": MARKERS[n % len(MARKERS)]}
    ends = [[max(value - low, 0)], [max(high - value, 0)]]
    axes.errorbar(value, row, xerr=ends, markersize=4.5, capsize=2, elinewidth=1, **look)


def mean_ranks(series: Mapping[tuple[str, str], Sequence[Mean]]) -> Figure:
    """Draw the mean rank given to each position shown, a panel per judge and a line per criterion.

    Args:
        series: by judge and criterion, the mean rank at each position.
    """
    who, criteria = (list(dict.fromkeys(key[part] for key in series)) for part in (0, 1))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(1.2 + 3.2 * len(who), 4.4), 3.4), layout="constrained")
        drawn = figure.subplots(1, len(who), sharey=True, squeeze=False)[0]
        for (name, criterion), estimates in series.items():
            axes, n = drawn[who.index(name)], criteria.index(criterion)
            values = np.array([mean.value for mean in estimates])
            ends = np.array([mean.interval or [mean.value] * 2 for mean in estimates]).T
            places = np.arange(1, len(values) + 1) + 0.06 * (n - (len(criteria) - 1) / 2)
            axes.errorbar(
                places,
                values,
                yerr=np.maximum([values - ends[0], ends[1] - values], 0),
                color=PALETTE[n % len(PALETTE)],
                marker=MARKERS[n % len(MARKERS)],
                markersize=4,
                linewidth=1,
                capsize=2,
                label=criterion,
            )
            axes.axhline((len(values) + 1) / 2, color="#999999", linewidth=1, linestyle="--")
            axes.set_xticks(range(1, len(values) + 1))
            axes.set(title=name, xlabel="position shown")
        drawn[0].set_ylabel("mean rank, 1 is best")
        drawn[0].invert_yaxis()
        drawn[-1].legend(fontsize=7)
        return figure


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
