"""The figures of the personas' report, each a function from the report's numbers to a matplotlib
figure.

They follow the paper's Figure 1 and its Appendices A and B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmodpo.pages import PALETTE, drawing
from jaxmodpo.personas.profile import IMPORTANCE_LABELS

COLORS = {
    "participants": PALETTE[6],
    "selected": PALETTE[0],
    "train": PALETTE[5],
    "test": PALETTE[1],
}
NAMES = {
    "participants": "complete pool",
    "selected": "selected",
    "train": "training",
    "test": "test",
}
# Of a dimension with very many groups, a figure shows the largest; the report's numbers have them
# all.
MOST_GROUPS = 14
# Share of a row's height that its bars fill together; the rest separates it from the next row.
FILLED = 0.8


def primary_preferences(preferences: Mapping[str, Any]) -> Figure:
    """Draw which criterion each set's personas rate highest (the paper's Figure 1); ties are the
    paler part.
    """
    first_set = next(iter(preferences.values()))
    criteria = list(first_set["criteria"])
    labels = [IMPORTANCE_LABELS[f"importance_{name}"] for name in criteria]
    bars: dict[str, _Bars] = {}
    for step, preferences_of_set in preferences.items():
        shares: list[float] = []
        solid_shares: list[float] = []
        for name in criteria:
            criterion = preferences_of_set["criteria"][name]
            shares.append(100 * criterion["share"])
            solid_shares.append(100 * criterion["alone"])
        bars[step] = _Bars(preferences_of_set["rated"], shares, solid_shares)
    with drawing(7.4, 3.6) as figure:
        axes = figure.add_subplot()
        _draw_bars(axes, bars, labels)
        axes.set(
            xlabel="personas who rate it highest, %; paler: equally with others, counted in parts"
        )
        axes.legend(loc="lower right")
        return figure


def composition(composed: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """Draw the shares of a dimension's groups in each set (the paper's Figure 9).

    Args:
        composed: counts by set and group.
        title: the dimension.
    """
    # The first set is the whole pool: its largest groups are drawn for every set.
    pool = next(iter(composed.values()))
    names, cut_note = _largest(pool)
    bars: dict[str, _Bars] = {}
    for step, groups in composed.items():
        total = sum(groups.values())
        shares = [100 * groups.get(name, 0) / total for name in names]
        bars[step] = _Bars(personas=total, shares=shares)
    with drawing(7.4, 1.2 + 0.52 * len(names)) as figure:
        axes = figure.add_subplot()
        _draw_bars(axes, bars, [_short(name) for name in names])
        axes.set(title=f"{_title(title)}{cut_note}", xlabel="share of the set, %")
        figure.legend(loc="outside lower center", ncols=len(composed), fontsize=8)
        return figure


class _Bars(NamedTuple):
    """One set's bars, a bar for each row of the figure.

    Attributes:
        personas: in the set.
        shares: the bars' lengths in per cent.
        solid_shares: how much of each is solid and not paler; None where all of it is.
    """

    personas: int
    shares: list[float]
    solid_shares: list[float] | None = None


def _draw_bars(axes: Axes, bars: Mapping[str, _Bars], labels: Sequence[str]) -> None:
    """Draw the bars of all sets, those of one row side by side, with each bar's share at its end.

    Args:
        axes: that are drawn on.
        bars: by set.
        labels: of the rows, from top to bottom.
    """
    # A gap between the bars of a row, smaller than the one between rows.
    thickness = 0.9 * (FILLED / len(bars))
    for number, (step, of_set) in enumerate(bars.items()):
        heights = _bar_heights(len(labels), number, len(bars))
        solid_shares = of_set.shares
        if of_set.solid_shares is not None:
            # The solid bar lies over the paler one, so that what stays pale is the difference.
            axes.barh(heights, of_set.shares, thickness, color=COLORS[step], alpha=0.35)
            solid_shares = of_set.solid_shares
        label = f"{NAMES[step]} (n = {of_set.personas})"
        axes.barh(heights, solid_shares, thickness, color=COLORS[step], label=label)
        _annotate(axes, heights, of_set.shares)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


def train_test_balance(tests: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw training against test, group by group, with each dimension's p-value (the paper's Figure
    10).
    """
    names_and_notes = [_largest_in_both_sets(test["groups"]) for test in tests]
    # A panel is as high as it has groups, so that all rows of the figure are equally high.
    heights = [0.9 + len(names) for names, _ in names_and_notes]
    figure_height = 0.5 + 0.26 * sum(heights)
    with drawing(7.4, figure_height) as figure:
        grid = figure.subplots(len(tests), 1, sharex=True, height_ratios=heights)
        panels = np.ravel(grid)
        for axes, test, (names, cut_note) in zip(panels, tests, names_and_notes, strict=True):
            _balance_panel(axes, test, names, cut_note)
        panels[-1].set(xlabel="share of the set, %")
        handles, labels = panels[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
        return figure


def _balance_panel(
    axes: Axes, test: Mapping[str, Any], names: Sequence[str], cut_note: str
) -> None:
    """Draw one dimension: a ring for training and a diamond for test, joined by a line."""
    groups = test["groups"]
    totals = np.sum(list(groups.values()), axis=0)
    counts = np.array([groups[name] for name in names])
    train_shares, test_shares = (100 * counts / totals).T
    rows = range(len(names))
    axes.hlines(rows, train_shares, test_shares, color="#9a9a9a", linewidth=1.5, zorder=1)
    # The ring stays visible around a diamond at the same share.
    axes.scatter(
        train_shares,
        rows,
        s=70,
        c="none",
        edgecolors=COLORS["selected"],
        linewidths=1.6,
        label="training",
    )
    axes.scatter(test_shares, rows, s=22, c=COLORS["test"], marker="D", zorder=2, label="test")
    axes.set_yticks(rows, [_short(name) for name in names], fontsize=8)
    # Upside down, so that the first group stands on top as in the report's tables.
    axes.set_ylim(len(names) - 0.4, -0.6)
    dimension = _title(test["dimension"])
    p = p_value(test["p_value"], "= ")
    axes.set_title(f"{dimension}{cut_note}: p {p}", loc="left", fontsize=9)


def quality(figures: Mapping[str, Any]) -> Figure:
    """Draw how many participants have which quality, and the minimum that was asked for."""
    counts = figures["histogram"]["counts"]
    edges = np.array(figures["histogram"]["edges"])
    minimum = figures["least"]
    with drawing(7.4, 2.6) as figure:
        axes = figure.add_subplot()
        bars = axes.bar(
            edges[:-1],
            counts,
            np.diff(edges),
            align="edge",
            color=COLORS["participants"],
        )
        # An empty bin has no bar, and a 0 over nothing would only be clutter.
        bar_labels = [str(count) if count else "" for count in counts]
        axes.bar_label(bars, bar_labels, padding=2, fontsize=7)
        axes.margins(y=0.12)
        axes.axvline(
            minimum,
            color=COLORS["test"],
            linewidth=1.4,
            label=f"asked for: {minimum:g}",
        )
        axes.set(xlabel="quality of the profile", ylabel="participants")
        axes.legend(loc="upper left")
        return figure


def anonymity(figures: Mapping[str, Any]) -> Figure:
    """Draw how many personas share their quasi-identifiers with how many, in the selected set."""
    *first_identifiers, last_identifier = figures["identifiers"]
    identifiers = ", ".join(first_identifiers) + " and " + last_identifier
    # JSON has made the sizes texts.
    groups_by_size = {int(size): groups for size, groups in figures["sizes"].items()}
    personas = [size * groups for size, groups in groups_by_size.items()]
    # A unique persona is the one that can be recognized, so its bar has a color of its own.
    colors = [COLORS["test"] if size == 1 else COLORS["selected"] for size in groups_by_size]
    columns = range(len(groups_by_size))
    with drawing(7.4, 2.6) as figure:
        axes = figure.add_subplot()
        bars = axes.bar(columns, personas, 0.7, color=colors)
        axes.bar_label(bars, padding=2, fontsize=8)
        axes.set_xticks(columns, [str(size) for size in groups_by_size])
        axes.margins(y=0.12)
        # Two or three bars would otherwise fill the whole width, like walls.
        axes.set_xlim(-0.6, max(len(columns), 6) - 0.4)
        axes.grid(visible=False, axis="x")
        axes.set(
            xlabel=f"size of the group that shares {identifiers}; 1: unique", ylabel="personas"
        )
        return figure


def p_value(value: float | None, equals: str = "") -> str:
    """Return a p-value as text: three decimals, or that it is smaller."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{equals}{value:.3f}"


def _bar_heights(rows: int, number: int, sets: int) -> np.ndarray:
    """Return the heights of one set's bars: in each row the sets' bars stand side by side, centered
    on the row's number.
    """
    middle = (sets - 1) / 2
    thickness = FILLED / sets
    offset = (number - middle) * thickness
    return np.arange(rows) + offset


def _annotate(axes: Axes, heights: np.ndarray, shares: Sequence[float]) -> None:
    """Write each bar's share beside its end."""
    for height, share in zip(heights, shares, strict=True):
        axes.annotate(
            f"{share:.1f}",
            (share, height),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=6,
        )


def _largest(groups: Mapping[str, int]) -> tuple[list[str], str]:
    """Return the largest groups by name, and a note for the title where some are left out."""
    by_size = sorted(groups, key=lambda name: (-groups[name], name))
    names = sorted(by_size[:MOST_GROUPS])
    if len(names) == len(groups):
        return names, ""
    return names, f" ({len(names)} largest of {len(groups)})"


def _largest_in_both_sets(groups: Mapping[str, Sequence[int]]) -> tuple[list[str], str]:
    """Return the same of groups that are counted ``[training, test]``."""
    totals = {name: sum(counts) for name, counts in groups.items()}
    return _largest(totals)


def _short(name: str) -> str:
    """Cut a name that would take the figure's width."""
    return name if len(name) <= 34 else f"{name[:33]}…"


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
