"""The sections of length: how long replies are, how often the longer one wins, and win rates as if
both were equally long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from jaxmodpo.pages import drawing, look_of
from jaxmodpo.report.blocks import Block, Cell, Column, Paragraph, Section, Table
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.sources import Evaluation, Sources
from jaxmodpo.report.wording import listed, percent, percent_cell, spoken, title
from jaxmodpo.results.inference import LengthBin, LengthControlledRate

FEW_UNITS = "fewer than 5 comparisons"
_TOKENS = (Column("model", is_word=True), Column("mean tokens a reply"))
_RATES = (
    Column("a", is_word=True),
    Column("b", is_word=True),
    Column("criterion", is_word=True),
    Column("win rate of a, %"),
    Column("at equal length, %", detail="95% interval, or why there is none"),
    Column("what a longer reply adds, logits"),
)
_EXPLANATION = (
    "Judges tend to like long replies. At equal length: the win rate that a logistic regression on"
    " the difference of lengths gives where there is none. Where it is far from the win rate, a part"
    " of the latter is length."
)


_BINS = (
    Column("tokens longer", is_word=True),
    Column("comparisons"),
    Column("the longer reply wins, %", detail="95% interval, or why there is none"),
)
_OF_BINS = (
    "Comparisons of all pairs of models together, by how many tokens the longer reply has more; a"
    " tie is half a win. Intervals are over questions. It is no effect of length alone: a model that"
    " writes longer replies may also write better ones."
)


def length_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Return a section for each evaluation that knows how long replies are."""
    sections: list[Section] = []
    for evaluation in sources.evaluations:
        if evaluation.results.mean_tokens:
            blocks = _blocks(evaluation, gallery)
            sections.append(Section(f"Length: {evaluation.name}", blocks))
    return sections


def _blocks(evaluation: Evaluation, gallery: Gallery) -> list[Block]:
    results = evaluation.results
    tokens = [[name, f"{mean:.1f}"] for name, mean in results.mean_tokens.items()]
    blocks: list[Block] = [Table(f"{evaluation.prefix}tokens", _TOKENS, tokens)]
    unknown = [name for name in results.models if name not in results.mean_tokens]
    if unknown:
        sentence = f"The files of replies of {listed(unknown)} do not record their lengths."
        blocks.append(Paragraph(sentence, "faint"))
    if results.length_bins:
        blocks += _longer_replies(evaluation, gallery)
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
    return [percent_cell(rate.win_rate, rate.interval, "no interval"), slope]


def _longer_replies(evaluation: Evaluation, gallery: Gallery) -> list[Block]:
    """Return a figure and a table for each criterion: how often the longer reply wins."""
    bins = evaluation.results.length_bins
    stem = f"{evaluation.prefix}longer-replies"
    sentences: list[str] = []
    tables: list[Table] = []
    for criterion, of_criterion in bins.items():
        rows = [[_span(row), f"{row.units:,}", _bin_cell(row)] for row in of_criterion]
        tables.append(Table(f"{stem}-{criterion}", _BINS, rows, title(criterion)))
        words = [_bin_in_words(row) for row in of_criterion]
        sentences.append(f"{title(criterion)}: {'; '.join(words)}.")
    figure = longer_reply_rates({spoken(name): rows for name, rows in bins.items()})
    caption = "How often the longer of two replies wins, by how much longer it is."
    picture = gallery.add(stem, figure, caption, f"{caption} {' '.join(sentences)}")
    return [picture, Paragraph(_OF_BINS, "faint"), *tables]


def _span(row: LengthBin) -> str:
    if row.high is None:
        return f"{row.low:g} or more"
    # Lengths are whole numbers: a bin from 20 to below 40 holds 20 to 39.
    return f"{max(row.low, 1):g}–{row.high - 1:g}"


def _bin_cell(row: LengthBin) -> Cell:
    if row.rate is None:
        return Cell("–", FEW_UNITS)
    return percent_cell(row.rate, row.interval, "no interval")


def _bin_in_words(row: LengthBin) -> str:
    if row.rate is None:
        return f"{_span(row)} tokens longer, {FEW_UNITS}"
    return f"{_span(row)} tokens longer, {percent(row.rate)}% of {row.units:,}"


def longer_reply_rates(bins: Mapping[str, Sequence[LengthBin]]) -> Figure:
    """Draw how often the longer reply wins, with intervals: a place along the axis for each bin, a
    marker for each criterion.
    """
    # Criteria share the lengths of the replies, but not which votes are valid.
    spans = list(dict.fromkeys(_span(row) for rows in bins.values() for row in rows))
    with drawing(6.4, 3.2) as figure:
        axes = figure.add_subplot()
        axes.axhline(50, color="#7a7a7a", linewidth=0.8, linestyle="--")
        for number, (name, rows) in enumerate(bins.items()):
            style = look_of(number)
            shift = 0.12 * (number - (len(bins) - 1) / 2)
            axes.plot([], [], linestyle="none", label=name, **style)
            for row in rows:
                if row.rate is None:
                    continue
                x = spans.index(_span(row)) + shift
                axes.plot(x, 100 * row.rate, linestyle="none", **style)
                if row.interval is not None:
                    ends = [100 * end for end in row.interval]
                    axes.plot([x, x], ends, color=style["color"], linewidth=1)
        axes.set_xticks(range(len(spans)), spans)
        axes.set_xlim(-0.5, len(spans) - 0.5)
        axes.set_ylim(-2, 102)
        axes.set_xlabel("tokens by which the longer reply is longer")
        axes.set_ylabel("the longer reply wins, %")
        figure.legend(loc="outside lower center", ncols=3)
    return figure
