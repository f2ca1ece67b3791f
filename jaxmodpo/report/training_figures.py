"""The figures of trainings: a run's curves, and how far a reward model can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmodpo.pages import PALETTE, drawing
from jaxmodpo.results.reward import Calibration, RewardDistribution, Validation

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
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for panel, names in CURVES.items():
        # A method logs what it has: supervised fine-tuning has no margins.
        curves = {name: curve for name in names if (curve := _curve(metrics, name))}
        if curves:
            panels[panel] = curves
    if not panels:
        return None
    with drawing(2.9 * len(panels) + 0.3, 2.6) as figure:
        every_axes = np.ravel(figure.subplots(1, len(panels)))
        for axes, (panel, curves) in zip(every_axes, panels.items(), strict=True):
            for name, curve in curves.items():
                _draw_curve(axes, curve, is_held_out=name.startswith("eval_"))
            axes.set(title=panel, xlabel="step")
            axes.legend(fontsize=8)
        figure.suptitle(title, fontsize=10)
        return figure


def _curve(metrics: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """Return the steps and values of the rows that hold a metric."""
    curve: list[tuple[int, float]] = []
    for row in metrics:
        if "step" in row and row.get(name) is not None:
            curve.append((row["step"], row[name]))
    return curve


def _draw_curve(axes: Axes, curve: Sequence[tuple[int, float]], *, is_held_out: bool) -> None:
    steps, values = zip(*curve, strict=True)
    axes.plot(
        steps,
        values,
        color=PALETTE[int(is_held_out)],
        # Held-out values are few: a marker for each says when it was measured.
        marker="o" if is_held_out else None,
        markersize=4,
        linewidth=1.4,
        label="held out" if is_held_out else "training",
    )


def reward_validation(validation: Validation, title: str) -> Figure:
    """Draw how far a reward model's probabilities can be believed, and the rewards of the best and
    worst responses.

    Args:
        validation: the model's figures.
        title: the figure's title.
    """
    with drawing(7.4, 3.0) as figure:
        calibration_panel, rewards_panel = figure.subplots(1, 2)
        _draw_calibration(calibration_panel, validation.calibration)
        _draw_rewards(rewards_panel, validation.rewards)
        figure.suptitle(title, fontsize=10)
        return figure


def _draw_calibration(axes: Axes, calibration: Calibration) -> None:
    bins = calibration.bins
    # On the dashed line rankings agree as often as the model says that they will.
    axes.plot([0.5, 1], [0.5, 1], color="#999999", linewidth=1, linestyle="--")
    axes.plot(
        [row.probability for row in bins],
        [row.agreement for row in bins],
        marker="o",
        color=PALETTE[0],
    )
    for row in bins:
        axes.annotate(
            str(row.pairs),
            (row.probability, row.agreement),
            (4, -9),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set(
        xlabel="probability the model gives its preference",
        ylabel="agreement",
        title="Calibration; pairs",
    )


def _draw_rewards(axes: Axes, rewards: RewardDistribution) -> None:
    # The further the two lie apart, the better the model tells good responses from bad ones.
    for number, (name, summary) in enumerate((("best", rewards.best), ("worst", rewards.worst))):
        axes.stairs(
            summary.histogram,
            rewards.histogram_edges,
            color=PALETTE[number],
            label=name,
            fill=True,
            alpha=0.45,
        )
    axes.set(xlabel="reward", ylabel="responses", title="Rewards")
    axes.legend(fontsize=8)
