"""Figures: what they show, read back from the figure, and bytes that do not change."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxmodpo.pages import png
from jaxmodpo.report import figures, training_figures
from jaxmodpo.results.evaluation import PairTest

MODELS = {
    "base": {"empathy": 0.3, "safety": 0.2},
    "dpo $x$": {"empathy": 0.7, "safety": 0.5},
    "modpo": {"empathy": 0.5, "safety": 0.8},
}
INTERVALS = {
    name: {c: [v - 0.05, v + 0.1] for c, v in rates.items()} for name, rates in MODELS.items()
}
PAIRWISE = {
    "base": {"dpo": 0.25, "modpo": 0.35},
    "dpo": {"base": 0.75, "modpo": 0.9},
    "modpo": {"base": 0.65, "dpo": 0.1},
}
METRICS = [
    {"step": 1, "loss": 0.7, "rewards/accuracies": 0.5, "rewards/margins": 0.0},
    {"step": 2, "loss": 0.5, "rewards/accuracies": 0.6, "rewards/margins": 0.4},
    {"step": 2, "eval_loss": 0.6},
]


def pair_test(a: str, b: str, wins: int, losses: int, p_value: float, **more: Any) -> PairTest:
    """A test of which the figure needs no more than this."""
    figures: dict[str, Any] = {
        "ties": 0,
        "statistic": 0.0,
        "statistic_corrected": 0.0,
        "p_value_corrected": 1.0,
        "p_value_exact": 1.0,
        "decisive": "p_value",
        "average_difference": 0.0,
        "average_difference_interval": None,
    }
    figures |= {"p_value": p_value} | more
    # Of one pair alone the adjusted value is the decisive one.
    figures.setdefault("p_value_holm", figures[figures["decisive"]])
    return PairTest(a=a, b=b, wins=wins, losses=losses, **figures)


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def matrix_words(figure: Figure, models: int) -> list[list[str]]:
    return np.reshape(words(figure), (models, models)).tolist()


def test_scatter_puts_each_model_at_its_win_rates_in_per_cent_with_its_interval():
    axes = figures.win_rate_scatter(MODELS, INTERVALS, "safety", "empathy").axes[0]
    assert axes.get_xlabel() == "Safety: average win rate, %"
    assert axes.get_ylabel() == "Empathy: average win rate, %"
    points = [tuple(map(float, bar.lines[0].get_xydata()[0])) for bar in axes.containers]  # type: ignore[attr-defined]
    assert points == [pytest.approx((20, 30)), pytest.approx((50, 70)), pytest.approx((80, 50))]
    across, up = axes.containers[0].lines[2]  # type: ignore[attr-defined]
    np.testing.assert_allclose(across.get_segments()[0], [[15, 30], [30, 30]])
    np.testing.assert_allclose(up.get_segments()[0], [[20, 25], [20, 40]])


def test_scatter_names_every_model_once_even_with_dollar_signs_and_equal_points():
    same = {name: {"empathy": 0.5, "safety": 0.5} for name in MODELS}
    intervals = {name: {c: [0.5, 0.5] for c in ("empathy", "safety")} for name in MODELS}
    figure = figures.win_rate_scatter(same, intervals, "empathy", "safety")
    assert sorted(words(figure)) == sorted(MODELS)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    assert png(figure).startswith(b"\x89PNG")


def test_pairwise_matrix_orders_models_from_best_to_worst_and_shows_row_over_column():
    figure = figures.pairwise_matrix(PAIRWISE, "Empathy")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "dpo",
        "modpo",
        "base",
    ]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
        "dpo",
        "modpo",
        "base",
    ]
    assert matrix_words(figure, 3) == [["", "90", "75"], ["10", "", "65"], ["25", "35", ""]]


def test_significance_matrix_points_to_the_winner_on_both_sides_of_the_diagonal():
    tests = [
        pair_test("base", "dpo", 20, 60, 1e-5),
        pair_test("base", "modpo", 30, 40, 0.23),
        pair_test("dpo", "modpo", 50, 10, 0.001),
    ]
    figure = figures.significance_matrix(PAIRWISE, tests, "Empathy")
    assert matrix_words(figure, 3) == [["", "▲", "▲"], ["▼", "", "="], ["▼", "=", ""]]


def test_significance_matrix_goes_by_the_decisive_p_value():
    """Five wins of five have a chi-square p of 0.03 and an exact p of 0.06."""
    pair = {"base": {"dpo": 0.0}, "dpo": {"base": 1.0}}
    names_drawn = {}
    for decisive in ("p_value", "p_value_exact"):
        test = pair_test("base", "dpo", 0, 5, 0.0253, p_value_exact=0.0625, decisive=decisive)
        names_drawn[decisive] = matrix_words(
            figures.significance_matrix(pair, [test], "Empathy"), 2
        )
    assert names_drawn == {
        "p_value": [["", "▲"], ["▼", ""]],
        "p_value_exact": [["", "="], ["=", ""]],
    }


def test_significance_matrix_draws_hollow_what_does_not_stand_after_the_adjustment():
    tests = [
        pair_test("base", "dpo", 20, 60, 1e-5, p_value_holm=3e-5),
        pair_test("base", "modpo", 30, 50, 0.03, p_value_holm=0.06),
        pair_test("dpo", "modpo", 50, 49, 0.9, p_value_holm=0.9),
    ]
    figure = figures.significance_matrix(PAIRWISE, tests, "Empathy")
    assert matrix_words(figure, 3) == [["", "=", "▲"], ["=", "", "△"], ["▼", "▽", ""]]


def test_scatter_draws_no_bar_where_there_is_no_interval():
    none: figures.Intervals = {name: {"empathy": None, "safety": None} for name in MODELS}
    axes = figures.win_rate_scatter(MODELS, none, "safety", "empathy").axes[0]
    across, _ = axes.containers[0].lines[2]  # type: ignore[attr-defined]
    np.testing.assert_allclose(across.get_segments()[0], [[20, 30], [20, 30]])


def test_training_curves_draw_training_and_held_out_values_against_steps():
    figure = training_figures.training_curves(METRICS, "dpo")
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy", "margin"]
    lines = {
        line.get_label(): np.asarray(line.get_xydata()).tolist() for line in figure.axes[0].lines
    }
    assert lines == {"training": [[1, 0.7], [2, 0.5]], "held out": [[2, 0.6]]}


def test_training_curves_leave_out_panels_without_values():
    figure = training_figures.training_curves([{"step": 1, "loss": 2.0}], "sft")
    assert figure is not None and [axes.get_title() for axes in figure.axes] == ["loss"]
    assert training_figures.training_curves([{"step": 1, "learning_rate": 0.1}], "none") is None


def test_png_bytes_do_not_change_and_leave_the_global_style_alone():
    before = dict(matplotlib.rcParams)
    first = png(figures.win_rate_scatter(MODELS, INTERVALS, "safety", "empathy"))
    assert first == png(figures.win_rate_scatter(MODELS, INTERVALS, "safety", "empathy"))
    assert b"Software" not in first and b"matplotlib" not in first.lower()
    assert dict(matplotlib.rcParams) == before
