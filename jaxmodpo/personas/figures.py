"""The figures of the personas' report, each a function from the report's numbers to a matplotlib
figure.

They follow the paper's Figure 1 and its Appendices A and B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmodpo.pages import PALETTE, STYLE
from jaxmodpo.personas.profile import IMPORTANCE_LABELS

COLOURS = {
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


def primary_preferences(preferences: Mapping[str, Any]) -> Figure:
    """Draw which criterion each set's personas rate highest (the paper's Figure 1); ties are the
    paler part.
    """
    criteria = list(next(iter(preferences.values()))["criteria"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        height = 0.8 / len(preferences)
        for n, (step, said) in enumerate(preferences.items()):
            places = np.arange(len(criteria)) + (n - (len(preferences) - 1) / 2) * height
            shares = [100 * said["criteria"][name]["share"] for name in criteria]
            alone = [100 * said["criteria"][name]["alone"] for name in criteria]
            axes.barh(places, shares, 0.9 * height, color=COLOURS[step], alpha=0.35)
            axes.barh(
                places,
                alone,
                0.9 * height,
                color=COLOURS[step],
                label=f"{NAMES[step]} (n = {said['rated']})",
            )
            _write(axes, places, shares)
        axes.set_yticks(
            range(len(criteria)), [IMPORTANCE_LABELS[f"importance_{name}"] for name in criteria]
        )
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
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
    names, cut = _largest(composed[next(iter(composed))])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 1.2 + 0.52 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        height = 0.8 / len(composed)
        for n, (step, groups) in enumerate(composed.items()):
            places = np.arange(len(names)) + (n - (len(composed) - 1) / 2) * height
            total = sum(groups.values())
            shares = [100 * groups.get(name, 0) / total for name in names]
            axes.barh(
                places,
                shares,
                0.9 * height,
                color=COLOURS[step],
                label=f"{NAMES[step]} (n = {total})",
            )
            _write(axes, places, shares)
        axes.set_yticks(range(len(names)), [_short(name) for name in names])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(title=f"{_title(title)}{cut}", xlabel="share of the set, %")
        figure.legend(loc="outside lower center", ncols=len(composed), fontsize=8)
        return figure


def train_test_balance(tests: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw training against test, group by group, with each dimension's p-value (the paper's Figure
    10).
    """
    cuts = [_largest({name: sum(pair) for name, pair in test["groups"].items()}) for test in tests]
    with matplotlib.rc_context(STYLE):
        heights = [0.9 + len(names) for names, _ in cuts]
        figure = Figure(figsize=(7.4, 0.5 + 0.26 * sum(heights)), layout="constrained")
        panels = np.ravel(figure.subplots(len(tests), 1, sharex=True, height_ratios=heights))
        for axes, test, (names, cut) in zip(panels, tests, cuts, strict=True):
            totals = np.sum(list(test["groups"].values()), axis=0)
            train, held = (100 * np.array([test["groups"][name] for name in names]) / totals).T
            axes.hlines(range(len(names)), train, held, color="#9a9a9a", linewidth=1.5, zorder=1)
            # The ring stays visible around a diamond at the same share.
            axes.scatter(
                train,
                range(len(names)),
                70,
                "none",
                edgecolors=COLOURS["selected"],
                linewidths=1.6,
                label="training",
            )
            axes.scatter(held, range(len(names)), 22, COLOURS["test"], "D", zorder=2, label="test")
            axes.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=8)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_title(
                f"{_title(test['dimension'])}{cut}: p {p_value(test['p_value'], '= ')}",
                loc="left",
                fontsize=9,
            )
        panels[-1].set(xlabel="share of the set, %")
        figure.legend(
            *panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8
        )
        return figure


def quality(said: Mapping[str, Any]) -> Figure:
    """Draw how many participants have which quality, and the least that was asked for."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 2.6), layout="constrained")
        axes = figure.add_subplot()
        counts, edges = said["histogram"]["counts"], np.array(said["histogram"]["edges"])
        bars = axes.bar(
            edges[:-1], counts, np.diff(edges), align="edge", color=COLOURS["participants"]
        )
        axes.bar_label(
            bars, [str(number) if number else "" for number in counts], padding=2, fontsize=7
        )
        axes.margins(y=0.12)
        axes.axvline(
            said["least"],
            color=COLOURS["test"],
            linewidth=1.4,
            label=f"asked for: {said['least']:g}",
        )
        axes.set(xlabel="quality of the profile", ylabel="participants")
        axes.legend(loc="upper left")
        return figure


def anonymity(said: Mapping[str, Any]) -> Figure:
    """Draw how many personas share their quasi-identifiers with how many, in the selected set."""
    listed = " and ".join([", ".join(said["identifiers"][:-1]), said["identifiers"][-1]])
    sizes = {int(size): number for size, number in said["sizes"].items()}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 2.6), layout="constrained")
        axes = figure.add_subplot()
        personas = [size * number for size, number in sizes.items()]
        colours = [COLOURS["test"] if size == 1 else COLOURS["selected"] for size in sizes]
        bars = axes.bar(range(len(sizes)), personas, 0.7, color=colours)
        axes.bar_label(bars, padding=2, fontsize=8)
        axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axes.margins(y=0.12)
        axes.set_xlim(-0.6, max(len(sizes), 6) - 0.4)  # few bars stay bars
        axes.grid(visible=False, axis="x")
        axes.set(xlabel=f"size of the group that shares {listed}; 1: unique", ylabel="personas")
        return figure


def p_value(value: float | None, equals: str = "") -> str:
    """Return a p-value as text: three decimals, or that it is smaller."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{equals}{value:.3f}"


def _write(axes: Axes, places: np.ndarray, shares: Sequence[float]) -> None:
    for place, share in zip(places, shares, strict=True):
        axes.annotate(
            f"{share:.1f}",
            (share, place),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=6,
        )


def _largest(groups: Mapping[str, int]) -> tuple[list[str], str]:
    """Return the largest groups by name, and what to say where some are left out."""
    names = sorted(sorted(groups, key=lambda name: (-groups[name], name))[:MOST_GROUPS])
    return names, f" ({len(names)} largest of {len(groups)})" if len(names) < len(groups) else ""


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:33]}…"


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
