"""The sections of length: how long replies are, and win rates as if both were equally long."""

from __future__ import annotations

from jaxmodpo.report.blocks import Block, Cell, Column, Paragraph, Section, Table
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.sources import Evaluation, Sources
from jaxmodpo.report.wording import listed, percent, spoken
from jaxmodpo.results.inference import LengthControlledRate

_TOKENS = (Column("model", is_word=True), Column("mean tokens a reply"))
_RATES = (
    Column("a", is_word=True),
    Column("b", is_word=True),
    Column("criterion", is_word=True),
    Column("win rate of a, %"),
    Column("at equal length, %", detail="why there is none"),
    Column("what a longer reply adds, logits"),
)
_EXPLANATION = (
    "Judges tend to like long replies. At equal length: the win rate that a logistic regression on"
    " the difference of lengths gives where there is none. Where it is far from the win rate, a part"
    " of the latter is length."
)


def length_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Return a section for each evaluation that knows how long replies are."""
    sections: list[Section] = []
    for evaluation in sources.evaluations:
        if evaluation.results.mean_tokens:
            sections.append(Section(f"Length: {evaluation.name}", _blocks(evaluation)))
    return sections


def _blocks(evaluation: Evaluation) -> list[Block]:
    results = evaluation.results
    tokens = [[name, f"{mean:.1f}"] for name, mean in results.mean_tokens.items()]
    blocks: list[Block] = [Table(f"{evaluation.prefix}tokens", _TOKENS, tokens)]
    unknown = [name for name in results.models if name not in results.mean_tokens]
    if unknown:
        sentence = f"The files of replies of {listed(unknown)} do not record their lengths."
        blocks.append(Paragraph(sentence, "faint"))
    rows: list[list[Cell | str]] = []
    for criterion, rates in results.length_controlled.items():
        for rate in rates:
            win_rate = results.pairwise[criterion][rate.a][rate.b]
            rows.append([rate.a, rate.b, spoken(criterion), percent(win_rate), *_controlled(rate)])
    if rows:
        blocks.append(Table(f"{evaluation.prefix}equal-length", _RATES, rows, _EXPLANATION))
    return blocks


def _controlled(rate: LengthControlledRate) -> list[Cell | str]:
    slope = "–" if rate.slope is None else f"{rate.slope:+.2f}"
    if rate.win_rate is None:
        return [Cell("–", rate.undefined), slope]
    return [percent(rate.win_rate), slope]
