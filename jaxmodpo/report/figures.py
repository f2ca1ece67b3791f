"""The figures of an evaluation, each a function from numbers to a matplotlib figure.

Figures are drawn on :class:`matplotlib.figure.Figure` objects with one fixed style and no global
state, so that equal numbers give equal bytes. They are apart from the report so that a notebook can
draw the same figures from a results file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from jaxmodpo.pages import MARKERS, PALETTE, drawing
from jaxmodpo.results.evaluation import PairTest

# Orange (loss) through white to blue (win): no red against green, and readable in gray by its
# numbers.
_DIVERGING = LinearSegmentedColormap.from_list("loss_win", ["#D55E00", "#FAFAFA", "#0072B2"])

_INK = "#1a1a1a"

Intervals = Mapping[str, Mapping[str, Sequence[float] | None]]
Point = tuple[float, float]
Segment = tuple[Point, Point]


# --------------------------------------------------------------------------- win rates


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
    with drawing(6.0, 5.2) as figure:
        axes = figure.add_subplot()
        points: dict[str, Point] = {}
        bars: list[Segment] = []
        for number, (name, rates) in enumerate(models.items()):
            x = 100 * rates[horizontal]
            y = 100 * rates[vertical]
            bar_left, bar_right = _bar_ends(rates[horizontal], intervals[name][horizontal])
            bar_low, bar_high = _bar_ends(rates[vertical], intervals[name][vertical])
            points[name] = (x, y)
            bars += [((bar_left, y), (bar_right, y)), ((x, bar_low), (x, bar_high))]
            axes.errorbar(
                x,
                y,
                # A value may lie outside its interval by a rounding; matplotlib refuses negative
                # lengths.
                xerr=[[max(x - bar_left, 0)], [max(bar_right - x, 0)]],
                yerr=[[max(y - bar_low, 0)], [max(bar_high - y, 0)]],
                fmt=MARKERS[number % len(MARKERS)],
                color=PALETTE[number % len(PALETTE)],
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
        # Fixes the layout, and with it how many pixels a per cent has, which the names' places
        # depend on.
        figure.draw_without_rendering()
        _label_points(axes, points, bars)
        return figure


def _bar_ends(rate: float, interval: Sequence[float] | None) -> tuple[float, float]:
    """Return both ends of an interval in per cent; without one the bar has no length."""
    if interval is None:
        return 100 * rate, 100 * rate
    low, high = interval
    return 100 * low, 100 * high


# Where a name may stand, in points from its model: the corners first, then further away.
_OFFSETS = (
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
)


class _Attempt(NamedTuple):
    """A name written somewhere, and how many square pixels it covers that it should not."""

    cost: float
    text: Annotation
    box: Bbox


def _label_points(axes: Axes, points: Mapping[str, Point], bars: Sequence[Segment]) -> None:
    """Write each point's name where it covers least of the points, interval bars and other
    names.
    """
    to_pixels = axes.transData.transform
    occupied: list[Bbox] = []
    for x, y in to_pixels(list(points.values())):
        occupied.append(Bbox.from_bounds(x - 9, y - 9, 18, 18))
    for ends in bars:
        bar = Bbox.from_extents(*to_pixels(ends).ravel())
        occupied.append(bar.padded(3))
    # One name after the other, each around those before it: not the best that could be, but close,
    # and the same each time.
    for name, point in points.items():
        attempts = [_attempt(axes, name, point, offset, occupied) for offset in _OFFSETS]
        # Of equal costs the first offset, which is nearest to the point.
        best = min(attempts, key=lambda attempt: attempt.cost)
        for attempt in attempts:
            if attempt is not best:
                attempt.text.remove()
        occupied.append(best.box)


def _attempt(
    axes: Axes, name: str, point: Point, offset: tuple[int, int], occupied: Sequence[Bbox]
) -> _Attempt:
    """Write a name at an offset from its point; return what that costs."""
    right, up = offset
    vertical = "center"
    if up:
        vertical = "bottom" if up > 0 else "top"
    text = axes.annotate(
        name,
        point,
        offset,
        textcoords="offset points",
        ha="left" if right > 0 else "right",
        va=vertical,
        color=_INK,
        annotation_clip=False,
        in_layout=False,
    )
    box = text.get_window_extent()
    covered = sum(_shared_area(box, obstacle) for obstacle in occupied)
    outside = box.width * box.height - _shared_area(box, axes.get_window_extent())
    return _Attempt(covered + outside, text, box)


def _shared_area(box: Bbox, other_box: Bbox) -> float:
    shared = Bbox.intersection(box, other_box)
    return shared.width * shared.height if shared is not None else 0.0


# --------------------------------------------------------------------------- pair by pair


def pairwise_matrix(pairwise: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Draw the win rate of the row's model over the column's, models from best to worst, in per
    cent.

    Args:
        pairwise: win rates in 0–1, ``pairwise[row][column]``, without a diagonal.
        title: the figure's title.
    """
    names = best_first(pairwise)
    values = np.full((len(names), len(names)), np.nan)
    words: list[list[str]] = []
    for number, row in enumerate(names):
        words.append([""] * len(names))
        for other_number, column in enumerate(names):
            if column in pairwise[row]:
                rate = 100 * pairwise[row][column]
                values[number, other_number] = rate
                words[number][other_number] = f"{rate:.0f}"
    return _matrix(names, values, words, (0, 100), title, "win rate of row over column, %")


def significance_matrix(
    pairwise: Mapping[str, Mapping[str, float]],
    tests: Sequence[PairTest],
    title: str,
    level: float = 0.05,
) -> Figure:
    """Draw who wins significantly by McNemar's test (the paper's figure 3): ▲ row, ▼ column, =
    neither.

    A hollow △ or ▽ is a difference that only the raw p value calls significant, and not the one
    that is adjusted for the number of pairs.

    Args:
        pairwise: win rates, which order the models from best to worst.
        tests: one for each pair of models.
        title: the figure's title.
        level: the significance level.
    """
    names = best_first(pairwise)
    signs = np.full((len(names), len(names)), np.nan)
    for test in tests:
        sign = _significance(test, level) * np.sign(test.wins - test.losses)
        a = names.index(test.a)
        b = names.index(test.b)
        signs[a, b] = sign
        signs[b, a] = -sign
    words: list[list[str]] = []
    for row in signs:
        words.append(["" if np.isnan(sign) else _SIGNS[sign] for sign in row])
    caption = (
        f"▲ row wins, ▼ column wins at p < {level:g}, adjusted by Holm;\n△ ▽ by the raw p alone,"
        " = no difference"
    )
    # Short of the colors' ends, so that the words on them stay legible.
    return _matrix(names, 0.7 * signs, words, (-1, 1), title, caption)


_SIGNS = {-1.0: "▼", -0.5: "▽", 0.0: "=", 0.5: "△", 1.0: "▲"}


def _significance(test: PairTest, level: float) -> float:
    """Return 1 for a difference that stands after the adjustment, 0.5 for one before it, else 0."""
    if test.p_value_holm < level:
        return 1.0
    return 0.5 if test.decisive_p_value < level else 0.0


def best_first(pairwise: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Order models by their mean win rate over the others, ties by name."""
    mean_rates: dict[str, float] = {}
    for name, rates in pairwise.items():
        mean_rates[name] = float(np.mean(list(rates.values())))
    return sorted(pairwise, key=lambda name: (-mean_rates[name], name))


def _matrix(
    names: Sequence[str],
    values: np.ndarray,
    words: Sequence[Sequence[str]],
    limits: tuple[float, float],
    title: str,
    caption: str,
) -> Figure:
    """Draw a square of colored cells with a word in each; NaN cells stay blank."""
    low, high = limits
    side = 2.6 + 0.5 * len(names)
    with drawing(side, side, grid=False) as figure:
        axes = figure.add_subplot()
        # Cells and not an image, so that the SVG holds no pixels.
        axes.pcolormesh(np.ma.masked_invalid(values), cmap=_DIVERGING, vmin=low, vmax=high)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.set_facecolor("#dcdcdc")  # shows through the blank diagonal
        axes.spines[:].set_visible(False)
        middles = np.arange(len(names)) + 0.5
        axes.set_xticks(middles, names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(middles, names)
        edges = np.arange(1, len(names))
        axes.hlines(edges, 0, len(names), color="white", linewidth=1.5)
        axes.vlines(edges, 0, len(names), color="white", linewidth=1.5)
        axes.tick_params(length=0)
        axes.set_title(title)
        axes.set_xlabel(caption)
        # Where a cell's color is strong, dark letters would drown in it.
        strong = 0.65 * (high - low) / 2
        for cell, value in np.ndenumerate(values):
            row, column = (int(index) for index in cell)
            is_strong = abs(value - (low + high) / 2) > strong
            axes.text(
                column + 0.5,
                row + 0.5,
                words[row][column],
                ha="center",
                va="center",
                color="white" if is_strong else _INK,
            )
        return figure


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
