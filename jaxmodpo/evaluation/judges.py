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
from typing import Any, NamedTuple

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.evaluation import figures
from jaxmodpo.evaluation.reliability import analyze
from jaxmodpo.files import atomic_path, write_json
from jaxmodpo.judging.database import full_location
from jaxmodpo.judging.ledger import Ledger
from jaxmodpo.pages import png
from jaxmodpo.phase import Phase, open_phase
from jaxmodpo.ranges import Count, Incidental, Seed, Settings

log = logging.getLogger(__name__)

JUDGES = "judges.json"


@dataclass(frozen=True, kw_only=True)
class JudgesConfig(Settings, help_group="votes"):
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

    def cost(self, estimator: Estimates) -> Cost:
        return Cost()  # takes seconds, and leaves little behind


def judges(config: JudgesConfig) -> None:
    """Write judges.json and the figures, and print the main numbers.

    Counted again only where the ledgers have other votes than those that were counted; the folder
    is written once everything is counted.

    Raises:
        UserError: bad settings, a ledger that is missing or empty, or a vote that cannot be one.
    """
    config.check()
    folder = config.output_dir
    with open_ledgers(config.ledger) as ledgers:
        # Without passwords, which a URL may hold. A file's hash would not see what another process
        # has just added.
        places = {f"ledger.{n}": full_location(ledger.location) for n, ledger in enumerate(ledgers)}
        extents = [list(ledger.extent(config.run)) for ledger in ledgers]
        phase = _open(config) if (folder / "manifest.json").is_file() else None
        if phase is not None and phase.finished:
            if phase.manifest.input_paths != places:
                raise UserError(
                    f"{folder} holds what was counted of other ledgers; choose another output"
                    " folder"
                )
            if phase.results.get("extents") == extents:
                log.info("judges: %s is finished", folder)
                return
        said = analyze(ledgers, run=config.run, resamples=config.bootstrap, seed=config.seed)
    phase = phase or _open(config)
    phase.reopen()
    phase.remember(input_paths=places)
    write_json(folder / JUDGES, said)
    for earlier in folder.glob("judge*-*.png"):
        earlier.unlink()
    for drawn in draw(said):
        with atomic_path(folder / f"{drawn.name}.png") as temporary:
            temporary.write_bytes(png(drawn.figure))
    phase.finish(**said["counts"], judges=len(said["judges"]), extents=extents)
    print(table(said))


def _open(config: JudgesConfig) -> Phase:
    return open_phase("judges", config)


@contextlib.contextmanager
def open_ledgers(places: Sequence[str]) -> Iterator[list[Ledger]]:
    """Open ledgers that exist; one given twice would agree with itself.

    Raises:
        UserError: a file is missing, a ledger cannot be opened, or is given twice.
    """
    if not places:
        raise UserError("ledger: name at least one ledger of votes")
    whole = [full_location(place) for place in places]
    for n, place in enumerate(whole):
        if place in whole[:n]:
            raise UserError(
                f"ledger: number {n + 1} is already given; a ledger is compared with others, not"
                " itself"
            )
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Ledger(place, read_only=True)) for place in places]


# --------------------------------------------------------------------------- what is shown


class Drawn(NamedTuple):
    """A figure, the name of its file, and what it shows."""

    name: str
    figure: figures.Figure
    caption: str


def draw(said: Mapping[str, Any]) -> list[Drawn]:
    """Draw what ``judges.json`` holds; nothing of a part that is empty."""
    drawn = []
    for kind, shown in sorted({(row["kind"], row["shown"]) for row in said["position"]}):
        of_kind = {
            part: [row for row in said[part] if (row["kind"], row["shown"]) == (kind, shown)]
            for part in ("position", "both_orders", "repeats", "personas", "judges_compared")
        }
        what = f"{kind}-{shown}"
        title = "comparisons" if kind == "compare" else f"rankings of {shown}"
        if kind == "rank":
            figure = figures.mean_ranks(_series(of_kind["position"], "mean_ranks"))
            drawn.append(
                Drawn(f"judge-positions-{what}", figure, f"Mean rank by position shown, {title}.")
            )
        figure = figures.forest(_panels(of_kind, kind))
        drawn.append(
            Drawn(f"judge-{what}", figure, f"Judges by criterion, {title}; bars are 95% intervals.")
        )
        if of_kind["judges_compared"]:
            figure = figures.forest(_panels_between(of_kind["judges_compared"], kind))
            drawn.append(Drawn(f"judges-between-{what}", figure, f"Judge against judge, {title}."))
    return drawn


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> figures.Series:
    return {(row["judge"], row["criterion"]): row[name] for row in rows}


def _panels(
    of_kind: Mapping[str, Sequence[Mapping[str, Any]]], kind: str
) -> dict[str, figures.Panel]:
    repeated = "same" if kind == "compare" else "tau"
    panels = {
        f"Asked again: {'same answer' if kind == 'compare' else 'τ'}": (
            _series(of_kind["repeats"], repeated),
            None,
        ),
        "Personas: α": (_series(of_kind["personas"], "alpha"), 0.0),
    }
    if kind == "rank":
        return panels
    return {
        "First shown wins": (_series(of_kind["position"], "first_share"), 0.5),
        "Both orders: same verdict": (_series(of_kind["both_orders"], "consistent"), None),
        **panels,
    }


def _panels_between(rows: Sequence[Mapping[str, Any]], kind: str) -> dict[str, figures.Panel]:
    """Two measures of votes and one of majorities, for every two judges."""
    shown = (
        {
            "Votes, no ties: agreement": ("votes", "agreement", 0.5),
            "Votes: Cohen's κ": ("votes", "kappa", 0.0),
        }
        | {"Majorities, no ties: agreement": ("majorities", "agreement", 0.5)}
        if kind == "compare"
        else {"Votes: τ": ("votes", "tau", 0.0), "Majorities: τ": ("majorities", "tau", 0.0)}
        | {"Majorities: same best": ("majorities", "same_best", None)}
    )
    return {
        title: (
            {(f"{row['a']} and {row['b']}", row["criterion"]): row[level][name] for row in rows},
            mark,
        )
        for title, (level, name, mark) in shown.items()
    }


def merged(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Put together what is said of the same judge, kind and criterion, by part; None where a part
    says nothing.
    """
    parts = ("position", "both_orders", "repeats", "personas")
    names = ("judge", "kind", "shown", "criterion")
    keyed = {part: {tuple(row[n] for n in names): row for row in said[part]} for part in parts}
    return [
        dict(zip(names, key, strict=True)) | {part: keyed[part].get(key) for part in parts}
        for key in dict.fromkeys(key for part in parts for key in keyed[part])
    ]


def table(said: Mapping[str, Any]) -> str:
    """Return the main numbers as text, for the terminal."""
    header = [
        "judge",
        "kind",
        "criterion",
        "votes",
        "first shown wins",
        "both orders",
        "asked again",
        "personas α",
    ]
    rows = []
    for row in merged(said):
        position, repeats, rank = row["position"] or {}, row["repeats"] or {}, row["kind"] == "rank"
        first = (
            _ranked_by_position(position)
            if rank
            else words(position.get("first_share"), percent=True)
        )
        rows.append(
            [
                row["judge"],
                f"{row['kind']} {row['shown']}",
                row["criterion"],
                str(position.get("votes", 0)),
                first,
            ]
            + [words((row["both_orders"] or {}).get("consistent"), percent=True)]
            + [words(repeats.get("tau")) if rank else words(repeats.get("same"), percent=True)]
            + [words((row["personas"] or {}).get("alpha"))]
        )
    lines = _columns([header, *rows])
    if said["judges_compared"]:
        header = [
            "judges",
            "kind",
            "criterion",
            "shared votes",
            "same vote, or τ",
            "Cohen's κ",
            "same majority, or τ",
        ]
        rows = [
            [f"{row['a']} and {row['b']}", f"{row['kind']} {row['shown']}", row["criterion"]]
            + [str(row["votes"]["shared"])]
            + [_raw_or_tau(row["votes"])]
            + [words(row["votes"].get("kappa"))]
            + [_raw_or_tau(row["majorities"])]
            for row in said["judges_compared"]
        ]
        lines += ["", *_columns([header, *rows])]
    counts = said["counts"]
    statuses = ", ".join(
        f"{times} {status}" for status, times in said["missing"]["statuses"].items()
    )
    lines += [
        "",
        f"{counts['votes']} votes, {counts['failed']} failed{f' ({statuses})' if statuses else ''}",
    ]
    return "\n".join(lines)


def words(said: Mapping[str, Any] | None, *, percent: bool = False) -> str:
    """Write an estimate with its interval; a dash where there is none."""
    if said is None or said["value"] is None:
        return "–"
    scale, digits = (100, 1) if percent else (1, 3)
    value = f"{scale * said['value']:.{digits}f}{'%' if percent else ''}"
    if said["interval"] is None:
        return value
    low, high = (f"{scale * end:.{digits}f}" for end in said["interval"])
    return f"{value} ({low} to {high})"


def _raw_or_tau(said: Mapping[str, Any]) -> str:
    return words(said["raw"], percent=True) if "raw" in said else words(said["tau"])


def _ranked_by_position(position: Mapping[str, Any]) -> str:
    if not position:
        return "–"
    p_value = position["p_value"]
    ranks = " ".join(f"{mean['value']:.2f}" for mean in position["mean_ranks"])
    return f"ranks {ranks}" + (
        "" if p_value is None else f", p {'< 0.001' if p_value < 0.001 else f'= {p_value:.3f}'}"
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
