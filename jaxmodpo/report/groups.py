"""The sections of groups: what personas of one age, gender or preference think of each model."""

from __future__ import annotations

from collections.abc import Sequence

from jaxmodpo.report.blocks import Block, Cell, Column, Folded, Paragraph, Section, Table
from jaxmodpo.report.gallery import Gallery
from jaxmodpo.report.sources import Sources
from jaxmodpo.report.wording import percent_cell, spoken, title
from jaxmodpo.results.inference import GroupRates

_COLUMNS = (
    Column("dimension", is_word=True),
    Column("group", is_word=True),
    Column("model", is_word=True),
    Column("personas"),
    Column("votes"),
    Column("votes for the model, %", detail="95% interval"),
)
_EXPLANATION = (
    "The share of a group's votes that are for a model, against all others; a tie counts half."
    " Intervals are over the personas of the group. A group that is too small is not shown."
)


def group_sections(sources: Sources, gallery: Gallery) -> list[Section]:
    """Return a section for each evaluation whose personas are told apart by groups."""
    sections: list[Section] = []
    for evaluation in sources.evaluations:
        if not any(evaluation.results.groups.values()):
            continue
        blocks: list[Block] = [Paragraph(_EXPLANATION, "faint")]
        for criterion, groups in evaluation.results.groups.items():
            table = Table(f"{evaluation.prefix}groups-{criterion}", _COLUMNS, _rows(groups))
            blocks.append(Folded(title(criterion), [table]))
        sections.append(Section(f"Groups of personas: {evaluation.name}", blocks))
    return sections


def _rows(groups: Sequence[GroupRates]) -> list[list[Cell | str]]:
    rows: list[list[Cell | str]] = []
    for group in groups:
        cell = Cell("–", group.hidden)
        if group.rate is not None:
            cell = percent_cell(group.rate, group.interval, "no interval")
        names = [spoken(group.dimension), group.group, group.model]
        rows.append([*names, str(group.personas), f"{group.votes:,}", cell])
    return rows
