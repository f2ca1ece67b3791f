"""The table of ratings: how models rank on each criterion, and how sure that is."""

from __future__ import annotations

from jaxmodpo.report.blocks import Block, Cell, Column, Folded, Table
from jaxmodpo.report.wording import count, percent, spoken, title
from jaxmodpo.results.evaluation import EvaluationResults

_RATING_COLUMNS = (
    Column("model", is_word=True),
    Column("criterion", is_word=True),
    Column("rating", detail="95% interval"),
    Column("ranks it may have"),
    Column("probability of being best, %"),
)


def rating_blocks(results: EvaluationResults, prefix: str) -> list[Block]:
    """Show Bradley-Terry ratings, the ranks that models may have, and what a first place hangs
    on.
    """
    rows: list[list[Cell | str]] = []
    sentences = [
        "Rating: Bradley and Terry's, in logits over the average model, with a 95% interval over"
        " questions. Ranks hold for all models at once with 95% confidence."
    ]
    for criterion, ratings in results.ratings.items():
        for name, model in ratings.models.items():
            rating = "none" if model.rating is None else f"{model.rating:+.2f}"
            ends = "none"
            if model.interval:
                ends = f"{model.interval[0]:+.2f} to {model.interval[1]:+.2f}"
            best = model.probability_of_best
            rows.append(
                [
                    name,
                    spoken(criterion),
                    Cell(rating, ends),
                    f"{model.best_rank}–{model.worst_rank}",
                    "–" if best is None else percent(best),
                ]
            )
        if ratings.undefined:
            sentences.append(f"{title(criterion)}: {ratings.undefined}.")
        if ratings.challenger is not None and ratings.questions_to_turn is not None:
            sentences.append(
                f"{title(criterion)}: {ratings.challenger} would be first instead of"
                f" {ratings.first} without {count(ratings.questions_to_turn, 'question')}."
            )
    if not rows:
        return []
    table = Table(f"{prefix}ratings", _RATING_COLUMNS, rows, " ".join(sentences))
    return [Folded("Ratings and ranks", [table])]
