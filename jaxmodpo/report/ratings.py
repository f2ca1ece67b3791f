"""The sections of ratings: which ranks a model may have, and what the first place hangs on."""

from __future__ import annotations

from jaxmodpo.report.blocks import Block, Cell, Column, Heading, Paragraph, Section, Table
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.sources import Evaluation, Sources
from jaxmodpo.report.wording import count, percent, title
from jaxmodpo.results.inference import ModelRating, Ratings

_COLUMNS = (
    Column("model", is_word=True),
    Column("rating, logits", detail="95% interval"),
    Column("ranks it may have"),
    Column("probability of being first, %"),
)
_EXPLANATION = (
    "Ratings are Bradley and Terry's, over the average model, with 95% intervals over questions. The"
    " true ranks of all models lie in their sets with 95% confidence. The probability of being first"
    " is the share of resampled questions in which a model is."
)


def rating_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Return a section for each evaluation that has ratings."""
    sections: list[Section] = []
    for evaluation in sources.evaluations:
        if not evaluation.results.ratings:
            continue
        blocks: list[Block] = [Paragraph(_EXPLANATION, "faint")]
        for criterion, ratings in evaluation.results.ratings.items():
            blocks += _of_criterion(evaluation, criterion, ratings)
        sections.append(Section(f"Ranks: {evaluation.name}", blocks))
    return sections


def _of_criterion(evaluation: Evaluation, criterion: str, ratings: Ratings) -> list[Block]:
    rows = [_row(name, rating) for name, rating in ratings.models.items()]
    blocks: list[Block] = [Heading(title(criterion)), Paragraph(first_place(ratings))]
    if ratings.undefined:
        blocks.append(Paragraph(f"There are no ratings: {ratings.undefined}.", "faint"))
    return [*blocks, Table(f"{evaluation.prefix}ranks-{criterion}", _COLUMNS, rows)]


def first_place(ratings: Ratings) -> str:
    """Say how few questions would have to go for another model to be first."""
    if ratings.challenger is None or ratings.questions_to_turn is None:
        return f"{ratings.first} would be first whichever questions went."
    return (
        f"{ratings.first} is first; if {count(ratings.questions_to_turn, 'question')} went, the ones"
        f" that favor it most, {ratings.challenger} would be."
    )


def _row(name: str, rating: ModelRating) -> list[Cell | str]:
    ranks = str(rating.best_rank)
    if rating.worst_rank != rating.best_rank:
        ranks = f"{rating.best_rank}–{rating.worst_rank}"
    probability = rating.probability_of_best
    return [
        name,
        _rating_cell(rating),
        ranks,
        "–" if probability is None else percent(probability),
    ]


def _rating_cell(rating: ModelRating) -> Cell:
    if rating.rating is None:
        return Cell("–", "no finite rating")
    if rating.interval is None:
        return Cell(f"{rating.rating:+.2f}", "no interval")
    low, high = rating.interval
    return Cell(f"{rating.rating:+.2f}", f"{low:+.2f} to {high:+.2f}")
