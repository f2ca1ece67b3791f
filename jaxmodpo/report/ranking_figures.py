"""Figures with bars: models by their average win rates, and what became of votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmodpo.pages import PALETTE, drawing
from jaxmodpo.report.figures import Intervals
from jaxmodpo.report.wording import title
from jaxmodpo.results.evaluation import CriterionCounts

_PER_ROW = 3
"""panels beside each other"""
_HATCHES = ("", "////", "....", "xxxx")
"""fillings that tell the parts of a bar apart without color"""


def rankings(
    models: Mapping[str, Mapping[str, float]], intervals: Intervals, criteria: Sequence[str]
) -> Figure:
    """Draw the models by average win rate, best first, in a panel for each criterion (the paper's
    figures 11 and 13).

    Args:
        models: win rates in 0–1 by model and criterion.
        intervals: ``[low, high]`` in the same layout; None where there is none.
        criteria: those to draw.
    """
    columns = min(len(criteria), _PER_ROW)
    rows = -(-len(criteria) // columns)
    width = 1.2 + 3.1 * columns
    height = rows * (1.0 + 0.3 * len(models))
    with drawing(width, height) as figure:
        every_axes = figure.subplots(rows, columns, squeeze=False).ravel()
        # A model keeps its color in all panels, though its place changes.
        colors = {name: PALETTE[n % len(PALETTE)] for n, name in enumerate(models)}
        for axes, criterion in zip(every_axes, criteria, strict=False):
            _draw_ranking(axes, models, intervals, criterion, colors)
        for axes in every_axes[len(criteria) :]:
            axes.set_visible(False)
        return figure


def _draw_ranking(
    axes: Axes,
    models: Mapping[str, Mapping[str, float]],
    intervals: Intervals,
    criterion: str,
    colors: Mapping[str, str],
) -> None:
    names = sorted(models, key=lambda name: (-models[name][criterion], name))
    rates = np.array([100 * models[name][criterion] for name in names])
    rows = range(len(names))
    axes.barh(rows, rates, height=0.66, color=[colors[name] for name in names], alpha=0.85)
    for row, name in enumerate(names):
        rate = rates[row]
        interval = intervals[name][criterion]
        right = rate
        if interval is not None:
            low, high = (100 * end for end in interval)
            right = max(rate, high)
            bar = [[max(rate - low, 0)], [max(high - rate, 0)]]
            axes.errorbar(rate, row, xerr=bar, color="#1a1a1a", elinewidth=1, capsize=2)
        axes.text(right + 1.5, row, f"{rate:.1f}", va="center", fontsize=8)
    axes.axvline(50, color="#555555", linewidth=1, linestyle="--")
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    # Room for the number beside the longest bar.
    axes.set_xlim(0, 112)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set(title=title(criterion), xlabel="average win rate, %")


def vote_health(by_criterion: Mapping[str, CriterionCounts]) -> Figure:
    """Draw by criterion the shares of votes that are valid, and of comparisons that are decided.

    Args:
        by_criterion: counts; a criterion without votes or comparisons has an empty row.
    """
    names = list(by_criterion)
    with drawing(7.4, 2.1 + 0.34 * len(names)) as figure:
        votes_panel, comparisons_panel = figure.subplots(1, 2, sharey=True)
        counts = list(by_criterion.values())
        votes = {
            "valid": [row.valid for row in counts],
            "failed": [row.votes_asked - row.valid for row in counts],
        }
        _draw_parts(votes_panel, votes, "Votes")
        tied = [row.units_tied - row.identical_replies for row in counts]
        undecided = [row.units_without_valid_vote for row in counts]
        identical = [row.identical_replies for row in counts]
        decided = [row.units - row.units_tied - row.units_without_valid_vote for row in counts]
        comparisons = {
            "decided": decided,
            "tied": tied,
            "identical replies": identical,
            "no valid vote": undecided,
        }
        _draw_parts(comparisons_panel, comparisons, "Comparisons")
        votes_panel.set_yticks(range(len(names)), [title(name) for name in names])
        votes_panel.set_ylim(len(names) - 0.5, -0.5)
        return figure


def _draw_parts(axes: Axes, parts: Mapping[str, Sequence[int]], heading: str) -> None:
    """Draw stacked bars of shares in per cent; a row of nothing stays empty."""
    numbers = np.array(list(parts.values()), float)
    totals = np.maximum(numbers.sum(axis=0), 1)
    shares = 100 * numbers / totals
    start = np.zeros(shares.shape[1])
    for number, (name, row) in enumerate(zip(parts, shares, strict=True)):
        axes.barh(
            range(len(row)),
            row,
            left=start,
            height=0.6,
            color=("#0072B2", "#E69F00", "#9ecae9", "#D55E00")[number],
            hatch=_HATCHES[number],
            edgecolor="white",
            linewidth=0.4,
            label=name,
        )
        start = start + row
    axes.set(title=heading, xlabel="%", xlim=(0, 100))
    axes.grid(False, axis="y")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.32), ncols=2)
