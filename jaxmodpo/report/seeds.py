"""The sections of repeated trainings: what another training seed changes, beside other questions.

Evaluations of the same models by the same criteria are put together, such as those of an experiment
that ran with several seeds. An interval over questions does not hold what another seed changes;
the spread over the evaluations does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from jaxmodpo.report.blocks import Block, Cell, Column, Heading, Paragraph, Section, Table
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.run_folders import REPLIES
from jaxmodpo.report.sources import Evaluation, Sources
from jaxmodpo.report.wording import count, listed, percent, percent_cell, title
from jaxmodpo.statistics.intervals import student_interval

_COLUMNS = (
    Column("model", is_word=True),
    Column("mean win rate, %", detail="95% interval over trainings"),
    Column("standard deviation over trainings, points"),
    Column("lowest and highest, %"),
    Column("mean half-width over questions, points"),
)
_EXPLANATION = (
    "Each evaluation counts once. The interval over trainings is Student's, of as many values as there"
    " are evaluations, and wide where they are few; the half-width over questions is that of one"
    " evaluation's 95% interval, on the average."
)


def seed_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Return a section for each set of evaluations that compare models of the same names."""
    groups: dict[tuple[frozenset[str], tuple[str, ...]], list[Evaluation]] = defaultdict(list)
    for evaluation in sources.evaluations:
        results = evaluation.results
        groups[frozenset(results.models), results.criteria].append(evaluation)
    sections: list[Section] = []
    for evaluations in groups.values():
        distinct = distinct_replies(evaluations)
        if len(distinct) > 1:
            number = len(sections) + 1
            sections.append(_section(distinct, len(evaluations) - len(distinct), number))
    return sections


def distinct_replies(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Return the finished evaluations without those that judged again what an earlier one did: the
    same replies are no other training.
    """
    by_replies: dict[tuple[tuple[str, str], ...], Evaluation] = {}
    for evaluation in evaluations:
        inputs = evaluation.run.manifest.identity.inputs
        replies: list[tuple[str, str]] = []
        for name, sha256 in sorted(inputs.items()):
            if name.startswith(REPLIES):
                replies.append((name, sha256))
        # Where nothing is recorded of the replies, each evaluation is its own.
        key = tuple(replies) or ((evaluation.name, ""),)
        if evaluation.is_finished:
            by_replies.setdefault(key, evaluation)
    return list(by_replies.values())


def _section(evaluations: Sequence[Evaluation], repeated: int, number: int) -> Section:
    first = evaluations[0].results
    names = listed([evaluation.name for evaluation in evaluations])
    sentence = f"{count(len(evaluations), 'evaluation')} of models of the same names: {names}."
    if repeated:
        sentence += (
            f" {count(repeated, 'evaluation')} of the same replies, or not finished, counts not."
        )
    blocks: list[Block] = [Paragraph(sentence), Paragraph(_EXPLANATION, "faint")]
    for criterion in first.criteria:
        rows = [_row(evaluations, name, criterion) for name in first.models]
        blocks.append(Heading(title(criterion)))
        blocks.append(Table(f"trainings-{number}-{criterion}", _COLUMNS, rows))
    return Section("Over trainings", blocks)


def _row(evaluations: Sequence[Evaluation], name: str, criterion: str) -> list[Cell | str]:
    rates = np.array([e.results.models[name][criterion] for e in evaluations])
    intervals = [e.results.intervals[name][criterion] for e in evaluations]
    half_widths = [(high - low) / 2 for low, high in filter(None, intervals)]
    return [
        name,
        percent_cell(float(rates.mean()), student_interval(rates)),
        percent(float(rates.std(ddof=1))),
        f"{percent(rates.min())} to {percent(rates.max())}",
        percent(float(np.mean(half_widths))) if half_widths else "–",
    ]
