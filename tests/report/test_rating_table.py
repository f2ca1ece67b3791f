"""The table of ratings, with and without finite ones."""

from __future__ import annotations

from dataclasses import replace

from right_results import EVALUATION

from jaxmodpo.report.blocks import Cell, Folded, Table
from jaxmodpo.report.rating_table import rating_blocks
from jaxmodpo.results.inference import ModelRating, Ratings

FIRST = ModelRating(
    rating=0.5, interval=(0.125, 0.875), best_rank=1, worst_rank=2, probability_of_best=0.75
)
SECOND = ModelRating(
    rating=None, interval=None, best_rank=1, worst_rank=2, probability_of_best=None
)


def test_ratings_are_shown_with_what_the_first_place_hangs_on():
    ratings = Ratings(
        models={"y": FIRST, "x": SECOND},
        first="y",
        challenger="x",
        questions_to_turn=3,
        undefined="y never loses to x, so that no finite rating fits",
    )
    [folded] = rating_blocks(replace(EVALUATION, ratings={"safety": ratings}), "a-")
    assert isinstance(folded, Folded)
    [table] = folded.blocks
    assert isinstance(table, Table) and table.name == "a-ratings"
    assert table.rows == [
        ["y", "safety", Cell("+0.50", "+0.12 to +0.88"), "1–2", "75.0"],
        ["x", "safety", Cell("none", "none"), "1–2", "–"],
    ]
    assert table.caption.endswith(
        "Safety: y never loses to x, so that no finite rating fits. Safety: x would be first"
        " instead of y without 3 questions."
    )


def test_results_of_before_ratings_show_no_table():
    assert rating_blocks(EVALUATION, "") == []
