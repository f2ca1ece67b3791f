"""The figures of a human study: the paper's Figures 5, 17 and 18, over all criteria."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmodpo.pages import PALETTE, drawing, look_of
from jaxmodpo.report.wording import title
from jaxmodpo.results.human_study import (
    LABELS,
    CriterionFindings,
    HumanStudyResults,
    RaterMean,
)
from jaxmodpo.results.judges import Estimate

# Blue for the first model, orange for the second, gray for equal.
_COLORS = (PALETTE[0], PALETTE[1], "#bdbdbd")


def label_names(results: HumanStudyResults) -> list[str]:
    """Return what the labels a, b and equal are called: the models' names, and ``equal``."""
    return [*results.models, "equal"]


def outcome_shares(results: HumanStudyResults) -> Figure:
    """Draw for each criterion the shares of questions that the majority gives each model, or none
    (the paper's figure 5a).
    """
    names = list(results.criteria)
    with drawing(6.8, 1.2 + 0.38 * len(names), grid=False) as figure:
        axes = figure.add_subplot()
        for row, name in enumerate(names):
            _stacked_shares(axes, row, results.criteria[name])
        _rows(axes, names)
        axes.set_xlim(0, 100)
        axes.set_xlabel("questions by the majority's preference, %")
        # Bars of no length, for the legend alone.
        for label, color in zip(label_names(results), _COLORS, strict=True):
            axes.barh([0], [0], color=color, label=label)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def _stacked_shares(axes: Axes, row: int, findings: CriterionFindings) -> None:
    """Draw a criterion's shares one behind the other, each with its number where there is room."""
    start = 0.0
    for label, color in zip(LABELS, _COLORS, strict=True):
        share = 100 * (findings.shares[label].value or 0.0)
        axes.barh(row, share, left=start, color=color, height=0.7)
        # Below 6% a number would be wider than its bar.
        if share >= 6:
            middle = start + share / 2
            ink = "black" if label == "equal" else "white"
            axes.text(middle, row, f"{share:.0f}", ha="center", va="center", color=ink)
        start += share
    if start == 0:
        axes.text(1, row, "no answers", va="center")


def decided_agreement(results: HumanStudyResults) -> Figure:
    """Draw accuracy, Cohen's κ and Gwet's AC1 of people and judge against majorities, where neither
    is a tie (the paper's figure 5b).
    """
    names = list(results.criteria)
    panels = (("accuracy", "accuracy"), ("kappa", "Cohen's κ"), ("ac1", "Gwet's AC1"))
    with drawing(9.0, 1.5 + 0.42 * len(names)) as figure:
        subplots = figure.subplots(1, 3, sharey=True)
        for axes, (field, heading) in zip(subplots, panels, strict=True):
            for row, name in enumerate(names):
                findings = results.criteria[name]
                _point(axes, row - 0.14, getattr(findings.leave_one_out, field), 0)
                _point(axes, row + 0.14, getattr(findings.two_class, field), 1)
            axes.set_title(heading)
            # An accuracy is a share; the coefficients may fall below 0.
            left = -0.02 if field == "accuracy" else -1.05
            axes.set_xlim(left, 1.05)
        _rows(subplots[0], names)
        compared = ("one person against the others' majority", "judge against the majority")
        _legend(figure, compared, (0, 1))
    return figure


def agreement_levels(results: HumanStudyResults) -> Figure:
    """Draw three shares of equal labels, ties included (the paper's figure 5c)."""

    def shares_of(findings: CriterionFindings) -> Sequence[Estimate]:
        levels = findings.levels
        return (levels.human_human, levels.human_judge, levels.judge_majority)

    names = ("two people", "a person and the judge", "the majority and the judge")
    return _three_shares(results, shares_of, names, (0, 1, 2), "share of equal labels among three")


def win_rates(results: HumanStudyResults) -> Figure:
    """Draw the first model's win rate as the judge has it, as people have it, and corrected."""

    def shares_of(findings: CriterionFindings) -> Sequence[Estimate]:
        corrected = findings.corrected
        return (corrected.judge, corrected.people, corrected.corrected)

    first, second = results.models
    label = f"win rate of {first} over {second}, ties half"
    names = ("judge", "people", "corrected")
    figure = _three_shares(results, shares_of, names, (1, 0, 2), label)
    figure.axes[0].axvline(0.5, color="#888888", linewidth=0.8, linestyle=":")
    return figure


def _three_shares(
    results: HumanStudyResults,
    shares_of: Callable[[CriterionFindings], Sequence[Estimate]],
    names: Sequence[str],
    looks: Sequence[int],
    label: str,
) -> Figure:
    """Draw three shares of each criterion, one below the other, with their intervals.

    Args:
        results: the study's.
        shares_of: a criterion's three shares, from top to bottom.
        names: what they are called in the legend.
        looks: the numbers of their looks.
        label: of the axis.
    """
    criteria = list(results.criteria)
    with drawing(6.8, 1.5 + 0.45 * len(criteria)) as figure:
        axes = figure.add_subplot()
        for row, criterion in enumerate(criteria):
            shares = shares_of(results.criteria[criterion])
            for shift, share, look in zip((-0.22, 0.0, 0.22), shares, looks, strict=True):
                _point(axes, row + shift, share, look)
        _rows(axes, criteria)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(label)
        _legend(figure, names, looks)
    return figure


def confusion_tables(results: HumanStudyResults) -> Figure:
    """Draw how often the majority and the judge say what, a table for each criterion (the paper's
    figures 5d and 5e).
    """
    labels = label_names(results)

    def draw(axes: Axes, findings: CriterionFindings) -> None:
        _confusion(axes, np.array(findings.confusion), labels)

    rows, columns = _grid_shape(results)
    with drawing(2.9 * columns + 0.6, 2.9 * rows + 0.4, grid=False) as figure:
        panels = figure.subplots(rows, columns, squeeze=False)
        _draw_criteria(panels, results, draw)
    return figure


def _confusion(axes: Axes, counts: np.ndarray, labels: Sequence[str]) -> None:
    highest = max(int(counts.max()), 1)
    # Cells and not an image, so that the SVG holds no pixels.
    axes.pcolormesh(counts, cmap="Blues", vmin=0, vmax=highest)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    middles = np.arange(len(labels)) + 0.5
    axes.set_xticks(middles, labels, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(middles, labels)
    axes.tick_params(length=0)
    axes.set_xlabel("judge")
    axes.set_ylabel("majority")
    for (row, column), count in np.ndenumerate(counts):
        # What can be read on a dark cell, and on a light one.
        ink = "white" if count > 0.6 * highest else "black"
        axes.text(column + 0.5, row + 0.5, str(count), ha="center", va="center", color=ink)


def accuracy_by_consensus(results: HumanStudyResults) -> Figure:
    """Draw the judge's accuracy by how far people agree, a panel for each criterion (the paper's
    figure 5f).
    """
    rows, columns = _grid_shape(results)
    with drawing(2.9 * columns + 0.4, 2.3 * rows + 0.4) as figure:
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        _draw_criteria(panels, results, _consensus)
        figure.supxlabel("majority's share among those who preferred a reply, %", fontsize=9)
        figure.supylabel("judge's accuracy, %", fontsize=9)
    return figure


def _consensus(axes: Axes, findings: CriterionFindings) -> None:
    middles: list[float] = []
    values: list[float] = []
    for level in findings.consensus:
        if level.accuracy.value is None:
            continue
        middle = 50 * (level.above + level.to)
        middles.append(middle)
        values.append(100 * level.accuracy.value)
        if level.accuracy.interval is not None:
            low, high = level.accuracy.interval
            axes.plot([middle, middle], [100 * low, 100 * high], color=PALETTE[0], linewidth=1)
        axes.annotate(
            f"{level.questions}", (middle, 2), ha="center", va="bottom", fontsize=7, color="#555555"
        )
    if middles:
        axes.plot(middles, values, color=PALETTE[0], marker="o", linewidth=1.2)
    else:
        axes.text(75, 50, "no decided question", ha="center", va="center", fontsize=8)
    axes.set_xlim(50, 100)
    axes.set_ylim(0, 104)


# --------------------------------------------------------------------------- parts


def _grid_shape(results: HumanStudyResults) -> tuple[int, int]:
    """Return the rows and columns of a grid with a panel for each criterion, at most three wide."""
    criteria = len(results.criteria)
    columns = min(3, criteria)
    rows = math.ceil(criteria / columns)
    return rows, columns


def _draw_criteria(
    panels: np.ndarray,
    results: HumanStudyResults,
    draw: Callable[[Axes, CriterionFindings], None],
) -> None:
    """Draw each criterion into its panel, under its name; panels that are left over stay blank."""
    for axes, (name, findings) in zip(panels.flat, results.criteria.items(), strict=False):
        draw(axes, findings)
        axes.set_title(title(name))
    for axes in panels.flat[len(results.criteria) :]:
        axes.set_axis_off()


def _point(axes: Axes, row: float, figure: Estimate | RaterMean, look: int) -> None:
    """Draw a value with its interval; nothing where there is none."""
    if figure.value is None:
        return
    style = look_of(look)
    if figure.interval is not None:
        axes.plot(figure.interval, [row, row], color=style["color"], linewidth=1)
    axes.plot(figure.value, row, linestyle="none", markersize=5, **style)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows, the first criterion on top."""
    axes.set_yticks(range(len(names)), [title(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)


def _legend(figure: Figure, names: Sequence[str], looks: Sequence[int]) -> None:
    axes = figure.axes[0]
    handles = []
    for name, number in zip(names, looks, strict=True):
        (handle,) = axes.plot([], [], linestyle="none", markersize=5, label=name, **look_of(number))
        handles.append(handle)
    figure.legend(handles=handles, loc="outside upper center", ncols=len(names))
