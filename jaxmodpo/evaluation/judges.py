"""``jaxmodpo judges``: a file, figures and a table about the judges of one ledger or of several.

Opening ledgers and showing numbers stand here, counting in :mod:`jaxmodpo.evaluation.reliability`;
the report shows the same figures.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.evaluation import judge_figures
from jaxmodpo.evaluation.judge_table import judges_table, measure_of_repeats
from jaxmodpo.evaluation.reliability import analyze
from jaxmodpo.files import atomic_path
from jaxmodpo.judging.database import full_location
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.pages import png
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, Count, Incidental, Seed
from jaxmodpo.results.judges import (
    JUDGES,
    BothOrders,
    ComparedAgain,
    ComparedPosition,
    Judges,
    JudgesOfComparisons,
    JudgesOfRankings,
    Kind,
    PersonaAgreement,
    RankedAgain,
    RankedPosition,
)
from jaxmodpo.results.manifest import MANIFEST, Manifest
from jaxmodpo.results.versioned import plain, write_result
from jaxmodpo.schema import read_as

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JudgesConfig(CommandSettings, help_group="votes"):
    """Judge the judges: position bias, agreement of repeats, personas and judges, and missing
    votes.
    """

    ledger: Incidental[tuple[str, ...]]
    """Ledgers of votes, files or database URLs; several are compared with each other."""

    output_dir: Incidental[Path]
    """Folder for judges.json and its figures."""

    run: str | None = None
    """Only the votes that this run asked for, by the name it has in the ledger; all votes if none
    is named."""

    bootstrap: Count = 2000
    """How many times the questions are resampled for the 95% intervals."""

    seed: Seed = 42
    """Seed of the resampling."""

    def goes_on(self, manifest: Manifest) -> bool:
        """Return whether the ledgers have other votes than those that were counted.

        Raises:
            UserError: the votes of other ledgers were.
        """
        with open_ledgers(self.ledger) as ledgers:
            if manifest.input_paths != places_of(ledgers):
                raise UserError(
                    f"{self.output_dir} holds what was counted of other ledgers; choose another"
                    " output folder"
                )
            return manifest.results.get("extents") != extents_of(ledgers, self.run)

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


def judges(config: JudgesConfig) -> Phase:
    """Write judges.json and the figures, and print the main numbers.

    Counted again only where the ledgers have other votes than those that were counted; the folder
    is written once everything is counted.

    Raises:
        UserError: bad settings, a ledger that is missing or empty, or a vote that cannot be one.
    """
    config.check()
    with open_ledgers(config.ledger) as ledgers:
        # Before the votes are read: what others add meanwhile is counted the next time.
        ledger_locations = places_of(ledgers)
        extents = extents_of(ledgers, config.run)
        # A folder that is there may be finished, and nothing need be counted. Otherwise votes that
        # cannot be counted are refused before there is a folder.
        results = None if (config.output_dir / MANIFEST).is_file() else _count(config, ledgers)
        return _count_and_write(config, ledgers, ledger_locations, extents, results)


@in_phase("judges")
def _count_and_write(
    config: JudgesConfig,
    phase: Phase,
    ledgers: Sequence[Ledger],
    ledger_locations: Mapping[str, str],
    extents: list[list[int]],
    results: Judges | None,
) -> None:
    """Count the votes, where that is still to be done, and write what they say."""
    if results is None:
        results = _count(config, ledgers)
    phase.remember(input_paths=ledger_locations)
    write_result(config.output_dir / JUDGES, results)
    _write_figures(config.output_dir, results)
    phase.finish(**plain(results.counts), judges=len(results.judges), extents=extents)
    print(judges_table(results))


def _count(config: JudgesConfig, ledgers: Sequence[Ledger]) -> Judges:
    return read_judges(ledgers, run=config.run, resamples=config.bootstrap, seed=config.seed)


def places_of(ledgers: Sequence[Ledger]) -> dict[str, str]:
    """Return where ledgers lie, as the manifest has it: without the passwords that a URL may hold.

    Of a ledger no hash is recorded, since a file's hash would not see what another process has just
    added.
    """
    location_of_ledger: dict[str, str] = {}
    for number, ledger in enumerate(ledgers):
        location_of_ledger[f"ledger.{number}"] = full_location(ledger.location)
    return location_of_ledger


def extents_of(ledgers: Sequence[Ledger], run: str | None) -> list[list[int]]:
    """Return how far each ledger reaches: whether votes have come since is known without reading
    them.
    """
    return [list(ledger.extent(run)) for ledger in ledgers]


def _write_figures(folder: Path, judges: Judges) -> None:
    # What was counted before may have had figures of kinds of votes that are not among these.
    for earlier in folder.glob("judge*-*.png"):
        earlier.unlink()
    for drawing in draw_judges(judges):
        with atomic_path(folder / f"{drawing.name}.png") as temporary:
            temporary.write_bytes(png(drawing.figure))


@contextlib.contextmanager
def open_ledgers(locations: Sequence[str]) -> Iterator[list[Ledger]]:
    """Open ledgers that exist; one given twice would agree with itself.

    Raises:
        UserError: a file is missing, a ledger cannot be opened, or is given twice.
    """
    if not locations:
        raise UserError("ledger: name at least one ledger of votes")
    full_locations = [full_location(location) for location in locations]
    for number, location in enumerate(full_locations, 1):
        if location in full_locations[: number - 1]:
            raise UserError(
                f"ledger: number {number} is already given; a ledger is compared with others, not"
                " itself"
            )
    # One stack, so that those that are open are closed where a later one cannot be opened.
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Ledger(location, read_only=True)) for location in locations]


def read_judges(
    ledgers: Sequence[Ledger], *, run: str | None = None, resamples: int = 2000, seed: int = 42
) -> Judges:
    """Count everything that ledgers say of their judges.

    Raises:
        UserError: no votes, or a vote that cannot be one.
    """
    rows = analyze(ledgers, run=run, resamples=resamples, seed=seed)
    results: Judges = read_as(rows, Judges, JUDGES)
    return results


# --------------------------------------------------------------------------- figures


class Drawing(NamedTuple):
    """A figure, the name of its file, and what it shows."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class RowsOfKind:
    """What a file says of votes of one kind, with one number of responses shown."""

    kind: Kind
    shown: int
    position: list[ComparedPosition | RankedPosition]
    both_orders: list[BothOrders]
    repeats: list[ComparedAgain | RankedAgain]
    personas: list[PersonaAgreement]
    judges_compared: list[JudgesOfComparisons | JudgesOfRankings]

    @property
    def title(self) -> str:
        return "comparisons" if self.kind == "compare" else f"rankings of {self.shown}"


def draw_judges(judges: Judges) -> list[Drawing]:
    """Draw what ``judges.json`` holds; nothing of a part that is empty."""
    drawings: list[Drawing] = []
    # Votes of any kind have a row about the position shown, so that these name all kinds.
    kinds: set[tuple[Kind, int]] = {(row.kind, row.shown) for row in judges.position}
    for kind, replies_shown in sorted(kinds):
        drawings += _draw_kind(_rows_of_kind(judges, kind, replies_shown))
    return drawings


def _rows_of_kind(judges: Judges, kind: Kind, shown: int) -> RowsOfKind:
    return RowsOfKind(
        kind=kind,
        shown=shown,
        position=[row for row in judges.position if _is_of(row, kind, shown)],
        both_orders=[row for row in judges.both_orders if _is_of(row, kind, shown)],
        repeats=[row for row in judges.repeats if _is_of(row, kind, shown)],
        personas=[row for row in judges.personas if _is_of(row, kind, shown)],
        judges_compared=[row for row in judges.judges_compared if _is_of(row, kind, shown)],
    )


_AnyRow = (
    ComparedPosition
    | RankedPosition
    | BothOrders
    | ComparedAgain
    | RankedAgain
    | PersonaAgreement
    | JudgesOfComparisons
    | JudgesOfRankings
)


def _is_of(row: _AnyRow, kind: Kind, shown: int) -> bool:
    return row.kind == kind and row.shown == shown


def _draw_kind(rows: RowsOfKind) -> list[Drawing]:
    suffix = f"{rows.kind}-{rows.shown}"
    drawings: list[Drawing] = []
    if rows.kind == "rank":
        mean_ranks = {
            (row.judge, row.criterion): row.mean_ranks
            for row in rows.position
            if isinstance(row, RankedPosition)
        }
        figure = judge_figures.mean_ranks(mean_ranks)
        caption = f"Mean rank by position shown, {rows.title}."
        drawings.append(Drawing(f"judge-positions-{suffix}", figure, caption))
    figure = judge_figures.forest(_panels(rows))
    caption = f"Judges by criterion, {rows.title}; bars are 95% intervals."
    drawings.append(Drawing(f"judge-{suffix}", figure, caption))
    if rows.judges_compared:
        figure = judge_figures.forest(_panels_between(rows.judges_compared))
        drawings.append(
            Drawing(f"judges-between-{suffix}", figure, f"Judge against judge, {rows.title}.")
        )
    return drawings


def _panels(rows: RowsOfKind) -> dict[str, judge_figures.Panel]:
    """Return the estimates of single judges, by the title of their panel."""
    panels: dict[str, judge_figures.Panel] = {}
    if rows.kind == "compare":
        compared = [row for row in rows.position if isinstance(row, ComparedPosition)]
        first_shares = {(row.judge, row.criterion): row.first_share for row in compared}
        consistent = {(row.judge, row.criterion): row.consistent for row in rows.both_orders}
        panels["First shown wins"] = first_shares, 0.5
        panels["Both orders: same verdict"] = consistent, None
    repeated = {(row.judge, row.criterion): measure_of_repeats(row) for row in rows.repeats}
    measure = "same answer" if rows.kind == "compare" else "τ"
    panels[f"Asked again: {measure}"] = repeated, None
    alphas = {(row.judge, row.criterion): row.alpha for row in rows.personas}
    panels["Personas: α"] = alphas, 0.0
    return panels


def _panels_between(
    rows: Sequence[JudgesOfComparisons | JudgesOfRankings],
) -> dict[str, judge_figures.Panel]:
    """Return two measures of votes and one of majorities, for every two judges."""
    compared = {_pair_of(row): row for row in rows if isinstance(row, JudgesOfComparisons)}
    if compared:
        agreement = {pair: row.votes.agreement for pair, row in compared.items()}
        kappa = {pair: row.votes.kappa for pair, row in compared.items()}
        majorities = {pair: row.majorities.agreement for pair, row in compared.items()}
        return {
            "Votes, no ties: agreement": (agreement, 0.5),
            "Votes: Cohen's κ": (kappa, 0.0),
            "Majorities, no ties: agreement": (majorities, 0.5),
        }
    ranked = {_pair_of(row): row for row in rows if isinstance(row, JudgesOfRankings)}
    tau = {pair: row.votes.tau for pair, row in ranked.items()}
    tau_of_majorities = {pair: row.majorities.tau for pair, row in ranked.items()}
    same_best = {pair: row.majorities.same_best for pair, row in ranked.items()}
    return {
        "Votes: τ": (tau, 0.0),
        "Majorities: τ": (tau_of_majorities, 0.0),
        "Majorities: same best": (same_best, None),
    }


def _pair_of(row: JudgesOfComparisons | JudgesOfRankings) -> tuple[str, str]:
    return f"{row.a} and {row.b}", row.criterion
