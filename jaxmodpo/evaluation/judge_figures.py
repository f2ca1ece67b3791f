"""The figures of judges: estimates with their intervals, and ranks by the position shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxmodpo.pages import Look, drawing, look_of
from jaxmodpo.results.judges import Estimate, Mean

JudgeAndCriterion = tuple[str, str]

Panel = tuple[Mapping[JudgeAndCriterion, Estimate], float | None]
"""estimates by judge and criterion, and the value of no effect, if there is one"""


def forest(panels: Mapping[str, Panel]) -> Figure:
    """Draw estimates with their intervals, a row per criterion and a color per judge or pair of
    judges.

    Args:
        panels: by title; a panel without a value is left out.
    """
    panels = {title: panel for title, panel in panels.items() if _has_value(panel)}
    keys: dict[JudgeAndCriterion, None] = {}
    for estimates, _ in panels.values():
        keys.update(dict.fromkeys(estimates))
    judges, criteria = _judges_and_criteria(keys)
    # In inches: each criterion's row, as high as its judges need, and each judge's line in the
    # legend below.
    rows_height = len(criteria) * max(0.3, 0.16 * len(judges))
    legend_height = 0.2 * len(judges)
    height = 1.2 + rows_height + legend_height
    columns = max(len(panels), 1)
    width = 1.6 + 2.3 * columns
    with drawing(width, height) as figure:
        every_axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
        for axes, (title, panel) in zip(every_axes, panels.items(), strict=False):
            _draw_panel(axes, panel, judges, criteria)
            axes.set_title(title, fontsize=9)
            axes.margins(x=0.15)
        if panels:
            every_axes[0].set_yticks(range(len(criteria)), criteria)
            # From top to bottom, as a table.
            every_axes[0].set_ylim(len(criteria) - 0.5, -0.5)
        marks: list[Line2D] = []
        for number, name in enumerate(judges):
            marks.append(Line2D([], [], linestyle="", label=name, **look_of(number)))
        figure.legend(handles=marks, loc="outside lower center", ncols=1, fontsize=8)
        return figure


def _has_value(panel: Panel) -> bool:
    estimates, _ = panel
    return any(estimate.value is not None for estimate in estimates.values())


def _judges_and_criteria(keys: Collection[JudgeAndCriterion]) -> tuple[list[str], list[str]]:
    """Return the judges and the criteria, each once, in their order."""
    judges = dict.fromkeys(judge for judge, _ in keys)
    criteria = dict.fromkeys(criterion for _, criterion in keys)
    return list(judges), list(criteria)


def _draw_panel(axes: Axes, panel: Panel, judges: Sequence[str], criteria: Sequence[str]) -> None:
    """Draw one kind of estimate: a row per criterion, within it one below the other by judge."""
    estimates, no_effect = panel
    if no_effect is not None:
        axes.axvline(no_effect, color="#999999", linewidth=1, linestyle="--")
    middle = (len(judges) - 1) / 2
    for (judge, criterion), estimate in estimates.items():
        number = judges.index(judge)
        # The judges share 0.6 of a row, which leaves a gap between one criterion and the next.
        shift = 0.6 * (number - middle) / max(len(judges), 1)
        row = criteria.index(criterion) + shift
        _draw_estimate(axes, estimate, row, number)


def _draw_estimate(axes: Axes, estimate: Estimate, row: float, number: int) -> None:
    """Draw one value with its interval; nothing where it is undefined."""
    value = estimate.value
    if value is None:
        return
    low, high = estimate.interval or (value, value)
    # Rounding may put a value just outside of its interval, and matplotlib takes no negative bar.
    below = max(value - low, 0)
    above = max(high - value, 0)
    ends = [[below], [above]]
    axes.errorbar(value, row, xerr=ends, markersize=4.5, capsize=2, elinewidth=1, **look_of(number))


def mean_ranks(series: Mapping[JudgeAndCriterion, Sequence[Mean]]) -> Figure:
    """Draw the mean rank given to each position shown, a panel per judge and a line per criterion.

    Args:
        series: by judge and criterion, the mean rank at each position.
    """
    judges, criteria = _judges_and_criteria(series)
    width = max(1.2 + 3.2 * len(judges), 4.4)
    with drawing(width, 3.4) as figure:
        every_axes = figure.subplots(1, len(judges), sharey=True, squeeze=False)[0]
        for (judge, criterion), means in series.items():
            axes = every_axes[judges.index(judge)]
            number = criteria.index(criterion)
            # Beside each other, so that the intervals of several criteria can be told apart.
            shift = 0.06 * (number - (len(criteria) - 1) / 2)
            _draw_ranks(axes, means, shift, look_of(number), criterion)
            axes.set(title=judge, xlabel="position shown")
        every_axes[0].set_ylabel("mean rank, 1 is best")
        every_axes[0].invert_yaxis()
        every_axes[-1].legend(fontsize=7)
        return figure


def _draw_ranks(axes: Axes, means: Sequence[Mean], shift: float, look: Look, label: str) -> None:
    """Draw one criterion's mean rank at each position, and the rank that a judge without a leaning
    would give them all.
    """
    values = np.array([mean.value for mean in means])
    intervals = [mean.interval or (mean.value, mean.value) for mean in means]
    lows, highs = np.array(intervals).T
    positions = np.arange(1, len(values) + 1)
    axes.errorbar(
        positions + shift,
        values,
        yerr=np.maximum([values - lows, highs - values], 0),
        markersize=4,
        linewidth=1,
        capsize=2,
        label=label,
        **look,
    )
    middle_rank = (len(values) + 1) / 2
    axes.axhline(middle_rank, color="#999999", linewidth=1, linestyle="--")
    axes.set_xticks(positions)
