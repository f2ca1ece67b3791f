"""What ``judges`` prints: a row for each judge, kind of votes and criterion, put together from the
parts of its file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxmodpo.results.judges import (
    BothOrders,
    ComparedAgain,
    ComparedPosition,
    Estimate,
    Judges,
    JudgesOfComparisons,
    JudgesOfRankings,
    Kind,
    Mean,
    PersonaAgreement,
    RankedAgain,
    RankedPosition,
)


@dataclass
class JudgedRow:
    """What is known of one judge's votes of one kind by one criterion; None where a part of the
    file has nothing of them.
    """

    judge: str
    kind: Kind
    shown: int
    criterion: str
    position: ComparedPosition | RankedPosition | None = None
    both_orders: BothOrders | None = None
    repeats: ComparedAgain | RankedAgain | None = None
    personas: PersonaAgreement | None = None


def merge_rows(judges: Judges) -> list[JudgedRow]:
    """Put together what the parts of ``judges.json`` say of the same votes."""
    # A dictionary keeps the order in which the file names the votes for the first time.
    merged: dict[tuple[str, Kind, int, str], JudgedRow] = {}

    def merged_row(row: _JudgeRow) -> JudgedRow:
        key = (row.judge, row.kind, row.shown, row.criterion)
        return merged.setdefault(key, JudgedRow(*key))

    for position in judges.position:
        merged_row(position).position = position
    for both_orders in judges.both_orders:
        merged_row(both_orders).both_orders = both_orders
    for repeats in judges.repeats:
        merged_row(repeats).repeats = repeats
    for personas in judges.personas:
        merged_row(personas).personas = personas
    return list(merged.values())


_JudgeRow = (
    ComparedPosition | RankedPosition | BothOrders | ComparedAgain | RankedAgain | PersonaAgreement
)


def measure_of_repeats(row: ComparedAgain | RankedAgain) -> Estimate:
    """Return the measure that says most of repeated votes: of rankings, τ."""
    return row.tau if isinstance(row, RankedAgain) else row.same


# --------------------------------------------------------------------------- the printed table

_HEADER = [
    "judge",
    "kind",
    "criterion",
    "votes",
    "first shown wins",
    "both orders",
    "asked again",
    "personas α",
]
_HEADER_BETWEEN = [
    "judges",
    "kind",
    "criterion",
    "shared votes",
    "same vote, or τ",
    "Cohen's κ",
    "same majority, or τ",
]


def judges_table(judges: Judges) -> str:
    """Return the main numbers as text, for the terminal."""
    lines = _columns([_HEADER, *map(_cells, merge_rows(judges))])
    if judges.judges_compared:
        rows = map(_cells_between, judges.judges_compared)
        lines += ["", *_columns([_HEADER_BETWEEN, *rows])]
    statuses = ", ".join(f"{times} {status}" for status, times in judges.missing.statuses.items())
    counts = judges.counts
    suffix = f" ({statuses})" if statuses else ""
    lines += ["", f"{counts.votes} votes, {counts.failed} failed{suffix}"]
    return "\n".join(lines)


def _cells(row: JudgedRow) -> list[str]:
    same_again = None if row.repeats is None else measure_of_repeats(row.repeats)
    return [
        row.judge,
        f"{row.kind} {row.shown}",
        row.criterion,
        "0" if row.position is None else str(row.position.votes),
        _position_in_words(row.position),
        words(None if row.both_orders is None else row.both_orders.consistent, percent=True),
        words(same_again, percent=row.kind == "compare"),
        words(None if row.personas is None else row.personas.alpha),
    ]


def _cells_between(row: JudgesOfComparisons | JudgesOfRankings) -> list[str]:
    cells = [f"{row.a} and {row.b}", f"{row.kind} {row.shown}", row.criterion]
    cells.append(str(row.votes.shared))
    if isinstance(row, JudgesOfComparisons):
        cells += [words(row.votes.raw, percent=True), words(row.votes.kappa)]
        cells.append(words(row.majorities.raw, percent=True))
    else:
        cells += [words(row.votes.tau), words(None), words(row.majorities.tau)]
    return cells


def words(estimate: Estimate | Mean | None, *, percent: bool = False) -> str:
    """Write an estimate with its interval, as in ``0.512 (0.480 to 0.545)``; a dash where there is
    none.
    """
    if estimate is None or estimate.value is None:
        return "–"
    # A tenth of a per cent and a thousandth are about the same, and finer than any interval.
    scale = 100 if percent else 1
    digits = 1 if percent else 3
    value = f"{scale * estimate.value:.{digits}f}{'%' if percent else ''}"
    if estimate.interval is None:
        return value
    low, high = estimate.interval
    return f"{value} ({scale * low:.{digits}f} to {scale * high:.{digits}f})"


def _position_in_words(position: ComparedPosition | RankedPosition | None) -> str:
    """Write what the position shown does: the first one's share, or the mean rank of each."""
    if position is None:
        return "–"
    if isinstance(position, ComparedPosition):
        return words(position.first_share, percent=True)
    ranks = " ".join(f"{mean.value:.2f}" for mean in position.mean_ranks)
    if position.p_value is None:
        return f"ranks {ranks}"
    p_value = "< 0.001" if position.p_value < 0.001 else f"= {position.p_value:.3f}"
    return f"ranks {ranks}, p {p_value}"


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay out rows of cells with every column as wide as its widest cell."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines
