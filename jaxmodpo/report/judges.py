"""The sections of judges: positions, repeats and agreement, and votes that failed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from jaxmodpo.evaluation.judge_table import JudgedRow, measure_of_repeats, merge_rows, words
from jaxmodpo.evaluation.judges import draw_judges, read_judges
from jaxmodpo.judging.database import NoLedger
from jaxmodpo.judging.judge import PREFERENCES
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.report.blocks import Block, Cell, Column, Heading, Listing, Paragraph, Section, Table
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.run_folders import VOTES, Run, with_votes
from jaxmodpo.report.sources import Sources
from jaxmodpo.report.wording import p_value, spoken
from jaxmodpo.results.judges import (
    JUDGES,
    ComparedPosition,
    Estimate,
    FailedOf,
    Judges,
    JudgesOfComparisons,
    JudgesOfRankings,
    Mean,
    RankedPosition,
)
from jaxmodpo.results.versioned import read_result

_EXPLANATION = (
    "In brackets: 95% intervals over resampled questions. The effect of being first is what it adds"
    " to a reply's chance of winning. α is 1 where all personas say the same and 0 where they agree"
    " no more than by chance."
)


def judge_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Show the judges as ``judges`` wrote of them, or as counted here from the votes of a
    folder.
    """
    sections: list[Section] = []
    for name, judges in sorted(_judges_by_name(sources.runs).items()):
        sections.append(_judge_section(name, judges, gallery))
    return sections


def _judges_by_name(runs: Sequence[Run]) -> dict[str, Judges]:
    judges_by_name = {
        run.name: read_result(run.folder / JUDGES, Judges) for run in runs if run.judges
    }
    for run in with_votes(runs):
        # A run killed as it began leaves a file without tables.
        with contextlib.suppress(NoLedger), Ledger(run.folder / VOTES, read_only=True) as ledger:
            if next(ledger.every_vote(kinds=PREFERENCES), None) is not None:
                judges_by_name[run.name] = read_judges([ledger])
    return judges_by_name


def _judge_section(name: str, judges: Judges, gallery: Gallery) -> Section:
    identities: list[str] = []
    for judge in judges.judges:
        identities.append(
            f"{judge.name}: {judge.valid_votes} valid votes, asked as {judge.identity}."
        )
    blocks: list[Block] = [Listing(identities)] if identities else []
    rows = merge_rows(judges)
    compared = [row for row in rows if row.kind == "compare"]
    ranked = [row for row in rows if row.kind == "rank"]
    if compared:
        blocks += [Heading("Comparisons"), _comparisons(f"{name}-judges-compare", compared)]
    if ranked:
        blocks += [Heading("Rankings"), _rankings(f"{name}-judges-rank", ranked)]
    if judges.judges_compared:
        blocks += [Heading("Judge against judge"), _between(f"{name}-judges-between", judges)]
    blocks.append(Paragraph(_EXPLANATION, "faint"))
    for drawing in draw_judges(judges):
        blocks.append(gallery.add(f"{name}-{drawing.name}", drawing.figure, drawing.caption))
    blocks += [Heading("Failed votes"), *_failed(f"{name}-failed-votes", judges)]
    return Section(f"Judges: {name}", blocks)


def _cell(estimate: Estimate | Mean | None, *, percent: bool = False) -> Cell:
    """Return an estimate with its interval, or why it has no value."""
    if isinstance(estimate, Estimate) and estimate.value is None:
        return Cell("", estimate.undefined or "–")
    return Cell(words(estimate, percent=percent))


def _votes_of(row: JudgedRow) -> str:
    return "–" if row.position is None else str(row.position.votes)


def _comparisons(name: str, rows: Sequence[JudgedRow]) -> Table:
    columns = (
        Column("judge", is_word=True),
        Column("criterion", is_word=True),
        Column("votes"),
        Column("first shown wins"),
        Column("effect of being first"),
        Column("same in both orders"),
        Column("same when asked again"),
        Column("personas, α"),
    )
    lines: list[list[Cell | str]] = []
    for row in rows:
        position = row.position if isinstance(row.position, ComparedPosition) else None
        repeats = None if row.repeats is None else measure_of_repeats(row.repeats)
        lines.append(
            [
                row.judge,
                spoken(row.criterion),
                _votes_of(row),
                _cell(position.first_share if position else None, percent=True),
                _cell(position.effect if position else None),
                _cell(row.both_orders.consistent if row.both_orders else None, percent=True),
                _cell(repeats, percent=True),
                _cell(row.personas.alpha if row.personas else None),
            ]
        )
    return Table(name, columns, lines)


def _rankings(name: str, rows: Sequence[JudgedRow]) -> Table:
    columns = (
        Column("judge", is_word=True),
        Column("criterion", is_word=True),
        Column("votes"),
        Column("mean rank by position shown"),
        Column("p"),
        Column("τ when asked again"),
        Column("personas, α"),
    )
    lines: list[list[Cell | str]] = []
    for row in rows:
        position = row.position if isinstance(row.position, RankedPosition) else None
        means = position.mean_ranks if position else ()
        repeats = None if row.repeats is None else measure_of_repeats(row.repeats)
        lines.append(
            [
                row.judge,
                f"{spoken(row.criterion)}, of {row.shown}",
                _votes_of(row),
                " ".join(f"{mean.value:.2f}" for mean in means),
                _friedman(position),
                _cell(repeats),
                _cell(row.personas.alpha if row.personas else None),
            ]
        )
    return Table(name, columns, lines)


def _friedman(position: RankedPosition | None) -> str:
    """Return the p value of positions' effect on ranks, or why there is none."""
    if position is None:
        return "–"
    if position.p_value is not None:
        return p_value(position.p_value)
    return "one order for all" if position.units_in_one_order == position.units else "–"


def _between(name: str, judges: Judges) -> Table:
    columns = (
        Column("judges", is_word=True),
        Column("criterion", is_word=True),
        Column("shared votes"),
        Column("same vote, or τ"),
        Column("Cohen's κ"),
        Column("Gwet's AC1"),
        Column("shared units"),
        Column("same majority, or τ"),
    )
    lines: list[list[Cell | str]] = []
    for row in judges.judges_compared:
        names = f"{row.a} and {row.b}"
        lines.append([names, spoken(row.criterion), *_agreement(row)])
    return Table(name, columns, lines)


def _agreement(row: JudgesOfComparisons | JudgesOfRankings) -> list[Cell | str]:
    """Return the cells of two judges' agreement: of comparisons shares and κ, of rankings τ."""
    if isinstance(row, JudgesOfRankings):
        same_vote = _cell(row.votes.tau)
        same_majority = _cell(row.majorities.tau)
        kappa = ac1 = Cell("–")
    else:
        same_vote = _cell(row.votes.raw, percent=True)
        same_majority = _cell(row.majorities.raw, percent=True)
        kappa = _cell(row.votes.kappa)
        ac1 = _cell(row.votes.ac1)
    return [
        str(row.votes.shared),
        same_vote,
        kappa,
        ac1,
        str(row.majorities.shared),
        same_majority,
    ]


def _failed(name: str, judges: Judges) -> list[Block]:
    columns = (
        Column("judge", is_word=True),
        Column("criterion", is_word=True),
        Column("votes"),
        Column("failed"),
        Column("share failed"),
        Column("of these", is_word=True),
    )
    lines: list[list[Cell | str]] = []
    for row in judges.missing.by_criterion:
        kinds = [f"{times} {spoken(status)}" for status, times in row.statuses.items()]
        lines.append(
            [
                row.judge,
                spoken(row.criterion),
                str(row.votes),
                str(row.failed),
                _cell(row.failed_share, percent=True),
                ", ".join(kinds),
            ]
        )
    blocks: list[Block] = [Table(name, columns, lines)]
    if judges.missing.failed:
        by_model = _failures(judges.missing.by_model)
        personas = _failures(judges.missing.personas_most_affected)
        sentence = f"By model: {by_model}. Personas most affected: {personas}."
        blocks.append(Paragraph(sentence, "faint"))
    return blocks


def _failures(rows: Sequence[FailedOf]) -> str:
    words = [f"{row.name or 'none named'} {row.failed} of {row.votes}" for row in rows]
    return ", ".join(words)
